"""One HTTP request, and HTTP/1.1 as protocol code: bytes in, requests out; responses in, bytes out. Owns no socket.

Parsing is llhttp's, in its strict form: it refuses two lengths, a length beside chunks, bare line feeds, folded
headers, odd chunk sizes, and characters that no name or value may have. Refused here is what it leaves to servers.
"""

from __future__ import annotations

import asyncio
import time
import urllib.parse
from collections import deque
from typing import TYPE_CHECKING, Any

import httptools

from kvasir.dialects.http import HttpDialect, Response
from kvasir.errors import Invalid, KvasirError, TooLarge, Unavailable

if TYPE_CHECKING:
    from kvasir.listeners.http import HttpListener

#: A body of up to this many times the longest allowed is read to its end although nobody wants it; a longer one is cut
#: off. After one that took more than these seconds, the dialect is called again.
DRAINED_BODIES, LATE_SECONDS = 4, 1.0

#: Headers by lower-case name, and those that may be there once only.
Headers = dict[bytes, bytes]
_SINGLE = frozenset({b"host", b"content-length", b"authorization", b"content-type"})

_LONG_HEAD = 431, "the head of the request is too long, or has too many lines"


class CameLate(BaseException):  # no Exception: a dialect answers those
    """Ends a call of a dialect whose body took long: the credential or the store that it looked up may be gone."""


class Request:
    """See `kvasir.dialects.http.Request`. Its body is fed to it as it comes in."""

    #: Whether the connection goes on after the answer.
    keep_alive = True
    #: Of HTTP/2: the number of the stream, and bytes of the body for which the client was given no new room yet.
    stream = unacknowledged = 0
    #: Bytes of the body that have come, and those that count against the room of the process.
    received = held = 0
    #: Whether nobody wants the body any more.
    dropping = False
    _max_bytes = 0
    _waiter: asyncio.Future[bytes] | None = None
    _failure: KvasirError | None = None
    #: Whose request it is
    dialect: HttpDialect

    def __init__(
        self, listener: HttpListener, owner: Any, method: str, target: bytes, headers: Headers, declared: int | None
    ) -> None:
        """`owner`: answers it. `declared`: length of the body; None: it ends when it ends."""
        self.id = next(listener.ids)
        self.began = time.perf_counter()
        self.owner = owner
        self._listener = listener
        #: What a HEAD request is answered with is that of GET, without the body (RFC 9110, section 9.3.2).
        self.is_head = method == "HEAD"
        self.method = "GET" if self.is_head else method
        #: As it came, percent-encoded
        self.raw_path, _, self.query = target.decode("latin-1").partition("?")
        self.path = urllib.parse.unquote(self.raw_path) if "%" in self.raw_path else self.raw_path
        self._headers = headers
        self.declared = declared
        self.complete = declared == 0
        self._chunks: list[bytes] = []

    def header(self, name: str) -> str | None:
        value = self._headers.get(name.encode())
        return None if value is None else value.decode("latin-1")

    async def body(self, limit: int | None = None) -> bytes:
        most = self._listener.limits.body_bytes
        self._max_bytes = most if limit is None else min(limit, most)
        if self._failure is not None:
            raise self._failure
        self._hold(0 if self.complete else self.declared or self.received)
        if self.complete:
            return b"".join(self._chunks)
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            self.owner.wanted(self)
            body = await self._waiter
        finally:
            self._waiter = None
        if time.perf_counter() - self.began > LATE_SECONDS:
            raise CameLate
        return body

    def body_nowait(self, limit: int | None = None) -> bytes | None:
        most = self._listener.limits.body_bytes
        if not self.complete or self.received > (most if limit is None else min(limit, most)):
            return None
        return b"".join(self._chunks)

    def answer(self, response: Response) -> None:
        self._listener.answer(self, response)

    def _hold(self, size: int) -> None:
        most = self._max_bytes
        if max(self.declared or 0, self.received) > most:
            raise TooLarge(f"the request body is longer than the {most:,} bytes allowed; send less at a time")
        if self._listener.held + size > self._listener.limits.bodies_in_flight_bytes:
            raise Unavailable("the server holds as many request bodies as it may; try again in a moment")
        self._listener.held += size
        self.held += size

    @property
    def is_unasked(self) -> bool:
        """Whether the body is neither waited for nor thrown away."""
        return self._waiter is None and not self.dropping

    @property
    def is_endless(self) -> bool:
        """Whether the body is thrown away, and too long even to be read for that."""
        longest = DRAINED_BODIES * self._listener.limits.body_bytes
        return self.dropping and max(self.declared or 0, self.received) > longest

    def feed(self, data: bytes) -> None:
        """A piece of the body."""
        self.received += len(data)
        if self.dropping:
            return
        self._chunks.append(data)
        if self._waiter is not None and self.declared is None:
            try:
                self._hold(len(data))
            except KvasirError as failure:
                self.fail(failure)

    def end(self) -> None:
        """The body is whole."""
        self.complete = True
        if self._waiter is not None and not self._waiter.done():
            body = b"".join(self._chunks)
            self._chunks = [body]  # else it would be in memory twice as long as the request is
            self._waiter.set_result(body)

    def fail(self, failure: KvasirError) -> None:
        """The body will not be whole."""
        self._failure = failure
        self.drop()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(failure)

    def is_late(self, now: float) -> bool:
        """Whether the body has taken longer than it may; looked at now and then while it comes in."""
        seconds = self._listener.limits.body_seconds
        late = now - self.began > seconds and not self.is_unasked
        if late:
            self.fail(Invalid(f"the body was not there within {seconds:g} s; send it faster"))
        return late

    def cut_off(self) -> None:
        """The connection or stream ended before the body did."""
        self.fail(Invalid("the connection ended before the request body was whole; nothing was done, send it again"))

    def drop(self) -> None:
        """Keep nothing of the body, neither what is there nor what is to come."""
        self.dropping = True
        self._chunks.clear()
        self._listener.held -= self.held
        self.held = 0


class Http1:
    """What comes in by one connection."""

    def __init__(self, listener: HttpListener, connection: Any) -> None:
        """`connection`: the owner of its requests."""
        self._listener = listener
        self._connection = connection
        self._parser = httptools.HttpRequestParser(self)
        self._headers: Headers = {}
        self._target = b""
        #: `_unfinished`: bytes since something was whole, at least a piece of a body.
        self._head_bytes = self._lines = self._unfinished = 0
        #: Requests whose heads are whole, for the connection to take.
        self.requests: deque[Request] = deque()
        #: The request whose body comes in.
        self.receiving: Request | None = None
        #: When the head that is coming in began.
        self.head_since: float | None = None
        #: Whether nothing that comes from now on is a request.
        self.ended = self._resuming = False
        #: Status and message of an answer of our own to what is no request; it is the last of the connection.
        self.refusal: tuple[int, str] | None = None

    def feed(self, data: bytes | memoryview) -> None:
        """Take in what was read."""
        self._unfinished += len(data)
        while data and not self.ended:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                # To a protocol that is not spoken here: the request is one of HTTP/1.1, and so are those behind it.
                data = data[upgrade.args[0] :]
                self._parse_anew()
            except httptools.HttpParserError as error:
                if not self.ended:  # else we have said why, or it is about what comes after `Connection: close`
                    self.refuse(400, f"this is not an HTTP request: {error}")
        if self._unfinished > self._listener.limits.head_bytes and not self.ended:
            self.refuse(*_LONG_HEAD)

    def refuse(self, status: int, message: str) -> Exception:
        """Answer with this, or with what the dialect makes of it if the request is handled already; then end."""
        self.ended = True
        self.head_since = None
        if self.receiving is None:
            self.refusal = status, message
        else:
            self.receiving.keep_alive = False
            self.receiving.fail(Invalid(message))
        return httptools.HttpParserError(message)

    def _parse_anew(self) -> None:
        """Go on after a request to upgrade: httptools leaves its body, if it has one, to the other protocol."""
        self._parser = httptools.HttpRequestParser(self)
        if (request := self.receiving) is not None:
            ending = b"" if request.keep_alive else b"connection: close\r\n"
            length = request.declared
            body = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
            self._resuming = True
            self._parser.feed_data(b"PUT / HTTP/1.1\r\n%b%b\r\n\r\n" % (ending, body))
            self._resuming = False

    def on_message_begin(self) -> None:
        self.head_since = None if self._resuming else self._listener.now
        self._headers, self._target = {}, b""
        self._head_bytes = self._lines = 0

    def on_url(self, target: bytes) -> None:
        self._target += target
        if len(self._target) > self._listener.limits.target_bytes:
            raise self.refuse(414, f"the path is longer than {self._listener.limits.target_bytes:,} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head_since is None:
            return  # of a trailer, which means nothing here
        name = name.lower()
        self._lines += 1
        self._head_bytes += len(name) + len(value)
        limits = self._listener.limits
        if self._head_bytes > limits.head_bytes or self._lines > limits.head_lines:
            raise self.refuse(*_LONG_HEAD)
        headers = self._headers
        if name in headers:
            if name in _SINGLE:
                raise self.refuse(400, f"the header {name.decode('latin-1')} is there twice")
            value = join(name, headers[name], value)
        headers[name] = value

    def on_headers_complete(self) -> None:
        if self._resuming:
            return
        headers, parser, target = self._headers, self._parser, self._target
        method = parser.get_method().decode("latin-1")
        version = parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise self.refuse(505, "HTTP/1.1, HTTP/1.0 and HTTP/2 are spoken here")
        if version == "1.1" and b"host" not in headers:
            raise self.refuse(400, "a request of HTTP/1.1 needs a Host header")
        if method == "CONNECT":
            raise self.refuse(405, "this is no proxy")
        declared: int | None = int(headers.get(b"content-length", b"0"))
        if (coding := headers.get(b"transfer-encoding")) is not None:
            declared = None
            if version == "1.0" or coding.strip().lower() != b"chunked":
                raise self.refuse(501, "the only transfer coding that is understood is chunked, in HTTP/1.1")
        if not target.startswith(b"/") and b"://" in target:  # what proxies are sent (RFC 9112, section 3.2)
            target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
        self.receiving = request = Request(self._listener, self._connection, method, target, headers, declared)
        request.keep_alive = parser.should_keep_alive()
        if b"upgrade" in headers:  # then llhttp forgets that the connection is to end
            request.keep_alive &= b"close" not in headers.get(b"connection", b"").lower()
        self.requests.append(request)
        self.head_since = None
        self._unfinished = 0

    def on_body(self, data: bytes) -> None:
        self._unfinished = 0
        if self.receiving is not None:
            self.receiving.feed(data)

    def on_message_complete(self) -> None:
        request = self.receiving
        if request is None or (request.declared != 0 and self._parser.should_upgrade()):
            return  # see `_parse_anew`
        self._unfinished = 0
        self.receiving = None
        self.ended = not request.keep_alive
        request.end()


def join(name: bytes, former: bytes, value: bytes) -> bytes:
    """The values of two lines of one name (RFC 9110, section 5.3; RFC 6265, section 5.4)."""
    return former + (b"; " if name == b"cookie" else b", ") + value
