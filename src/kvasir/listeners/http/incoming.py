"""The incoming side of one connection: what was read, how much of it is taken in at a time, and when more is read."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from kvasir.dialects.rounds import rounds
from kvasir.listeners.http.http1 import Http1
from kvasir.listeners.http.http2 import Http2
from kvasir.listeners.http.outgoing import Outgoing
from kvasir.listeners.http.request import Request

if TYPE_CHECKING:
    from kvasir.listeners.http import HttpListener

#: Bytes that are parsed at a time, which bounds the requests of one connection that wait for their turn; fewer of
#: HTTP/2, where a frame of some ten bytes takes as long to parse as a head of hundreds.
SLICE_BYTES, FRAMES_BYTES = 16_384, 4_096

#: While a request is answered, so much more is read, to notice whether the client leaves.
AHEAD_BYTES = 65_536
#: An answer of RFC 9110, section 15.2, that says nothing: the real one follows (RFC 2518, section 10.1).
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"


class Incoming(Outgoing):
    """What connections of both versions of HTTP take in what was read by."""

    def __init__(self, listener: HttpListener, *, secure: bool) -> None:
        super().__init__(listener, secure=secure)
        self._http1 = Http1(listener, self)
        self._http2: Http2 | None = None
        #: What was read and not yet taken in, and its bytes
        self._rest: deque[bytes | memoryview] = deque()
        self._rest_bytes = 0
        #: The request of HTTP/1.1 that is being answered.
        self._current: Request | None = None
        self._reading = True
        self._going_on = self._in_line = False
        self._rounds = rounds()

    def _go_on(self) -> None:
        """Take in what was read and handle it, as far as it goes; what takes longer waits for its turn."""
        if not (self._going_on or self._in_line):
            self._go_on_until(self._rounds.begin())

    def _go_on_until(self, end: float) -> None:
        self._going_on, self._in_line = True, not end
        while not (self._in_line or self._crowded or self._lingering) and self._transport is not None and self._step():
            self._in_line = time.perf_counter() >= end
        if self._in_line:
            self._rounds.line_up(self._go_on_until)
        self._going_on = False
        self._read_on()

    def _step(self) -> bool:
        """Parse a piece of what was read and handle a request; whether there was anything to do."""
        if self._http2 is not None:
            return self._step2(self._http2)
        http = self._http1
        does = bool(self._rest) and (not http.requests if self._current is None else http.receiving is not None)
        if does:
            http.feed(self._slice(SLICE_BYTES))
            if http.receiving is not None and http.receiving.is_endless:
                self.finish()
        if self._current is not None:
            return does
        if http.requests:
            self._current = http.requests.popleft()
            self._listener.handle(self._current)
            return True
        if http.refusal is not None and not does:
            self._told_why(*http.refusal)
        return does

    def _step2(self, http: Http2) -> bool:
        # Requests are handled when all that was read is parsed: some may have been taken back.
        if self._rest:
            http.feed(self._slice(FRAMES_BYTES))
        elif http.requests:
            http.handle_next()
        else:
            return False
        return True

    def _slice(self, size: int) -> bytes | memoryview:
        data = self._rest.popleft()
        if len(data) > size:
            self._rest.appendleft(memoryview(data)[size:])
            data = memoryview(data)[:size]
        self._rest_bytes -= len(data)
        return data

    def wanted(self, request: Request) -> None:
        """The body is waited for: go on reading; tell a client that expects it so to send it."""
        if not request.received and (request.header("expect") or "").lower() == "100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._read_on()

    def _read_on(self) -> None:
        """Read exactly while what comes has a place."""
        receiving = self._http1.receiving
        unasked = receiving is not None and receiving.is_unasked
        ahead = self._rest_bytes > (0 if self._current is None else AHEAD_BYTES)
        reading = self._lingering or not (ahead or self._in_line or self._crowded or unasked)
        if reading != self._reading and self._transport is not None:
            self._reading = reading
            (self._listener.paused.discard if reading else self._listener.paused.add)(self)
            (self._transport.resume_reading if reading else self._transport.pause_reading)()

    def notice_end(self) -> None:
        """TCP tells of an end in good order only behind what was sent before it, unless something is sent to who left.

        So something is, while a request that only reads takes long and nothing of its answer has been sent. But only to
        who has sent another behind it: some clients, Python's own among them, take any status but 100 for the answer.
        """
        super().notice_end()
        waits = self._current is not None and self._current.is_slow(self._listener.now) and not self._unsent
        takes = not self._crowded and self._transport is not None and not self._transport.is_closing()
        http, receiving = self._http1, self._http1.receiving
        behind = http.requests or (self._rest if receiving is None else receiving is not self._current)
        if waits and takes and behind:
            self._transport.write(PROCESSING)

    def _told_why(self, status: int, message: str) -> None:
        """Answer what is no request, and end."""
        raise NotImplementedError

    def finish(self) -> None:
        """End the connection behind the last answer."""
        raise NotImplementedError
