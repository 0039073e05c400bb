"""How long messages of one connection are answered before others have their turn."""

from __future__ import annotations

import asyncio
import time
from collections import deque

#: All that is done for a connection in one round of the event loop, until a message ends.
SECONDS = 0.001
#: A reply of more bytes ends the turn, too.
LARGE_REPLY_BYTES = 65_536
#: Bytes of large replies in one round of the event loop, of all connections together; who comes then stands in line.
ROUND_BYTES = 1_048_576


class LargeReplies:
    """What all connections of a server send in large replies: these take milliseconds each to read and to send."""

    def __init__(self) -> None:
        #: Bytes in this round of the loop
        self._sent = 0
        self._line: deque[asyncio.Future[None]] = deque()
        self._next: asyncio.Handle | None = None

    def add(self, size: int) -> None:
        """A large reply has been made."""
        self._sent += size
        self._ask()

    @property
    def are_enough(self) -> bool:
        """Whether there have been enough in this round of the loop."""
        return self._sent >= ROUND_BYTES

    async def wait(self) -> None:
        """Stand in line for a turn in a later round."""
        place = asyncio.get_running_loop().create_future()
        self._line.append(place)
        self._ask()
        await place

    def _ask(self) -> None:
        if self._next is None:
            self._next = asyncio.get_running_loop().call_soon(self._next_round)

    def _next_round(self) -> None:
        self._sent, self._next = 0, None
        # The first in line has a turn in every round, whatever others do.
        while self._line:
            place = self._line.popleft()
            if not place.done():  # else the client has left
                place.set_result(None)
                break
        if self._line:
            self._ask()


class Turn:
    """A connection's turn."""

    __slots__ = ("_large", "until")

    def __init__(self, large: LargeReplies) -> None:
        #: When it is over, by `time.perf_counter`
        self.until = 0.0
        self._large = large

    def begin(self) -> None:
        """Begin a turn, which is over at once while there are enough large replies."""
        self.until = 0.0 if self._large.are_enough else time.perf_counter() + SECONDS

    def replied(self, frame: bytes) -> None:
        """A reply has been made."""
        if len(frame) > LARGE_REPLY_BYTES:
            self._large.add(len(frame))
            self.until = 0.0

    def is_over(self) -> bool:
        """Whether it is the turn of others."""
        return time.perf_counter() > self.until

    async def others(self) -> None:
        """Let others have their turn, then begin another."""
        if self._large.are_enough:
            await self._large.wait()
        else:
            await asyncio.sleep(0)
        self.begin()
