"""The database's clock, as known to a process that asks the database every now and then."""

from __future__ import annotations

import time

from kvasir.engines.numbering import wall_clock


class ServerClock:
    """Unix milliseconds: what the database said last, plus the time since. Never ahead of the database."""

    def __init__(self) -> None:
        self._offset = wall_clock() - time.monotonic_ns() // 1_000_000

    def __call__(self) -> int:
        return time.monotonic_ns() // 1_000_000 + self._offset

    def observe(self, now: int) -> None:
        """The database has just said that it is `now`, or was when its answer was sent."""
        self._offset = now - time.monotonic_ns() // 1_000_000
