"""Many plain Sets, of any spaces, in a few statements. Runs in the writer's thread, inside its transaction.

With one statement for each Set, the writer would have to get the interpreter's lock back several times a Set, each time
from a busy event loop. One statement for many leaves the lock alone while SQLite works, so a second core can be used.
"""

from __future__ import annotations

from functools import lru_cache

import apsw

from kvasir.model import Set

#: At most this many rows in one statement. Statements come in powers of two, so that the cache knows them all.
MAX_ROWS = 256

#: What the database says of a key; "0" is an absent one.
ALIVE, EXPIRED = "1", "2"


#: A Set and its space
Row = tuple[int, Set]


@lru_cache(maxsize=16)
def _living(rows: int) -> str:
    # Aggregates take the rows of VALUES in their order; one row of all is one return to Python.
    return f"""
        SELECT group_concat(EXISTS (
            SELECT 1 FROM space WHERE number = wanted.column1 AND (expires_at IS NULL OR expires_at > ?1)), '')
        FROM (VALUES {",".join(["(?)"] * rows)}) AS wanted"""  # noqa: S608


@lru_cache(maxsize=16)
def _states(rows: int) -> str:
    return f"""
        SELECT group_concat(coalesce(
            (SELECT CASE WHEN expires_at IS NULL OR expires_at > ?1 THEN 1 ELSE 2 END
             FROM entry WHERE space = wanted.column1 AND key = wanted.column2), 0), '')
        FROM (VALUES {",".join(["(?,?)"] * rows)}) AS wanted"""  # noqa: S608


@lru_cache(maxsize=16)
def _upsert(rows: int) -> str:
    return f"""
        INSERT INTO entry VALUES {",".join(["(?,?,?,?,?,?,?,?,?)"] * rows)}
        ON CONFLICT (space, key) DO UPDATE SET value = excluded.value, versionstamp = excluded.versionstamp,
            expires_at = excluded.expires_at, refresh = excluded.refresh, metadata = excluded.metadata"""  # noqa: S608


DELETE_EXPIRED = "DELETE FROM entry WHERE space = ? AND key = ? AND expires_at <= ?"


def living(connection: apsw.Connection, spaces: list[int], now: int) -> set[int]:
    """Those of the spaces that are alive."""
    alive: set[int] = set()
    for start in range(0, len(spaces), MAX_ROWS):
        chunk = spaces[start : start + MAX_ROWS]
        filled = chunk + chunk[-1:] * _missing(len(chunk))
        found = str(connection.execute(_living(len(filled)), (now, *filled)).get)
        alive.update([space for space, one in zip(chunk, found, strict=False) if one == ALIVE])
    return alive


def apply(
    connection: apsw.Connection, rows: list[Row], stamps: list[int], sequence: int, now: int, created_at: int
) -> list[int]:
    """Set different keys of living spaces; for each 1 if it replaced a living entry, else 0.

    `sequence` is the first of the numbers for new entries; up to twice as many numbers as keys are used.
    """
    replaced: list[int] = []
    for start in range(0, len(rows), MAX_ROWS):
        chunk = slice(start, start + MAX_ROWS)
        replaced += _set_chunk(connection, rows[chunk], stamps[chunk], sequence + 2 * start, now, created_at)
    return replaced


def _missing(rows: int) -> int:
    """How many rows a statement needs besides these: the next power of two."""
    return (1 << (rows - 1).bit_length()) - rows


def _set_chunk(
    connection: apsw.Connection, rows: list[Row], stamps: list[int], sequence: int, now: int, created_at: int
) -> list[int]:
    # The last row is repeated to fill the statement: set again to the same value, it changes nothing. Each time it
    # needs a sequence of its own, or it would collide with itself in that column, too.
    missing = _missing(len(rows))
    filled = rows + rows[-1:] * missing
    wanted: list[int | bytes] = [now]
    for space, mutation in filled:
        wanted += (space, mutation.key)
    states = str(connection.execute(_states(len(filled)), wanted).get)
    if EXPIRED in states:
        for (space, mutation), state in zip(rows, states, strict=False):
            if state == EXPIRED:
                connection.execute(DELETE_EXPIRED, (space, mutation.key, now))
    values: list[int | bytes | None] = []
    for (space, mutation), stamp in zip(filled, stamps + stamps[-1:] * missing, strict=True):
        expires_at = mutation.expires_at if mutation.ttl is None else now + mutation.ttl
        refresh = expires_at - now if mutation.refresh and expires_at is not None else None
        values += (
            sequence, space, mutation.key, mutation.value, stamp, created_at, expires_at, refresh, mutation.metadata
        )  # fmt: skip
        sequence += 1
    connection.execute(_upsert(len(filled)), values)
    return [int(state == ALIVE) for state in states[: len(rows)]]
