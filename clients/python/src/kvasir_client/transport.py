"""What both drivers share: addresses, headers, and what a failure of the HTTP client means."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import ssl
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import httpx2

from kvasir_client.errors import Invalid, TooLarge
from kvasir_client.wire import Answer, Lost, NotSent, Request

Http = TypeVar("Http", httpx2.Client, httpx2.AsyncClient)

#: Where a server without settings listens.
DEFAULT_URL = "http://127.0.0.1:8901"

#: Seconds to make a connection. Sending and waiting for an answer have the client's own timeout.
CONNECT_SECONDS = 5.0

#: The HTTP client takes URLs of up to 65,536 characters; the server's address and the path are short.
LONGEST_QUERY = 60_000

#: Idle connections are closed sooner than a server or proxy closes them: a write must not meet one that just ends.
IDLE_SECONDS = 5.0

#: Before any byte of a request goes out.
_BEFORE = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError)

_BY_HTTP = re.compile(r"https?://", re.IGNORECASE).match

#: A request waits while so many are being sent.
CONNECTIONS = 100


class Address:
    """The server's address and the access key, checked."""

    def __init__(self, url: str | None, key: str | None) -> None:
        given = (url or os.environ.get("KVASIR_URL") or DEFAULT_URL).strip()
        self._key = key or os.environ.get("KVASIR_KEY") or ""
        try:
            parts = urlsplit(given)
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            # What the HTTP client, and the one who looks the name up, will refuse.
            httpx2.URL(given).host.encode("idna")
        except (ValueError, httpx2.InvalidURL):
            known = False
        if not known or not given.isprintable() or any(sign in given for sign in " ?#"):
            raise Invalid("the address of the server must be a URL such as http://127.0.0.1:8901")
        if parts.username is not None or parts.password is not None:
            raise Invalid("the address of the server must hold no credential: give the access key as `key`")
        #: With the scheme in lower case: whether certificates are checked hangs on it.
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
        if not self._key.isascii() or not self._key.isprintable() or " " in self._key:
            raise Invalid("the access key has characters that no access key has")

    def options(self, timeout: float, verify: ssl.SSLContext | bool, connections: int | None) -> dict[str, Any]:
        """For the HTTP client of either kind; `connections`: how many it may have, None: as many as it needs."""
        # Compressed answers have weak ETags, which no condition may name.
        headers = {"Accept-Encoding": "identity", "User-Agent": "kvasir-client"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return {
            "headers": headers,
            "timeout": httpx2.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
            "limits": httpx2.Limits(
                max_connections=connections, max_keepalive_connections=20, keepalive_expiry=IDLE_SECONDS
            ),
            # A redirection would carry the access key to another address.
            "follow_redirects": False,
            # To load the certificates of the system takes longer than many a request.
            "verify": verify if self.url.startswith("https:") else False,
        }

    def request(self, request: Request) -> tuple[str, str, dict[str, str]]:
        """Method, URL and headers. Raises `TooLarge`."""
        query = f"?{urlencode(request.query, quote_via=quote)}" if request.query else ""
        if len(query) > LONGEST_QUERY:
            raise TooLarge("the key, or whatever else the address would hold, is too long")
        return request.method, f"{self.url}{request.path}{query}", dict(request.headers)

    def failure(self, error: Exception) -> NotSent | Lost:
        """What a failure of the HTTP client means."""
        if isinstance(error, httpx2.PoolTimeout):
            return NotSent(f"all {CONNECTIONS} connections of this client were busy all the time")
        if isinstance(error, _BEFORE):
            return NotSent(f"{self.url} cannot be reached: {_reason(error)}")
        if isinstance(error, httpx2.TimeoutException):
            return Lost(f"{self.url} has not answered in time", late=True)
        return Lost(f"the connection to {self.url} was lost before there was an answer: {_reason(error)}")

    def __repr__(self) -> str:
        return self.url


class _Made(NamedTuple, Generic[Http]):
    """HTTP clients and whose they are, in one: no thread may see those of a parent as its own process's."""

    process: int
    #: By how many connections they may have
    clients: dict[int | None, Http]


class Connections(Generic[Http]):
    """The connections of one process: those for requests, and those for streams, each of which keeps its own.

    `make` makes an HTTP client that may have so many connections.
    """

    def __init__(self, make: Callable[[int | None], Http]) -> None:
        self._make: Callable[[int | None], Http] = make
        self._closed = False
        self._made: _Made[Http] = self._begin()

    def _begin(self) -> _Made[Http]:
        return _Made(os.getpid(), {CONNECTIONS: self._make_one(CONNECTIONS)})

    def _make_one(self, connections: int | None) -> Http:
        try:
            return self._make(connections)
        except (ImportError, ValueError, httpx2.InvalidURL) as error:
            variables = _proxy_variables()
            if not variables:
                raise
            # Not the value: it may hold a password.
            raise Invalid(
                f"{variables} names no proxy that can be used, which is one by http:// or https://: change it, or have "
                "NO_PROXY name the server"
            ) from error

    def requests(self) -> Http:
        """For what is answered at once. Raises `Invalid` once they are closed."""
        return self._of(CONNECTIONS)

    def streams(self) -> Http:
        """For answers that go on: with a bound, that many watches would leave no connection for a request."""
        return self._of(None)

    def _of(self, connections: int | None) -> Http:
        if self._closed:
            raise Invalid("this client has been closed; make another one")
        made = self._made
        if made.process != os.getpid():
            # A forked process has its parent's sockets, too: each would read answers that are the other's.
            self._made = made = self._begin()
        found = made.clients.get(connections)
        # Threads may both make one: the first stays.
        return found or made.clients.setdefault(connections, self._make_one(connections))

    def end(self) -> list[Http]:
        """What is to be closed."""
        self._closed = True
        return list(self._made.clients.values()) if self._made.process == os.getpid() else []


#: What the HTTP client raises when it cannot send a request or read an answer.
FAILURES = (httpx2.RequestError, httpx2.StreamError)


def _proxy_variables() -> str:
    """Those that name a proxy of another kind than HTTP; if all name one of HTTP, all of them."""
    names = {"http_proxy", "https_proxy", "all_proxy"}
    found = {name: value for name, value in os.environ.items() if name.lower() in names and value}
    others = [name for name, value in found.items() if "://" in value and not _BY_HTTP(value)]
    return ", ".join(sorted(others or found))


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def answer(response: httpx2.Response, body: bytes) -> Answer:
    """An answer as the core sees it."""
    return Answer(response.status_code, dict(response.headers), body)


def answered_within(silence: float, usual: httpx2.Timeout) -> httpx2.Timeout:
    """The timeout of a request whose answer, or whose reading by the server, may take so many seconds."""
    return httpx2.Timeout(silence, connect=usual.connect, pool=usual.pool)


def let_be_silent(request: httpx2.Request, silence: float) -> None:
    """Let the stream that a request has begun be silent for so many seconds. Its head came in the usual time."""
    request.extensions["timeout"]["read"] = silence


def cut(response: httpx2.Response) -> None:
    """End a stream that another thread may be reading: to close its socket would not wake that one."""
    found = response.extensions["network_stream"].get_extra_info("socket")
    with contextlib.suppress(OSError):  # it has ended already
        socket.socket.shutdown(found, socket.SHUT_RDWR)
