"""What there is to move: spaces one after another, each with its entries in creation order. Never writes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import msgspec
from msgspec import Struct

from kvasir.control import copy_mark, organisation
from kvasir.engine import Engine
from kvasir.errors import Conflicting, NotFound
from kvasir.model import SYSTEM_SPACE, Alias, Entry, Query, Space

#: How the system space, which no engine lists, is called here. It comes last: before its records are there, nobody has
#: access to a copy.
SYSTEM = Space("0" * 26, SYSTEM_SPACE, "", "system", "kvasir", 0)

#: Spaces in a page.
SPACES = 1_000
#: Most entries in a page, which bounds the memory to as many of the largest values, and the bytes aimed at.
PAGE_ENTRIES = 64
FIRST_ENTRIES = 8
PAGE_BYTES = 1 << 20

#: Entries that end within this time are moved like all others, but no checksum depends on them: they may end between
#: two readings. A quarter of an hour, in milliseconds.
SOON = 900_000


class Section(Struct, frozen=True):
    """One space of a source."""

    space: Space
    aliases: list[Alias]
    #: The instant from which an entry must live on to count for the checksum
    until: int
    #: Gives the living entries in creation order; to be read to its end, once.
    entries: Callable[[], AsyncIterator[Entry]]
    #: The checksum of what the source holds now that `entries` has been read
    checksum: Callable[[], Awaitable[str]]


class Source(Protocol):
    """A database, or the file that was made of one."""

    #: Names the database; copies of it, and dumps, have the same.
    origin: str
    #: How many entries there are, roughly; None: nobody knows
    total: int | None

    def sections(self) -> AsyncIterator[Section]:
        """The spaces by ascending ULID, the system space last. One is finished with before the next is asked for."""
        ...


class EngineSource:
    """A database as a source. Servers may go on using it; then what is read is no single instant."""

    def __init__(self, engine: Engine, origin: str, total: int) -> None:
        self.origin = origin
        self.total: int | None = total
        self._engine = engine

    @classmethod
    async def of(cls, engine: Engine) -> EngineSource:
        """A source of this open database. Raises `NotFound` if it is empty, and see `_must_be_whole`."""
        await _must_be_whole(engine)
        return cls(engine, await organisation.origin(engine), (await engine.stats()).entries)

    async def sections(self) -> AsyncIterator[Section]:
        async for space in spaces_of(self._engine):
            yield self._section(space, await self._engine.aliases(space.id))
        yield self._section(SYSTEM, [])
        # The last line of a dump, or the mark of a copy, comes after this.
        await _must_be_whole(self._engine)

    def _section(self, space: Space, aliases: list[Alias]) -> Section:
        until = self._engine.clock() + SOON
        return Section(
            space,
            aliases,
            until,
            lambda: entries_of(self._engine, space.number),
            lambda: checksum_of(self._engine, space.id, until),
        )


async def _must_be_whole(engine: Engine) -> None:
    """Raise `Conflicting` for an incomplete copy: what is made of one would pass for complete."""
    mark = await copy_mark.read(engine)
    if mark is not None and not mark.complete:
        raise Conflicting(
            "the database to be read is an incomplete copy: the `kvasir copy` or `kvasir load` that fills it has not"
            " come to its end, or was interrupted; let it end, or run it again, and then this"
        )


async def spaces_of(engine: Engine) -> AsyncIterator[Space]:
    """All living spaces by ascending ULID, but for the system space."""
    after = ""
    while spaces := await engine.list_spaces(after=after, limit=SPACES):
        for space in spaces:
            yield space
        after = spaces[-1].id


async def entries_of(engine: Engine, space: int) -> AsyncIterator[Entry]:
    """The living entries of a space in creation order, up to the newest there was at the beginning.

    So it comes to an end whatever writers do, and no key comes twice. The mark of a copy is left out.
    """
    newest = (await engine.page(space, Query(limit=1, values=False))).entries
    at: int | None = None
    limit = FIRST_ENTRIES
    while newest:
        page = await engine.page(space, Query(order="oldest", limit=limit, after=at))
        size = 0
        for entry in page.entries:
            if entry.sequence > newest[0].sequence:
                return
            size += len(entry.value) + len(entry.metadata or b"")
            if space != SYSTEM_SPACE or entry.key != copy_mark.COPY_MARK:
                yield entry
        if not page.more:
            return
        at = page.entries[-1].sequence
        fitting = PAGE_BYTES * len(page.entries) // max(1, size)
        limit = max(1, min(2 * limit, fitting, PAGE_ENTRIES))


class Checksum:
    """SHA-256 over a space with its aliases and entries: all fields in creation order but the numbers that are the
    engine's own (`number`, `sequence`)."""

    def __init__(self, space: Space | None, aliases: list[Alias], until: int) -> None:
        facts = None if space is None else msgspec.structs.replace(space, number=0)
        self._hash = hashlib.sha256(msgspec.msgpack.encode((facts, sorted(aliases))))
        self._until = until

    def add(self, entry: Entry) -> None:
        if entry.expires_at is None or entry.expires_at > self._until:
            self._hash.update(
                msgspec.msgpack.encode(
                    (
                        entry.key,
                        entry.value,
                        entry.versionstamp,
                        entry.created_at,
                        entry.expires_at,
                        entry.refresh,
                        entry.metadata,
                    )
                )
            )

    def text(self) -> str:
        """The checksum in hex."""
        return self._hash.hexdigest()


async def checksum_of(engine: Engine, id: str, until: int, report: Callable[[int], None] = lambda _: None) -> str:
    """The checksum of a space as the database has it now; `report` is told of entries as they are read."""
    space = SYSTEM if id == SYSTEM.id else await engine.get_space(id)
    if space is None:
        return Checksum(None, [], until).text()
    checksum = Checksum(space, await engine.aliases(id) if space is not SYSTEM else [], until)
    try:
        async for entry in entries_of(engine, space.number):
            checksum.add(entry)
            report(1)
    except NotFound:
        return Checksum(None, [], until).text()
    return checksum.text()
