"""The HTTP listener: Granian's RSGI callback, bounded bodies, request ids, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
import time
import types
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings, HTTP2Settings
from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]  # re-exported without saying so
from granian.server.embed import Server

from kvasir.dialects.http import HttpDialect, Response
from kvasir.errors import Invalid, TooLarge, Unavailable
from kvasir.limits import Limits
from kvasir.metrics import Metrics

#: Granian's thread sleeps when it was last spoken to longer ago than this, and to wake it costs as much as a whole GET.
AWAKE_SECONDS = 20e-6
#: So much to say to a sleeping thread is said at once; less waits for the turn of the loop. To collect a whole turn
#: would leave it idle meanwhile. Measured: 8 and 16 wake it too often, without a bound POSTs lose a twentieth.
TOGETHER = 32

#: A body of so many times the longest that is allowed is read to its end although the answer, a failure, does not
#: depend on it; who declares more would send on in vain.
DRAINED_BODIES = 2

#: A body that takes longer is told to the dialect, at the next look at those who wait.
SLOW_SECONDS = 1.0

log = logging.getLogger("kvasir.http")
access = logging.getLogger("kvasir.access")


class _Request:
    """A `kvasir.dialects.http.Request` over an RSGI scope."""

    __slots__ = (
        "_late",
        "_listener",
        "_proto",
        "_scope",
        "_whole",
        "began",
        "header",
        "held",
        "id",
        "method",
        "path",
        "slow",
    )

    def __init__(self, scope: Any, proto: Any, listener: HttpListener, id: str, began: float) -> None:
        self._scope = scope
        self._proto = proto
        self._listener = listener
        #: Gives the body, or the next piece of it, once Granian was asked for it.
        self._whole: Any = None
        self.id = id
        #: On the performance counter
        self.began = began
        #: Whether the wait for the body was ended because it took too long.
        self._late = False
        self.slow = False
        self.method: str = scope.method
        self.path: str = scope.path
        #: Granian's own method: a function around it would cost every request as much as what it does.
        self.header: Callable[[str], str | None] = scope.headers.get
        #: Bytes of the body that count against the server's bound.
        self.held = 0

    @property
    def query(self) -> str:
        text: str = self._scope.query_string
        return text

    @property
    def cookie(self) -> str | None:
        pairs: list[str] = self._scope.headers.get_all("cookie")
        return "; ".join(pairs) or None

    async def body(self, limit: int | None = None) -> bytes:
        listener = self._listener
        limits = listener.limits
        most = limits.body_bytes if limit is None or limit > limits.body_bytes else limit
        declared = self.header("content-length")
        if declared == "0" or (declared is None and self._scope.http_version[0] == "1" and not self._is_chunked()):
            return b""  # asking for it would take a turn through Granian's threads all the same
        listener.reading.add(self)
        try:
            if declared is None:
                return await self._unmeasured(most)
            length = int(declared) if declared.isdigit() else most + 1
            if length > most:
                raise _too_large(most)
            # What `_hold` does, without the call: this is on the path of every body.
            held = listener.held + length
            if held > limits.bodies_in_flight_bytes:
                raise _no_room()
            listener.held = held
            self.held = length
            await listener.outbox.say(self._ask)
            whole: bytes = await self._whole
            return whole
        except asyncio.CancelledError:
            if not self._late:
                raise
            raise Invalid(f"the body was not there within {limits.body_seconds:g} s; send it faster") from None
        except ProtocolClosed:
            raise _cut_off() from None
        finally:
            listener.reading.remove(self)

    async def drain(self) -> None:
        """Read a body that nobody has asked for.

        Else the connection ends with the answer, perhaps before the client is through with what it sends, and then many
        a client does not see the answer. The pieces are dropped as they come: strangers must not use up what bodies may
        hold. A longer body ends with its connection, or in HTTP/2 with its stream.
        """
        most = DRAINED_BODIES * self._listener.limits.body_bytes
        declared = self.header("content-length")
        if declared is None:
            if self._scope.http_version[0] == "1" and not self._is_chunked():
                return  # there is none
        elif not declared.isdigit() or not 0 < int(declared) <= most:
            return
        if self._whole is not None:
            return
        if self.header("expect") is not None:
            return  # the client waits for the answer before it sends
        reading = self._listener.reading
        reading.add(self)
        try:
            size = 0
            async for piece in self._pieces():
                size += len(piece)
                if size > most:
                    break
        except asyncio.CancelledError:
            if not self._late:
                raise
        except ProtocolClosed:
            pass  # whoever is gone misses no answer
        finally:
            reading.remove(self)

    def _ask(self) -> None:
        self._whole = self._proto()

    def give_up(self) -> None:
        """Wait no longer for the body."""
        # It may not have been asked for yet, or its last piece may just have come.
        if self._whole is not None and self._whole.cancel():
            self._late = True

    def _is_chunked(self) -> bool:
        return self.header("transfer-encoding") is not None

    async def _pieces(self) -> AsyncIterator[bytes]:
        stream = aiter(self._proto)
        with contextlib.suppress(StopAsyncIteration):
            while True:
                self._whole = anext(stream)
                yield await self._whole

    async def _unmeasured(self, most: int) -> bytes:
        pieces = bytearray()
        empty = 0
        async for piece in self._pieces():
            empty = 0 if piece else empty + 1
            self._hold(len(piece))
            pieces += piece
            if len(pieces) > most:
                raise _too_large(most)
        # Granian ends every body with an empty piece. In HTTP/1.1 it tells one that was cut off by a second one, and
        # in no other way; trailers make a second one, too. If they were announced, what is there may be the whole,
        # and JSON shows if it is not; nothing at all shows nothing.
        if empty > 1 and self._scope.http_version == "1.1" and (self.header("trailer") is None or not pieces):
            raise _cut_off()
        return bytes(pieces)

    def _hold(self, size: int) -> None:
        if self._listener.held + size > self._listener.limits.bodies_in_flight_bytes:
            raise _no_room()
        self._listener.held += size
        self.held += size


def _cut_off() -> Invalid:
    return Invalid(
        "the connection ended before the request body was whole, or the body has trailers that no Trailer header "
        "announces; nothing was done, send it again"
    )


def _no_room() -> Unavailable:
    return Unavailable("the server holds as many request bodies as it may; try again in a moment")


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"the request body is longer than the {most:,} bytes allowed; send less at a time")


class _Outbox:
    """What is to be said to Granian's thread, which sleeps between requests: few of many calls have to wake it."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], None]] = []
        #: When the thread was last spoken to, on the performance counter.
        self._spoke = 0.0

    @types.coroutine
    def say(self, call: Callable[[], None]) -> Generator[None, None, None]:
        """Make a call at once if the thread is awake, else when everything else that is ready has run."""
        now = time.perf_counter()
        calls = self._calls
        if not calls and now - self._spoke <= AWAKE_SECONDS:
            self._spoke = now
            call()
            return
        calls.append(call)
        if len(calls) < TOGETHER:
            yield  # for a turn of the loop; cheaper than a future
        if calls is self._calls:
            self._say_all()

    def _say_all(self) -> None:
        """The first of those who waited speaks for all."""
        calls, self._calls = self._calls, []
        for call in calls:
            try:
                call()
            except Exception:
                log.exception("a call to the HTTP server failed")
        self._spoke = time.perf_counter()


class HttpListener:
    """Answers every HTTP request of one process, whichever socket it came by."""

    def __init__(
        self,
        dialects: Sequence[HttpDialect],
        metrics: Metrics,
        limits: Limits,
        *,
        fallback: HttpDialect,
        log_requests: bool,
    ) -> None:
        """The first dialect that serves a path answers, `fallback` where none does."""
        self.limits = limits
        self.held = 0
        self.in_flight = 0
        self.outbox = _Outbox()
        #: Requests that wait for their bodies.
        self.reading: set[_Request] = set()
        self._looks = False
        self._dialects = tuple((dialect.serves, dialect) for dialect in dialects)
        self._fallback = fallback
        self._observe = metrics.observe
        self._log_requests = log_requests
        self._ids = map((secrets.token_hex(6) + "-%x").__mod__, itertools.count(1))

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Granian's call, once for each socket."""
        if not self._looks:
            self._looks = True
            self._give_up_late(loop)

    def _give_up_late(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the wait for bodies that take too long. One look a second costs less than a timer each."""
        seconds = self.limits.body_seconds
        now = time.perf_counter()
        for request in self.reading:
            waited = now - request.began
            request.slow = waited > SLOW_SECONDS
            if waited > seconds:
                request.give_up()
        loop.call_later(min(1.0, seconds / 4), self._give_up_late, loop)

    async def __rsgi__(self, scope: Any, proto: Any) -> None:
        began = time.perf_counter()
        request = _Request(scope, proto, self, next(self._ids), began)
        path = request.path
        chosen = self._fallback
        for serves, dialect in self._dialects:
            if serves(path):
                chosen = dialect
                break
        self.in_flight += 1
        try:
            try:
                response = await chosen(request)
            except Exception:
                # Dialects answer their failures themselves; this is a bug in one, and its neighbours must not notice.
                log.exception("request %s: a dialect failed", request.id)
                response = Response(
                    500, b'{"code":"internal","message":"internal error"}', chosen.operations[0], "internal"
                )
            if response.outcome != "ok":
                await request.drain()
        finally:
            self.held -= request.held
        headers = [("content-type", response.content_type), ("x-request-id", request.id), *response.headers]
        await self.outbox.say(partial(proto.response_bytes, response.status, headers, response.body))
        seconds = time.perf_counter() - began
        self.in_flight -= 1
        self._observe(chosen.name, response.operation, response.outcome, seconds)
        if self._log_requests:
            access.info(
                "%s %s %s %d %.1f ms", request.id, chosen.name, response.operation, response.status, seconds * 1000
            )

    async def drained(self, seconds: float) -> bool:
        """Wait until no request is in flight; False if `seconds` were not enough."""
        try:
            async with asyncio.timeout(seconds):
                while self.in_flight:  # noqa: ASYNC110  # one loop a process, at its end; an event would cost every request
                    await asyncio.sleep(0.01)
        except TimeoutError:
            return False
        return True


class HttpSocket:
    """One address that an `HttpListener` is reached by."""

    def __init__(
        self, listener: HttpListener, host: str, port: int, *, cert: Path | None = None, key: Path | None = None
    ) -> None:
        self._server = Server(
            listener,
            address=host,
            port=port,
            interface=Interfaces.RSGI,
            http=HTTPModes.auto,
            websockets=False,
            log_enabled=False,
            backlog=1024,
            backpressure=listener.limits.connections,
            http1_settings=HTTP1Settings(header_read_timeout=30_000, max_buffer_size=131_072),
            # Who answers no ping within twenty seconds is gone, or only takes up a place.
            http2_settings=HTTP2Settings(
                max_headers_size=65_536, max_concurrent_streams=256, keep_alive_interval=30_000, keep_alive_timeout=20
            ),
            ssl_cert=cert,
            ssl_key=key,
            ssl_protocol_min=SSLProtocols.tls12,
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to accept connections."""
        self._task = asyncio.create_task(self._server.serve())

    async def stop(self, seconds: float) -> None:
        """Accept no more; wait until each connection has ended after the request it is at, but no longer than this."""
        self._server.stop()  # type: ignore[no-untyped-call]
        if self._task is not None:
            # A client that neither reads nor sends would keep its connection, and the server, for good.
            await asyncio.wait((self._task,), timeout=seconds)
