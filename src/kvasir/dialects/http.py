"""The contract between the HTTP listener and the HTTP dialects: a request, a response, and who serves which path."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from msgspec import Struct

from kvasir.errors import Invalid, KvasirError

JSON = "application/json"

#: Statuses of responses that have no body, nor the length of one (RFC 9110, section 8.6).
BODILESS = frozenset({204, 304})


class Request(Protocol):
    """One HTTP request, as the listener passes it on."""

    method: str
    #: Percent-decoded; lone surrogates stand for bytes that are not UTF-8 and for a "%" that begins no encoding.
    path: str
    #: As it was sent, percent-encoded; each byte is one character.
    raw_path: str
    #: Whether it is a HEAD request, whose `method` is GET: it is answered like one, without the body.
    is_head: bool
    #: Identifies the request in logs and in the X-Request-Id of the response.
    id: str

    @property
    def query(self) -> str:
        """The query string as it was sent, without the "?"."""
        ...

    def header(self, name: str, /) -> str | None:
        """The value of a header, by its lower-case name; of one with several lines, all of them as a list.

        Cookies are one line, even where a client of HTTP/2 sends each separately (RFC 9113, section 8.2.3).
        """
        ...

    def body_nowait(self, limit: int | None = None) -> bytes | None:
        """The whole body, if it is there and no longer than `body` allows."""
        ...

    def answer(self, response: Response) -> None:
        """Send the answer, when `HttpDialect.answer_nowait` has taken the request on. To be called once."""

    def reads_only(self) -> None:
        """Say that the call of the dialect changes nothing from here on.

        Then it is cancelled when its client leaves, and when the time to drain is over. What writes says so while it
        reads what is to be written, and then that it `writes`.
        """

    def writes(self) -> None:
        """Say that the call of the dialect changes something from here on: it goes on to its end, whoever leaves."""

    async def body(self, limit: int | None = None) -> bytes:
        """The whole body, of at most `limit` bytes if that is less than the server's own limit.

        Authenticate before asking, and change nothing before: if the body takes more than a second or two, the listener
        abandons the call of the dialect and calls it again, for what was true of the caller may no longer be so.
        Raises `EncodedBody`, `TooLarge` (for a declared length before anything is read), `Invalid` for a client that is
        too slow or goes away, and `Unavailable` when too many bodies are in memory already.
        """
        ...

    async def piece(self) -> bytes:
        """The next bytes of a body of any length, b"" at its end. In place of `body`; nothing more is read meanwhile.

        The call of the dialect is not repeated: look at the credential again now and then. Raises `Invalid` for a
        client that is too slow or goes away.
        """
        ...


class EncodedBody(Invalid):
    """The body has a content coding, such as gzip. None is undone here: a few bytes could become gigabytes."""

    def __init__(self, coding: str) -> None:
        super().__init__(
            f"the body has Content-Encoding {coding[:100]!r}; only identity is accepted, that is, a body as it is",
            code="unsupported_encoding",
        )


class Response(Struct, frozen=True, gc=False):
    """One response, with the names under which metrics count it."""

    status: int
    body: bytes
    #: One of the dialect's `operations`
    operation: str
    #: "ok" or the code of a failure: one of `kvasir.metrics.OUTCOMES`
    outcome: str = "ok"
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = JSON
    #: More headers, which are the same for many answers: a listener may keep how it writes them
    usual: tuple[tuple[str, str], ...] = ()


class Chunks(Protocol):
    """The pieces of a body, in their order."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None:
        """Let go of everything. Called in any case, even if no piece has been asked for."""


class Stream(Response, frozen=True, kw_only=True):
    """A response whose body is sent piece by piece, as fast as the client takes it; `body` stays empty.

    When the client leaves, whatever makes the next piece is cancelled. What it raises cuts the answer off, so that no
    client takes what it has got for the whole.
    """

    chunks: Chunks
    #: Whether it has no end of its own. Then a client that closes its side of the connection has left.
    endless: bool = False


class Disconnected(Exception):
    """Raised by a dialect to have the connection cut without an answer. None of a published API does."""


class HttpDialect(Protocol):
    """A published HTTP API. It answers every request, even one that fails, in that API's own form."""

    @property
    def name(self) -> str: ...

    @property
    def operations(self) -> tuple[str, ...]:
        """Every operation that its responses may name, for metrics."""
        ...

    @property
    def serves(self) -> Callable[[str], object]:
        """Returns something true for a percent-decoded path that belongs to this API.

        Each request asks several dialects, so it is better a method of a set or of a pattern than a Python function.
        """
        ...

    def too_much(self, request: Request, response: Response, error: KvasirError) -> Response:
        """The API's form of this failure, in the place of a response that is too large to be sent now.

        The response itself if it tells what was written.
        """
        ...

    def answer_nowait(self, request: Request) -> bool:
        """Answer without a coroutine, by `request.answer`, now or when a write is durable. False: nothing was done."""
        ...

    async def __call__(self, request: Request) -> Response: ...
