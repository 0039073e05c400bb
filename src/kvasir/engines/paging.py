"""What bounds a page or a batch besides a number of entries. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from kvasir.errors import Unavailable
from kvasir.model import Entry

T = TypeVar("T")

#: A batch of a scan ends before its values have more bytes than this in all.
SCAN_BYTES = 1 << 20
#: And once it has so many entries.
SCAN_ENTRIES = 2_000


def within_bytes(items: list[T], max_bytes: int | None, size: Callable[[T], int]) -> list[T]:
    """As many of the first items as have so many bytes in all, but at least one; `size`: how many one of them has."""
    if max_bytes is None:
        return items
    for index, item in enumerate(items):
        max_bytes -= size(item)
        if max_bytes < 0 and index:
            return items[:index]
    return items


def size_of(entry: Entry) -> int:
    """Bytes of an entry that a page counts."""
    return len(entry.key) + len(entry.value) + len(entry.metadata or b"")


def snapshot_ended(why: str) -> Unavailable:
    """The failure of a scan whose snapshot was let go."""
    return Unavailable(f"the snapshot was given up: {why}; begin again", code="snapshot_ended")
