"""What the HTTP dialects share: a request, a response, and which dialect a path belongs to. No sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

from msgspec import Struct

JSON = "application/json"


class Request(Protocol):
    """One HTTP request, as the listener hands it over; a test makes its own in ten lines."""

    method: str
    #: Percent-decoded; U+FFFD stands where it did not decode to UTF-8.
    path: str
    #: Names the request in logs and in the answer's X-Request-Id.
    id: str

    @property
    def query(self) -> str:
        """The query string as it came, without the "?"."""
        ...

    def header(self, name: str, /) -> str | None:
        """The value of a header, by its lower-case name."""
        ...

    @property
    def cookie(self) -> str | None:
        """All Cookie headers as one: HTTP/2 lets a client send each cookie by itself (RFC 9113, section 8.2.3)."""
        ...

    async def body(self, limit: int | None = None) -> bytes:
        """The whole body, of at most `limit` bytes if that is less than the server's own limit.

        Authenticate before asking, and change nothing before: if the body takes more than a second or two, the listener
        abandons the call of the dialect and calls it again, for what was true of the caller may no longer be so.
        Raises `TooLarge` (for a declared length before anything is read), `Invalid` for a client that is too slow or
        goes away, and `Unavailable` when too many bodies are in memory already.
        """
        ...


class Response(Struct, frozen=True, gc=False):
    """One answer, with the names under which metrics count it."""

    status: int
    body: bytes
    #: One of the dialect's `operations`
    operation: str
    #: "ok" or the code of a failure: one of `kvasir.metrics.OUTCOMES`
    outcome: str = "ok"
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = JSON


class HttpDialect(Protocol):
    """A published HTTP API. It answers every request, failures included, in that API's own form."""

    name: ClassVar[str]
    #: Every operation name its responses carry, for metrics.
    operations: ClassVar[tuple[str, ...]]

    @property
    def serves(self) -> Callable[[str], object]:
        """Says by something true that a percent-decoded path is one of this API's.

        Every request asks it of several APIs: better a method of a set or of a pattern than a function of ours.
        """
        ...

    async def __call__(self, request: Request) -> Response: ...
