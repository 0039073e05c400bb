"""Which entries a condition, a range or a listing means. Pure."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from typing import Any

import msgspec

from kvasir.engines.paging import SCAN_ENTRIES
from kvasir.keys import child_of, under
from kvasir.model import Check, Child, Children, DeleteRange, Entry, KeyRange, Query, Unmet, Write

#: How long a listing holds the event loop before others have their turn.
STEP_SECONDS = 0.002


class Entries(dict[bytes, Entry]):
    """The entries of a space, whose keys in their order are kept until there is one more or less.

    To replace one that is there is the dictionary's own work, and so as fast.
    """

    _sorted: list[bytes] | None = None

    def reorder(self) -> None:
        """A key has been added, or will be."""
        self._sorted = None

    def __delitem__(self, key: bytes) -> None:
        self._sorted = None
        super().__delitem__(key)

    def discard(self, key: bytes) -> None:
        """Remove the entry of a key, if there is one."""
        if key in self:
            del self[key]

    def copy(self) -> Entries:
        """The same entries, in a table of their own."""
        return Entries(self)

    def in_order(self) -> list[bytes]:
        """All keys, expired ones among them, sorted."""
        if self._sorted is None:
            self._sorted = sorted(self)
        return self._sorted


def living(entries: dict[bytes, Entry], key: bytes, now: int) -> Entry | None:
    """The entry of a key unless it is absent or has expired."""
    entry = entries.get(key)
    return None if entry is None or expired(entry.expires_at, now) else entry


def expired(expires_at: int | None, now: int) -> bool:
    """Whether this instant has been reached."""
    return expires_at is not None and expires_at <= now


def count_expired(entries: Mapping[int, Mapping[bytes, Entry]], now: Callable[[int], int]) -> int:
    """How many entries await the sweep, of all spaces by their numbers."""
    return sum(expired(entry.expires_at, now(number)) for number, all in entries.items() for entry in all.values())


def remove_expired(entries: dict[bytes, Entry], now: int) -> int:
    """Remove the entries of a space that have expired; how many there were."""
    gone = [key for key, entry in entries.items() if expired(entry.expires_at, now)]
    for key in gone:
        del entries[key]
    return len(gone)


def not_later(new: int | None, old: int | None) -> bool:
    """Whether a new end of life would extend nothing."""
    return old is None or (new is not None and new <= old)


def in_range(key: bytes, range: KeyRange | None) -> bool:
    """Whether the range has the key."""
    return range is None or range.start <= key < range.end


def bounds(range: KeyRange | None) -> tuple[bytes, bytes]:
    """The start and the end of a range."""
    return (b"", b"\xff") if range is None else (range.start, range.end)


def all_unmet(entries: dict[bytes, Entry], write: Write, now: int) -> list[Unmet]:
    """The conditions of a write that are not met."""
    unmet: list[Unmet] = []
    for condition in write.conditions:
        entry = living(entries, condition.key, now)
        actual = entry.versionstamp if entry else None
        if not (actual == condition.versionstamp if isinstance(condition, Check) else entry):
            unmet.append(Unmet(condition, actual))
    for mutation in write.mutations:
        if mutation.__class__ is DeleteRange and mutation.expect is not None:
            count = sum(1 for key in entries if in_range(key, mutation.range) and living(entries, key, now))
            if count != mutation.expect:
                unmet.append(Unmet(mutation, count=count))
    return unmet


def position_of(query: Query) -> Callable[[Entry], Any]:
    """What `after`, `before` and the order of a query compare: sequences or keys."""
    return (lambda entry: entry.key) if query.order == "key" else (lambda entry: entry.sequence)


def beyond(position: Any, at: Any, *, newest: bool) -> bool:
    """Whether a position lies behind another in the order of a listing."""
    if position is None or at is None:
        return True
    return bool(position < at if newest else position > at)


def is_created_within(entry: Entry, query: Query) -> bool:
    """Whether the entry passes the filter by created_at."""
    if query.created_from is not None and entry.created_at < query.created_from:
        return False
    return query.created_to is None or entry.created_at <= query.created_to


async def in_steps(entries: Iterable[Entry]) -> AsyncIterator[Entry]:
    """The entries; others have their turn on the event loop every few milliseconds."""
    began = time.perf_counter()
    for entry in entries:
        if time.perf_counter() - began > STEP_SECONDS:
            await asyncio.sleep(0)
            began = time.perf_counter()
        yield entry


async def scanned(entries: Callable[[], Iterable[Entry]], range: KeyRange | None) -> AsyncGenerator[list[Entry], None]:
    """Those in the range in key order, a batch at a time."""
    found = sorted([entry for entry in entries() if in_range(entry.key, range)], key=lambda entry: entry.key)
    while found:
        yield found[:SCAN_ENTRIES]
        del found[:SCAN_ENTRIES]


def listed(entry: Entry, query: Query) -> Entry:
    """The entry as the listing gives it."""
    return entry if query.values else msgspec.structs.replace(entry, value=b"")


def children_among(entries: Entries, prefix: bytes, after: bytes | None, limit: int | None, now: int) -> Children:
    """The children of a prefix: from the first key of one to the first one behind it, by bisection."""
    keys, found = entries.in_order(), list[Child]()
    at, end = bisect_right(keys, prefix), bisect_left(keys, under(prefix).end)
    while at < end and (limit is None or len(found) <= limit):
        child = child_of(prefix, keys[at])
        behind = bisect_left(keys, under(child).end, at)
        if after is None or under(child).end > after:
            entry = living(entries, child, now) is not None
            first = at + 1 if keys[at] == child else at
            below = any(living(entries, keys[n], now) for n in range(first, behind))
            if entry or below:
                found.append(Child(child, entry, below))
        at = behind
    page = found if limit is None else found[:limit]
    return Children(page, under(page[-1].key).end if page and len(page) < len(found) else None)
