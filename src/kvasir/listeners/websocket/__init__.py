"""The listener for WebSocket APIs: sockets, frames, limits and time. It knows nothing of what messages say.

    listener = WebSocketListener(dialect, WebSocketLimits(...))
    await listener.start(listening_socket)
    await listener.stop(drain_seconds)

Close codes: 1001 the server stops, or a client was silent for too long; 1002 a frame breaks the protocol; 1008 a
message takes too long to arrive; 1009 a message is too long; 1013 a client does not read its replies, or there are too
many bytes of unfinished messages. The dialect has codes of its own.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import urllib.parse
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakSet

from picows import WSUpgradeRequest, WSUpgradeResponseWithListener, ws_create_server

from kvasir.dialects.websocket import Dialect
from kvasir.limits import WebSocketLimits, refused
from kvasir.listeners.websocket.accepting import Accepted, Accepting
from kvasir.listeners.websocket.connection import BUFFER_BYTES, Connection
from kvasir.listeners.websocket.upgrade import accept, members, names, origin_allowed, refuse, trace_of

__all__ = ["WebSocketListener"]

log = logging.getLogger("kvasir.websocket")

# Clients learn of their mistakes on the wire; in the log these would be noise that any stranger can make. An adapter
# also keeps picows from creating a logger for every connection.
_silent = logging.getLogger("picows")
_silent.setLevel(logging.CRITICAL)
_frames_log = logging.LoggerAdapter(_silent, {})

#: The version of RFC 6455. picows also accepts two drafts, which have the same frames but another name for Origin.
VERSION = "13"

#: How often each connection is checked against the limits on time, and whether its key is still valid.
ROUND_SECONDS = 2.0

#: How long a client may take to end TLS.
SHUTDOWN_SECONDS = 2.0

#: Connections are looked after in turns: one part of them at every tick.
_PARTS = 8


class WebSocketListener:
    """A listening socket and its connections."""

    def __init__(
        self,
        dialect: Dialect,
        limits: WebSocketLimits,
        *,
        origins: tuple[str, ...] = (),
        round_seconds: float = ROUND_SECONDS,
    ) -> None:
        """`origins`: web pages that may connect, besides those of this machine."""
        self.dialect = dialect
        self.limits = limits
        #: Bytes of unfinished messages, and of unread replies, of all connections
        self.unfinished = self.unread = 0
        self.paused: set[Connection] = set()
        self._origins = origins
        self._round_seconds = round_seconds
        self._parts: list[set[Connection]] = [set() for _ in range(_PARTS)]
        self._turn = 0
        self._servers: list[Any] = []
        self._listening: tuple[socket.socket, ...] = ()
        #: Connections that have a file, upgraded or not
        self._opened: WeakSet[Accepted] = WeakSet()
        self._ticking: asyncio.TimerHandle | None = None
        #: What runs until `stop`: whatever ends before has failed, and is why the listener cannot go on.
        self.running: list[asyncio.Task[None]] = []
        self._stopping = False

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._servers[0].sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return sum(map(len, self._parts))

    async def start(self, *listening: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Accept connections at sockets that listen, which are closed in the end."""
        seconds = self.limits.handshake_seconds
        of_tls: dict[str, Any] = (
            {"ssl_handshake_timeout": seconds, "ssl_shutdown_timeout": SHUTDOWN_SECONDS} if tls else {}
        )
        self._listening = listening
        for each in listening:
            server = await ws_create_server(
                self._upgrade,
                sock=Accepting(each, self._opened, self.limits.accepted),
                backlog=1024,
                websocket_handshake_timeout=seconds,
                logger_name=_frames_log,
                max_frame_size=self.limits.max_payload,
                read_buffer_init_size=BUFFER_BYTES,
                ssl=tls,
                **of_tls,
            )
            self._servers.append(server)
        self.running.append(asyncio.get_running_loop().create_task(self._watch(listening)))
        self._tick()

    async def _watch(self, listening: tuple[socket.socket, ...]) -> None:
        """Raise OSError once nothing is accepted any more: the event loop does not say so."""
        while True:
            for each in listening:
                if each.fileno() < 0 or not each.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    raise OSError("a socket takes no more connections")
            await asyncio.sleep(self._round_seconds)

    async def stop(self, drain_seconds: float) -> None:
        """Accept no more connections, answer the requests that have started, and close with 1001."""
        for task in self.running:
            task.cancel()
        self._stopping = True
        for server in (*self._servers, *self._listening):
            server.close()
        connections = [connection for part in self._parts for connection in part]
        if connections:
            leaving = [asyncio.ensure_future(connection.leave()) for connection in connections]
            _, late = await asyncio.wait(leaving, timeout=drain_seconds)
            for task in late:
                task.cancel()
        for connection in [connection for part in self._parts for connection in part]:
            connection.abort()
        if self._ticking is not None:
            self._ticking.cancel()
        self.dialect.close()

    # -- the upgrade --------------------------------------------------------------------------------------

    def _upgrade(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        if self._stopping:
            return refuse(503, b"the server is stopping; try again later")
        headers = request.headers
        path, _, query = request.path.decode("latin-1").partition("?")
        if len(headers.getall("host", ())) != 1:
            return refuse(400, b"a request needs one Host header")
        if not names(request, "upgrade", "websocket"):
            return refuse(404, b"File Not Found")
        if headers.get("sec-websocket-version") != VERSION:
            return refuse(426, b"the WebSocket version must be 13", {"Sec-WebSocket-Version": VERSION})
        if self.connections >= self.limits.connections:
            refused("nemesis_connections")
            return refuse(503, b"too many connections; try again later")
        if not origin_allowed(headers.get("origin"), headers.get("host", ""), self._origins):
            return refuse(403, b"pages of this origin may not connect, unless the server's settings list it")
        authorization = headers.get("authorization")
        if authorization is None and (keys := urllib.parse.parse_qs(query).get("key")):
            authorization = f"Bearer {keys[0]}"
        if self.dialect.needs_key and authorization is None:
            return refuse(401, b"send an access key: Authorization: Bearer KEY, or ?key=KEY")
        if not names(request, "connection", "Upgrade"):
            return refuse(400, b"an upgrade needs the header Connection: Upgrade")
        return accept(
            members(request, "sec-websocket-protocol"), Connection(self, path, authorization, trace_of(request))
        )

    # -- connections --------------------------------------------------------------------------------------

    def joined(self, connection: Connection) -> None:
        """A connection has been opened."""
        min(self._parts, key=len).add(connection)

    def left(self, connection: Connection) -> None:
        """A connection is closed."""
        for part in self._parts:
            part.discard(connection)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._turn = (self._turn + 1) % _PARTS
        self._ticking = loop.call_later(self._round_seconds / _PARTS, self._tick)
        for connection in list(self._parts[self._turn]):
            self._guard(connection, partial(connection.look_after, loop.time()))
        for connection in list(self.paused):
            self._guard(connection, connection.prod)

    def _guard(self, connection: Connection, look: Callable[[], None]) -> None:
        """Whatever is wrong with one connection, the others are to be looked after."""
        try:
            look()
        except Exception:
            log.exception("a connection failed, and is ended")
            connection.abort()
