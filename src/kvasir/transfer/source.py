"""What there is to transfer: the spaces one after another, each with its entries in creation order. Never writes."""

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

#: Stands for the system space, which no engine lists. It comes last: until its records are there, nobody has access
#: to a copy.
SYSTEM = Space("0" * 26, SYSTEM_SPACE, "", "system", "kvasir", 0)

#: Spaces on a page.
SPACES = 1_000
#: The most entries on a page, which bounds the memory to as many of the largest values, and the bytes aimed at.
PAGE_ENTRIES = 64
FIRST_ENTRIES = 8
PAGE_BYTES = 1 << 20

#: Entries that expire within this time are transferred but left out of every checksum, since they may expire between
#: two readings: a quarter of an hour, in milliseconds.
EXPIRING_SOON_MS = 900_000

#: Called with the number of entries just read.
OnEntries = Callable[[int], None]


class Section(Struct, frozen=True):
    """One space of a source."""

    space: Space
    aliases: list[Alias]
    #: Only entries that live beyond this instant count for the checksum
    until: int
    #: Gives the living entries in creation order; to be read once, to its end
    entries: Callable[[], AsyncIterator[Entry]]
    #: The checksum of what the source holds once `entries` has been read
    checksum: Callable[[], Awaitable[str]]


class Source(Protocol):
    """A database, or a dump of one."""

    #: Identifies the database; its copies and dumps have the same.
    origin: str
    #: Roughly how many entries there are; None: unknown
    total: int | None

    def sections(self) -> AsyncIterator[Section]:
        """The spaces by ascending ULID, the system space last. Finish with one before asking for the next."""
        ...


class EngineSource:
    """A database as a source. Servers may keep using it; then what is read is not one single snapshot."""

    def __init__(self, engine: Engine, origin: str, total: int) -> None:
        self.origin = origin
        self.total: int | None = total
        self._engine = engine

    @classmethod
    async def of(cls, engine: Engine) -> EngineSource:
        """A source of this open database. Raises `NotFound` if it is empty and `Conflicting` for an incomplete copy."""
        await _refuse_incomplete(engine)
        return cls(engine, await organisation.origin(engine), (await engine.stats()).entries)

    async def sections(self) -> AsyncIterator[Section]:
        async for space in spaces_of(self._engine):
            yield self._section(space, await self._engine.aliases(space.id))
        yield self._section(SYSTEM, [])
        # What comes next is the last line of a dump, or the mark of a complete copy.
        await _refuse_incomplete(self._engine)

    def _section(self, space: Space, aliases: list[Alias]) -> Section:
        until = self._engine.clock() + EXPIRING_SOON_MS
        return Section(
            space,
            aliases,
            until,
            lambda: entries_of(self._engine, space.number),
            lambda: checksum_of(self._engine, space.id, until),
        )


async def _refuse_incomplete(engine: Engine) -> None:
    """Raise `Conflicting` for an incomplete copy: whatever is made from one would pass for complete."""
    mark = await copy_mark.read(engine)
    if mark is not None and not mark.complete:
        raise Conflicting(
            "the source database is an incomplete copy: the `kvasir copy` or `kvasir load` that fills it has not"
            " finished or was interrupted; let it finish or run it again, then repeat this command"
        )


async def spaces_of(engine: Engine) -> AsyncIterator[Space]:
    """All living spaces by ascending ULID, except the system space."""
    after = ""
    while spaces := await engine.list_spaces(after=after, limit=SPACES):
        for space in spaces:
            yield space
        after = spaces[-1].id


async def entries_of(engine: Engine, space: int) -> AsyncIterator[Entry]:
    """The living entries of a space in creation order, up to the newest there was at the start; never a copy's mark.

    So it ends whatever writers do, and no key comes twice.
    """
    newest = (await engine.page(space, Query(limit=1, values=False))).entries
    after: int | None = None
    limit = FIRST_ENTRIES
    while newest:
        page = await engine.page(space, Query(order="oldest", limit=limit, after=after))
        size = 0
        for entry in page.entries:
            if entry.sequence > newest[0].sequence:
                return
            size += len(entry.value) + len(entry.metadata or b"")
            if space != SYSTEM_SPACE or entry.key != copy_mark.COPY_MARK:
                yield entry
        if not page.more:
            return
        after = page.entries[-1].sequence
        fitting = PAGE_BYTES * len(page.entries) // max(1, size)
        limit = max(1, min(2 * limit, fitting, PAGE_ENTRIES))


class Checksum:
    """SHA-256 of a space with its aliases and entries in creation order.

    Covers every field except the numbers that belong to the engine (`number`, `sequence`).
    """

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


async def checksum_of(engine: Engine, id: str, until: int, on_entries: OnEntries = lambda _: None) -> str:
    """The checksum of a space as the database holds it now."""
    space = SYSTEM if id == SYSTEM.id else await engine.get_space(id)
    if space is None:
        return Checksum(None, [], until).text()
    checksum = Checksum(space, await engine.aliases(id) if space is not SYSTEM else [], until)
    try:
        async for entry in entries_of(engine, space.number):
            checksum.add(entry)
            on_entries(1)
    except NotFound:
        return Checksum(None, [], until).text()
    return checksum.text()
