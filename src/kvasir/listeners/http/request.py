"""One HTTP request, of either version, as the dialects see it; and how one that is like earlier ones is recognised."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from kvasir.dialects.http import EncodedBody, HttpDialect, Response, Stream
from kvasir.errors import Invalid, KvasirError, TooLarge, Unavailable
from kvasir.limits import refused
from kvasir.listeners.http.heads import KNOWN_LINE_BYTES, Headers, Line, plain_line
from kvasir.timing import BODY, Timed

if TYPE_CHECKING:
    from kvasir.listeners.http import HttpListener
    from kvasir.listeners.http.streaming import Streaming

#: A body of up to this many times the longest allowed is read to its end although nobody wants it; a longer one is cut
#: off. After one that took more than these seconds, the dialect is called again.
DRAINED_BODIES, LATE_SECONDS = 4, 1.0

#: A piece of a body of fewer bytes is put to the one before it, up to so many: each object costs some forty bytes.
SMALL_BYTES, GATHERED_BYTES = 1_024, 65_536

#: What only reads for so long is slow.
SLOW_SECONDS = 0.1

#: Answers of more bytes, which the loop tells when they are written, count against the room of the process until then.
COUNTED_BYTES = 65_536

#: How many heads of requests are remembered, without their first lines, and the longest.
KNOWN_HEADS, KNOWN_HEAD_BYTES = 1_000, 2_048
#: And how many of those of GET with their first lines.
KNOWN_GETS, KNOWN_GET_BYTES = 2_048, 1_024


class CameLate(BaseException):  # no Exception: a dialect answers those
    """Ends a call of a dialect whose body took long: the credential or the store that it looked up may be gone."""


class Request(Timed):
    """See `kvasir.dialects.http.Request`. Its body is fed to it as it comes in."""

    #: Whether the connection goes on after the answer.
    keep_alive = True
    #: Of HTTP/2: the number of the stream, and bytes of the body for which the client was given no new room yet.
    stream = unacknowledged = 0
    #: Bytes of the body that have come, and those that count against the room of the process.
    received = held = 0
    #: What a HEAD request is answered with is that of GET, without the body (RFC 9110, section 9.3.2).
    is_head = False
    #: Whether nobody wants the body any more, or it is taken piece by piece.
    dropping = piecewise = False
    #: Whether an answer may be sent in chunks; and the one that is on its way.
    chunked = True
    streaming: Streaming | None = None
    #: What runs the dialect, if it had to wait for something.
    task: asyncio.Task[None] | None = None
    _only_reads = _is_left = False
    _max_bytes = 0
    _waiter: asyncio.Future[bytes] | None = None
    _failure: KvasirError | None = None
    #: Whose request it is
    dialect: HttpDialect

    def __init__(self, listener: HttpListener, owner: Any, line: Line, headers: Headers, declared: int | None) -> None:
        """`owner`: answers it. `declared`: length of the body; None: it ends when it ends."""
        self.id = next(listener.ids)
        self.began = self._asked = time.perf_counter()
        self.owner = owner
        self._listener = listener
        self.method, self.raw_path, self.path, self.query = line
        if self.method == "HEAD":
            self.is_head, self.method = True, "GET"
        self.headers = headers
        self.header = headers.get
        self.declared = declared
        self.complete = declared == 0
        self._chunks: list[bytes | bytearray] = []

    async def body(self, limit: int | None = None) -> bytes:
        most = self._listener.limits.body_bytes
        self._max_bytes = most if limit is None else min(limit, most)
        if self._failure is not None:
            raise self._failure
        if (coding := self.coding) is not None:
            raise EncodedBody(coding)
        self._hold(0 if self.complete else self.declared or self.received)
        if self.complete:
            return b"".join(self._chunks)
        body = await self._wait()
        if time.perf_counter() - self.began > LATE_SECONDS:
            raise CameLate
        return body

    async def piece(self) -> bytes:
        if (coding := self.coding) is not None:
            raise EncodedBody(coding)
        self.piecewise = True
        if not (self._chunks or self.complete or self._failure):
            self._asked = time.perf_counter()
            await self._wait()
        if self._failure is not None:
            raise self._failure
        piece = b"".join(self._chunks)
        self._chunks.clear()
        return piece

    async def _wait(self) -> bytes:
        """Wait until there is more of the body, or all of it, as `feed` and `end` say."""
        self._waiter = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        try:
            self.owner.wanted(self)
            return await self._waiter
        finally:
            self._waiter = None
            if self._listener.watcher is not None:
                self.spent(BODY, began, time.perf_counter())

    def body_nowait(self, limit: int | None = None) -> bytes | None:
        most = self._listener.limits.body_bytes
        if not self.complete or self.received > (most if limit is None else min(limit, most)):
            return None
        return None if "content-encoding" in self.headers else b"".join(self._chunks)

    @property
    def coding(self) -> str | None:
        """The content codings of the body; None if it is there as it is, or empty."""
        coding = self.header("content-encoding")
        if coding is None or self.declared == 0:
            return None
        return None if {each.strip().lower() for each in coding.split(",")} <= {"", "identity"} else coding

    def reads_only(self) -> None:
        self._only_reads = True
        if self._is_left:
            self.abandon()

    def is_slow(self, now: float) -> bool:
        """Whether it only reads, takes long, and its client knows of answers that go before the real one."""
        return self._only_reads and now - self.began > SLOW_SECONDS and self.chunked and self.streaming is None

    def writes(self) -> None:
        self._only_reads = False
        if self._is_left:  # it has been cancelled, and must not learn of it amid a write
            raise asyncio.CancelledError

    def abandon(self) -> None:
        """The client is gone, or the time to drain is over: cancel what only reads, or sends an answer."""
        self._is_left = True
        if self.streaming is not None:
            self.streaming.cancel()
        elif self._only_reads and self.task is not None:
            self.task.cancel()

    def answer(self, response: Response) -> None:
        if len(response.body) > COUNTED_BYTES:
            response = self._admitted(response)
        if self.held or not self.complete:
            self.drop()
        self.owner.answer(self, response)
        self._listener.count(self, response)
        if response.__class__ is Stream:
            self.streaming = self._listener.stream(self, response)

    def _admitted(self, response: Response) -> Response:
        """The response, or a failure if too much waits for clients to take it already."""
        limits, size = self._listener.limits, len(response.body)
        if self._listener.unread + size > limits.answers_in_flight_bytes:
            refused("answers_in_flight_bytes")
            why = "the server holds as many answers as it may that clients have not read; try again in a moment"
        elif self.owner.unread + size > limits.connection_answer_bytes:
            refused("connection_answer_bytes")
            why = "too many answers on this connection have not been read; read them, then try again"
        else:
            return response
        return self.dialect.too_much(self, response, Unavailable(why))

    def _hold(self, size: int) -> None:
        most = self._max_bytes
        if max(self.declared or 0, self.received) > most:
            raise TooLarge(f"the request body is longer than the {most:,} bytes allowed; send less at a time")
        if self._listener.held + size > self._listener.limits.bodies_in_flight_bytes:
            refused("bodies_in_flight_bytes")
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
        if len(data) < SMALL_BYTES and self._chunks and len(last := self._chunks[-1]) < GATHERED_BYTES:
            self._chunks[-1] = gathered = last if isinstance(last, bytearray) else bytearray(last)
            gathered += data
        else:
            self._chunks.append(data)
        if self.piecewise:
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(b"")
        elif self._waiter is not None and self.declared is None:
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
        late = now - self._asked > seconds and not self.is_unasked
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


class KnownHeads:
    """What stands in heads below the first line: clients send the same again and again.

    To take it apart and to look at every byte costs as much as to answer; so it is remembered, for all connections.
    """

    def __init__(self, listener: HttpListener) -> None:
        self._listener = listener
        #: Headers and the length of the body
        self._known: dict[bytes, tuple[Headers, int]] = {}
        #: What a whole GET without a body says
        self._gets: dict[bytes, tuple[Line, Headers, int]] = {}

    def recognise(self, data: bytes, owner: Any) -> Request | None:
        """The request of HTTP/1.1 that these bytes are, whole and alone, if nothing about it is new; else None."""
        is_get = data[:1] == b"G" and len(data) <= KNOWN_GET_BYTES
        if is_get and (get := self._gets.get(data)) is not None:
            return Request(self._listener, owner, *get)
        line, _, rest = data.partition(b"\r\n")
        head, ended, body = rest.partition(b"\r\n\r\n")
        known = self._known.get(head)
        if known is None or known[1] != len(body) or not ended or len(line) > KNOWN_LINE_BYTES:
            return None
        plain = plain_line(line)
        if plain is None or len(line) > self._listener.limits.target_bytes:
            return None
        request = Request(self._listener, owner, plain, *known)
        if body:
            request.feed(body)
            request.complete = True
        elif is_get:
            if len(self._gets) >= KNOWN_GETS:
                self._gets.clear()
            self._gets[data] = plain, *known
        return request

    def remember(self, data: bytes, request: Request) -> None:
        """Remember the head of the one request in `data`, if it says nothing out of the ordinary."""
        line, _, rest = data.partition(b"\r\n")
        head, _, body = rest.partition(b"\r\n\r\n")
        ordinary = request.keep_alive and line.endswith(b" HTTP/1.1") and request.declared == len(body)
        if ordinary and len(head) <= KNOWN_HEAD_BYTES and not {"expect", "upgrade"} & request.headers.keys():
            if len(self._known) >= KNOWN_HEADS:
                self._known.clear()
            self._known[head] = request.headers, len(body)
