"""The log of what commits have changed, kept while somebody watches: written by whoever commits, read by who watches.

A row tells all that one transaction did, from the last number before it (`since`) to the last one afterwards (`upto`).
Every write takes a number, so rows that join without a gap up to the present last number leave no write out. A write
that was not logged shows as a gap, whoever forgot to log it and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import apsw
import msgspec
from msgspec import Struct

from kvasir.engines.numbering import first_sequence
from kvasir.engines.sqlite import reading
from kvasir.engines.watching import RANGE, TOLD_BYTES, Logged, Watchers
from kvasir.errors import TooLarge
from kvasir.model import Entry

APPEND = """
    INSERT INTO change (upto, since, bytes, changes)
    VALUES (?1, ?2, ifnull((SELECT bytes FROM change ORDER BY upto DESC LIMIT 1), 0) + length(?3) + ?4, ?3)"""
LAST = "SELECT last FROM meta"
NEXT = "SELECT since, upto, changes FROM change WHERE upto > ? AND upto <= ? ORDER BY upto LIMIT ?"
#: Bytes of what is logged after a number
SIZE = "SELECT (SELECT bytes FROM change ORDER BY upto DESC LIMIT 1) - bytes FROM change WHERE upto > ? LIMIT 1"

#: Rows of one read, and bytes of one that replays, which happen on the event loop.
ROWS = 64
REPLAY_BYTES = 4 << 20
#: As so many a change counts beside its own: one of a short key takes as long to read as one of a long key.
CHANGE_BYTES = 16

#: The log reaches back so far, unless it would have more bytes than this.
KEPT_MILLISECONDS = 60_000
KEPT_BYTES = 32 << 20
HAS_OLD = f"""
    EXISTS (SELECT 1 FROM change WHERE upto < ?2) OR (SELECT bytes FROM change ORDER BY upto DESC LIMIT 1)
        - (SELECT bytes FROM change ORDER BY upto LIMIT 1) > {KEPT_BYTES}"""  # noqa: S608
OLD = f"""
    SELECT upto FROM change WHERE upto < ?1
        OR bytes < (SELECT bytes FROM change ORDER BY upto DESC LIMIT 1) - {KEPT_BYTES} ORDER BY upto LIMIT ?2"""  # noqa: S608
REMOVE = "DELETE FROM change WHERE upto = ?"

#: Changes by columns, which take half the bytes of rows: kinds, spaces (a number: all are in that one), the first
#: versionstamp, the difference of each to it, keys, and the ends of ranges (None: there are none). None: no changes.
_Columns = tuple[bytes, list[int] | int, int, list[int], list[bytes], list[bytes | None] | None]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Columns | None).decode


class Row(Struct, gc=False):
    """What one transaction has done."""

    since: int
    upto: int
    changes: list[Logged]


class News(Struct):
    """What was committed behind some position, in one snapshot."""

    #: Those that somebody watches
    changes: list[Logged]
    #: The living entries of the watched keys among them
    entries: dict[tuple[int, bytes], Entry]
    #: The changes are all up to here; None: some are missing.
    upto: int | None
    #: The last number of the database
    last: int


def append(cursor: apsw.Cursor, row: Row) -> None:
    """Log what the present transaction has done."""
    text = _encode(_columns(row.changes))
    cursor.execute(APPEND, (row.upto, row.since, text, CHANGE_BYTES * len(row.changes)))


def _columns(changes: Sequence[Logged]) -> tuple[Any, ...] | None:
    if not changes:
        return None
    kinds, spaces, stamps, keys, ends = zip(*changes, strict=True)
    first = stamps[0]
    more = [stamp - first for stamp in stamps]
    places = spaces if len(set(spaces)) > 1 else spaces[0]
    return bytes(kinds), places, first, more, keys, ends if RANGE in kinds else None


def _changes(text: bytes) -> list[Logged]:
    columns = _decode(text)
    if columns is None:
        return []
    kinds, spaces, first, stamps, keys, ends = columns
    of_each = spaces if isinstance(spaces, list) else [spaces] * len(keys)
    rows = zip(kinds, of_each, stamps, keys, ends or [None] * len(keys), strict=True)
    return [(kind, space, first + more, key, end) for kind, space, more, key, end in rows]


def oldest_kept(now: int) -> int:
    """The number before which the log is cleared."""
    return first_sequence(max(0, now - KEPT_MILLISECONDS))


def last_number(connection: apsw.Connection) -> int:
    """The last number handed out."""
    return int(connection.execute(LAST).get)


def read(connection: apsw.Connection, position: int, watchers: Watchers, now: int, *, until: int | None = None) -> News:
    """What was committed behind `position`: the next rows; or all of them up to `until`, unless they are too many."""
    with connection:
        last = last_number(connection)
        if position > last or (until and (connection.execute(SIZE, (position,)).get or 0) > REPLAY_BYTES):
            return News([], {}, None, last)
        rows: list[Any] = connection.execute(NEXT, (position, until or last, -1 if until else ROWS)).fetchall()
        changes: list[Logged] = []
        upto = position
        for since, end, text in rows:
            # A watch that begins again may do so amid a row.
            if since > upto:
                return News([], {}, None, last)
            changes += watchers.concerning(_changes(text), position)
            upto = end
        if upto < (until or last) and (until or len(rows) < ROWS):
            return News([], {}, None, last)
        try:
            entries = {
                (space, entry.key): entry
                for space, keys in watchers.wanted(changes).items()
                for entry in reading.get(connection, space, list(keys), now, TOLD_BYTES)
                if entry is not None
            }
        except TooLarge:
            return News([], {}, None, last)
    return News(changes, entries, upto, last)
