"""The WebSocket listener of the NemesisDB API: sockets, frames, limits and time. It knows no command.

    listener = await start_nemesis(dialect, "127.0.0.1", 1987, WebSocketLimits(...), share_port=workers > 1)
    await listener.stop(drain_seconds)

`dialect` is a `kvasir.dialects.nemesis.app.NemesisDialect`. `stop` takes no new connections, lets what was begun be
answered, and closes with 1001. Close codes: 1002 a frame that breaks the protocol, 1007 no UTF-8, 1008 a key that is
not (or no longer) good or a message that takes too long to come in, 1009 a message that is too long, 1013 a client
that does not read what it asked for, or too many bytes of unfinished messages.
"""

from __future__ import annotations

import asyncio
import logging
import urllib.parse
from typing import Any

from picows import WSUpgradeRequest, WSUpgradeResponseWithListener, ws_create_server

from kvasir.dialects.websocket import Dialect
from kvasir.limits import WebSocketLimits
from kvasir.listeners.websocket.connection import BUFFER_BYTES, Connection
from kvasir.listeners.websocket.upgrade import may_come_from, refusal, welcome

__all__ = ["Dialect", "NemesisListener", "start_nemesis"]

#: What clients do wrong is answered on the wire; in the log it would only be noise that strangers can make. As an
#: adapter it also saves a logger for every connection.
_silent = logging.getLogger("picows")
_silent.setLevel(logging.CRITICAL)
_frames_log = logging.LoggerAdapter(_silent, {})

#: The version of RFC 6455. picows would also take two drafts, whose frames are the same but whose Origin is not.
VERSION = "13"

#: How often each connection is checked for the limits on time, and whether it may stay.
ROUND_SECONDS = 2.0

#: Connections are looked after in turns, a part of them at every tick.
_PARTS = 8


async def start_nemesis(
    dialect: Dialect,
    host: str,
    port: int,
    limits: WebSocketLimits,
    *,
    origins: tuple[str, ...] = (),
    share_port: bool = False,
    round_seconds: float = ROUND_SECONDS,
) -> NemesisListener:
    """Listen. Raises OSError if the address cannot be had. Port 0 takes a free one: see `NemesisListener.port`.

    `origins`: web pages that may connect, besides those of this machine.
    """
    listener = NemesisListener(dialect, limits, origins, round_seconds)
    await listener.start(host, port, share_port=share_port)
    return listener


class NemesisListener:
    """A listening socket and its connections."""

    def __init__(
        self, dialect: Dialect, limits: WebSocketLimits, origins: tuple[str, ...], round_seconds: float
    ) -> None:
        self.dialect = dialect
        self.limits = limits
        self._origins = origins
        self._round_seconds = round_seconds
        self.unfinished = 0
        self._parts: list[set[Connection]] = [set() for _ in range(_PARTS)]
        self._turn = 0
        self._server: Any = None
        self._ticking: asyncio.TimerHandle | None = None

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """How many there are."""
        return sum(map(len, self._parts))

    async def start(self, host: str, port: int, *, share_port: bool) -> None:
        """See `start_nemesis`."""
        self._server = await ws_create_server(
            self._upgrade,
            host,
            port,
            reuse_port=share_port or None,
            backlog=1024,
            websocket_handshake_timeout=self.limits.handshake_seconds,
            logger_name=_frames_log,
            max_frame_size=self.limits.max_payload,
            read_buffer_init_size=BUFFER_BYTES,
        )
        self._tick()

    async def stop(self, drain_seconds: float) -> None:
        """Take no more connections, answer what was begun, close."""
        self._server.close()
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
        headers = request.headers
        path, _, query = request.path.decode("latin-1").partition("?")
        if "websocket" not in headers.get("upgrade", "").lower():
            return refusal(404, b"File Not Found")
        if headers.get("sec-websocket-version") != VERSION:
            return refusal(426, b"the version of WebSocket must be 13", {"Sec-WebSocket-Version": VERSION})
        if self.connections >= self.limits.connections:
            return refusal(503, b"too many connections; try again later")
        if not may_come_from(headers.get("origin"), headers.get("host", ""), self._origins):
            return refusal(403, b"this origin may not connect; see the setting nemesis_origins")
        authorization = headers.get("authorization")
        if authorization is None and (keys := urllib.parse.parse_qs(query).get("key")):
            authorization = f"Bearer {keys[0]}"
        if self.dialect.needs_key and authorization is None:
            return refusal(401, b"an access key is needed: Authorization: Bearer KEY, or ?key=KEY")
        # Some clients send "keep-alive, Upgrade", which picows does not take apart.
        if "upgrade" in headers.get("connection", "").lower():
            headers["connection"] = "Upgrade"
        return welcome(headers.get("sec-websocket-protocol", ""), Connection(self, path, authorization))

    # -- connections --------------------------------------------------------------------------------------

    def joined(self, connection: Connection) -> None:
        """A connection is there."""
        min(self._parts, key=len).add(connection)

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        for part in self._parts:
            part.discard(connection)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._turn = (self._turn + 1) % _PARTS
        now = loop.time()
        for connection in list(self._parts[self._turn]):
            connection.look_after(now)
        self._ticking = loop.call_later(self._round_seconds / _PARTS, self._tick)
