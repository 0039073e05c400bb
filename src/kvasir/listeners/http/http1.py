"""HTTP/1.1 as protocol code: bytes in, requests out; responses in, bytes out. Owns no socket, clock or loop.

Parsing is llhttp's, in its strict form: it refuses two lengths, a length beside chunks, bare line feeds, folded
headers, odd chunk sizes, and characters that no name or value may have. Refused here is what it leaves to servers.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Protocol

import httptools

from kvasir.dialects.http import Response
from kvasir.limits import Limits
from kvasir.listeners.http.request import Request

#: Bytes that are parsed at a time, which bounds the requests that one read can bring.
SLICE_BYTES = 16_384

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

#: How repeated header lines are joined (RFC 9110, section 5.3), and those with cookies (RFC 6265, section 5.4).
LIST, COOKIES = b", ", b"; "
#: Headers that may be there once only.
_SINGLE = frozenset({b"host", b"content-length", b"authorization", b"content-type"})


class Refusal(Exception):
    """A request that is no good HTTP; after its answer the connection ends."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Receiver(Protocol):
    """Who is told of requests."""

    def make(self, method: str, target: bytes, headers: dict[bytes, bytes], declared: int | None) -> Request:
        """A head is whole; the request's body is fed next."""
        ...

    def received(self, request: Request) -> None:
        """The request's body is whole."""
        ...


class Http1:
    """One connection."""

    def __init__(self, receiver: Receiver, limits: Limits) -> None:
        self._receiver = receiver
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._target = b""
        self._head_bytes = self._lines = 0
        #: Bytes of a head that began in an earlier read.
        self._unfinished = 0
        self._resuming = False
        self._refusal: Refusal | None = None
        #: Whether a head has begun and is not whole.
        self.in_head = False
        #: The request whose body comes in.
        self.receiving: Request | None = None
        #: Whether nothing that comes from now on is a request.
        self.ended = False

    def feed(self, data: bytes) -> None:
        """Take in at most `SLICE_BYTES`. Raises `Refusal`; then feed nothing more."""
        continued = self.in_head
        while data and not self.ended:
            try:
                self._parser.feed_data(data)
                break
            except httptools.HttpParserUpgrade as upgrade:
                # To a protocol that is not spoken here: the request is one of HTTP/1.1, and so are those behind it.
                data = data[upgrade.args[0] :]
                self._parse_anew()
            except httptools.HttpParserError as error:
                if not self.ended:  # else it is about what comes after `Connection: close`
                    raise self._refusal or Refusal(400, f"this is no request of HTTP: {error}") from None
        self._unfinished = self._unfinished + len(data) if self.in_head and continued else 0
        if self._unfinished > self._limits.head_bytes:
            raise _long_head()

    def _parse_anew(self) -> None:
        """Go on after a request to upgrade: llhttp leaves its body, if it has one, to the other protocol."""
        self._parser = httptools.HttpRequestParser(self)
        if (request := self.receiving) is not None:
            ending = b"" if request.keep_alive else b"connection: close\r\n"
            coding = b"transfer-encoding: chunked"
            body = coding if request.declared is None else b"content-length: %d" % request.declared
            self._resuming = True
            self._parser.feed_data(b"PUT / HTTP/1.1\r\n%b%b\r\n\r\n" % (ending, body))
            self._resuming = False

    # -- llhttp calls -------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self.in_head = not self._resuming
        self._headers = {}
        self._target = b""
        self._head_bytes = self._lines = 0

    def on_url(self, target: bytes) -> None:
        self._target += target
        if len(self._target) > self._limits.target_bytes:
            self._refuse(Refusal(414, f"the path is longer than {self._limits.target_bytes:,} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_head:
            return  # of a trailer, which means nothing here
        name = name.lower()
        self._lines += 1
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > self._limits.head_bytes or self._lines > self._limits.head_lines:
            self._refuse(_long_head())
        headers = self._headers
        if name in headers:
            if name in _SINGLE:
                self._refuse(Refusal(400, f"the header {name.decode('latin-1')} is there twice"))
            value = headers[name] + (COOKIES if name == b"cookie" else LIST) + value
        headers[name] = value

    def on_headers_complete(self) -> None:
        if self._resuming:
            return
        self.in_head = False
        headers = self._headers
        parser = self._parser
        method, target = parser.get_method(), self._target
        declared = self._length(headers, parser.get_http_version())
        if method == b"CONNECT":
            self._refuse(Refusal(405, "this is no proxy"))
        if not target.startswith(b"/"):
            target = _origin_form(target)
        request = self._receiver.make(method.decode("latin-1"), target, headers, declared)
        request.keep_alive = parser.should_keep_alive()
        if b"upgrade" in headers:  # then llhttp forgets that the connection is to end
            request.keep_alive &= b"close" not in headers.get(b"connection", b"").lower()
        self.receiving = request

    def _length(self, headers: dict[bytes, bytes], version: str) -> int | None:
        """The length of the body; None: it comes in chunks."""
        if version == "1.1":
            if b"host" not in headers:
                self._refuse(Refusal(400, "a request of HTTP/1.1 needs a Host header"))
        elif version != "1.0":
            self._refuse(Refusal(505, "HTTP/1.1, HTTP/1.0 and HTTP/2 are spoken here"))
        if (length := headers.get(b"content-length")) is not None:
            return int(length)
        if (coding := headers.get(b"transfer-encoding")) is None:
            return 0
        if version == "1.0" or coding.strip().lower() != b"chunked":
            self._refuse(Refusal(501, "the only transfer coding that is understood is chunked, in HTTP/1.1"))
        return None

    def on_body(self, data: bytes) -> None:
        if self.receiving is not None:
            self.receiving.feed(data)

    def on_message_complete(self) -> None:
        request = self.receiving
        if request is None or (request.declared != 0 and self._parser.should_upgrade()):
            return  # see `_parse_anew`
        self.receiving = None
        self.ended = not request.keep_alive
        request.end()
        self._receiver.received(request)

    def _refuse(self, refusal: Refusal) -> None:
        self._refusal = refusal
        raise refusal


def _origin_form(target: bytes) -> bytes:
    """The path of `http://host/path`, which proxies are sent; `*` stays (RFC 9112, section 3.2)."""
    _, scheme, rest = target.partition(b"://")
    _, slash, path = rest.partition(b"/")
    return (slash + path or b"/") if scheme else target


def _long_head() -> Refusal:
    return Refusal(431, "the head of the request is too long, or has too many lines")


_heads: dict[tuple[int, str], bytes] = {}


def render(response: Response, request_id: str, date: bytes, *, body: bool, close: bool) -> bytes:
    """The bytes of a response. Without `body` it is that of a HEAD request: the length, and nothing else."""
    head = _heads.get((response.status, response.content_type))
    if head is None:
        head = f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n".encode()
        head += f"content-type: {response.content_type}\r\n".encode("latin-1")
        _heads[response.status, response.content_type] = head
    more = b"".join([f"{name}: {value}\r\n".encode("latin-1") for name, value in response.headers])
    if close:
        more += b"connection: close\r\n"
    return b"%bdate: %b\r\nx-request-id: %b\r\ncontent-length: %d\r\n%b\r\n%b" % (
        head,
        date,
        request_id.encode("latin-1"),
        len(response.body),
        more,
        response.body if body else b"",
    )
