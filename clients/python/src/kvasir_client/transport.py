"""What both drivers share: addresses, headers, and what a failure of the HTTP client means."""

from __future__ import annotations

import os
import ssl
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import httpx2

from kvasir_client.errors import Invalid
from kvasir_client.wire import Answer, Lost, NotSent, Request

#: Where a server without settings listens.
DEFAULT_URL = "http://127.0.0.1:8901"

#: Seconds to make a connection. Sending and waiting for an answer have the client's own timeout.
CONNECT_SECONDS = 5.0

#: Idle connections are closed sooner than a server or proxy closes them: a write must not meet one that just ends.
IDLE_SECONDS = 5.0

#: Before any byte of a request goes out.
_BEFORE = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)


class Address:
    """The server's address and the access key, checked."""

    def __init__(self, url: str | None, key: str | None) -> None:
        self.url = (url or os.environ.get("KVASIR_URL") or DEFAULT_URL).rstrip("/")
        self._key = key or os.environ.get("KVASIR_KEY") or ""
        try:
            parts = urlsplit(self.url)
            known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            known = False
        if not known or parts.query or parts.fragment:
            raise Invalid("the address of the server must be a URL such as http://127.0.0.1:8901")
        if parts.username or parts.password:
            raise Invalid("the address of the server must hold no credential: give the access key as `key`")
        if not self._key.isascii() or not self._key.isprintable() or " " in self._key:
            raise Invalid("the access key has characters that no access key has")

    def options(self, timeout: float, verify: ssl.SSLContext | bool) -> dict[str, Any]:
        """For the HTTP client of either kind."""
        # Compressed answers have weak ETags, which no condition may name.
        headers = {"Accept-Encoding": "identity", "User-Agent": "kvasir-client"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return {
            "headers": headers,
            "timeout": httpx2.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
            "limits": httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=IDLE_SECONDS),
            # A redirection would carry the access key to another address.
            "follow_redirects": False,
            # To load the certificates of the system takes longer than many a request.
            "verify": verify if self.url.startswith("https:") else False,
        }

    def request(self, request: Request) -> tuple[str, str, dict[str, str]]:
        """Method, URL and headers."""
        query = f"?{urlencode(request.query, quote_via=quote)}" if request.query else ""
        return request.method, f"{self.url}{request.path}{query}", dict(request.headers)

    def failure(self, error: Exception) -> NotSent | Lost:
        """What a failure of the HTTP client means."""
        if isinstance(error, _BEFORE):
            return NotSent(f"{self.url} cannot be reached: {_reason(error)}")
        if isinstance(error, httpx2.TimeoutException):
            return Lost(f"{self.url} has not answered in time", late=True)
        return Lost(f"the connection to {self.url} was lost before there was an answer: {_reason(error)}")

    def __repr__(self) -> str:
        return self.url


#: What the HTTP client raises when it cannot send a request or read an answer.
FAILURES = (httpx2.TransportError, httpx2.StreamError)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__


def answer(response: httpx2.Response, body: bytes) -> Answer:
    """An answer as the core sees it."""
    return Answer(response.status_code, dict(response.headers), body)


def stream_timeout(silence: float, usual: httpx2.Timeout) -> httpx2.Timeout:
    """That of a stream which may be silent for so many seconds."""
    return httpx2.Timeout(silence, connect=usual.connect, pool=usual.pool)
