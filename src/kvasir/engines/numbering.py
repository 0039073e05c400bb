"""The clock and the numbers every engine hands out in the same way."""

from __future__ import annotations

import time
from collections.abc import Sequence

from kvasir.errors import Invalid
from kvasir.model import Entry

#: What is loaded must have lower numbers, since all that is written afterwards gets higher ones: half of those that 63
#: bits have room for. The clock comes here in the year 2109.
LOADED_BELOW = 1 << 62


def wall_clock() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


def next_sequence(last: int, now: int) -> int:
    """The number after `last`: a hybrid clock, so that even a restored older copy never gives a number again.

    Milliseconds in the upper bits leave 2**20 numbers for each, and 63 bits last until the year 2248.
    """
    return max(last + 1, now << 20)


def first_sequence(created_from: int) -> int:
    """The lowest sequence that says this instant or a later one; the highest there is if none does."""
    return max(-1 << 63, min(created_from << 20, (1 << 63) - 1))


def check_room(entries: Sequence[Entry]) -> None:
    """Raises `Invalid` if the versionstamp or sequence of an entry to be loaded leaves no room for later numbers."""
    for entry in entries:
        if entry.versionstamp >= LOADED_BELOW or entry.sequence >= LOADED_BELOW:
            raise Invalid(
                f"the versionstamp {entry.versionstamp:020x} or sequence {entry.sequence} of an entry is 2^62 or more,"
                " which leaves no room for later ones; nothing of its batch was loaded: give the entries lower numbers"
            )
