"""A clock that moves only when a test says so."""

from __future__ import annotations

#: 2025-06-15T15:06:40Z
START = 1_750_000_000_000


class ManualClock:
    """Unix milliseconds."""

    def __init__(self, now: int = START) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, milliseconds: int) -> None:
        self.now += milliseconds
