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

#: Granian's thread sleeps if its last call is longer ago than this, and to wake it costs as much as a whole GET.
AWAKE_SECONDS = 20e-6
#: So many calls to a sleeping thread are made at once; fewer wait for the end of the loop's turn. Waiting for all calls
#: of a turn would leave the thread idle. Measured: 8 and 16 wake it too often, without a bound POSTs lose 5 %.
MAX_WAITING_CALLS = 32

#: A body of up to this many times the longest allowed is read to its end, although the response, a failure, does not
#: depend on it; a client that declares more is cut off.
DRAINED_BODIES = 2

#: After a body that took longer, the dialect is called again; see `_CameLate`.
LATE_SECONDS = 1.0

log = logging.getLogger("kvasir.http")
access = logging.getLogger("kvasir.access")


class _CameLate(BaseException):  # no Exception: a dialect answers those
    """Ends a call of a dialect whose body took long: the credential or the store that it looked up may be gone."""


class _Request:
    """A `kvasir.dialects.http.Request` over an RSGI scope."""

    __slots__ = (
        "_gave_up",
        "_late_body",
        "_listener",
        "_proto",
        "_scope",
        "_whole",
        "began",
        "header",
        "held",
        "id",
        "late",
        "method",
        "path",
    )

    def __init__(self, scope: Any, proto: Any, listener: HttpListener, id: str, began: float) -> None:
        self._scope = scope
        self._proto = proto
        self._listener = listener
        #: Awaits the body, or the next piece of it, once Granian has been asked for it.
        self._whole: Any = None
        self.id = id
        #: On the performance counter
        self.began = began
        #: Whether the wait for the body was ended because it took too long.
        self._gave_up = False
        #: Whether the body has taken more than `LATE_SECONDS`, at the last look.
        self.late = False
        self._late_body: bytes | None = None
        self.method: str = scope.method
        self.path: str = scope.path
        #: Granian's own method: a function around it would cost every request as much again.
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
        if self._late_body is not None:
            return self._late_body
        listener = self._listener
        limits = listener.limits
        max_bytes = limits.body_bytes if limit is None or limit > limits.body_bytes else limit
        declared = self.header("content-length")
        if declared == "0" or (declared is None and self._scope.http_version[0] == "1" and not self._is_chunked()):
            return b""  # asking for it would still take a turn through Granian's threads
        listener.reading.add(self)
        try:
            if declared is None:
                whole = await self._undeclared(max_bytes)
            else:
                length = int(declared) if declared.isdigit() else max_bytes + 1
                if length > max_bytes:
                    raise _too_large(max_bytes)
                # What `_hold` does, without the call: this is on the path of every body.
                held = listener.held + length
                if held > limits.bodies_in_flight_bytes:
                    raise _no_room()
                listener.held = held
                self.held = length
                await listener.outbox.send(self._ask)
                whole = await self._whole
        except asyncio.CancelledError:
            if not self._gave_up:
                raise
            raise Invalid(f"the body did not arrive within {limits.body_seconds:g} s; send it faster") from None
        except ProtocolClosed:
            raise _cut_off() from None
        finally:
            listener.reading.remove(self)
        if self.late:
            self._late_body = whole
            raise _CameLate
        return whole

    async def drain(self) -> None:
        """Read a body that nobody has asked for.

        Otherwise the connection ends with the response, perhaps while the client is still sending, and many clients
        then never see the response. The pieces are dropped as they arrive, so that strangers cannot fill the memory
        meant for bodies. A longer body ends with its connection, or in HTTP/2 with its stream.
        """
        max_bytes = DRAINED_BODIES * self._listener.limits.body_bytes
        declared = self.header("content-length")
        if declared is None:
            if self._scope.http_version[0] == "1" and not self._is_chunked():
                return  # there is none
        elif not declared.isdigit() or not 0 < int(declared) <= max_bytes:
            return
        if self._whole is not None:
            return
        if self.header("expect") is not None:
            return  # the client waits for the response before it sends
        reading = self._listener.reading
        reading.add(self)
        try:
            size = 0
            async for piece in self._pieces():
                size += len(piece)
                if size > max_bytes:
                    break
        except asyncio.CancelledError:
            if not self._gave_up:
                raise
        except ProtocolClosed:
            pass  # a client that is gone misses no response
        finally:
            reading.remove(self)

    def _ask(self) -> None:
        self._whole = self._proto()

    def give_up(self) -> None:
        """Stop waiting for the body."""
        # It may not have been asked for yet, or its last piece may just have arrived.
        if self._whole is not None and self._whole.cancel():
            self._gave_up = True

    def _is_chunked(self) -> bool:
        return self.header("transfer-encoding") is not None

    async def _pieces(self) -> AsyncIterator[bytes]:
        stream = aiter(self._proto)
        with contextlib.suppress(StopAsyncIteration):
            while True:
                self._whole = anext(stream)
                yield await self._whole

    async def _undeclared(self, max_bytes: int) -> bytes:
        pieces = bytearray()
        empty = 0
        async for piece in self._pieces():
            empty = 0 if piece else empty + 1
            self._hold(len(piece))
            pieces += piece
            if len(pieces) > max_bytes:
                raise _too_large(max_bytes)
        # Granian ends every body with an empty piece. In HTTP/1.1 the only sign that a body was cut off is a second
        # one; trailers make a second one, too. If trailers were announced, the body may be whole, and its JSON shows
        # if it is not; but an empty body shows nothing.
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
        "the connection ended before the request body was complete, or the body has trailers that no Trailer header "
        "announces; nothing was done, send it again"
    )


def _no_room() -> Unavailable:
    return Unavailable("the server holds as many request bodies as it may; try again in a moment")


def _too_large(max_bytes: int) -> TooLarge:
    return TooLarge(f"the request body is longer than the {max_bytes:,} bytes allowed; send less at a time")


class _Outbox:
    """Calls to Granian's thread, which sleeps between requests: made together, so that few of them have to wake it."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], None]] = []
        #: When the last call was made, on the performance counter.
        self._called = 0.0

    @types.coroutine
    def send(self, call: Callable[[], None]) -> Generator[None, None, None]:
        """Make a call at once if the thread is awake, otherwise when everything else that is ready has run."""
        now = time.perf_counter()
        calls = self._calls
        if not calls and now - self._called <= AWAKE_SECONDS:
            self._called = now
            call()
            return
        calls.append(call)
        if len(calls) < MAX_WAITING_CALLS:
            yield  # for a turn of the loop; cheaper than a future
        if calls is self._calls:
            self._send_all()

    def _send_all(self) -> None:
        """The first of those that waited makes the calls of all."""
        calls, self._calls = self._calls, []
        for call in calls:
            try:
                call()
            except Exception:
                log.exception("a call to the HTTP server failed")
        self._called = time.perf_counter()


class HttpListener:
    """Answers every HTTP request to one process, whichever socket it comes through."""

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
        self._watches = False
        self._dialects = tuple((dialect.serves, dialect) for dialect in dialects)
        self._fallback = fallback
        self._observe = metrics.observe
        self._log_requests = log_requests
        self._ids = map((secrets.token_hex(6) + "-%x").__mod__, itertools.count(1))

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Granian calls this once for each socket."""
        if not self._watches:
            self._watches = True
            self._watch_bodies(loop)

    def _watch_bodies(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the wait for bodies that take too long. One look a second costs less than a timer for each."""
        seconds = self.limits.body_seconds
        now = time.perf_counter()
        for request in self.reading:
            waited = now - request.began
            request.late = waited > LATE_SECONDS
            if waited > seconds:
                request.give_up()
        loop.call_later(min(1.0, seconds / 4), self._watch_bodies, loop)

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
                try:
                    response = await chosen(request)
                except _CameLate:
                    response = await chosen(request)
            except Exception:
                # Dialects answer their failures themselves; this is a bug in one, and the others must not notice.
                log.exception("request %s: a dialect failed", request.id)
                response = Response(
                    500, b'{"code":"internal","message":"internal error"}', chosen.operations[0], "internal"
                )
            if response.outcome != "ok":
                await request.drain()
        finally:
            self.held -= request.held
        headers = [("content-type", response.content_type), ("x-request-id", request.id), *response.headers]
        await self.outbox.send(partial(proto.response_bytes, response.status, headers, response.body))
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
                while self.in_flight:  # noqa: ASYNC110  # once, at the end of a process; an event would cost every request
                    await asyncio.sleep(0.01)
        except TimeoutError:
            return False
        return True


class HttpSocket:
    """One address at which an `HttpListener` is reached."""

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
            # A client that does not answer a ping within twenty seconds is gone, or merely takes up a place.
            http2_settings=HTTP2Settings(
                max_headers_size=65_536, max_concurrent_streams=256, keep_alive_interval=30_000, keep_alive_timeout=20
            ),
            ssl_cert=cert,
            ssl_key=key,
            ssl_protocol_min=SSLProtocols.tls12,
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to accept connections."""
        self._task = asyncio.create_task(self._server.serve())

    async def stop(self, seconds: float) -> None:
        """Accept no more connections; wait for each to end after its present request, but no longer than this."""
        self._server.stop()  # type: ignore[no-untyped-call]
        if self._task is not None:
            # A client that neither reads nor sends would hold its connection, and the server, forever.
            await asyncio.wait((self._task,), timeout=seconds)
