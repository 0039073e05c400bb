"""Many plain Sets in a few statements. Runs in the writer's thread, inside its transaction.

One statement a Set would make the writer ask for the interpreter's lock several times a Set, each time against a busy
event loop. A statement for many leaves the lock alone while SQLite works, so that the second core gets something to do.
"""

from __future__ import annotations

from functools import lru_cache

import apsw

from kvasir.model import SYSTEM_SPACE, Set, Write

#: Most rows in one statement. Statements come in powers of two, so that the cache knows them all.
ROWS = 256

ABSENT, ALIVE, EXPIRED = "0", "1", "2"


def is_plain(write: Write) -> bool:
    """Whether a write is one unconditional Set."""
    return (
        not write.conditions
        and len(write.mutations) == 1
        and write.mutations[0].__class__ is Set
        and write.space != SYSTEM_SPACE
    )


@lru_cache(maxsize=16)
def _states(rows: int) -> str:
    # Aggregates take the rows of VALUES in their order; one row of states is one return to Python.
    return f"""
        SELECT group_concat(coalesce(
            (SELECT CASE WHEN expires_at IS NULL OR expires_at > ?1 THEN 1 ELSE 2 END
             FROM entry WHERE space = ?2 AND key = given.column1), 0), '')
        FROM (VALUES {",".join(["(?)"] * rows)}) AS given"""  # noqa: S608


@lru_cache(maxsize=16)
def _upsert(rows: int) -> str:
    return f"""
        INSERT INTO entry VALUES {",".join(["(?,?,?,?,?,?,?,?,?)"] * rows)}
        ON CONFLICT (space, key) DO UPDATE SET value = excluded.value, versionstamp = excluded.versionstamp,
            expires_at = excluded.expires_at, refresh = excluded.refresh, metadata = excluded.metadata"""  # noqa: S608


DELETE_EXPIRED = "DELETE FROM entry WHERE space = ? AND key = ? AND expires_at <= ?"


class Row:
    """One Set of a run, with the numbers it takes if the key is new."""

    __slots__ = ("mutation", "sequence", "stamp")

    def __init__(self, mutation: Set, stamp: int, sequence: int) -> None:
        self.mutation = mutation
        self.stamp = stamp
        self.sequence = sequence


def apply(connection: apsw.Connection, space: int, rows: list[Row], now: int, created_at: int) -> list[int]:
    """Set rows with different keys in one living space; for each 1 if it replaced a living entry, else 0."""
    replaced: list[int] = []
    for start in range(0, len(rows), ROWS):
        replaced += _some(connection, space, rows[start : start + ROWS], now, created_at)
    return replaced


def _some(connection: apsw.Connection, space: int, rows: list[Row], now: int, created_at: int) -> list[int]:
    # The last row fills up the statement: set once more, to the same, it changes nothing.
    places = 1 << (len(rows) - 1).bit_length()
    filled = rows + rows[-1:] * (places - len(rows))
    keys = [row.mutation.key for row in filled]
    states = str(connection.execute(_states(places), (now, space, *keys)).get)
    if EXPIRED in states:
        for key, state in zip(keys, states, strict=True):
            if state == EXPIRED:
                connection.execute(DELETE_EXPIRED, (space, key, now))
    values: list[int | bytes | None] = []
    for row in filled:
        mutation = row.mutation
        expires_at = mutation.expires_at if mutation.ttl is None else now + mutation.ttl
        refresh = expires_at - now if mutation.refresh and expires_at is not None else None
        values += (
            row.sequence, space, mutation.key, mutation.value, row.stamp, created_at,
            expires_at, refresh, mutation.metadata,
        )  # fmt: skip
    connection.execute(_upsert(places), values)
    return [int(state == ALIVE) for state in states[: len(rows)]]
