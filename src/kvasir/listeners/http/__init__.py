"""The HTTP listener: HTTP/1.1 and HTTP/2, plain and over TLS, on the event loop's own sockets. It knows no dialect.

    listener = HttpListener(dialects, metrics, limits, fallback=dialect)
    listener.listen(listening_socket, tls)
    await listener.stop(drain_seconds)

`stop` takes no new connections, ends those without a whole request, lets what was begun be answered, and closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import errno
import itertools
import logging
import math
import secrets
import socket
import ssl
import time
from collections.abc import Coroutine, Sequence
from functools import lru_cache
from typing import Any

from kvasir.dialects.eager import start
from kvasir.dialects.http import Disconnected, HttpDialect, Response, Stream
from kvasir.limits import Limits, refused
from kvasir.listeners.http.connection import Connection
from kvasir.listeners.http.request import CameLate, KnownHeads, Request
from kvasir.listeners.http.streaming import Streaming
from kvasir.metrics import Metrics
from kvasir.timing import METHODS, OTHER, Finished, Watcher, current, trace_of

log = logging.getLogger("kvasir.http")
access = logging.getLogger("kvasir.access")

#: Time for the handshake of a TLS connection, and for a client to confirm its end.
HANDSHAKE_SECONDS, SHUTDOWN_SECONDS = 10.0, 0.5

#: Seconds between two looks at the clock and at what takes too long; a part of the connections each time.
TICK_SECONDS, PARTS = 0.25, 4

#: How many paths are remembered with their dialects, and the longest.
KNOWN_PATHS, KNOWN_PATH_CHARACTERS = 4_096, 300

#: Time for abandoned requests to end when the time to drain is over.
ABANDONED_SECONDS = 0.5

#: Connections that are accepted in one round of the loop
AT_ONCE = 32
#: Pause after the system has refused to accept a connection, most often for want of open files; and the errors of a
#: socket at which nothing will ever be accepted again.
REFUSED_SECONDS = 0.1
BROKEN = (errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP)


def log_request(request: Request, response: Response, seconds: float) -> None:
    """One line of the access log: what a line of text says, and as members of a line of JSON."""
    fields: dict[str, object] = {
        "request": request.id,
        "api": request.dialect.name,
        "operation": response.operation,
        "outcome": response.outcome,
        "status": response.status,
        "milliseconds": round(seconds * 1000, 3),
        "bytes_in": request.received,
        "bytes_out": len(response.body),
    }
    trace = trace_of(request.header)
    if trace is not None:
        fields |= {"trace_id": trace[0], "parent_span_id": trace[1]}
    facts = request.id, request.dialect.name, response.operation, response.status, seconds * 1000
    access.info("%s %s %s %d %.1f ms%s", *facts, f" trace {trace[0]}" if trace else "", extra={"fields": fields})


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
        watcher: Watcher | None = None,
    ) -> None:
        """The first dialect that serves a path answers, `fallback` where none does."""
        self.limits = limits
        self.ids = map((secrets.token_hex(6) + "-%x").__mod__, itertools.count(1))
        #: Connections that are open or shaking hands, those of them over TLS, and requests that are being answered.
        self.connections = self.secured = self.in_flight = 0
        self.heads = KnownHeads(self)
        #: Bytes of request bodies in memory, and of large answers not taken by clients.
        self.held = self.unread = 0
        #: Connections of which nothing is read now
        self.paused: set[Any] = set()
        self.draining = False
        self.now, self.date = time.perf_counter(), b""
        self._dialects = tuple(dialects)
        self._fallback = fallback
        self._known_dialect = lru_cache(KNOWN_PATHS)(self._dialect_of)
        self._observe = metrics.observe
        self._log_requests, self.watcher = log_requests, watcher
        #: How long a request takes that somebody wants to know of
        self._least_seconds = 0.0 if log_requests else math.inf if watcher is None else watcher.seconds
        #: Has a request answered. In two forms, so that watching costs nothing where nobody does.
        self.handle = self._handle if watcher is None else self._handle_watched
        #: Connections that are looked after in turn, and last those that need none until something is sent to them
        self._parts: list[set[Connection]] = [set() for _ in range(PARTS + 1)]
        self._room = asyncio.Event()
        #: What runs until `stop`: whatever ends before has failed, and is why the listener cannot go on.
        self.running: list[asyncio.Task[None]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self, listening: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Accept connections at a socket that listens, and close it in the end."""
        listening.setblocking(False)
        loop = asyncio.get_running_loop()
        if not self.running:
            self.running.append(loop.create_task(self._tick()))
        self.running.append(loop.create_task(self._accept(listening, tls)))

    async def _accept(self, listening: socket.socket, tls: ssl.SSLContext | None) -> None:
        with listening:
            while True:
                try:
                    accepted, _ = await asyncio.get_running_loop().sock_accept(listening)
                except OSError as error:
                    if error.errno in BROKEN:
                        raise
                    log.warning("a connection could not be accepted: %s", error.strerror)
                    await asyncio.sleep(REFUSED_SECONDS)
                    continue
                if self.connections >= self.limits.connections:
                    refused("connections")
                while self.connections >= self.limits.connections:
                    self._room.clear()
                    await self._room.wait()
                self._start(self._open(accepted, tls))
                # The loop gives one a round: the last of many would wait for the requests of all before it.
                with contextlib.suppress(OSError):
                    for _ in range(min(AT_ONCE, self.limits.connections - self.connections)):
                        self._start(self._open(listening.accept()[0], tls))

    async def _open(self, accepted: socket.socket, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        seconds = {"ssl_handshake_timeout": HANDSHAKE_SECONDS, "ssl_shutdown_timeout": SHUTDOWN_SECONDS} if tls else {}
        connection = Connection(self, secure=tls is not None)
        self.connections += 1
        self.secured += tls is not None
        try:
            await loop.connect_accepted_socket(lambda: connection, accepted, ssl=tls, **seconds)
        except OSError:  # what is no TLS, or not TLS of this century, or nothing at all
            accepted.close()
            self.left(connection)

    def joined(self, connection: Any) -> None:
        """A connection is there, or is to be looked after again."""
        min(self._parts[:PARTS], key=len).add(connection)

    def rests(self, connection: Connection) -> None:
        """Nothing can take too long on a connection before something is sent to it."""
        for part in self._parts:
            part.discard(connection)
        self._parts[PARTS].add(connection)

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        for part in self._parts:
            part.discard(connection)
        self.connections -= 1
        self.secured -= connection.secure
        self._room.set()

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        if (task := start(work, asyncio.get_running_loop())) is not None:
            self._keep(task)
        return task

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def stream(self, request: Request, stream: Stream) -> Streaming:
        """Send a streamed answer, whose head is sent, to its end."""
        streaming = Streaming(request, stream)
        self._keep(streaming.task)
        return streaming

    def _handle_watched(self, request: Request) -> None:
        current.set(request)  # what goes on later is a task, which has taken it along
        try:
            self._handle(request)
        finally:
            current.set(None)

    def _handle(self, request: Request) -> None:
        """Have a request answered, at once if nothing has to be waited for."""
        path = request.path
        request.dialect = self._known_dialect(path) if len(path) <= KNOWN_PATH_CHARACTERS else self._dialect_of(path)
        self.in_flight += 1
        try:
            taken = request.dialect.answer_nowait(request)
        except Exception:
            self._fail(request)
        else:
            if not taken:
                request.task = self._start(self._answer(request))

    def _dialect_of(self, path: str) -> HttpDialect:
        for dialect in self._dialects:
            if dialect.serves(path):
                return dialect
        return self._fallback

    async def _answer(self, request: Request) -> None:
        try:
            try:
                response = await request.dialect(request)
            except CameLate:
                response = await request.dialect(request)
        except (asyncio.CancelledError, Disconnected) as error:  # see `Request.abandon`
            self.in_flight -= 1
            request.drop()
            request.owner.cut(request)
            if isinstance(error, asyncio.CancelledError):
                raise
        except Exception:
            self._fail(request)
        else:
            request.answer(response)

    def _fail(self, request: Request) -> None:
        # Dialects answer their failures themselves; this is a bug in one, and its neighbours must not notice.
        log.exception("request %s: a dialect failed", request.id)
        body = b'{"code":"internal","message":"internal error"}'
        request.answer(Response(500, body, request.dialect.operations[0], "internal"))

    def count(self, request: Request, response: Response) -> None:
        """Count a request that is answered."""
        self.in_flight -= 1
        seconds, name = time.perf_counter() - request.began, request.dialect.name
        self._observe(name, response.operation, response.outcome, seconds)
        if seconds >= self._least_seconds:
            self._tell(request, response, seconds)

    def _tell(self, request: Request, response: Response, seconds: float) -> None:
        if self._log_requests:
            log_request(request, response, seconds)
        watcher = self.watcher
        if watcher is not None and seconds >= watcher.seconds:
            method = "HEAD" if request.is_head else request.method if request.method in METHODS else OTHER
            facts = request.id, request.dialect.name, response.operation, response.outcome, method, response.status
            watcher.tell(Finished(*facts, request.began, request.began + seconds, request, request.header))

    async def _tick(self) -> None:
        for turn in itertools.cycle(range(PARTS)):
            self.now = now = time.perf_counter()
            self.date = email.utils.formatdate(usegmt=True).encode()
            for connection in self.paused.union(self._parts[turn]):
                try:
                    connection.look_after(now)
                except Exception:  # whatever is wrong with one, the others are to be served on
                    log.exception("a connection failed, and is ended")
                    connection.abort()
            await asyncio.sleep(TICK_SECONDS)

    async def stop(self, seconds: float) -> bool:
        """See the head of this module. False if requests were still in flight after so many seconds."""
        self.draining = True
        for task in self.running[1:]:
            task.cancel()
        for connection in set[Connection]().union(*self._parts):
            connection.drain()
        deadline = time.perf_counter() + seconds
        while any(self._parts) and time.perf_counter() < deadline:  # noqa: ASYNC110  # once, at the end of a process
            await asyncio.sleep(0.01)
        late = self.in_flight
        for connection in set[Connection]().union(*self._parts):
            connection.abort()
        if self._tasks:  # those that only read are cancelled, and end at their next step
            await asyncio.wait(self._tasks, timeout=ABANDONED_SECONDS)
        return not late
