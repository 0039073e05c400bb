"""Who goes on with what came together, and for how long, before others have their turn. Pure asyncio.

All connections share a few milliseconds of each round of the event loop; who comes when they are spent waits for the
next. With a budget for each, a round would be as long as there are connections.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

#: What all have together in one round of the loop, and what one of them has while others stand in line.
ROUND_SECONDS, SHARE_SECONDS = 0.008, 0.001


class Rounds:
    """Those of one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._line: deque[Callable[[float], None]] = deque()
        #: When the budget ends, and whether the loop will say that it has had a turn.
        self._ends, self._asked = 0.0, False

    def begin(self) -> float:
        """Until when, by `time.perf_counter`, the caller may go on in this round; 0 if not at all."""
        now = time.perf_counter()
        if now >= self._ends:
            # To ask the loop costs it a turn, so it is asked once a budget is spent. If nobody began anything for as
            # long as a round, it has surely had one.
            if self._asked or 0 < now - self._ends < ROUND_SECONDS:
                self._ask()
                return 0.0
            self._ends = now + ROUND_SECONDS
        return min(self._ends, now + SHARE_SECONDS) if self._line else self._ends

    def line_up(self, work: Callable[[float], None]) -> None:
        """Have this called, with what `begin` returns, when all those who stand in line have had their turn."""
        self._line.append(work)
        self._ask()

    def _ask(self) -> None:
        if not self._asked:
            self._asked = True
            self.loop.call_soon(self._next_round)

    def _next_round(self) -> None:
        self._asked = False
        self._ends = time.perf_counter() + ROUND_SECONDS
        while self._line and (end := self.begin()):
            self._line.popleft()(end)
        if self._line:
            self._ask()


_latest: Rounds | None = None


def rounds() -> Rounds:
    """Those of the running loop, of which a process has one."""
    global _latest  # noqa: PLW0603
    loop = asyncio.get_running_loop()
    if _latest is None or _latest.loop is not loop:
        _latest = Rounds(loop)
    return _latest
