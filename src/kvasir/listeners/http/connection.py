"""One connection: which version of HTTP it speaks, the order of its answers, and how it ends. Owns the transport."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec

from kvasir.dialects.http import BODILESS, Response, Stream
from kvasir.listeners.http.heads import refusal
from kvasir.listeners.http.http2 import PREFACE, Http2
from kvasir.listeners.http.incoming import Incoming
from kvasir.listeners.http.outgoing import PIECE_BYTES
from kvasir.listeners.http.request import COUNTED_BYTES, Request

if TYPE_CHECKING:
    from kvasir.listeners.http import HttpListener

#: A client that has closed its side may still read, so what only reads has this long to end.
LEAVING_SECONDS = 0.5

_CHUNKED = ("transfer-encoding", "chunked")

_heads: dict[tuple[int, str], bytes] = {}


def _lines(headers: tuple[tuple[str, str], ...]) -> bytes:
    return "".join([f"{name}: {value}\r\n" for name, value in headers]).encode("latin-1")


_usual = lru_cache(4_096)(_lines)


def render(response: Response, request_id: str, date: bytes, *, body: bool, close: bool) -> bytes:
    """A response of HTTP/1.1. Without `body` it is that of a HEAD request: the length, and nothing else."""
    head = _heads.get((response.status, response.content_type))
    if head is None:
        head = f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n".encode()
        head += f"content-type: {response.content_type}\r\n".encode("latin-1")
        _heads[response.status, response.content_type] = head
    more = b"connection: close\r\n" if close else b""
    if response.usual:
        more = _usual(response.usual) + more
    if response.headers:
        more = _lines(response.headers) + more
    if response.status in BODILESS or response.__class__ is Stream:
        return b"%bdate: %b\r\nx-request-id: %b\r\n%b\r\n" % (head, date, request_id.encode(), more)
    facts = head, date, request_id.encode(), len(response.body), more, response.body if body else b""
    return b"%bdate: %b\r\nx-request-id: %b\r\ncontent-length: %d\r\n%b\r\n%b" % facts


class Connection(Incoming):
    """One client. The requests of HTTP/1.1 are answered one by one here; those of HTTP/2 by `Http2`."""

    def __init__(self, listener: HttpListener, *, secure: bool) -> None:
        super().__init__(listener, secure=secure)
        self._new = True
        self._eof = False
        #: When something came last.
        self._since = listener.now

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._listener.joined(self)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            self._http2 = Http2(self._listener, self)
        if self._listener.draining:
            self.drain()

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        self._listener.left(self)
        self._listener.paused.discard(self)
        self.count_unread(0)
        if self._current is not None:
            self._current.abandon()
        if self._http2 is not None:
            self._http2.lost()
        elif self._http1.receiving is not None:
            self._http1.receiving.cut_off()

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            self.pass_over(len(data))
            return
        self._since = self._listener.now
        http = self._http1
        at_rest = self._current is None and not self._rest and not self._crowded and self._http2 is None
        if at_rest and http.receiving is None and http.head_since is None and not http.requests and not http.ended:
            self._current = self._listener.heads.recognise(data, self)
            if self._current is not None:
                self._new = False
                self._listener.handle(self._current)
                return
        if self._new and self._rest:
            data = b"".join((self._rest.pop(), data))
        self._rest.append(data)
        self._rest_bytes = len(data) if self._new else self._rest_bytes + len(data)
        if self._new and self._http2 is None and PREFACE.startswith(data[: len(PREFACE)]):
            if len(data) < len(PREFACE):
                http.head_since = http.head_since or self._since
                return
            self._http2 = Http2(self._listener, self)
        self._new = False
        self._go_on()

    def eof_received(self) -> bool:
        """Whether the transport stays open: what was begun is still answered, except over TLS, which cannot do that."""
        self._eof = True
        if self._current is not None:
            asyncio.get_running_loop().call_later(LEAVING_SECONDS, self._leave, self._current)
        if self._http1.receiving is not None:
            self._http1.receiving.cut_off()
        streaming = None if self._current is None else self._current.streaming
        if self._current is None or (streaming is not None and streaming.is_endless):
            return False
        return self._transport.get_extra_info("ssl_object") is None

    def _leave(self, request: Request) -> None:
        """The client closed its side a while ago, so it has probably left."""
        if self._current is request and request.streaming is None:
            request.abandon()

    def pause_writing(self) -> None:
        self._crowded = True
        self._read_on()

    def resume_writing(self) -> None:
        self._crowded = False
        if self.unread and self._http2 is None and not self._unsent:
            self.count_unread(0)
        if self._http2 is not None:
            self._http2.wake()
        elif self._unsent:
            self._send_more()
        elif self._current is not None and self._current.streaming is not None:
            self._current.streaming.wake()
        self._go_on()

    def answer(self, request: Request, response: Response) -> None:
        """Send the answer to the request whose turn it is, and go on to the next."""
        if self._transport is None:
            self._current = None
            return
        close = not request.keep_alive or self._eof or self._listener.draining
        if not request.complete:
            # A client that waits to be told to send must not be taken for one that has sent.
            close |= request.is_endless or (request.header("expect") is not None and not request.received)
        if response.__class__ is Stream:
            close |= not request.chunked
            request.keep_alive = not close
            if request.chunked:
                response = msgspec.structs.replace(response, headers=(*response.headers, _CHUNKED))
        if len(response.body) > PIECE_BYTES and not request.is_head:
            self.write(render(response, request.id, self._listener.date, body=False, close=close))
            request.keep_alive = not close
            self.write_long(response.body)
            self._send_more()
            return
        data = render(response, request.id, self._listener.date, body=not request.is_head, close=close)
        self._written += len(data)
        self._transport.write(data)
        if len(data) > COUNTED_BYTES:
            self.count_unread(self._transport.get_write_buffer_size())
        if response.__class__ is not Stream:
            self._answered(close=close)

    def _send_more(self) -> None:
        if self.write_on() and self._current is not None:
            self._answered(close=not self._current.keep_alive)

    def send(self, request: Request, piece: bytes) -> None:
        """Send a piece of a streamed answer."""
        self.write(b"".join((b"%x\r\n" % len(piece), piece, b"\r\n")) if request.chunked else piece)

    def is_gone(self, request: Request) -> bool:
        """Whether nobody waits for a streamed answer any more."""
        return self._current is not request or self._transport is None

    def end(self, request: Request) -> None:
        """A streamed answer is whole."""
        if request.chunked and not request.is_head:
            self.write(b"0\r\n\r\n")
        self._answered(close=not request.keep_alive or self._eof or self._listener.draining)

    def cut(self, _request: Request) -> None:
        """The answer ends before its end, or there is none."""
        self.abort()

    def _answered(self, *, close: bool) -> None:
        self._current = None
        if close:
            self.finish()
        elif self._rest or self._http1.requests or self._http1.refusal is not None or not self._reading:
            self._go_on()

    def _told_why(self, status: int, message: str) -> None:
        self.write(render(refusal(status, message), "-", self._listener.date, body=True, close=True))
        self.finish()

    def finish(self) -> None:
        """End the connection behind the last answer; a client that still sends is given a moment to read it."""
        if self._transport is None or self._transport.is_closing() or self._lingering:
            return
        if self._http2 is None and self._http1.receiving is None and self._http1.refusal is None and not self._rest:
            self.close()
        else:
            self.linger()
            self._read_on()

    def drain(self) -> None:
        """The server stops: end what has no whole request, let the rest be answered."""
        if self._http2 is not None:
            self._http2.drain()
        elif self._current is None:
            self.close()

    def look_after(self, now: float) -> None:
        """Once in a while: end what takes too long."""
        if not self._reading:
            self.notice_end()
        limits, receiving = self._listener.limits, self._http1.receiving
        idle = now - self._since > limits.idle_seconds
        late = receiving is not None and receiving.is_late(now)
        unsent = len(self._unsent) if self._http2 is None else self._http2.count_unread()
        written = self._transport.get_write_buffer_size()
        if self._http2 is None and not unsent and written != self.unread:
            self.count_unread(written)
        if self.takes_nothing(now, unsent):
            self.abort()
        elif self._current is not None or self._lingering:
            request = self._current
            if request is None or request.is_head or request.streaming is None:
                return
            if request.streaming.is_endless and not (written or self._resting):
                self._resting = True
                self._listener.rests(self)
        elif self._http2 is not None:
            self._http2.look_after(now, idle=idle)
        elif self._http1.head_since is not None:
            if now - self._http1.head_since > limits.head_seconds:
                self._http1.refuse(408, f"the head of the request was not there within {limits.head_seconds:g} s")
                self._go_on()
        elif late or (idle and receiving is None):
            self.finish()
