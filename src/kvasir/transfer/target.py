"""Brings a database to hold just what a source gives, and proves it by reading it back.

It compares before it writes. So it goes on after an interruption where it was, and a second run brings what has
changed. A mark in the system space says which source the database is a copy of; the first server that starts on it,
and the first command that writes to it, takes the mark away.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
from msgspec import Struct

from kvasir.control import copy_mark
from kvasir.engine import Engine
from kvasir.errors import KvasirError, NotFound
from kvasir.model import SYSTEM_SPACE, Alias, Delete, Entry, Space, Write
from kvasir.transfer.source import SYSTEM, Section, Source, checksum_of, entries_of, spaces_of

#: What is written with one commit.
BATCH_ENTRIES = 500
BATCH_BYTES = 1 << 20

#: An entry this near to its end, in milliseconds, may have ended in one of the two databases already.
NEARLY_OVER = 1_000

Report = Callable[[int], None]


class Moved(Struct):
    """What came of it."""

    spaces: int = 0
    entries: int = 0
    #: Entries that were not there, or not like that
    written: int = 0
    #: Entries that were there and not in the source
    removed: int = 0
    #: Spaces that are not the same in both databases, as read back
    differences: list[Space] = msgspec.field(default_factory=list)


async def fill(source: Source, target: Engine, report: Report) -> Moved:
    """Make the target a copy of the source; both are left open. `report` counts every entry twice: moved, read back.

    Raises `Conflicting` if the target has data of its own, and whatever the engines raise; then call it again.
    """
    claimed = await copy_mark.claim(target, source.origin)
    moved = Moved()
    others = spaces_of(target)
    other = await anext(others, None)
    async for section in source.sections():
        if not await copy_mark.is_claimed(target, claimed):
            raise copy_mark.claim_lost()
        while other is not None and (section.space is SYSTEM or other.id < section.space.id):
            await target.end_space(other.id)
            other = await anext(others, None)
        if other is not None and other.id == section.space.id:
            other = await anext(others, None)
        await _move(section, target, report, moved)
    if not moved.differences:
        await copy_mark.complete(target, source.origin, claimed)
    return moved


async def _move(section: Section, target: Engine, report: Report, moved: Moved) -> None:
    space = section.space
    try:
        number = SYSTEM_SPACE if space is SYSTEM else (await _settle(target, space, section.aliases)).number
        await _bring(section.entries(), target, number, report, moved)
    except NotFound:
        pass  # it ended meanwhile, in one of the two: the checksums tell
    moved.spaces += space is not SYSTEM
    if await section.checksum() != await checksum_of(target, space.id, section.until, report) and not (
        space.expires_at is not None and space.expires_at <= target.clock() + NEARLY_OVER
    ):
        moved.differences.append(space)


async def _settle(target: Engine, space: Space, aliases: Sequence[Alias]) -> Space:
    """The target's own space of this ULID, with the same facts and aliases."""
    there = await target.get_space(space.id)
    if there is not None and _lasting(there) != _lasting(space):
        await target.end_space(space.id)
        there = None
    while True:
        if there is None:
            found = await target.create_space(space, aliases)
        else:
            had = await target.aliases(space.id)
            if there.name == space.name and had == sorted(aliases):
                return there
            altered = await target.alter_space(
                space.id, name=space.name, add=aliases, remove=[alias for alias in had if alias not in aliases]
            )
            if altered is None:
                raise NotFound("the space is gone")
            found = altered
        if found.id == space.id:
            return found
        # One of the aliases has changed hands in the source: its former space comes later, or is no more.
        await target.alter_space(found.id, remove=aliases)


def _lasting(space: Space) -> Space:
    """What never changes in a space's life."""
    return msgspec.structs.replace(space, number=0, name="")


async def _bring(given: AsyncIterator[Entry], target: Engine, number: int, report: Report, moved: Moved) -> None:
    """Walk both in creation order. What is only in the target goes; new entries always come at the end."""
    batch = _Batch(target, number, moved)
    there = entries_of(target, number)
    old = await anext(there, None)
    async for entry in given:
        while old is not None and not _same_place(old, entry) and not _nearly_over(entry, target.clock()):
            await batch.remove(old)
            old = await anext(there, None)
        if old is None:
            await batch.put(entry)
        elif _same_place(old, entry):
            if msgspec.structs.replace(old, sequence=entry.sequence) != entry:
                await batch.put(entry)
            old = await anext(there, None)
        moved.entries += 1
        report(1)
    while old is not None:
        await batch.remove(old)
        old = await anext(there, None)
    await batch.flush()


def _same_place(old: Entry, entry: Entry) -> bool:
    return old.key == entry.key and old.created_at == entry.created_at


def _nearly_over(entry: Entry, now: int) -> bool:
    return entry.expires_at is not None and entry.expires_at <= now + NEARLY_OVER


class _Batch:
    """Changes that wait for a commit. A key is removed before it is put, never the other way round."""

    def __init__(self, target: Engine, number: int, moved: Moved) -> None:
        self._target = target
        self._number = number
        self._moved = moved
        self._put: list[Entry] = []
        self._remove: list[bytes] = []
        self._size = 0

    async def put(self, entry: Entry) -> None:
        self._put.append(entry)
        self._moved.written += 1
        await self._grew(len(entry.value) + len(entry.metadata or b""))

    async def remove(self, entry: Entry) -> None:
        self._remove.append(entry.key)
        self._moved.removed += 1
        await self._grew(0)

    async def _grew(self, size: int) -> None:
        self._size += size
        if self._size >= BATCH_BYTES or len(self._put) + len(self._remove) >= BATCH_ENTRIES:
            await self.flush()

    async def flush(self) -> None:
        if self._remove:
            mutations = tuple([Delete(key) for key in self._remove])
            (outcome,) = await self._target.write([Write(self._number, mutations)])
            if isinstance(outcome, KvasirError):
                raise outcome
        if self._put:
            await self._target.load(self._number, self._put)
        self._put, self._remove, self._size = [], [], 0
