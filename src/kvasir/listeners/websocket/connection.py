"""One client's connection: frames to messages, replies to frames, and the limits on both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport

from kvasir.dialects.websocket import Dialect
from kvasir.limits import WebSocketLimits, refused

#: Bytes of the buffer that a connection starts with; it grows with longer messages and never shrinks.
BUFFER_BYTES = 8_192

#: How long a client may take to answer a close frame.
_LINGER_SECONDS = 2.0

_TEXT, _CLOSE, _PONG = WSMsgType.TEXT, WSMsgType.CLOSE, WSMsgType.PONG
#: The close code that no frame may carry: the connection is just cut.
ABNORMAL = 1006
_GOING_AWAY, _PROTOCOL, _POLICY, _TOO_BIG, _TRY_LATER = 1001, 1002, 1008, 1009, 1013


class Listener(Protocol):
    """The listener, as a connection knows it."""

    limits: WebSocketLimits
    dialect: Dialect
    #: Bytes of unfinished messages, and of unread replies, of all connections
    unfinished: int
    unread: int
    #: Connections of which nothing is read until some of their messages are answered
    paused: set[Connection]

    def joined(self, connection: Connection) -> None:
        """A connection has been opened."""

    def left(self, connection: Connection) -> None:
        """A connection is closed."""


class Watch(asyncio.BufferedProtocol):
    """Stands between the socket and picows to learn when a read is over, and how much of a frame has not arrived."""

    def __init__(self, inner: Any, connection: Connection) -> None:
        self._updated = inner.buffer_updated
        self._connection = connection
        # Passed on as they are, without a Python frame in between.
        vars(self).update(
            get_buffer=inner.get_buffer, eof_received=inner.eof_received, connection_lost=inner.connection_lost
        )

    def buffer_updated(self, nbytes: int) -> None:
        connection = self._connection
        connection.reading = True
        self._updated(nbytes)
        connection.read(nbytes)

    def pause_writing(self) -> None:
        self._connection.crowd(crowded=True)

    def resume_writing(self) -> None:
        self._connection.crowd(crowded=False)


class Connection(WSListener):
    """One client."""

    def __init__(
        self, listener: Listener, path: str, authorization: str | None, header: Callable[[str], str | None]
    ) -> None:
        self._listener = listener
        self._limits = listener.limits
        self._conversation = listener.dialect.converse(path, authorization, self._emit, self._close, header)
        self._transport: WSTransport | None = None
        self._socket: Any = None
        self._loop = asyncio.get_running_loop()
        self._messages: list[bytes | None] = []
        #: Whether picows is processing what has just been read.
        self.reading = False
        self._read_any = False
        #: Bytes of a frame that has not fully arrived.
        self._tail = 0
        self._fragments: bytearray | None = None
        self._fragments_are_text = True
        self._message_since: float | None = None
        #: Bytes of replies that count as unread, those at the last look, and since when the client has read none.
        self._unread = self._unread_seen = 0
        self._unread_since: float | None = None
        #: Bytes that have come since all messages were answered, with the read before that
        self._in_flight = 0
        #: This connection's share of the unfinished bytes of all connections.
        self._unfinished = 0
        self._last = self._loop.time()
        self._pinged = False
        self._paused = False
        #: `_broken`: the client has broken the protocol, so that nothing more of it is taken.
        self._closing = self._broken = False
        self._gone = asyncio.Event()

    # -- picows calls -------------------------------------------------------------------------------------

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self._socket = transport.underlying_transport
        self._socket.set_protocol(Watch(self._socket.get_protocol(), self))
        self._listener.joined(self)
        self._conversation.look_after()

    def on_ws_disconnected(self, transport: WSTransport) -> None:  # noqa: ARG002
        self._listener.left(self)
        self._listener.paused.discard(self)
        self._account(0)
        self._count_unread(0)
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
        elif self._broken:
            pass
        elif frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._break_off(_PROTOCOL, "reserved bits are set")
        elif kind is _TEXT and frame.fin and self._fragments is None and self.reading:
            self._messages.append(frame.get_payload_as_bytes())
        elif kind is _CLOSE:
            self._closed_by(frame)
        elif kind is not _PONG:
            self._fragment(frame, kind)

    # -- messages -----------------------------------------------------------------------------------------

    def _message(self, message: bytes | None) -> None:
        if self.reading:
            self._messages.append(message)
        else:
            # It arrived together with the upgrade, before there was a `Watch`.
            self._feed([message])

    def _fragment(self, frame: WSFrame, kind: WSMsgType) -> None:
        if (kind is WSMsgType.CONTINUATION) == (self._fragments is None):
            self._break_off(_PROTOCOL, "an unexpected fragment")
            return
        if self._fragments is None:
            self._fragments = bytearray()
            self._message_since = None
            self._fragments_are_text = kind is _TEXT
        if len(self._fragments) + frame.payload_size > self._limits.max_payload:
            self._break_off(_TOO_BIG, "the message is too long")
            return
        self._fragments += frame.get_payload_as_memoryview()
        if frame.fin:
            message, self._fragments = bytes(self._fragments), None
            self._message(message if self._fragments_are_text else None)

    def read(self, nbytes: int) -> None:
        """picows has processed what has just been read."""
        self.reading = False
        if self._read_any:
            self._read_any = False
            if self._fragments is None:
                self._message_since = None
        else:
            self._tail += nbytes
        self._last = -1.0
        self._in_flight = self._in_flight + nbytes if self._conversation.unanswered else nbytes
        messages, self._messages = self._messages, []
        if messages:
            self._feed(messages)
        if self._closing:
            return
        if self._tail > BUFFER_BYTES or self._fragments is not None:
            self._account(self._tail + len(self._fragments or b""))
        elif self._unfinished:
            self._account(0)

    def _feed_waiting(self) -> None:
        """Feed what has come before the end that the connection is about to have."""
        messages, self._messages = self._messages, []
        if messages:
            self._feed(messages)

    def _feed(self, messages: list[bytes | None]) -> None:
        if self._closing:
            return
        self._conversation.feed(messages)
        unanswered, limits = self._conversation.unanswered, self._limits
        enough = unanswered and (unanswered > limits.in_flight or self._in_flight > limits.in_flight_bytes)
        if enough and not self._paused and self._socket is not None:
            self._paused = True
            self._listener.paused.add(self)
            self._socket.pause_reading()

    def crowd(self, *, crowded: bool) -> None:
        """Whether the client leaves replies unread."""
        self._unread_since = self._loop.time() if crowded else None
        if not crowded:
            self._count_unread(0)

    def _count_unread(self, size: int) -> None:
        self._listener.unread += size - self._unread
        self._unread = size

    def _account(self, unfinished: int) -> None:
        listener = self._listener
        listener.unfinished += unfinished - self._unfinished
        self._unfinished = unfinished
        if listener.unfinished > self._limits.unfinished_bytes and unfinished:
            refused("nemesis_unfinished_bytes")
            self._close(_TRY_LATER, "too many unfinished messages; try again later")

    # -- replies ------------------------------------------------------------------------------------------

    def _emit(self, frames: list[bytes]) -> None:
        transport = self._transport
        if transport is None or self._closing:
            return
        # picows closes by itself where a frame breaks the protocol, and no reply may follow its close frame.
        if transport.is_close_frame_sent:
            return
        if len(frames) == 1:
            transport.send(_TEXT, frames[0])
        elif frames:
            # One system call for all replies to one read.
            parts: list[bytes] = []
            for frame in frames:
                length = len(frame)
                parts += (_HEADERS[length] if length < len(_HEADERS) else _header(length), frame)
            self._socket.write(b"".join(parts))
        else:
            self._go_on_reading()
            return
        unread = self._socket.get_write_buffer_size()
        if self._unread_since is not None:
            self._count_unread(unread)
        if unread > self._limits.unread_bytes or self._listener.unread > self._limits.all_unread_bytes:
            of_one = unread > self._limits.unread_bytes
            refused("nemesis_unread_bytes" if of_one else "nemesis_all_unread_bytes")
            self._close(_TRY_LATER, "the client does not read its replies")
        self._go_on_reading()

    def _go_on_reading(self) -> None:
        if not self._paused or self._closing:
            return
        unanswered, limits = self._conversation.unanswered, self._limits
        few = limits.in_flight // 2 if self._in_flight <= limits.in_flight_bytes else 0
        if unanswered <= few:
            self._in_flight = 0
            self._paused = False
            self._listener.paused.discard(self)
            self._socket.resume_reading()

    def prod(self) -> None:
        """Nothing is read of it: if the client has left, only an answer to something that is sent will tell."""
        if self._transport is not None and not self._closing and self._unread_since is None:
            self._transport.send_ping()

    # -- the end ------------------------------------------------------------------------------------------

    def _close(self, code: int, why: str) -> None:
        """Send a close frame after all replies, and give the client a moment to answer it."""
        self._feed_waiting()
        if self._closing or self._transport is None:
            return
        self._closing = True
        self._account(0)
        if code == ABNORMAL:
            self.abort()
            return
        self._transport.send_close(WSCloseCode(code), why.encode())
        if self._paused:
            self._paused = False
            self._socket.resume_reading()
        self._loop.call_later(_LINGER_SECONDS, self.abort)

    def _break_off(self, code: int, why: str) -> None:
        """The client breaks the protocol: answer what came before, then close."""
        self._broken = True
        self._feed_waiting()
        self._when_settled(lambda: self._close(code, why))

    def _closed_by(self, frame: WSFrame) -> None:
        """The client closes: answer its requests, then its close frame."""
        code, reason = frame.get_close_code(), frame.get_close_message()
        self._feed_waiting()
        self._when_settled(lambda: self._echo_close(code, reason))

    def _when_settled(self, end: Callable[[], None]) -> None:
        """End the connection when what it has asked for is answered."""
        if self._conversation.unanswered:
            closing = self._loop.create_task(self._settle(end))
            closing.add_done_callback(lambda _: None)
        else:
            end()

    async def _settle(self, end: Callable[[], None]) -> None:
        await self._conversation.settled()
        end()

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
        """The server stops: read nothing more, answer the requests that have started, close."""
        if self._socket is not None and not self._paused and not self._closing:
            self._paused = True
            self._socket.pause_reading()
        await self._conversation.settled()
        self._close(_GOING_AWAY, "the server is stopping")
        if self._transport is not None:
            await self._gone.wait()

    def abort(self) -> None:
        """Close the socket, whatever has not been sent yet."""
        if self._transport is not None:
            self._transport.disconnect(False)

    def look_after(self, now: float) -> None:
        """From time to time: ping a silent client, and close if it takes too long or its key is no longer valid."""
        self._conversation.look_after()
        if self._unread_since is not None and self._socket is not None:
            unread = self._socket.get_write_buffer_size()
            if unread < self._unread_seen:  # it reads, if slowly
                self._unread_since = now
            self._unread_seen = unread
            if now - self._unread_since > self._limits.unread_seconds:
                self.abort()
                return
        if self._last < 0:
            self._last = now
            self._pinged = False
        unfinished = self._tail or self._fragments is not None
        if not unfinished:
            self._message_since = None
        elif self._message_since is None:
            self._message_since = now
        elif now - self._message_since > self._limits.message_seconds:
            self._close(_POLICY, "the message took too long to arrive")
            return
        silent = now - self._last
        if silent >= self._limits.idle_seconds:
            self._close(_GOING_AWAY, "nothing arrived for too long")
        elif silent >= self._limits.ping_seconds and not self._pinged and self._transport is not None:
            self._pinged = True
            self._transport.send_ping()


def _header(length: int) -> bytes:
    """The header of a text frame from a server: final, not masked."""
    if length < 126:
        return b"\x81%c" % length
    if length < 65_536:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")


#: Headers for the lengths of most replies
_HEADERS = [_header(length) for length in range(1_024)]
