"""The outgoing side of one connection: what the client has still to take, and how the connection ends behind it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kvasir.limits import refused

if TYPE_CHECKING:
    from kvasir.listeners.http import HttpListener

#: Bytes of answers that a client must take within the time for it to count as one that reads.
PROGRESS_BYTES = 65_536

#: A connection that ends goes on reading for so long, since a client that still sends would not see the last answer.
LINGER_SECONDS, DRAINING_LINGER_SECONDS = 2.0, 0.5
LINGER_BYTES = 4 << 20

#: A long answer is written in pieces of so many bytes, as the client takes them: TLS encrypts a piece at a time, and
#: nothing of it is held twice.
PIECE_BYTES = 262_144


class Outgoing(asyncio.Protocol):
    """What connections of both versions of HTTP write by."""

    def __init__(self, listener: HttpListener, *, secure: bool) -> None:
        """`secure`: whether it is over TLS."""
        self._listener = listener
        self.secure = secure
        self._transport: Any = None
        #: `_crowded`: the transport holds so much that nothing more is to be answered now.
        #: `_resting`: it is not looked after until something is written.
        self._crowded = self._lingering = self._resting = False
        #: Bytes that came since the connection ends.
        self._passed_over = 0
        #: What is to be written of a long answer, all of which counts as unread until it is.
        self._unsent: memoryview = memoryview(b"")
        self._answer_bytes = self.unread = 0
        #: Bytes that were written, how many of them the client is still expected to take, and since when.
        self._written = self._expected = 0
        self._expected_since = listener.now

    def write(self, data: bytes | memoryview) -> None:
        """Send bytes; the loop sends what is written in one turn together."""
        if data and self._transport is not None:
            if self._resting:
                self._resting = False
                self._listener.joined(self)
            self._written += len(data)
            self._transport.write(data)

    def has_room(self, _request: object = None) -> bool:
        """Whether the client takes more of a streamed answer now."""
        return not self._crowded

    def soon(self, work: Callable[[], None]) -> None:
        """Have this done when others have had their turn."""
        asyncio.get_running_loop().call_soon(work)

    def write_long(self, body: bytes) -> None:
        """Begin to write a long answer; `write_on` goes on with it."""
        self._unsent, self._answer_bytes = memoryview(body), len(body)

    def write_on(self) -> bool:
        """Write a long answer as far as the client takes it; whether that is all of it."""
        while self._unsent and not self._crowded and self._transport is not None:
            piece, self._unsent = self._unsent[:PIECE_BYTES], self._unsent[PIECE_BYTES:]
            self.write(piece)
        if self._transport is None:
            return False
        self.count_unread(self._answer_bytes if self._unsent else 0)
        if not self._unsent:
            self._unsent = memoryview(b"")
        return not self._unsent

    def count_unread(self, size: int) -> None:
        """So many bytes of answers are in memory that the client has not taken."""
        self._listener.unread += size - self.unread
        self.unread = size

    def takes_nothing(self, now: float, unsent: int) -> bool:
        """Whether the client has taken too little for too long; `unsent`: bytes that are still to be written."""
        taken = self._written - self._transport.get_write_buffer_size()
        if taken >= self._expected:
            self._expected = min(self._written + unsent, taken + PROGRESS_BYTES)
            self._expected_since = now
        late = now - self._expected_since > self._listener.limits.unread_seconds
        if late:
            refused("unread_seconds")
        return late

    def notice_end(self) -> None:
        """Nothing is read of it: see whether the client has broken off, of which the event loop says nothing."""
        if self._transport is None or self._transport.is_closing():
            return  # there may be no socket any more
        if self._transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.abort()

    def linger(self) -> None:
        """End the connection, but give the client, which still sends, a moment to read what was written."""
        self._lingering = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        seconds = DRAINING_LINGER_SECONDS if self._listener.draining else LINGER_SECONDS
        asyncio.get_running_loop().call_later(seconds, self.close)

    def pass_over(self, size: int) -> None:
        """So many bytes have come that nobody reads, because the connection ends."""
        self._passed_over += size
        if self._passed_over > LINGER_BYTES:
            self.abort()

    def close(self) -> None:
        """Close it in good order."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Let go of the socket, whatever is still to be sent."""
        if self._transport is not None:
            self._transport.abort()
