"""HTTP/2 as protocol code: frames by the library h2, and a bound on everything a client can make us do for nothing.

What a peer can repeat without being answered is counted: resets, settings, pings, window updates, empty frames. A
connection that passes the bound ends with ENHANCE_YOUR_CALM. Owns no socket, clock or loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from h2 import events
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from kvasir.listeners.http.heads import LONG_HEAD, NOT_ASCII, Headers, Line, join, long_target, refusal
from kvasir.listeners.http.http2_answers import Http2Answers
from kvasir.listeners.http.request import Request

if TYPE_CHECKING:
    from kvasir.listeners.http import HttpListener
    from kvasir.listeners.http.connection import Connection

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Open streams, bytes of a window, and of a frame with its header.
STREAMS, WINDOW_BYTES, FRAME_BYTES = 100, 1 << 20, 16_384 + 9

#: Frames that ask for work and bring none
IDLE_FRAMES = 1_000
_IDLE = (events.WindowUpdated, events.RemoteSettingsChanged, events.PingReceived, events.PriorityUpdated)


def _is_line(field: tuple[bytes, bytes]) -> bool:
    """Whether a field would be a line of its own in HTTP/1.1, where a cookie is not cut into several."""
    return not field[0].startswith(b":") and field[0] != b"cookie"


class Http2(Http2Answers):
    """One connection."""

    def __init__(self, listener: HttpListener, connection: Connection) -> None:
        super().__init__(listener, connection)
        #: Those whose heads are whole, for the connection to have handled; some may have been taken back.
        self.requests: deque[Request] = deque()
        settings = {
            SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
            SettingCodes.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
            SettingCodes.MAX_HEADER_LIST_SIZE: listener.limits.head_bytes,
        }
        self._h2.local_settings = Settings(client=False, initial_values=settings)
        self._handlers: dict[type, Callable[[Any], None]] = {
            events.RequestReceived: self._request,
            events.DataReceived: self._data,
            events.StreamEnded: self._whole,
            events.StreamReset: self._reset,
            events.ConnectionTerminated: lambda _: self._end(None),
            **dict.fromkeys(_IDLE, self._idle),
        }
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(WINDOW_BYTES)
        self._flush()

    def feed(self, data: bytes | memoryview) -> None:
        """Take in what was read."""
        try:
            received = self._h2.receive_data(data)
            # Streams that are reset in this read are closed already: they are forgotten first, and none is begun.
            gone = {event.stream_id for event in received if isinstance(event, events.StreamReset)}
            for event in sorted(received, key=lambda event: not isinstance(event, events.StreamReset)):
                stillborn = isinstance(event, events.RequestReceived) and event.stream_id in gone
                if (handler := self._handlers.get(type(event))) and not self._ended and not stillborn:
                    handler(event)
            # h2 looks at the length of a frame only when all of it is there.
            if len(self._h2.incoming_buffer._data) > FRAME_BYTES:
                self._end(ErrorCodes.FRAME_SIZE_ERROR)
            self._send()
        except (ProtocolError, ValueError, IndexError, KeyError):
            self._end(None)  # h2 has said why

    def _request(self, event: Any) -> None:
        stream = event.stream_id
        if self._listener.draining:
            self._h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
            return
        limits = self._listener.limits
        if len(event.headers) > limits.head_lines and sum(map(_is_line, event.headers)) > limits.head_lines:
            self._refuse(event, *LONG_HEAD)
            return
        headers: Headers = {}
        for raw_name, raw_value in event.headers:
            name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
            headers[name] = join(name, headers[name], value) if name in headers else value
        declared = 0 if event.stream_ended else int(headers.get("content-length", "0")) or None
        method, target = headers[":method"], headers.get(":path", "*")
        if (long := len(target) > limits.target_bytes) or not target.isascii():
            self._refuse(event, *(long_target(limits.target_bytes) if long else NOT_ASCII))
            return
        request = self._open[stream] = Request(self._listener, self, Line.of(method, target), headers, declared)
        request.stream = stream
        if declared != 0:
            self._receiving[stream] = request
        self.requests.append(request)

    def handle_next(self) -> None:
        """Have the next of `requests` handled."""
        request = self.requests.popleft()
        if not self.is_gone(request):
            self._listener.handle(request)

    def _refuse(self, event: Any, status: int, message: str) -> None:
        """Answer a request without a dialect, and take nothing more of it."""
        stream = event.stream_id
        self._begin(stream, refusal(status, message))
        if not event.stream_ended and stream not in self.unsent:
            self._h2.reset_stream(stream, ErrorCodes.NO_ERROR)

    def _data(self, event: Any) -> None:
        if not event.data:
            self._idle(event)
        if (request := self._receiving.get(event.stream_id)) is None:
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            return
        request.feed(event.data)
        request.unacknowledged += event.flow_controlled_length
        if request.is_endless:
            self._reset_stream(request.stream, ErrorCodes.CANCEL)
        elif not request.is_unasked:
            self.wanted(request)

    def _whole(self, event: Any) -> None:
        if (request := self._receiving.pop(event.stream_id, None)) is not None:
            request.end()

    def _reset(self, event: Any) -> None:
        self._idle(event)
        self._forget(event.stream_id)

    def _idle(self, _event: Any) -> None:
        self._idle_frames += 1
        if self._idle_frames > IDLE_FRAMES:
            self._end(ErrorCodes.ENHANCE_YOUR_CALM)

    def look_after(self, now: float, *, idle: bool) -> None:
        """Once in a while: end what takes too long."""
        for stream, request in list(self._receiving.items()):
            if request.is_late(now) and stream not in self._open and stream not in self.unsent:
                self._reset_stream(stream, ErrorCodes.CANCEL)
        self._flush()
        if idle and not self._open:
            self._end(ErrorCodes.NO_ERROR)

    def drain(self) -> None:
        """The server stops: answer what was begun, then end."""
        # h2's own way to say so lets nothing be sent afterwards.
        self._connection.write(GoAwayFrame(0, last_stream_id=self._h2.highest_inbound_stream_id).serialize())
        self._send()
