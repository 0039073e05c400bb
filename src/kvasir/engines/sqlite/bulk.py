"""Many plain Sets in a few statements. Runs in the writer's thread, inside its transaction.

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


@lru_cache(maxsize=16)
def _states(rows: int) -> str:
    # Aggregates take the rows of VALUES in their order; one row of states is one return to Python.
    return f"""
        SELECT group_concat(coalesce(
            (SELECT CASE WHEN expires_at IS NULL OR expires_at > ?1 THEN 1 ELSE 2 END
             FROM entry WHERE space = ?2 AND key = wanted.column1), 0), '')
        FROM (VALUES {",".join(["(?)"] * rows)}) AS wanted"""  # noqa: S608


@lru_cache(maxsize=16)
def _upsert(rows: int) -> str:
    return f"""
        INSERT INTO entry VALUES {",".join(["(?,?,?,?,?,?,?,?,?)"] * rows)}
        ON CONFLICT (space, key) DO UPDATE SET value = excluded.value, versionstamp = excluded.versionstamp,
            expires_at = excluded.expires_at, refresh = excluded.refresh, metadata = excluded.metadata"""  # noqa: S608


DELETE_EXPIRED = "DELETE FROM entry WHERE space = ? AND key = ? AND expires_at <= ?"


def apply(
    connection: apsw.Connection,
    space: int,
    sets: list[Set],
    stamps: list[int],
    sequence: int,
    now: int,
    created_at: int,
) -> list[int]:
    """Set different keys of one living space; for each 1 if it replaced a living entry, else 0.

    `sequence` is the first of the numbers for new entries; up to twice as many numbers as keys are used.
    """
    replaced: list[int] = []
    for start in range(0, len(sets), MAX_ROWS):
        chunk = slice(start, start + MAX_ROWS)
        replaced += _set_chunk(connection, space, sets[chunk], stamps[chunk], sequence + 2 * start, now, created_at)
    return replaced


def _set_chunk(
    connection: apsw.Connection,
    space: int,
    sets: list[Set],
    stamps: list[int],
    sequence: int,
    now: int,
    created_at: int,
) -> list[int]:
    # The last row is repeated to fill the statement: set again to the same value, it changes nothing. Each time it
    # needs a sequence of its own, or it would collide with itself in that column, too.
    missing = (1 << (len(sets) - 1).bit_length()) - len(sets)
    keys = [mutation.key for mutation in sets]
    filled = keys + keys[-1:] * missing
    states = str(connection.execute(_states(len(filled)), (now, space, *filled)).get)
    if EXPIRED in states:
        for key, state in zip(keys, states, strict=False):
            if state == EXPIRED:
                connection.execute(DELETE_EXPIRED, (space, key, now))
    values: list[int | bytes | None] = []
    for mutation, stamp in zip(sets + sets[-1:] * missing, stamps + stamps[-1:] * missing, strict=True):
        expires_at = mutation.expires_at if mutation.ttl is None else now + mutation.ttl
        refresh = expires_at - now if mutation.refresh and expires_at is not None else None
        values += (
            sequence, space, mutation.key, mutation.value, stamp, created_at, expires_at, refresh, mutation.metadata
        )  # fmt: skip
        sequence += 1
    connection.execute(_upsert(len(filled)), values)
    return [int(state == ALIVE) for state in states[: len(sets)]]
