"""Pages and counts. Each page is read by one statement (or, with a filter by metadata, one read-only transaction), so
it shows one snapshot. The order that a statement asks for names its index: the planner, which believes that all tables
are large, has no other choice.
"""

from __future__ import annotations

from functools import cached_property, partial
from operator import itemgetter
from typing import Any

from kvasir import jsontext
from kvasir.beside.thread import in_thread
from kvasir.engines.numbering import first_sequence
from kvasir.engines.paging import within_bytes
from kvasir.engines.postgres.pool import Pool
from kvasir.engines.postgres.read_batcher import ALIVE, ENTRY
from kvasir.keys import COUNTER_BITS
from kvasir.model import Entry, KeyRange, Page, Query

BARE_ENTRY = ENTRY.replace("value", "''::bytea")

#: Bytes of an entry that a page counts, without its value and with it; known without reading long values.
BARE_SIZE = "octet_length(key) + coalesce(octet_length(metadata), 0)"
SIZE = f"{BARE_SIZE} + octet_length(value)"

#: A listing of a range by age looks at up to this many entries before it chooses how to go on: those of the range, then
#: the newest of the space.
WALK = 1_000
#: Rows fetched at a time by a listing with a filter by metadata: at first, and at most; as many as have so many bytes.
FIRST_ROWS, MOST_ROWS, METADATA_BYTES = 50, 500, 1 << 18

COUNT = f"select count(*) from kvasir_entry where space = $1 and {ALIVE}"  # noqa: S608
#: How many keys a range holds, up to one more than the walk takes.
SIZE_OF_RANGE = f"""
    select count(*) from (
        select from kvasir_entry where space = $1 and key >= $2 and key < $3 order by key limit {WALK + 1}
    ) as few"""  # noqa: S608
#: The first entry created from an instant on whose sequence says an earlier instant; found by the index of just those.
FIRST_LAGGING = f"""(
    with lagging as materialized (
        select sequence from kvasir_entry
        where space = $1 and created_at > sequence >> {COUNTER_BITS} and created_at >= {{}})
    select min(sequence) from lagging)"""  # noqa: S608
VALUES = "select key, value from kvasir_entry where space = $1 and key = any($2)"


async def page(pool: Pool, space: int, query: Query, now: int | None) -> Page:
    """See `Engine.page`."""
    listing = _Listing(space, query, now)
    if query.metadata is not None:
        return await _filtered(pool, listing, query.metadata)
    if query.range is None or query.order == "key":
        return listing.measured_page(await pool.fetch_of(*listing.in_order()))
    # By age within a range: there is no index for that. A small range is sorted; of a large one, the newest entries of
    # the space probably fill the page.
    if query.limit is not None and query.limit + query.skip <= WALK // 5:
        ((size,),) = await pool.fetch_of(SIZE_OF_RANGE, space, query.range.start, query.range.end)
        if size > WALK:
            rows = await pool.fetch_of(*listing.walk())
            # Every row says how many were walked; without a row nobody knows.
            if rows and (rows[0]["found"] > query.limit or rows[0]["walked"] < WALK):
                return listing.measured_page(rows)
    return listing.measured_page(await pool.fetch_of(*listing.sorted()))


async def in_key_order(pool: Pool, connection: Any, space: int, query: Query, now: int) -> Page:
    """A page by key, over a connection whose transaction decides what it sees."""
    listing = _Listing(space, query, now)
    sql, *values = listing.in_order()
    return listing.measured_page(await connection.fetch(pool.text(sql, space), *values))


async def count(pool: Pool, space: int, key_range: KeyRange | None, now: int | None) -> int:
    """See `Engine.count`."""
    within = " and key >= $3 and key < $4" if key_range else ""
    bounds = (key_range.start, key_range.end) if key_range else ()
    ((found,),) = await pool.fetch_of(COUNT + within, space, now, *bounds)
    return int(found)


async def _filtered(pool: Pool, listing: _Listing, metadata: bytes) -> Page:
    """A page of the entries whose metadata contains this; filtered here, some rows at a time, until it is full."""
    query = listing.query
    contains = jsontext.containing(metadata)
    sql, *values = listing.unlimited()
    wanted = None if query.limit is None else query.skip + query.limit + 1

    def passing(rows: list[Any]) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in rows if contains(row["metadata"])]

    async def look(connection: Any) -> tuple[list[tuple[Any, ...]], int]:
        found: list[tuple[Any, ...]] = []
        async with pool.snapshot(connection):
            cursor = await connection.cursor(pool.text(sql, listing.space), *values)
            count = FIRST_ROWS
            while (wanted is None or len(found) < wanted) and (rows := await cursor.fetch(count)):
                found += await in_thread(partial(passing, rows))
                size = sum([len(row["metadata"] or b"") for row in rows])
                count = min(MOST_ROWS, METADATA_BYTES * len(rows) // (size + 1) + 1)
            found = found[query.skip : wanted]
            fitting = listing.fitting(found)
            if query.values:
                texts = dict(
                    await connection.fetch(pool.text(VALUES, listing.space), listing.space, [row[0] for row in fitting])
                )
                fitting = [(row[0], texts[row[0]], *row[2:]) for row in fitting]
        return fitting, len(found)

    return listing.page(*await pool.read(look))


class _Listing:
    """One query as SQL, with its values. There are few different texts, so each is soon a prepared statement."""

    def __init__(self, space: int, query: Query, now: int | None) -> None:
        self.space = space
        self.query = query
        self._values: list[Any] = [space, now]
        self._column = "key" if query.order == "key" else "sequence"
        backwards = query.before is not None
        descending = (query.order == "newest") != backwards
        self._order = f"order by {self._column} {'desc' if descending else 'asc'}"
        position = query.before if backwards else query.after
        self._ahead = ""
        if position is not None:
            self._ahead = f" and {self._column} {'<' if descending else '>'} {self._value(position)}"
        self._filters = self._made_filters()
        self._columns, self._size = (ENTRY, SIZE) if query.values else (BARE_ENTRY, BARE_SIZE)

    def _value(self, value: Any) -> str:
        self._values.append(value)
        return f"${len(self._values)}"

    def _made_filters(self) -> str:
        query = self.query
        clauses = ["", ALIVE]
        self._within = ""
        if query.range is not None:
            self._within = f" and key >= {self._value(query.range.start)} and key < {self._value(query.range.end)}"
        if query.created_from is not None:
            created_from = self._value(query.created_from)
            clauses.append(f"created_at >= {created_from}")
            if query.range is None and query.order != "key":
                first = self._value(first_sequence(query.created_from))
                clauses.append(f"sequence >= least({first}, {FIRST_LAGGING.format(created_from)})")
        if query.created_to is not None:
            clauses.append(f"created_at <= {self._value(query.created_to)}")
        return self._within + " and ".join(clauses)

    @cached_property
    def _limit(self) -> str:
        # Cached: a listing may send two statements, and every value must be used in both.
        query = self.query
        limit = "" if query.limit is None else f" limit {self._value(query.limit + 1)}"
        return limit + (f" offset {self._value(query.skip)}" if query.skip else "")

    def in_order(self) -> tuple[Any, ...]:
        """Along the index that has the order: by key, or by age in the whole space."""
        sql = (
            f"select {ENTRY} from kvasir_entry where space = $1{self._ahead}{self._filters}"  # noqa: S608
            f" {self._order}{self._limit}"
        )
        return self._measured(sql), *self._values

    def sorted(self) -> tuple[Any, ...]:
        """The whole range by the index of keys, sorted. Values are fetched only for the page."""
        whole = f"select {ENTRY} from kvasir_entry where space = $1 and key = any(array(select key from chosen))"  # noqa: S608
        sql = (
            "with chosen as materialized (with found as materialized"  # noqa: S608
            f" (select key, sequence from kvasir_entry where space = $1{self._ahead}{self._filters})"
            f" select key from found {self._order}{self._limit})"
            f" {self._measured(whole)}"
        )
        return sql, *self._values

    def walk(self) -> tuple[Any, ...]:
        """The first entries of the space in listing order, filtered; each with the number of entries looked at."""
        fitting = (
            f"select {ENTRY}, (select count(*) from walk) as walked from walk"  # noqa: S608
            f" where true{self._filters} {self._order}{self._limit}"
        )
        sql = (
            "with walk as materialized"  # noqa: S608
            f" (select * from kvasir_entry where space = $1{self._ahead} {self._order} limit {WALK})"
            f" {self._measured(fitting, ', walked')}"
        )
        return sql, *self._values

    def unlimited(self) -> tuple[Any, ...]:
        """The whole listing in order, without values or a limit."""
        by_index = self.query.range is None or self.query.order == "key"
        within = (
            f"select {BARE_ENTRY}, {self._size} as size from kvasir_entry where space = $1{self._ahead}{self._filters}"  # noqa: S608
        )
        if by_index:
            return f"{within} {self._order}", *self._values
        return f"with found as materialized ({within}) select * from found {self._order}", *self._values  # noqa: S608

    def _measured(self, sql: str, more: str = "") -> str:
        """The rows of a statement as far as they fit into the page, and how many it has. Long values stay in place."""
        bound = "" if self.query.max_bytes is None else f" where upto <= {self._bytes} or upto = size"
        return (
            f"select {self._columns}{more}, found from (select *, count(*) over () as found,"  # noqa: S608
            f" sum({self._size}) over ({self._order} rows unbounded preceding) as upto, {self._size} as size"
            f" from ({sql}) as whole) as measured{bound} {self._order}"
        )

    @cached_property
    def _bytes(self) -> str:
        return self._value(self.query.max_bytes)

    def fitting(self, rows: list[Any]) -> list[Any]:
        """As many of the first rows, the size at the end of each, as the page has room for."""
        return within_bytes(rows[: self.query.limit], self.query.max_bytes, itemgetter(-1))

    def measured_page(self, rows: list[Any]) -> Page:
        """The page of rows that fit into it, and of one more that only shows that there is more."""
        limit = self.query.limit
        return self.page(rows if limit is None else rows[:limit], rows[0]["found"] if rows else 0)

    def page(self, rows: list[Any], found: int) -> Page:
        """The page of these rows, of so many that were found."""
        entries = [Entry(*tuple(row)[:8]) for row in rows]
        if self.query.before is not None:
            entries.reverse()
        return Page(entries, len(entries) < found)
