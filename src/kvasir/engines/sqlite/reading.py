"""Entries by their keys, over one connection: each function is one consistent look at the database.

No threads and no clock here, nor in `listing` and `spaces`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import apsw

from kvasir.errors import response_too_long
from kvasir.keys import millisecond_of
from kvasir.model import Entry

#: For statements with named values
ALIVE = "(expires_at IS NULL OR expires_at > :now)"

ENTRY = "key, value, versionstamp, sequence, created_at, expires_at, refresh, metadata"
GET_ONE = f"SELECT {ENTRY} FROM entry WHERE space = ? AND key = ? AND (expires_at IS NULL OR expires_at > ?)"  # noqa: S608
EPOCH = "SELECT epoch FROM meta"
LATEST = "SELECT last, latest FROM meta"
TOTALS = """
    SELECT (SELECT count(*) FROM space) - 1, (SELECT count(*) FROM entry),
        (SELECT count(*) FROM entry INDEXED BY entry_expiry WHERE expires_at <= ?)"""

#: A statement with more keys than this would crowd the statement cache; larger batches are read in chunks.
CHUNK_KEYS = 256


def get_one(cursor: apsw.Cursor, space: int, key: bytes, now: int) -> Entry | None:
    """The entry of this key. Takes a cursor that is used again and again: to make one costs a third of the query.

    All rows are fetched, here and in `epoch`, since a statement that has not ended holds on to its snapshot.
    """
    rows: list[Any] = cursor.execute(GET_ONE, (space, key, now)).fetchall()
    return Entry(*rows[0]) if rows else None


def get(
    connection: apsw.Connection, space: int, keys: Sequence[bytes], now: int, max_bytes: int | None = None
) -> list[Entry | None]:
    """The entries of these keys, in one snapshot. Raises `TooLarge`: see `Engine.get`."""
    found: dict[bytes, Entry] = {}
    size = 0
    with connection if len(keys) > CHUNK_KEYS else nullcontext():  # several statements, one snapshot
        for at in range(0, len(keys), CHUNK_KEYS):
            for row in _fetch_chunk(connection, space, keys[at : at + CHUNK_KEYS]):
                if row[5] is None or row[5] > now:
                    if max_bytes is not None and row[0] not in found:
                        size += len(row[1])
                        if size > max_bytes:
                            found.clear()  # which the traceback of the failure would keep
                            raise response_too_long(max_bytes)
                    found[row[0]] = Entry(*row)
    return [found.get(key) for key in keys]


def _fetch_chunk(connection: apsw.Connection, space: int, keys: Sequence[bytes]) -> apsw.Cursor:
    # A power of two of placeholders: few different statements, all of them cached.
    places = 1 << (len(keys) - 1).bit_length()
    sql = f"SELECT {ENTRY} FROM entry WHERE space = ? AND key IN ({','.join('?' * places)})"  # noqa: S608
    padding = [keys[-1]] * (places - len(keys))
    return connection.execute(sql, (space, *keys, *padding))


def epoch(cursor: apsw.Cursor) -> int:
    """See `Engine.epoch`."""
    rows: list[Any] = cursor.execute(EPOCH).fetchall()
    return int(rows[0][0])


def latest(connection: apsw.Connection) -> int:
    """The latest instant, in Unix milliseconds, that a number or a `created_at` says."""
    rows: list[Any] = connection.execute(LATEST).fetchall()
    last, latest = rows[0]
    return int(max(millisecond_of(last), latest))


def totals(connection: apsw.Connection, now: int) -> tuple[int, int, int]:
    """(spaces, entries) on disk, living or not, and how many of the entries have expired."""
    row: Any = connection.execute(TOTALS, (now,)).fetchone()
    return row[0], row[1], row[2]
