"""What bounds a page or a batch besides a number of entries. Pure."""

from __future__ import annotations

from kvasir.errors import Unavailable
from kvasir.model import Entry

#: A batch of a scan ends before its values have more bytes than this in all.
SCAN_BYTES = 1 << 20
#: And once it has so many entries.
SCAN_ENTRIES = 500


def within_bytes(entries: list[Entry], max_bytes: int | None) -> list[Entry]:
    """As many of the first entries as have values of so many bytes in all, but at least one."""
    if max_bytes is None:
        return entries
    for index, entry in enumerate(entries):
        max_bytes -= len(entry.value)
        if max_bytes < 0 and index:
            return entries[:index]
    return entries


def snapshot_ended(why: str) -> Unavailable:
    """The failure of a scan whose snapshot was let go."""
    return Unavailable(f"the snapshot was given up: {why}; begin again", code="snapshot_ended")
