"""Pages and counts, over one connection. Each is one consistent look at the database."""

from __future__ import annotations

from typing import cast

import apsw

from kvasir import jsontext
from kvasir.engines.numbering import first_sequence
from kvasir.engines.paging import size_of
from kvasir.engines.sqlite.connection import ReadConnection
from kvasir.engines.sqlite.reading import ALIVE, ENTRY
from kvasir.keys import COUNTER_BITS
from kvasir.model import Entry, KeyRange, Page, Query

BARE_ENTRY = ENTRY.replace("value", "x''")

#: Counts through covering indexes, minus the expired entries, which the sweep keeps few.
COUNT = """
    SELECT (SELECT count(*) FROM entry INDEXED BY entry_key WHERE space = :space AND key >= :start AND key < :end)
         - (SELECT count(*) FROM entry INDEXED BY entry_expiry
            WHERE expires_at <= :now AND space = :space AND key >= :start AND key < :end)"""

#: The lowest sequence of any entry created from an instant on: the first that stands for the instant, unless such an
#: entry has a sequence that stands for an earlier one, as a loaded entry may; those have an index of their own.
FIRST = f"""
    min(:first, ifnull((SELECT min(sequence) FROM entry INDEXED BY entry_lagging
        WHERE space = :space AND created_at > sequence >> {COUNTER_BITS} AND created_at >= :from), :first))"""  # noqa: S608

#: A listing may look at this many entries on the event loop: those of a small range, or the first in listing order.
WALK = 1_000

#: Sorts above every packed key, which begins with 02.
END = b"\xff"


def count(connection: apsw.Connection, space: int, key_range: KeyRange | None, now: int) -> int:
    """How many living entries the range holds."""
    start, end = bounds(key_range)
    return int(connection.execute(COUNT, {"space": space, "start": start, "end": end, "now": now}).get)


def bounds(key_range: KeyRange | None) -> tuple[bytes, bytes]:
    """Start and end of a range."""
    return (b"", END) if key_range is None else (key_range.start, key_range.end)


def page_nowait(connection: apsw.Connection, space: int, query: Query, now: int, max_bytes: int) -> Page | None:
    """The page, if a bounded number of entries with values of at most so many bytes have to be looked at; else None."""
    if query.order == "key" or query.limit is None or query.limit + query.skip > WALK // 5 or query.metadata:
        return None
    listing = _Listing(space, query, now)
    with connection:
        small = query.range is not None and connection.execute(listing.in_range(), listing.values).get <= WALK
        page = listing.taken(connection.execute(listing.scan() if small else listing.walk(), listing.values), max_bytes)
        whole = small or page is None or page.more or connection.execute(listing.walked(), listing.values).get <= WALK
    return page if whole else None


def page(connection: ReadConnection, space: int, query: Query, now: int) -> Page:
    """The page, whatever it takes: at worst a look at every key in the range."""
    listing = _Listing(space, query, now)
    if query.metadata is not None:
        connection.filter.contains = jsontext.containing(query.metadata)
    with connection:
        found = listing.taken(connection.execute(listing.scan(), listing.values))
    return cast("Page", found)  # there was no bound


class _Listing:
    """One query as SQL. The texts differ only in a few clauses, so the statement cache knows them all."""

    def __init__(self, space: int, query: Query, now: int) -> None:
        self._query = query
        start, end = self._bounds()
        self.values: dict[str, int | bytes | None] = {
            "space": space, "start": start, "end": end, "now": now, "walk": WALK,
            "position": query.before if query.before is not None else query.after,
            "limit": -1 if query.limit is None else query.limit + 1, "skip": query.skip,
            "from": query.created_from, "first": first_sequence(query.created_from or 0),
            "to": query.created_to,
        }  # fmt: skip
        backwards = query.before is not None
        descending = (query.order == "newest") != backwards
        column = "key" if query.order == "key" else "sequence"
        self._order = f"ORDER BY {column} {'DESC' if descending else 'ASC'}"
        self._ahead = f" AND {column} {'<' if descending else '>'} :position" if self._positioned() else ""
        if query.order == "key":
            self._ahead = " AND key >= :start AND key < :end"
        self._columns = ENTRY if query.values else BARE_ENTRY

    def _bounds(self) -> tuple[bytes, bytes]:
        """Where the keys begin and end that lie ahead: by key, behind the position."""
        start, end = bounds(self._query.range)
        # As the end of a range and not as a condition beside it, of which SQLite would seek to either one.
        if isinstance(self._query.after, bytes):
            start = max(start, self._query.after + b"\x00")
        if isinstance(self._query.before, bytes):
            end = min(end, self._query.before)
        return start, end

    def _positioned(self) -> bool:
        return self.values["position"] is not None

    def _filters(self) -> str:
        clauses = ["", ALIVE]
        query = self._query
        if query.range is not None and query.order != "key":
            clauses.append("key >= :start AND key < :end")
        if query.created_from is not None:
            clauses.append("created_at >= :from")
        if query.created_to is not None:
            clauses.append("created_at <= :to")
        if query.metadata is not None:
            clauses.append("metadata_contains(metadata)")
        return " AND ".join(clauses)

    def walk(self) -> str:
        """Of the first WALK entries of the space in listing order those that pass the filters."""
        return self._rows(f"""SELECT sequence AS chosen FROM (
            SELECT sequence, key, created_at, expires_at FROM entry
            INDEXED BY entry_order WHERE space = :space{self._ahead} {self._order} LIMIT :walk)
            WHERE 1{self._filters()} LIMIT :limit OFFSET :skip""")  # noqa: S608

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
        """The whole listing, by the index that fits it."""
        index = "entry_order" if self._query.range is None else "entry_key"
        # Both indexes hold the sequence, so this needs no look at the row.
        first = "" if self._query.created_from is None else f" AND sequence >= {FIRST}"
        if self._query.order == "key":
            return f"""SELECT {self._columns} FROM entry INDEXED BY entry_key
                WHERE space = :space{self._ahead}{self._filters()}{first} {self._order} LIMIT :limit OFFSET :skip"""  # noqa: S608
        return self._rows(f"""SELECT sequence AS chosen FROM entry INDEXED BY {index}
            WHERE space = :space{self._ahead}{self._filters()}{first}
            {self._order} LIMIT :limit OFFSET :skip""")  # noqa: S608

    def _rows(self, chosen: str) -> str:
        """The entries that a statement has chosen, in its order: they are looked up one by one, so that no value is
        read, or sorted, that is not in the page."""
        return f"SELECT {self._columns} FROM ({chosen}) CROSS JOIN entry ON sequence = chosen"  # noqa: S608

    def taken(self, rows: apsw.Cursor, max_bytes: int | None = None) -> Page | None:
        """The page: see `Query.limit` and `Query.max_bytes`. None if its values have more than `max_bytes`."""
        limit, room = self._query.limit, self._query.max_bytes
        entries: list[Entry] = []
        size, more = 0, False
        for row in rows:
            if len(entries) == limit:
                more = True
                break
            entry = Entry(*row)
            size += size_of(entry)
            if room is not None and size > room and entries:
                more = True
                break
            if max_bytes is not None and size > max_bytes:
                rows.close()
                return None
            entries.append(entry)
        rows.close()
        if self._query.before is not None:
            entries.reverse()
        return Page(entries, more)
