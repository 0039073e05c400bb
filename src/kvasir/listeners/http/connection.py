"""One connection: which version of HTTP it speaks, the order of its answers, and how it ends. Owns the transport."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from kvasir.dialects.http import Response
from kvasir.listeners.http.http1 import CONTINUE, SLICE_BYTES, Http1, Refusal, render
from kvasir.listeners.http.http2 import PREFACE, Http2
from kvasir.listeners.http.request import DRAINED_BODIES, PROGRESS_BYTES, Request

if TYPE_CHECKING:
    from kvasir.listeners.http import HttpListener

#: Whole requests of one connection that wait for their turn; then nothing more is read.
PIPELINED = 16

#: Bytes of a body that nobody has asked for yet; then nothing more is read.
UNASKED_BYTES = 65_536

#: Answers longer than this do not wait for what else a read brings about.
TOGETHER_BYTES = 16_384

#: A connection that ends goes on reading for so long, since a client that still sends would not see the last answer.
LINGER_SECONDS = 2.0
LINGER_BYTES = 4 << 20


class Connection(asyncio.Protocol):
    """One client. The requests of HTTP/1.1 are answered one by one here; those of HTTP/2 by `Http2`."""

    def __init__(self, listener: HttpListener) -> None:
        self._listener = listener
        self._transport: Any = None
        self._http1: Http1 | None = None
        self._http2: Http2 | None = None
        #: Bytes that were read and not yet taken in.
        self._rest = b""
        self._out: list[bytes] = []
        self._reading = True
        self._feeding = self._advancing = self._eof = self._lingering = False
        self._queue: deque[Request] = deque()
        self._current: Request | None = None
        self._refusal: Refusal | None = None
        #: When something came last, when the head that is coming in began, and since when nothing can be written.
        self._since = listener.now
        self._head_since: float | None = None
        self._stuck_since: float | None = None
        #: Bytes that a client has not read at that time; of a connection that ends, those that still came.
        self._unread = 0

    # -- the transport calls ------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._listener.joined(self)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            self._http2 = Http2(self._listener, self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        self._queue.clear()
        self._rest = b""
        self._listener.left(self)
        if self._http2 is not None:
            self._http2.lost()
        elif self._http1 is not None and self._http1.receiving is not None:
            self._http1.receiving.cut_off()

    def data_received(self, data: bytes) -> None:
        self._since = self._listener.now
        if self._lingering:
            self._unread += len(data)
            if self._unread > LINGER_BYTES:
                self.abort()
            return
        if self._http1 is None and self._http2 is None:
            data, self._rest = self._rest + data, b""
            if not PREFACE.startswith(data[: len(PREFACE)]):
                self._http1 = Http1(self, self._listener.limits)
            elif len(data) < len(PREFACE):
                self._rest = data
                return
            else:
                self._http2 = Http2(self._listener, self)
        self._feeding = True
        if self._http1 is not None:
            self._feed(self._http1, data)
        elif self._http2 is not None:
            self._http2.feed(data)
        self._feeding = False
        if self._out:
            self._flush()

    def eof_received(self) -> bool:
        """Whether the transport stays open: what was begun is still answered."""
        self._eof = True
        if self._http1 is None:
            return False
        if self._http1.receiving is not None:
            self._http1.receiving.cut_off()
        return self._current is not None or bool(self._queue)

    def pause_writing(self) -> None:
        self._stuck_since = self._listener.now
        self._unread = self._transport.get_write_buffer_size()
        self._read_on()

    def resume_writing(self) -> None:
        self._stuck_since = None
        self._go_on()

    # -- HTTP/1.1 -----------------------------------------------------------------------------------------

    def _feed(self, http: Http1, data: bytes) -> None:
        try:
            while data and not http.ended:
                if len(self._queue) >= PIPELINED:
                    self._rest = data
                    break
                http.feed(data[:SLICE_BYTES] if len(data) > SLICE_BYTES else data)
                data = data[SLICE_BYTES:]
        except Refusal as refusal:
            http.ended = True
            self._refusal = refusal
            if http.receiving is not None:
                http.receiving.cut_off()
        receiving = http.receiving
        if receiving is not None:
            if not receiving.begun:
                self._begin(receiving)
            if receiving.received > UNASKED_BYTES:
                self._read_on()
                if receiving.received > DRAINED_BODIES * self._listener.limits.body_bytes:
                    self._finish()
        self._head_since = (self._head_since or self._listener.now) if http.in_head else None
        if self._refusal is not None or self._rest:
            self._go_on()

    def make(self, method: str, target: bytes, headers: dict[bytes, bytes], declared: int | None) -> Request:
        """See `Receiver`."""
        return self._listener.make(self, method, target, headers, declared)

    def received(self, request: Request) -> None:
        """See `Receiver`."""
        if not request.begun:
            self._begin(request)

    def _begin(self, request: Request) -> None:
        request.begun = True
        if self._current is None and not self._queue and self._stuck_since is None:
            self._current = request
            self._listener.handle(request)
        else:
            self._queue.append(request)

    def wanted(self, request: Request) -> None:
        """The body is waited for: go on reading; tell a client that expects it so to send it."""
        if self._http2 is not None:
            self._http2.wanted(request)
            return
        if not request.received and (request.header("expect") or "").lower() == "100-continue":
            self.write(CONTINUE)
        self._read_on()

    def answer(self, request: Request, response: Response) -> None:
        """Send the answer to a request; of HTTP/1.1, to the one whose turn it is."""
        if self._http2 is not None:
            self._http2.answer(request, response)
            return
        self._current = None
        if self._transport is None:
            return
        close = not request.keep_alive or self._eof or self._listener.draining
        if not request.complete:
            request.drop()
            close = close or (request.declared or 0) > DRAINED_BODIES * self._listener.limits.body_bytes
            # A client that waits to be told to send must not be taken for one that has sent.
            close = close or (request.header("expect") is not None and not request.received)
        self.write(render(response, request.id, self._listener.date, body=not request.is_head, close=close))
        if close:
            self._finish()
        elif (self._queue or not self._feeding) and not self._advancing:
            self._go_on()

    def _go_on(self) -> None:
        """Handle what waits for its turn; take in what was read meanwhile."""
        self._advancing = True
        while self._current is None and self._stuck_since is None and self._transport is not None:
            if self._queue:
                request = self._current = self._queue.popleft()
                self._listener.handle(request)
            elif self._rest and not self._feeding and self._http1 is not None:
                data, self._rest = self._rest, b""
                self._feeding = True
                self._feed(self._http1, data)
                self._feeding = False
            else:
                if self._refusal is not None:
                    self._refuse(self._refusal)
                break
        self._advancing = False
        if not self._feeding:
            self._flush()
        self._read_on()

    def _refuse(self, refusal: Refusal) -> None:
        self._refusal = None
        body = {"code": "invalid", "message": refusal.message, "details": "Correct the request, then send it again."}
        response = Response(refusal.status, msgspec.json.encode(body), "")
        self.write(render(response, "-", self._listener.date, body=True, close=True))
        self._finish()

    def _read_on(self) -> None:
        """Read exactly while what comes has a place."""
        receiving = self._http1.receiving if self._http1 is not None else None
        crowded = self._stuck_since is not None or bool(self._rest and self._http1)
        if receiving is not None and receiving.received > UNASKED_BYTES:
            crowded = crowded or not (receiving.is_awaited or receiving.dropping)
        reading = self._lingering or not crowded
        if reading != self._reading and self._transport is not None:
            self._reading = reading
            (self._transport.resume_reading if reading else self._transport.pause_reading)()

    # -- writing, and the end -----------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes, together with whatever else this read brings about."""
        if self._feeding:
            self._out.append(data)
            if len(data) > TOGETHER_BYTES:
                self._flush()
        elif self._transport is not None:
            self._transport.write(data)

    def _flush(self) -> None:
        out = self._out
        if out and self._transport is not None:
            self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()

    def _finish(self) -> None:
        """End the connection behind the last answer; a client that still sends is given a moment to read it."""
        if self._transport is None or self._lingering:
            return
        self._queue.clear()
        self._rest = b""
        if self._http1 is not None and self._http1.receiving is None and self._reading:
            self.close()
            return
        self._flush()
        self._lingering = True
        self._unread = 0
        self._since = self._listener.now
        with contextlib.suppress(OSError):  # it is gone already
            if self._transport.can_write_eof():
                self._transport.write_eof()
        self._read_on()

    def close(self) -> None:
        """Close it in good order."""
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def abort(self) -> None:
        """Let go of the socket, whatever is still to be sent."""
        if self._transport is not None:
            self._transport.abort()

    def drain(self) -> None:
        """The server stops: end what has no whole request, let the rest be answered."""
        if self._http2 is not None:
            self._http2.drain()
        elif self._current is None and not self._queue:
            self.close()

    def look_after(self, now: float) -> None:
        """Once in a while: end what takes too long."""
        limits = self._listener.limits
        if self._lingering:
            if now - self._since > LINGER_SECONDS:
                self.abort()
        elif self._stuck_since is not None:
            unread = self._transport.get_write_buffer_size()
            if unread <= self._unread - PROGRESS_BYTES:
                self._stuck_since, self._unread = now, unread
            elif now - self._stuck_since > limits.unread_seconds:
                self.abort()
        elif self._http2 is not None:
            self._http2.look_after(now, idle=now - self._since > limits.idle_seconds)
        elif self._current is None and not self._queue:
            self._look_after_next(now)

    def _look_after_next(self, now: float) -> None:
        """Nothing is to be answered: how long the next request, or the rest of the last one, takes to come."""
        limits = self._listener.limits
        receiving = self._http1.receiving if self._http1 is not None else None
        if self._head_since is not None:
            if now - self._head_since > limits.head_seconds:
                self._refuse(Refusal(408, f"the head of the request was not there within {limits.head_seconds:g} s"))
        elif receiving is not None:
            if now - receiving.began > limits.body_seconds:
                self._finish()
        elif now - self._since > limits.idle_seconds:
            self.close()
