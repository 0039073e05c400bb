"""HTTP/1.1 as protocol code: bytes in, requests out. Owns no socket.

Parsing is llhttp's, in its strict form: it refuses two lengths, a length beside chunks, bare line feeds, folded
headers, odd chunk sizes, and characters that no name or value may have. Refused here is what it leaves to servers.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import httptools

from kvasir.errors import Invalid
from kvasir.listeners.http.heads import LONG_HEAD, Headers, Line, join, long_target
from kvasir.listeners.http.request import Request

if TYPE_CHECKING:
    from kvasir.listeners.http import HttpListener

#: Headers that may be there once only
_SINGLE = frozenset({"host", "content-length", "authorization", "content-type"})


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
        at_rest = self.receiving is None and self.head_since is None and not self.requests and not self.ended
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
            self.refuse(*LONG_HEAD)
        elif at_rest and len(self.requests) == 1 and self.receiving is None and self.head_since is None:
            self._listener.heads.remember(bytes(data), self.requests[0])

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
            raise self.refuse(*long_target(self._listener.limits.target_bytes))

    def on_header(self, raw_name: bytes, raw_value: bytes) -> None:
        if self.head_since is None:
            return  # of a trailer, which means nothing here
        name, value = raw_name.lower().decode("latin-1"), raw_value.decode("latin-1")
        self._lines += 1
        self._head_bytes += len(name) + len(value)
        limits = self._listener.limits
        if self._head_bytes > limits.head_bytes or self._lines > limits.head_lines:
            raise self.refuse(*LONG_HEAD)
        headers = self._headers
        if name in headers:
            if name in _SINGLE:
                raise self.refuse(400, f"the header {name} is there twice")
            value = join(name, headers[name], value)
        headers[name] = value

    def on_headers_complete(self) -> None:
        if self._resuming:
            return
        headers, parser, target = self._headers, self._parser, self._target.decode("latin-1")
        method = parser.get_method().decode("latin-1")
        version = parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise self.refuse(505, "HTTP/1.1, HTTP/1.0 and HTTP/2 are spoken here")
        if version == "1.1" and "host" not in headers:
            raise self.refuse(400, "a request of HTTP/1.1 needs a Host header")
        if method == "CONNECT":
            raise self.refuse(405, "this is no proxy")
        declared: int | None = int(headers.get("content-length", "0"))
        if (coding := headers.get("transfer-encoding")) is not None:
            declared = None
            if version == "1.0" or coding.strip().lower() != "chunked":
                raise self.refuse(501, "the only transfer coding that is understood is chunked, in HTTP/1.1")
        if not target.startswith("/") and "://" in target:  # what proxies are sent (RFC 9112, section 3.2)
            target = "/" + target.partition("://")[2].partition("/")[2]
        self.receiving = request = Request(self._listener, self._connection, Line.of(method, target), headers, declared)
        request.keep_alive, request.chunked = parser.should_keep_alive(), version == "1.1"
        if "upgrade" in headers:  # then llhttp forgets that the connection is to end
            request.keep_alive &= "close" not in headers.get("connection", "").lower()
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
