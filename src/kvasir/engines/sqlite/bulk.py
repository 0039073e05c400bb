"""Many plain Sets, of any spaces, in a few statements. Runs in the writer's thread, inside its transaction.

With one statement for each Set, the writer would have to get the interpreter's lock back several times a Set, each time
from a busy event loop. One statement for many leaves the lock alone while SQLite works, so a second core can be used.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache

import apsw

from kvasir.model import Set

#: The numbers of rows that statements come in, so that the cache knows them all.
SIZES = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)

#: What the database says of a key and its space; "0" is an absent key.
ALIVE, EXPIRED, GONE = "1", "2", "3"


#: A Set and its space
Row = tuple[int, Set]


@lru_cache(maxsize=16)
def _states(rows: int) -> str:
    # Aggregates take the rows of VALUES in their order; one row of all is one return to Python.
    return f"""
        SELECT group_concat(CASE
            WHEN NOT EXISTS (SELECT 1 FROM space
                WHERE number = wanted.column1 AND (space.expires_at IS NULL OR space.expires_at > ?1)) THEN 3
            ELSE coalesce((SELECT CASE WHEN expires_at IS NULL OR expires_at > ?1 THEN 1 ELSE 2 END
                FROM entry WHERE space = wanted.column1 AND key = wanted.column2), 0)
            END, '')
        FROM (VALUES {",".join(["(?,?)"] * rows)}) AS wanted"""  # noqa: S608


@lru_cache(maxsize=16)
def _upsert(rows: int) -> str:
    return f"""
        INSERT INTO entry VALUES {",".join(["(?,?,?,?,?,?,?,?,?)"] * rows)}
        ON CONFLICT (space, key) DO UPDATE SET value = excluded.value, versionstamp = excluded.versionstamp,
            expires_at = excluded.expires_at, refresh = excluded.refresh, metadata = excluded.metadata"""  # noqa: S608


DELETE_EXPIRED = "DELETE FROM entry WHERE space = ? AND key = ? AND expires_at <= ?"


def look(cursor: apsw.Cursor, rows: list[Row], now: int) -> str:
    """What the database says of each row: a character each."""
    states = ""
    for start in range(0, len(rows), SIZES[-1]):
        chunk = rows[start : start + SIZES[-1]]
        wanted: list[int | bytes] = [now]
        for space, mutation in chunk + chunk[-1:] * _missing(len(chunk)):
            wanted += (space, mutation.key)
        found: str = cursor.execute(_states(len(wanted) // 2), wanted).get
        states += found[: len(chunk)]
    return states


def apply(
    cursor: apsw.Cursor, rows: list[Row], states: str, stamps: list[int], sequence: int, now: int, created_at: int
) -> None:
    """Set different keys of living spaces, of which the database says `states`.

    `sequence` is the first of the numbers for new entries; up to twice as many numbers as keys are used.
    """
    if EXPIRED in states:
        for (space, mutation), state in zip(rows, states, strict=True):
            if state == EXPIRED:
                cursor.execute(DELETE_EXPIRED, (space, mutation.key, now))
    for start in range(0, len(rows), SIZES[-1]):
        chunk = slice(start, start + SIZES[-1])
        _set_chunk(cursor, rows[chunk], stamps[chunk], sequence + 2 * start, now, created_at)


def _missing(rows: int) -> int:
    """How many rows a statement needs besides these."""
    return SIZES[bisect_left(SIZES, rows)] - rows


def _set_chunk(
    cursor: apsw.Cursor, rows: list[Row], stamps: list[int], sequence: int, now: int, created_at: int
) -> None:
    # The last row is repeated to fill the statement: set again to the same value, it changes nothing. Each time it
    # needs a sequence of its own, or it would collide with itself in that column, too.
    if missing := _missing(len(rows)):
        rows, stamps = rows + rows[-1:] * missing, stamps + stamps[-1:] * missing
    values: list[int | bytes | None] = []
    for (space, mutation), stamp in zip(rows, stamps, strict=True):
        expires_at = mutation.expires_at if mutation.ttl is None else now + mutation.ttl
        refresh = expires_at - now if mutation.refresh and expires_at is not None else None
        values += (
            sequence, space, mutation.key, mutation.value, stamp, created_at, expires_at, refresh, mutation.metadata
        )  # fmt: skip
        sequence += 1
    cursor.execute(_upsert(len(rows)), values)
