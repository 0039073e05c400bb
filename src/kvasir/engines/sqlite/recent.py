"""Entries that were read a moment ago and, as the cells say, have not changed since: a copy that is never stale.

A query costs two microseconds, but it also lets go of the interpreter's lock, and to get it back from Granian's thread
costs several more. See docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvasir.engines.sqlite.cells import RANGES, SWEPT, Cells, cell_of
from kvasir.model import Entry

#: At most this many entries with values of at most this many bytes are kept, which bounds the memory at 16 MiB.
ENTRIES = 4_096
VALUE_BYTES = 4_096


class RecentEntries:
    """Entries of one process, by space and key."""

    def __init__(self, cells: Cells) -> None:
        self._numbers = cells.numbers
        self._kept: dict[tuple[int, bytes], tuple[int, int, int, Entry]] = {}

    def get(self, space: int, key: bytes, now: int) -> Entry | None:
        """The entry, if it is kept, unchanged and alive. None says nothing about the database."""
        kept = self._kept.get((space, key))
        if kept is None:
            return None
        cell, number, ranges, entry = kept
        expires_at = entry.expires_at
        if expires_at is not None and (expires_at <= now or expires_at <= self._numbers[SWEPT]):
            return None
        # Last, so that nothing has changed since the moment of the sweep was looked at, either.
        if self._numbers[cell] != number or self._numbers[RANGES] != ranges:
            return None
        return entry

    def get_all(self, space: int, keys: Sequence[bytes], now: int) -> list[Entry | None] | None:
        """The entries of all these keys as they are at one instant; None if one is not kept, unchanged and alive."""
        kept = [self._kept.get((space, key)) for key in keys]
        numbers = self._numbers
        ranges = numbers[RANGES]
        now = max(now, numbers[SWEPT])
        entries: list[Entry | None] = [
            one[3]
            for one in kept
            if one is not None
            and numbers[one[0]] == one[1]
            and ranges == one[2]
            and (one[3].expires_at is None or one[3].expires_at > now)
        ]
        if len(entries) < len(keys):
            return None
        # Each was true when it was looked at. If none has changed by now, all of them were true at this instant.
        for one in kept:
            if one is not None and numbers[one[0]] != one[1]:
                return None
        return entries if numbers[RANGES] == ranges else None

    def before_reading(self, space: int, key: bytes) -> tuple[int, int, int]:
        """What `keep` needs to know: the state of affairs before the database is asked."""
        cell = cell_of(space, key)
        return cell, self._numbers[cell], self._numbers[RANGES]

    def keep(self, space: int, entry: Entry, before: tuple[int, int, int]) -> None:
        """Remember what the database said, unless it is large or a commit was under way."""
        if (before[1] | before[2]) & 1 or len(entry.value) > VALUE_BYTES:
            return
        if len(self._kept) >= ENTRIES:
            self._kept.clear()
        self._kept[space, entry.key] = (*before, entry)
