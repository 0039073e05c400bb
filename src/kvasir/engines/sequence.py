"""The clock and the numbers every engine hands out in the same way."""

from __future__ import annotations

import time


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
