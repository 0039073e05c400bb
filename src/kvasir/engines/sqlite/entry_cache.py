"""Entries that this process has read and that, as the seqlocks say, have not changed since: never stale.

A query takes two microseconds, but it also releases the interpreter's lock, and getting that back from a busy thread
takes several more. See docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from kvasir.engine import Clock
from kvasir.engines.sqlite.seqlocks import RANGES, SWEPT_UNTIL, Seqlocks, lock_of
from kvasir.model import Entry

#: At most this many entries, with values of at most this many bytes, which bounds the memory at 16 MiB.
ENTRIES = 4_096
VALUE_BYTES = 4_096


class Version(Struct, frozen=True, gc=False):
    """The seqlocks of one key at some moment: the key has not changed as long as they stay the same."""

    #: The index of the key's own seqlock
    lock: int
    counter: int
    #: The counter of `RANGES`
    ranges: int


class EntryCache:
    """Entries of one process by space and key, each with the version it was read at. For the event loop only."""

    def __init__(self, seqlocks: Seqlocks) -> None:
        self._counters = seqlocks.counters
        self._cached: dict[tuple[int, bytes], tuple[Version, Entry]] = {}

    def get(self, space: int, key: bytes, clock: Clock) -> Entry | None:
        """The entry, if it is cached, unchanged and alive. None says nothing about the database."""
        cached = self._cached.get((space, key))
        if cached is None:
            return None
        version, entry = cached
        expires_at = entry.expires_at
        counters = self._counters
        if expires_at is not None and (expires_at <= clock() or expires_at <= counters[SWEPT_UNTIL]):
            return None
        # Last, so that nothing has changed since the sweep's moment was looked at, either.
        if counters[version.lock] != version.counter or counters[RANGES] != version.ranges:
            return None
        return entry

    def get_all(self, space: int, keys: Sequence[bytes], now: int) -> list[Entry | None] | None:
        """The entries of all these keys as they are at one instant; None if one is not cached, unchanged and alive."""
        cached = self._cached
        counters = self._counters
        ranges = counters[RANGES]
        now = max(now, counters[SWEPT_UNTIL])
        entries: list[Entry | None] = []
        versions: list[Version] = []
        for key in keys:
            found = cached.get((space, key))
            if found is None:
                return None
            version, entry = found
            if counters[version.lock] != version.counter or version.ranges != ranges:
                return None
            if entry.expires_at is not None and entry.expires_at <= now:
                return None
            versions.append(version)
            entries.append(entry)
        # Each was true when it was looked at. If none has changed by now, all of them were true at this instant.
        for version in versions:
            if counters[version.lock] != version.counter:
                return None
        return entries if counters[RANGES] == ranges else None

    def version_before_read(self, space: int, key: bytes) -> Version:
        """The version that `put` needs. To be taken before the database is asked."""
        lock = lock_of(space, key)
        return Version(lock, self._counters[lock], self._counters[RANGES])

    def put(self, space: int, entry: Entry, version: Version) -> None:
        """Cache what the database gave, unless it is large or a commit was under way."""
        if (version.counter | version.ranges) & 1 or len(entry.value) > VALUE_BYTES:
            return
        if len(self._cached) >= ENTRIES:
            self._cached.clear()
        self._cached[space, entry.key] = version, entry
