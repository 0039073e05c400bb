"""The WebSocket listener of the NemesisDB API: sockets, frames, bounds and time. It knows no command.

    listener = await start_nemesis(dialect, "127.0.0.1", 1987, NemesisBounds(...), share_port=workers > 1)
    await listener.stop(drain_seconds)

`dialect` is a `kvasir.dialects.nemesis.app.NemesisDialect`. `stop` takes no new connections, lets what was begun be
answered, and closes with 1001. Close codes: 1002 a frame that breaks the protocol, 1007 no UTF-8, 1008 a key that is
not (or no longer) good or a message that takes too long to come in, 1009 a message that is too long, 1013 a client
that does not read what it asked for, or too many bytes of unfinished messages.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import logging
import urllib.parse
from typing import Any

from picows import (
    WSCloseCode,
    WSFrame,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_create_server,
)

from kvasir.dialects.nemesis.app import PROFILES, NemesisDialect
from kvasir.dialects.nemesis.conversation import BINARY, Conversation

log = logging.getLogger(__name__)

#: What clients do wrong is answered on the wire; in the log it would only be noise that strangers can make. As an
#: adapter it also saves a logger for every connection.
_silent = logging.getLogger("picows")
_silent.setLevel(logging.CRITICAL)
_frames_log = logging.LoggerAdapter(_silent, {})

#: Bytes of the buffer that a connection starts with; it grows for longer messages and stays so.
_BUFFER_BYTES = 8_192

#: Connections are looked after in turns, a part of them at every tick.
_PARTS = 8

#: How long a closed connection may take to read the close frame and answer it.
_LINGER_SECONDS = 2.0

_TEXT, _CLOSE, _PONG = WSMsgType.TEXT, WSMsgType.CLOSE, WSMsgType.PONG
_GOING_AWAY, _PROTOCOL, _POLICY, _TOO_BIG, _INTERNAL, _TRY_LATER = 1001, 1002, 1008, 1009, 1011, 1013


@dataclasses.dataclass(frozen=True, kw_only=True)
class NemesisBounds:
    """What connections may take. `Bounds` of the dialect has those of its commands."""

    #: Bytes of one message, its fragments together
    max_payload: int = 1_048_576
    connections: int = 20_000
    #: Bytes of replies a connection has not read
    unread_bytes: int = 16_777_216
    #: Messages of a connection that are not answered; beyond, nothing more is read from it
    in_flight: int = 1_024
    #: Bytes of unfinished messages of all connections
    unfinished_bytes: int = 268_435_456
    #: Until the upgrade request is there
    handshake_seconds: float = 10.0
    #: From the first byte of a message to its last
    message_seconds: float = 30.0
    #: Silence after which a ping is sent, and after which the connection ends
    ping_seconds: float = 164.0
    idle_seconds: float = 180.0
    #: Each connection is looked at so often for the three bounds above
    round_seconds: float = 2.0
    #: Web pages that may connect, beside those of this machine
    origins: tuple[str, ...] = ()


async def start_nemesis(
    dialect: NemesisDialect, host: str, port: int, bounds: NemesisBounds | None = None, *, share_port: bool = False
) -> NemesisListener:
    """Listen. Raises OSError if the address cannot be had. Port 0 takes a free one: see `NemesisListener.port`."""
    listener = NemesisListener(dialect, bounds or NemesisBounds())
    await listener.start(host, port, share_port=share_port)
    return listener


class NemesisListener:
    """A listening socket and its connections."""

    def __init__(self, dialect: NemesisDialect, bounds: NemesisBounds) -> None:
        self.dialect = dialect
        self.bounds = bounds
        self.unfinished = 0
        self._parts: list[set[_Connection]] = [set() for _ in range(_PARTS)]
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
            websocket_handshake_timeout=self.bounds.handshake_seconds,
            logger_name=_frames_log,
            max_frame_size=self.bounds.max_payload,
            read_buffer_init_size=_BUFFER_BYTES,
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

    # -- the upgrade --------------------------------------------------------------------------------------

    def _upgrade(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        headers = request.headers
        path, _, query = request.path.decode("latin-1").partition("?")
        if "websocket" not in headers.get("upgrade", "").lower():
            return _refusal(404, b"File Not Found")
        if self.connections >= self.bounds.connections:
            return _refusal(503, b"too many connections; try again later")
        if not self._may_come_from(headers.get("origin"), headers.get("host", "")):
            return _refusal(403, b"this origin may not connect; see the setting nemesis_origins")
        authorization = headers.get("authorization")
        if authorization is None and (keys := urllib.parse.parse_qs(query).get("key")):
            authorization = f"Bearer {keys[0]}"
        if self.dialect.needs_key and authorization is None:
            return _refusal(401, b"an access key is needed: Authorization: Bearer KEY, or ?key=KEY")
        # Some clients send "keep-alive, Upgrade", which picows does not take apart.
        if "upgrade" in headers.get("connection", "").lower():
            headers["connection"] = "Upgrade"
        profile = path.strip("/")
        if profile not in PROFILES:
            profile = self.dialect.bounds.profile
        offered = headers.get("sec-websocket-protocol", "").split(",")[0].strip()
        response = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": offered} if offered else None)
        return WSUpgradeResponseWithListener(response, _Connection(self, profile, authorization))

    def _may_come_from(self, origin: str | None, host: str) -> bool:
        """Whether a web page of this origin may connect; other programs name none.

        A page of this very server's address is welcome, unless the address is a name: whoever owns a name can point
        it at 127.0.0.1 and let strangers' browsers connect.
        """
        if origin is None or origin in self.bounds.origins:
            return True
        netloc = urllib.parse.urlsplit(origin).netloc
        return netloc.lower() == host.lower() and _is_address(netloc)

    # -- connections --------------------------------------------------------------------------------------

    def joined(self, connection: _Connection) -> None:
        """A connection is there."""
        min(self._parts, key=len).add(connection)

    def left(self, connection: _Connection) -> None:
        """A connection is gone."""
        for part in self._parts:
            part.discard(connection)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._turn = (self._turn + 1) % _PARTS
        now = loop.time()
        for connection in list(self._parts[self._turn]):
            connection.look_after(now)
        self._ticking = loop.call_later(self.bounds.round_seconds / _PARTS, self._tick)


def _refusal(status: int, why: bytes) -> WSUpgradeResponseWithListener:
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status, why), None)


def _is_address(netloc: str) -> bool:
    try:
        name = urllib.parse.urlsplit(f"//{netloc}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


class _Watch(asyncio.BufferedProtocol):
    """Stands between the socket and picows, to know when a read is over and how much of a frame is still to come."""

    def __init__(self, inner: Any, connection: _Connection) -> None:
        self._updated = inner.buffer_updated
        self._connection = connection
        # Handed through without a Python frame in between.
        vars(self).update(
            get_buffer=inner.get_buffer, eof_received=inner.eof_received, connection_lost=inner.connection_lost
        )

    def buffer_updated(self, nbytes: int) -> None:
        connection = self._connection
        connection.reading = True
        self._updated(nbytes)
        connection.read(nbytes)

    def pause_writing(self) -> None:
        """The bound on unread bytes is the connection's business."""

    def resume_writing(self) -> None:
        """See `pause_writing`."""


class _Connection(WSListener):
    """One client."""

    def __init__(self, listener: NemesisListener, profile: str, authorization: str | None) -> None:
        self._listener = listener
        self._bounds = listener.bounds
        self._conversation = Conversation(listener.dialect, profile, authorization, self._emit, self._close)
        self._transport: WSTransport | None = None
        self._socket: Any = None
        self._loop = asyncio.get_running_loop()
        self._messages: list[bytes] = []
        #: Whether picows is at work on what has just been read.
        self.reading = False
        self._read_any = False
        #: Bytes of a frame of which more is to come.
        self._tail = 0
        self._fragments: bytearray | None = None
        self._fragments_are_text = True
        self._message_since: float | None = None
        #: What this connection has added to the sum of all unfinished messages.
        self._unfinished = 0
        self._last = self._loop.time()
        self._pinged = False
        self._paused = False
        self._closing = False
        self._gone = asyncio.Event()

    # -- picows calls -------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self._socket = transport.underlying_transport
        self._socket.set_protocol(_Watch(self._socket.get_protocol(), self))
        self._listener.joined(self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:  # noqa: ARG002
        self._listener.left(self)
        self._account(0)
        self._conversation.drop()
        self._transport = self._socket = None
        self._gone.set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self._tail = frame.tail_size
        self._read_any = True
        kind = frame.msg_type
        if self._closing:
            if kind is _CLOSE:
                transport.disconnect()
        elif frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._close(_PROTOCOL, "reserved bits are set")
        elif kind is _TEXT and frame.fin and self._fragments is None:
            self._message(frame.get_payload_as_bytes())
        elif kind is _CLOSE:
            self._closed_by(frame)
        elif kind is not _PONG:
            self._fragment(frame, kind)

    # -- messages -----------------------------------------------------------------------------------------

    def _message(self, message: bytes) -> None:
        if self.reading:
            self._messages.append(message)
        else:
            # It came together with the upgrade, before `_Watch` was there.
            self._feed([message])

    def _fragment(self, frame: WSFrame, kind: WSMsgType) -> None:
        if (kind is WSMsgType.CONTINUATION) == (self._fragments is None):
            self._close(_PROTOCOL, "a fragment out of turn")
            return
        if self._fragments is None:
            self._fragments = bytearray()
            self._message_since = None
            self._fragments_are_text = kind is _TEXT
        if len(self._fragments) + frame.payload_size > self._bounds.max_payload:
            self._close(_TOO_BIG, "the message is too long")
            return
        self._fragments += frame.get_payload_as_memoryview()
        if frame.fin:
            message, self._fragments = bytes(self._fragments), None
            self._message(message if self._fragments_are_text else BINARY)

    def read(self, nbytes: int) -> None:
        """What has just been read has gone through picows."""
        self.reading = False
        if self._read_any:
            self._read_any = False
            if self._fragments is None:
                self._message_since = None
        else:
            self._tail += nbytes
        self._last = -1.0
        messages, self._messages = self._messages, []
        if messages:
            self._feed(messages)
        if self._tail > _BUFFER_BYTES or self._fragments is not None:
            self._account(self._tail + len(self._fragments or b""))
        elif self._unfinished:
            self._account(0)

    def _feed(self, messages: list[bytes]) -> None:
        if self._closing:
            return
        self._conversation.feed(messages)
        if not self._paused and self._conversation.unanswered > self._bounds.in_flight and self._socket is not None:
            self._paused = True
            self._socket.pause_reading()

    def _account(self, unfinished: int) -> None:
        listener = self._listener
        listener.unfinished += unfinished - self._unfinished
        self._unfinished = unfinished
        if listener.unfinished > self._bounds.unfinished_bytes and unfinished:
            self._close(_TRY_LATER, "too many unfinished messages; try again later")

    # -- replies ------------------------------------------------------------------------------------------

    def _emit(self, frames: list[bytes]) -> None:
        transport = self._transport
        if transport is None or self._closing:
            return
        if len(frames) == 1:
            transport.send(_TEXT, frames[0])
        elif frames:
            # One system call for all replies to what was read at once.
            self._socket.write(b"".join([part for frame in frames for part in (_header(len(frame)), frame)]))
        else:
            self._go_on_reading()
            return
        if self._socket.get_write_buffer_size() > self._bounds.unread_bytes:
            self._close(_TRY_LATER, "replies are not read")
        self._go_on_reading()

    def _go_on_reading(self) -> None:
        if self._paused and self._conversation.unanswered <= self._bounds.in_flight // 2 and not self._closing:
            self._paused = False
            self._socket.resume_reading()

    # -- the end ------------------------------------------------------------------------------------------

    def _close(self, code: int, why: str) -> None:
        """Send a close frame after all replies, and give the client a moment to answer it."""
        if self._closing or self._transport is None:
            return
        self._closing = True
        self._transport.send_close(WSCloseCode(code), why.encode())
        if self._paused:
            self._paused = False
            self._socket.resume_reading()
        self._loop.call_later(_LINGER_SECONDS, self.abort)

    def _closed_by(self, frame: WSFrame) -> None:
        """The client closes: answer what it asked before, then its close frame."""
        code, reason = frame.get_close_code(), frame.get_close_message()
        if self._messages:
            messages, self._messages = self._messages, []
            self._feed(messages)
        if self._conversation.unanswered:
            closing = self._loop.create_task(self._close_when_settled(code, reason))
            closing.add_done_callback(lambda _: None)
        else:
            self._echo_close(code, reason)

    async def _close_when_settled(self, code: Any, reason: bytes) -> None:
        await self._conversation.settled()
        self._echo_close(code, reason)

    def _echo_close(self, code: Any, reason: bytes) -> None:
        if self._transport is None or self._closing:
            return
        self._closing = True
        if code == WSCloseCode.NO_INFO:
            self._transport.send(WSMsgType.CLOSE, b"")
        else:
            self._transport.send_close(code, reason)
        self._transport.disconnect()
        self._loop.call_later(_LINGER_SECONDS, self.abort)

    async def leave(self) -> None:
        """The server stops: read nothing more, answer what was begun, close."""
        if self._socket is not None and not self._paused and not self._closing:
            self._paused = True
            self._socket.pause_reading()
        await self._conversation.settled()
        self._close(_GOING_AWAY, "the server stops")
        if self._transport is not None:
            await self._gone.wait()

    def abort(self) -> None:
        """Let go of the socket, whatever is still to be sent."""
        if self._transport is not None:
            self._transport.disconnect(False)

    def look_after(self, now: float) -> None:
        """Once in a while: pings, and the end of clients that take too long."""
        if self._last < 0:
            self._last = now
            self._pinged = False
        unfinished = self._tail or self._fragments is not None
        if not unfinished:
            self._message_since = None
        elif self._message_since is None:
            self._message_since = now
        elif now - self._message_since > self._bounds.message_seconds:
            self._close(_POLICY, "the message takes too long to come in")
            return
        silent = now - self._last
        if silent >= self._bounds.idle_seconds:
            self._close(_GOING_AWAY, "nothing came in for too long")
        elif silent >= self._bounds.ping_seconds and not self._pinged and self._transport is not None:
            self._pinged = True
            self._transport.send_ping()


def _header(length: int) -> bytes:
    """The header of a text frame from a server: final, not masked."""
    if length < 126:
        return bytes((0x81, length))
    if length < 65_536:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")
