"""Queries over one connection: each function is one consistent look at the database. No threads, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any

import apsw

from kvasir.engines.numbering import first_sequence
from kvasir.errors import response_too_long
from kvasir.keys import COUNTER_BITS
from kvasir.model import Alias, Entry, KeyRange, Page, Query, Space

ENTRY = "key, value, versionstamp, sequence, created_at, expires_at, refresh, metadata"
BARE_ENTRY = ENTRY.replace("value", "x''")
SPACE = "id, number, organisation, kind, name, created_at, expires_at, clear_every, attributes"

ALIVE = "(expires_at IS NULL OR expires_at > :now)"

GET_ONE = f"SELECT {ENTRY} FROM entry WHERE space = ? AND key = ? AND (expires_at IS NULL OR expires_at > ?)"  # noqa: S608
EPOCH = "SELECT epoch FROM meta"
SPACE_BY_ID = f"SELECT {SPACE} FROM space WHERE id = :id AND {ALIVE}"  # noqa: S608
RESOLVE = f"""
    SELECT {SPACE} FROM space WHERE {ALIVE} AND number =
        (SELECT space FROM alias WHERE kind = :kind AND organisation = :organisation AND handle = :handle)"""  # noqa: S608
ALIASES = f"""
    SELECT alias.kind, alias.organisation, alias.handle FROM alias JOIN space ON alias.space = number
    WHERE id = :id AND {ALIVE} ORDER BY 1, 2, 3"""  # noqa: S608
SPACES = f"""
    SELECT {SPACE} FROM space
    WHERE {ALIVE} AND kind <> 'system' AND (:kind IS NULL OR kind = :kind)
      AND (:organisation IS NULL OR organisation = :organisation) AND id > :after
    ORDER BY id LIMIT :limit"""  # noqa: S608
COUNT_SPACES = f"""
    WITH chosen AS MATERIALIZED (
        SELECT number FROM space
        WHERE kind = :kind AND (:organisation IS NULL OR organisation = :organisation) AND {ALIVE})
    SELECT (SELECT count(*) FROM chosen),
           (SELECT count(*) FROM entry INDEXED BY entry_order WHERE space IN chosen)
         - (SELECT count(*) FROM entry INDEXED BY entry_expiry WHERE expires_at <= :now AND space IN chosen)"""  # noqa: S608
#: Counts through covering indexes; the expired, which the sweep keeps few, are counted off.
COUNT = """
    SELECT (SELECT count(*) FROM entry INDEXED BY entry_key WHERE space = :space AND key >= :start AND key < :end)
         - (SELECT count(*) FROM entry INDEXED BY entry_expiry
            WHERE expires_at <= :now AND space = :space AND key >= :start AND key < :end)"""

#: The least sequence of an entry created from an instant on: what the instant itself says, unless the sequence of such
#: an entry says an earlier one, as that of a loaded entry may; those have an index of their own.
FIRST = f"""
    min(:first, ifnull((SELECT min(sequence) FROM entry INDEXED BY entry_lagging
        WHERE space = :space AND created_at > sequence >> {COUNTER_BITS} AND created_at >= :from), :first))"""  # noqa: S608

TOTALS = "SELECT (SELECT count(*) FROM space) - 1, (SELECT count(*) FROM entry)"

#: Statements with more keys than this would crowd the statement cache; batches are cut into such pieces.
KEYS_A_STATEMENT = 256

#: Entries that a listing may look at on the event loop: those of a small range, or the first in listing order.
WALK = 1_000

#: Sorts above every packed key, which begins with 02.
END = b"\xff"


def get_one(cursor: apsw.Cursor, space: int, key: bytes, now: int) -> Entry | None:
    """The entry of this key. Takes a cursor to use again and again, since making one costs a third of the query.

    All rows are fetched, here and in `epoch`: a statement that is not at its end would hold on to its snapshot.
    """
    rows: list[Any] = cursor.execute(GET_ONE, (space, key, now)).fetchall()
    return Entry(*rows[0]) if rows else None


def get(
    connection: apsw.Connection, space: int, keys: Sequence[bytes], now: int, max_bytes: int | None = None
) -> list[Entry | None]:
    """The entries of these keys, in one snapshot. Raises `TooLarge`: see `Engine.get`."""
    found: dict[bytes, Entry] = {}
    size = 0
    with connection if len(keys) > KEYS_A_STATEMENT else nullcontext():  # several statements, one snapshot
        for at in range(0, len(keys), KEYS_A_STATEMENT):
            for row in _some(connection, space, keys[at : at + KEYS_A_STATEMENT]):
                if row[5] is None or row[5] > now:
                    if max_bytes is not None and row[0] not in found:
                        size += len(row[1])
                        if size > max_bytes:
                            raise response_too_long(max_bytes)
                    found[row[0]] = Entry(*row)
    return [found.get(key) for key in keys]


def _some(connection: apsw.Connection, space: int, keys: Sequence[bytes]) -> apsw.Cursor:
    # A power of two of placeholders: few different statements, all of them cached.
    places = 1 << (len(keys) - 1).bit_length()
    sql = f"SELECT {ENTRY} FROM entry WHERE space = ? AND key IN ({','.join('?' * places)})"  # noqa: S608
    padding = [keys[-1]] * (places - len(keys))
    return connection.execute(sql, (space, *keys, *padding))


def count(connection: apsw.Connection, space: int, key_range: KeyRange | None, now: int) -> int:
    """How many living entries the range holds."""
    start, end = _bounds(key_range)
    return int(connection.execute(COUNT, {"space": space, "start": start, "end": end, "now": now}).get)


def _bounds(key_range: KeyRange | None) -> tuple[bytes, bytes]:
    return (b"", END) if key_range is None else (key_range.start, key_range.end)


def quick_page(connection: apsw.Connection, space: int, query: Query, now: int, max_bytes: int) -> Page | None:
    """The page, if a look at a bounded number of entries with values of so many bytes is enough for it; else None."""
    if query.order == "key" or query.limit is None or query.limit + query.skip > WALK // 5 or query.metadata:
        return None
    listing = _Listing(space, query, now)
    with connection:
        if query.range is not None and connection.execute(listing.in_range(), listing.values).get <= WALK:
            rows = _bounded(connection.execute(listing.scan(), listing.values), max_bytes)
            return None if rows is None else listing.page(rows)
        rows = _bounded(connection.execute(listing.walk(), listing.values), max_bytes)
        enough = rows is not None and len(rows) > query.limit
        if not enough and connection.execute(listing.walked(), listing.values).get > WALK:
            return None
    return None if rows is None else listing.page(rows)


def _bounded(cursor: apsw.Cursor, max_bytes: int) -> list[Any] | None:
    """All rows of entries, unless their values are longer together."""
    rows: list[Any] = []
    for row in cursor:
        rows.append(row)
        max_bytes -= len(row[1])
        if max_bytes < 0:
            cursor.close(True)
            return None
    return rows


def page(connection: apsw.Connection, space: int, query: Query, now: int) -> Page:
    """The page, whatever it takes: at most a look at every key in the range."""
    listing = _Listing(space, query, now)
    return listing.page(connection.execute(listing.scan(), listing.values).fetchall())


class _Listing:
    """One query as SQL. The texts differ only in a few clauses, so the statement cache knows them all."""

    def __init__(self, space: int, query: Query, now: int) -> None:
        self._query = query
        start, end = _bounds(query.range)
        self.values: dict[str, int | bytes | None] = {
            "space": space, "start": start, "end": end, "now": now, "walk": WALK,
            "position": query.before if query.before is not None else query.after,
            "limit": -1 if query.limit is None else query.limit + 1, "skip": query.skip,
            "from": query.created_from, "first": first_sequence(query.created_from or 0),
            "to": query.created_to, "metadata": query.metadata,
        }  # fmt: skip
        backwards = query.before is not None
        descending = (query.order == "newest") != backwards
        column = "key" if query.order == "key" else "sequence"
        self._order = f"ORDER BY {column} {'DESC' if descending else 'ASC'}"
        self._ahead = f" AND {column} {'<' if descending else '>'} :position" if self._positioned() else ""
        self._columns = ENTRY if query.values else BARE_ENTRY

    def _positioned(self) -> bool:
        return self.values["position"] is not None

    def _filters(self) -> str:
        clauses = ["", ALIVE]
        query = self._query
        if query.range is not None:
            clauses.append("key >= :start AND key < :end")
        if query.created_from is not None:
            clauses.append("created_at >= :from")
        if query.created_to is not None:
            clauses.append("created_at <= :to")
        if query.metadata is not None:
            clauses.append("metadata_contains(metadata, :metadata)")
        return " AND ".join(clauses)

    def walk(self) -> str:
        """The first WALK entries of the space in listing order, filtered."""
        return f"""SELECT {self._columns} FROM (
            SELECT * FROM entry INDEXED BY entry_order WHERE space = :space{self._ahead} {self._order} LIMIT :walk)
            WHERE 1{self._filters()} LIMIT :limit OFFSET :skip"""  # noqa: S608

    def walked(self) -> str:
        """How many entries lie ahead in listing order, up to one more than the walk takes."""
        return f"""SELECT count(*) FROM (
            SELECT 1 FROM entry INDEXED BY entry_order WHERE space = :space{self._ahead} LIMIT :walk + 1)"""  # noqa: S608

    def in_range(self) -> str:
        """How many keys the range holds, up to one more than the walk takes."""
        return """SELECT count(*) FROM (
            SELECT 1 FROM entry INDEXED BY entry_key WHERE space = :space AND key >= :start AND key < :end
            LIMIT :walk + 1)"""

    def scan(self) -> str:
        """The whole listing, by the index that leads to it. Values are fetched for the page only."""
        by_keys = self._query.order == "key" or self._query.range is not None
        index = "entry_key" if by_keys else "entry_order"
        # Both indexes tell the sequence without a look at the row.
        first = "" if self._query.created_from is None else f" AND sequence >= {FIRST}"
        return f"""SELECT {self._columns} FROM (
            SELECT sequence AS chosen FROM entry INDEXED BY {index}
            WHERE space = :space{self._ahead}{self._filters()}{first}
            {self._order} LIMIT :limit OFFSET :skip) JOIN entry ON sequence = chosen {self._order}"""  # noqa: S608

    def page(self, rows: list[Any]) -> Page:
        entries = [Entry(*row) for row in rows]
        limit = self._query.limit
        more = limit is not None and len(entries) > limit
        if more:
            del entries[limit:]
        if self._query.before is not None:
            entries.reverse()
        return Page(entries, more)


def epoch(cursor: apsw.Cursor) -> int:
    """See `Engine.epoch`."""
    rows: list[Any] = cursor.execute(EPOCH).fetchall()
    return int(rows[0][0])


def space_by_id(connection: apsw.Connection, id: str, now: int) -> Space | None:
    """The living space with this ULID."""
    return _space(connection, SPACE_BY_ID, {"id": id, "now": now})


def resolve(connection: apsw.Connection, alias: Alias, now: int) -> Space | None:
    """The living space under an alias."""
    kind, organisation, handle = alias
    return _space(connection, RESOLVE, {"kind": kind, "organisation": organisation, "handle": handle, "now": now})


def _space(connection: apsw.Connection, sql: str, values: dict[str, str | int]) -> Space | None:
    with suppress(UnicodeEncodeError):  # half a surrogate pair is in no name
        for row in connection.execute(sql, values):
            return Space(*row)
    return None


def aliases(connection: apsw.Connection, id: str, now: int) -> list[Alias]:
    """The aliases of a living space, sorted."""
    with suppress(UnicodeEncodeError):
        rows = connection.execute(ALIASES, {"id": id, "now": now})
        return [(kind, organisation, handle) for kind, organisation, handle in rows]
    return []


def spaces(
    connection: apsw.Connection, organisation: str | None, kind: str | None, after: str, limit: int | None, now: int
) -> list[Space]:
    """Living spaces by ascending ULID."""
    values = {
        "organisation": organisation, "kind": kind, "after": after, "limit": -1 if limit is None else limit, "now": now
    }  # fmt: skip
    return [Space(*row) for row in connection.execute(SPACES, values)]


def count_spaces(connection: apsw.Connection, kind: str, organisation: str | None, now: int) -> tuple[int, int]:
    """(living spaces, living entries in them)"""
    row: Any = connection.execute(COUNT_SPACES, {"kind": kind, "organisation": organisation, "now": now}).fetchone()
    return row[0], row[1]


def totals(connection: apsw.Connection) -> tuple[int, int]:
    """(spaces, entries) on disk, whether they still live or not."""
    row: Any = connection.execute(TOTALS).fetchone()
    return row[0], row[1]
