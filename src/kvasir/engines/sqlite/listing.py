"""Pages and counts, over one connection. Each is one consistent look at the database."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import apsw

from kvasir import jsontext
from kvasir.engines.numbering import first_sequence
from kvasir.engines.paging import within_bytes
from kvasir.engines.sqlite.connection import ReadConnection
from kvasir.engines.sqlite.reading import ALIVE, CHUNK_KEYS, ENTRY
from kvasir.keys import COUNTER_BITS
from kvasir.model import Entry, KeyRange, Page, Query

BARE_ENTRY = ENTRY.replace("value", "x''")

#: Bytes of an entry that a page counts, without its value and with it; known without reading long values.
BARE_SIZE = "length(key) + ifnull(length(metadata), 0)"
SIZE = f"{BARE_SIZE} + length(value)"

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
        if query.range is not None and connection.execute(listing.in_range(), listing.values).get <= WALK:
            chosen: list[Any] = connection.execute(listing.scan(), listing.values).fetchall()
        else:
            chosen = connection.execute(listing.walk(), listing.values).fetchall()
            if len(chosen) <= query.limit and connection.execute(listing.walked(), listing.values).get > WALK:
                return None
        fitting = listing.fitting(chosen)
        if sum([size for _, size in fitting]) > max_bytes:
            return None
        entries = listing.fetch(connection, fitting)
    return Page(entries, len(fitting) < len(chosen))


def page(connection: ReadConnection, space: int, query: Query, now: int) -> Page:
    """The page, whatever it takes: at worst a look at every key in the range."""
    listing = _Listing(space, query, now)
    if query.metadata is not None:
        connection.filter.contains = jsontext.containing(query.metadata)
    with connection:
        chosen: list[Any] = connection.execute(listing.scan(), listing.values).fetchall()
        fitting = listing.fitting(chosen)
        entries = listing.fetch(connection, fitting)
    return Page(entries, len(fitting) < len(chosen))


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
        self._columns, self._size = (ENTRY, SIZE) if query.values else (BARE_ENTRY, BARE_SIZE)

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
        """The first WALK entries of the space in listing order, filtered: sequence and size of each."""
        return f"""SELECT sequence, size FROM (
            SELECT sequence, key, created_at, expires_at, {self._size} AS size FROM entry
            INDEXED BY entry_order WHERE space = :space{self._ahead} {self._order} LIMIT :walk)
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
        """The whole listing, by the index that fits it: sequence and size of each entry."""
        index = "entry_order" if self._query.range is None else "entry_key"
        # Both indexes hold the sequence, so this needs no look at the row.
        first = "" if self._query.created_from is None else f" AND sequence >= {FIRST}"
        if self._query.order == "key":
            return f"""SELECT sequence, {self._size} FROM entry INDEXED BY entry_key
                WHERE space = :space{self._ahead}{self._filters()}{first} {self._order} LIMIT :limit OFFSET :skip"""  # noqa: S608
        return f"""SELECT sequence, {self._size} FROM (
            SELECT sequence AS chosen FROM entry INDEXED BY {index}
            WHERE space = :space{self._ahead}{self._filters()}{first}
            {self._order} LIMIT :limit OFFSET :skip) JOIN entry ON sequence = chosen {self._order}"""  # noqa: S608

    def fitting(self, chosen: list[Any]) -> list[Any]:
        """Those of the chosen that the page has room for: see `Query.limit` and `Query.max_bytes`."""
        return within_bytes(chosen[: self._query.limit], self._query.max_bytes, itemgetter(1))

    def fetch(self, connection: apsw.Connection, chosen: list[Any]) -> list[Entry]:
        """The entries with these sequences, in the order of the page; in the same snapshot."""
        rows: dict[int, Any] = {}
        for at in range(0, len(chosen), CHUNK_KEYS):
            sequences = [row[0] for row in chosen[at : at + CHUNK_KEYS]]
            # A power of two of placeholders: few different statements, all of them cached.
            sequences += [sequences[-1]] * ((1 << (len(sequences) - 1).bit_length()) - len(sequences))
            places = ",".join("?" * len(sequences))
            fetch = f"SELECT {self._columns} FROM entry WHERE sequence IN ({places})"  # noqa: S608
            rows |= {row[3]: row for row in connection.execute(fetch, sequences)}
        entries = [Entry(*rows[row[0]]) for row in chosen]
        if self._query.before is not None:
            entries.reverse()
        return entries
