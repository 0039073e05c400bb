"""The HTTP listener: HTTP/1.1 and HTTP/2, plain and over TLS, on the event loop's own sockets. It knows no dialect.

    listener = HttpListener(dialects, metrics, limits, fallback=dialect)
    await listener.listen("127.0.0.1", 8901)
    await listener.stop(drain_seconds)

`listen` raises OSError if an address cannot be had. `stop` takes no new connections, ends those without a whole
request, lets what was begun be answered, and closes.
"""

from __future__ import annotations

import asyncio
import email.utils
import itertools
import logging
import secrets
import socket
import ssl
import time
from collections.abc import Sequence
from typing import Any

from kvasir.dialects.eager import start
from kvasir.dialects.http import HttpDialect, Response
from kvasir.limits import Limits
from kvasir.listeners.http.connection import Connection
from kvasir.listeners.http.request import CameLate, Request
from kvasir.metrics import Metrics

__all__ = ["HttpListener"]

log = logging.getLogger("kvasir.http")
access = logging.getLogger("kvasir.access")

BACKLOG = 1_024
HANDSHAKE_SECONDS = 10.0

#: Seconds between two looks at the clock and at what takes too long; a part of the connections each time.
TICK_SECONDS = 0.25
PARTS = 4

#: Pause after the system has refused to accept a connection, most often for want of open files.
REFUSED_SECONDS = 0.1

_FAILED = b'{"code":"internal","message":"internal error"}'


class HttpListener:
    """Answers every HTTP request of one process, whichever socket it came by."""

    def __init__(
        self,
        dialects: Sequence[HttpDialect],
        metrics: Metrics,
        limits: Limits,
        *,
        fallback: HttpDialect,
        log_requests: bool = False,
    ) -> None:
        """The first dialect that serves a path answers; `fallback` answers what none does."""
        self.limits = limits
        self.held = 0
        self.in_flight = 0
        self.reading: set[Request] = set()
        self.draining = False
        self.now = time.perf_counter()
        self.date = b""
        self._dialects = tuple(dialects)
        self._fallback = fallback
        self._observe = metrics.observe
        self._log_requests = log_requests
        self._ids = map((secrets.token_hex(6) + "-%x").__mod__, itertools.count(1))
        self._parts: list[set[Connection]] = [set() for _ in range(PARTS)]
        self._turn = 0
        self._sockets: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._ticking: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop

    # -- sockets ------------------------------------------------------------------------------------------

    async def listen(self, host: str, port: int, *, tls: ssl.SSLContext | None = None, share: bool = False) -> None:
        """Accept connections at every address of a name. `share`: other processes listen there, too."""
        self._loop = asyncio.get_running_loop()
        if self._ticking is None:
            self._room.set()
            self._tick()
        found = await self._loop.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG
        )
        for family, address in dict.fromkeys((each[0], each[4]) for each in found):
            listening = socket.create_server(
                address, family=family, backlog=BACKLOG, reuse_port=share, dualstack_ipv6=False
            )
            self.accept(listening, tls=tls)

    def accept(self, listening: socket.socket, *, tls: ssl.SSLContext | None = None) -> None:
        """Accept connections at a socket that listens already."""
        listening.setblocking(False)
        self._sockets.append(listening)
        self._accepting.append(self._loop.create_task(self._accept(listening, tls)))

    async def _accept(self, listening: socket.socket, tls: ssl.SSLContext | None) -> None:
        while True:
            await self._room.wait()
            try:
                accepted, _ = await self._loop.sock_accept(listening)
            except OSError as error:
                log.warning("a connection could not be accepted: %s", error.strerror)
                await asyncio.sleep(REFUSED_SECONDS)
                continue
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is None:
                await self._loop.connect_accepted_socket(lambda: Connection(self), accepted)
            else:
                task = self._loop.create_task(self._shake_hands(accepted, tls))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _shake_hands(self, accepted: socket.socket, tls: ssl.SSLContext) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: Connection(self), accepted, ssl=tls, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except OSError:  # what is no TLS, or not TLS of this century, or nothing at all
            accepted.close()

    @property
    def connections(self) -> int:
        """How many there are."""
        return sum(map(len, self._parts))

    def joined(self, connection: Connection) -> None:
        """A connection is there."""
        min(self._parts, key=len).add(connection)
        if self.connections >= self.limits.connections:
            self._room.clear()

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        for part in self._parts:
            part.discard(connection)
        self._room.set()

    # -- requests -----------------------------------------------------------------------------------------

    def make(
        self, connection: Any, method: str, target: bytes, headers: dict[bytes, bytes], declared: int | None
    ) -> Request:
        """A request whose head has come."""
        return Request(self, connection, next(self._ids), time.perf_counter(), method, target, headers, declared)

    def handle(self, request: Request) -> None:
        """Have a request answered, at once if nothing has to be waited for."""
        chosen = self._fallback
        for dialect in self._dialects:
            if dialect.serves(request.path):
                chosen = dialect
                break
        request.dialect = chosen
        self.in_flight += 1
        try:
            taken = chosen.answer_nowait(request)
        except Exception:
            self._failed(request)
            return
        if not taken and (task := start(self._answer(request, chosen), self._loop)) is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: Request, dialect: HttpDialect) -> None:
        try:
            try:
                response = await dialect(request)
            except CameLate:
                response = await dialect(request)
        except Exception:
            self._failed(request)
        else:
            self.answered(request, response)

    def _failed(self, request: Request) -> None:
        # Dialects answer their failures themselves; this is a bug in one, and its neighbours must not notice.
        log.exception("request %s: a dialect failed", request.id)
        self.answered(request, Response(500, _FAILED, request.dialect.operations[0], "internal"))

    def answered(self, request: Request, response: Response) -> None:
        """Send the answer to a request, and count it."""
        if request.held:
            self.held -= request.held
            request.held = 0
        self.in_flight -= 1
        request.connection.answer(request, response)
        seconds = time.perf_counter() - request.began
        name = request.dialect.name
        self._observe(name, response.operation, response.outcome, seconds)
        if self._log_requests:
            access.info("%s %s %s %d %.1f ms", request.id, name, response.operation, response.status, seconds * 1000)

    # -- time ---------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self.now = now = time.perf_counter()
        self.date = email.utils.formatdate(usegmt=True).encode()
        for request in list(self.reading):
            if now - request.began > self.limits.body_seconds:
                request.late()
        self._turn = (self._turn + 1) % PARTS
        for connection in list(self._parts[self._turn]):
            connection.look_after(now)
        self._ticking = self._loop.call_later(TICK_SECONDS, self._tick)

    async def stop(self, seconds: float) -> bool:
        """See the head of this module. False if requests were still in flight after so many seconds."""
        self.draining = True
        for task in self._accepting:
            task.cancel()
        for listening in self._sockets:
            listening.close()
        for part in self._parts:
            for connection in list(part):
                connection.drain()
        deadline = time.perf_counter() + seconds
        while self.connections and time.perf_counter() < deadline:  # noqa: ASYNC110  # once, at the end of a process
            await asyncio.sleep(0.01)
        drained = not self.in_flight
        for part in self._parts:
            for connection in list(part):
                connection.abort()
        if self._ticking is not None:
            self._ticking.cancel()
        return drained
