"""One HTTP request as dialects see it, and its body as it comes in. No sockets: whoever receives it calls `feed`."""

from __future__ import annotations

import asyncio
import time
import urllib.parse
from typing import TYPE_CHECKING

from kvasir.dialects.http import HttpDialect, Response
from kvasir.errors import Invalid, KvasirError, TooLarge, Unavailable

if TYPE_CHECKING:
    from kvasir.listeners.http import HttpListener
    from kvasir.listeners.http.connection import Connection

#: After a body that took longer, the dialect is called again; see `CameLate`.
LATE_SECONDS = 1.0

#: A body of so many times the longest that is allowed is read to its end although the answer, a failure, does not
#: depend on it; who sends more is cut off.
DRAINED_BODIES = 2

#: A client that has taken less than this of its answers for too long does not read.
PROGRESS_BYTES = 65_536


class CameLate(BaseException):  # no Exception: a dialect answers those
    """Ends a call of a dialect whose body took long: the credential or the store that it looked up may be gone."""


class Request:
    """See `kvasir.dialects.http.Request`."""

    #: Whether the connection goes on after the answer, and whether somebody is at work on it.
    keep_alive = True
    begun = False
    #: Of HTTP/2: the number of the stream, and bytes of the body for which the client was given no new room yet.
    stream = 0
    unacknowledged = 0
    #: Bytes of the body that have come, and those that count against the room of the process.
    received = held = 0
    #: Whether nobody wants the body any more.
    dropping = False
    _max_bytes = 0
    _waiter: asyncio.Future[bytes] | None = None
    _failure: KvasirError | None = None

    #: Whose answer it gets
    dialect: HttpDialect

    def __init__(
        self,
        listener: HttpListener,
        connection: Connection,
        id: str,
        began: float,
        method: str,
        target: bytes,
        headers: dict[bytes, bytes],
        declared: int | None,
    ) -> None:
        """`began`: on the performance counter. `declared`: length of the body; None: it ends when it ends."""
        self.id = id
        self.began = began
        self.connection = connection
        self._listener = listener
        #: What a HEAD request is answered with is that of GET, without the body (RFC 9110, section 9.3.2).
        self.is_head = method == "HEAD"
        self.method = "GET" if self.is_head else method
        raw, _, query = target.decode("latin-1").partition("?")
        #: As it came, percent-encoded
        self.raw_path = raw
        self.path = urllib.parse.unquote(raw) if "%" in raw else raw
        self.query = query
        self._headers = headers
        self.declared = declared
        self.complete = declared == 0
        self._chunks: list[bytes] = []

    # -- what dialects use --------------------------------------------------------------------------------

    def header(self, name: str) -> str | None:
        value = self._headers.get(name.encode())
        return None if value is None else value.decode("latin-1")

    @property
    def cookie(self) -> str | None:
        return self.header("cookie")

    def body_nowait(self) -> bytes | None:
        return self._whole() if self.complete and self.received <= self._listener.limits.body_bytes else None

    def answer(self, response: Response) -> None:
        self._listener.answered(self, response)

    async def body(self, limit: int | None = None) -> bytes:
        limits = self._listener.limits
        max_bytes = limits.body_bytes if limit is None or limit > limits.body_bytes else limit
        if (self.declared or self.received) > max_bytes:
            raise _too_large(max_bytes)
        if self.complete:
            return self._whole()
        if self._failure is not None:
            raise self._failure
        self._hold(self.received if self.declared is None else self.declared)
        self._max_bytes = max_bytes
        self._waiter = asyncio.get_running_loop().create_future()
        self._listener.reading.add(self)
        try:
            self.connection.wanted(self)
            body = await self._waiter
        finally:
            self._listener.reading.discard(self)
            self._waiter = None
        if time.perf_counter() - self.began > LATE_SECONDS:
            raise CameLate
        return body

    # -- what the receiving end uses ----------------------------------------------------------------------

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for the body."""
        return self._waiter is not None

    def feed(self, data: bytes) -> None:
        """A piece of the body."""
        self.received += len(data)
        if self.dropping:
            return
        self._chunks.append(data)
        if self._waiter is not None and self.declared is None:
            try:
                if self.received > self._max_bytes:
                    raise _too_large(self._max_bytes)
                self._hold(len(data))
            except KvasirError as failure:
                self._fail(failure)

    def end(self) -> None:
        """The body is whole."""
        self.complete = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._whole())

    def cut_off(self) -> None:
        """The connection or stream ended before the body did."""
        self._fail(Invalid("the connection ended before the request body was whole; nothing was done, send it again"))

    def late(self) -> None:
        """The body took too long."""
        seconds = self._listener.limits.body_seconds
        self._fail(Invalid(f"the body was not there within {seconds:g} s; send it faster"))

    def _fail(self, failure: KvasirError) -> None:
        self._failure = failure
        self.drop()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(failure)

    def drop(self) -> None:
        """Keep nothing of the body, neither what is there nor what is to come."""
        self.dropping = True
        self._chunks.clear()
        self._listener.held -= self.held
        self.held = 0

    def _whole(self) -> bytes:
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    def _hold(self, size: int) -> None:
        if self._listener.held + size > self._listener.limits.bodies_in_flight_bytes:
            raise Unavailable("the server holds as many request bodies as it may; try again in a moment")
        self._listener.held += size
        self.held += size


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the request body is longer than the {max_bytes:,} bytes allowed; send less at a time")
