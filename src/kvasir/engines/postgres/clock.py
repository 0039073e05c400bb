"""The database's clock, as a process knows it that asks the database every now and then."""

from __future__ import annotations

import time

from kvasir.engines.numbering import wall_clock


class ServerClock:
    """Unix milliseconds: what the database said last, and the time since. Never ahead of it."""

    def __init__(self) -> None:
        self._ahead = wall_clock() - time.monotonic_ns() // 1_000_000

    def __call__(self) -> int:
        return time.monotonic_ns() // 1_000_000 + self._ahead

    def heard(self, now: int) -> None:
        """The database has just said that it is `now`, or was when its answer set out."""
        self._ahead = now - time.monotonic_ns() // 1_000_000
