"""Makes a database hold exactly what a source gives, and proves it by reading it back.

It compares before it writes. So it can continue after an interruption, and a second run writes only what has changed.
A mark in the system space says which source the database is a copy of (see `control.copy_mark`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec
from msgspec import Struct

from kvasir.control import copy_mark
from kvasir.engine import Engine
from kvasir.errors import KvasirError, NotFound, Unavailable, UnknownOutcome
from kvasir.model import SYSTEM_SPACE, Alias, Delete, Entry, Space, Write
from kvasir.transfer.source import SYSTEM, OnEntries, Section, Source, checksum_of, entries_of, spaces_of

#: What is written with one commit.
BATCH_ENTRIES = 500
BATCH_BYTES = 1 << 20

#: Milliseconds: what expires within this time may have expired already in one of the two databases.
EXPIRING_NOW_MS = 1_000


class Report(Struct):
    """What a transfer did."""

    spaces: int = 0
    entries: int = 0
    #: Entries that were missing from the target or different there
    written: int = 0
    #: Entries that were in the target and not in the source
    removed: int = 0
    #: Spaces that turned out not to be the same in both databases
    differences: list[Space] = msgspec.field(default_factory=list)


async def fill(source: Source, target: Engine, on_entries: OnEntries) -> Report:
    """Make the target a copy of the source; both are left open.

    `on_entries` counts every entry twice: when it is transferred and when it is read back. Raises `Conflicting` if the
    target has data of its own, and whatever the engines raise; then call it again.
    """
    claim = await copy_mark.claim(target, source.origin)
    try:
        return await _fill_claimed(source, target, claim, on_entries)
    except (Unavailable, UnknownOutcome) as error:
        raise _broken_off(error) from None


async def _fill_claimed(source: Source, target: Engine, claim: int, on_entries: OnEntries) -> Report:
    report = Report()
    existing_spaces = spaces_of(target)
    existing = await anext(existing_spaces, None)
    async for section in source.sections():
        if not await copy_mark.is_claimed(target, claim):
            raise copy_mark.claim_lost()
        while existing is not None and (section.space is SYSTEM or existing.id < section.space.id):
            await target.end_space(existing.id)
            existing = await anext(existing_spaces, None)
        if existing is not None and existing.id == section.space.id:
            existing = await anext(existing_spaces, None)
        await _sync_space(section, target, on_entries, report)
    if not report.differences:
        await copy_mark.complete(target, source.origin, claim)
    return report


def _broken_off(error: KvasirError) -> Unavailable:
    # What an engine adds is meant for a client: that nothing of this one write was written.
    why = error.message.partition("; nothing ")[0]
    # The outcome that is unknown may be that of the last write, which makes it complete.
    found = "may be incomplete" if isinstance(error, UnknownOutcome) else "is incomplete"
    return Unavailable(
        f"{why}. The target database {found}, and nothing uses it before it is whole: run the same command again"
        " when that is mended, and it carries on, or remove that database"
    )


async def _sync_space(section: Section, target: Engine, on_entries: OnEntries, report: Report) -> None:
    space = section.space
    try:
        number = SYSTEM_SPACE if space is SYSTEM else (await reconcile_space(target, space, section.aliases)).number
        await sync_entries(section.entries(), target, number, on_entries, report)
    except NotFound:
        pass  # it has ended in one of the two since: the checksums tell
    report.spaces += space is not SYSTEM
    if await section.checksum() != await checksum_of(target, space.id, section.until, on_entries) and not (
        space.expires_at is not None and space.expires_at <= target.clock() + EXPIRING_NOW_MS
    ):
        report.differences.append(space)


async def reconcile_space(target: Engine, space: Space, aliases: Sequence[Alias]) -> Space:
    """The target's space with this ULID, given the same attributes and aliases. Raises `NotFound` if it has ended."""
    existing = await target.get_space(space.id)
    if existing is not None and _unchanging(existing) != _unchanging(space):
        await target.end_space(space.id)
        existing = None
    while True:
        if existing is None:
            found = await target.create_space(space, aliases)
        else:
            former = await target.aliases(space.id)
            if existing.name == space.name and former == sorted(aliases):
                return existing
            altered = await target.alter_space(
                space.id, name=space.name, add=aliases, remove=[alias for alias in former if alias not in aliases]
            )
            if altered is None:
                raise NotFound("the space has ended")
            found = altered
        if found.id == space.id:
            return found
        # One of the aliases has moved in the source: the space that had it comes later, or has ended.
        await target.alter_space(found.id, remove=aliases)


def _unchanging(space: Space) -> Space:
    """What stays the same throughout a space's life."""
    return msgspec.structs.replace(space, number=0, name="")


async def sync_entries(
    entries: AsyncIterator[Entry], target: Engine, number: int, on_entries: OnEntries, report: Report
) -> None:
    """Walk both in creation order. What is only in the target is removed; new entries always come at the end."""
    batch = _Batch(target, number, report)
    existing_entries = entries_of(target, number)
    existing = await anext(existing_entries, None)
    async for entry in entries:
        while existing is not None and not _is_same(existing, entry) and not _expires_now(entry, target.clock()):
            await batch.remove(existing)
            existing = await anext(existing_entries, None)
        if existing is None:
            await batch.put(entry)
        elif _is_same(existing, entry):
            if msgspec.structs.replace(existing, sequence=entry.sequence) != entry:
                await batch.put(entry)
            existing = await anext(existing_entries, None)
        report.entries += 1
        on_entries(1)
    while existing is not None:
        await batch.remove(existing)
        existing = await anext(existing_entries, None)
    await batch.flush()


def _is_same(existing: Entry, entry: Entry) -> bool:
    """Whether both are the same key since it was created, whatever its value."""
    return existing.key == entry.key and existing.created_at == entry.created_at


def _expires_now(entry: Entry, now: int) -> bool:
    return entry.expires_at is not None and entry.expires_at <= now + EXPIRING_NOW_MS


class _Batch:
    """Changes awaiting a commit. A key is removed before it is put, never the other way round."""

    def __init__(self, target: Engine, number: int, report: Report) -> None:
        self._target = target
        self._number = number
        self._report = report
        self._puts: list[Entry] = []
        self._removals: list[bytes] = []
        self._size = 0

    async def put(self, entry: Entry) -> None:
        self._puts.append(entry)
        self._report.written += 1
        await self._flush_if_full(len(entry.value) + len(entry.metadata or b""))

    async def remove(self, entry: Entry) -> None:
        self._removals.append(entry.key)
        self._report.removed += 1
        await self._flush_if_full(0)

    async def _flush_if_full(self, added_bytes: int) -> None:
        self._size += added_bytes
        if self._size >= BATCH_BYTES or len(self._puts) + len(self._removals) >= BATCH_ENTRIES:
            await self.flush()

    async def flush(self) -> None:
        if self._removals:
            mutations = tuple([Delete(key) for key in self._removals])
            (outcome,) = await self._target.write([Write(self._number, mutations)])
            if isinstance(outcome, KvasirError):
                raise outcome
        if self._puts:
            await self._target.load(self._number, self._puts)
        self._puts, self._removals, self._size = [], [], 0
