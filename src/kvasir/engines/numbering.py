"""The clock, and the numbers that every engine gives in the same way."""

from __future__ import annotations

import time
from collections.abc import Sequence

from kvasir.engine import LOADED_BELOW
from kvasir.errors import Invalid
from kvasir.keys import COUNTER_BITS, first_number_of
from kvasir.model import Entry


def wall_clock() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


def next_sequence(last: int, now: int) -> int:
    """The number after `last`: a hybrid clock, so that even a restored older copy never gives a number again.

    There are 2**20 numbers for each millisecond, and 63 bits last until the year 2248.
    """
    return max(last + 1, now << COUNTER_BITS)  # no call: every write asks


def first_sequence(created_from: int) -> int:
    """The lowest sequence that stands for this instant or a later one, held to 64 bits."""
    return max(-1 << 63, min(first_number_of(created_from), (1 << 63) - 1))


def check_room(entries: Sequence[Entry]) -> None:
    """Raises `Invalid` if the versionstamp or sequence of an entry to be loaded leaves no room for later numbers."""
    for entry in entries:
        if entry.versionstamp >= LOADED_BELOW or entry.sequence >= LOADED_BELOW:
            raise Invalid(
                f"the versionstamp {entry.versionstamp:020x} or sequence {entry.sequence} of an entry is 2^62 or more,"
                " which leaves no room for later numbers; nothing of its batch was loaded: lower the numbers"
            )
