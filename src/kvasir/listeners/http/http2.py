"""HTTP/2 as protocol code: frames by the library h2, and a bound on everything a client can make us do for nothing.

What a peer can repeat without being answered is counted: resets, settings, pings, window updates, empty frames. A
connection that passes the bound ends with ENHANCE_YOUR_CALM. Owns no socket, clock or loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame

from kvasir.dialects.http import Response
from kvasir.listeners.http.http1 import COOKIES, LIST
from kvasir.listeners.http.request import DRAINED_BODIES, PROGRESS_BYTES, Request

if TYPE_CHECKING:
    from kvasir.listeners.http import HttpListener
    from kvasir.listeners.http.connection import Connection

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

STREAMS = 100
WINDOW_BYTES = 1 << 20
#: A frame of the longest allowed, with its header.
FRAME_BYTES = 16_384 + 9

#: Frames that ask for work and bring none; an answered request makes up for some of them.
IDLE_FRAMES = 1_000
IDLE_FRAMES_A_REQUEST = 10

_SETTINGS = {
    h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
    h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
    h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 65_536,
    h2.settings.SettingCodes.ENABLE_PUSH: 0,
}


class Http2:
    """One connection."""

    def __init__(self, listener: HttpListener, connection: Connection) -> None:
        self._listener = listener
        self._connection = connection
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self._h2 = h2.connection.H2Connection(config)
        self._h2.local_settings = h2.settings.Settings(client=False, initial_values=_SETTINGS)
        #: Requests whose bodies are not whole, and those that are not answered, by stream.
        self._receiving: dict[int, Request] = {}
        self._open: dict[int, Request] = {}
        #: What is still to be sent of the answers that wait for the peer's windows, by stream.
        self._unsent: dict[int, memoryview] = {}
        #: Since when less than `PROGRESS_BYTES` of them could be sent.
        self._stuck_since: float | None = None
        self._progress = 0
        self._idle_frames = 0
        self._ended = False
        self._events: dict[type, Callable[[Any], None]] = {
            h2.events.RequestReceived: self._request,
            h2.events.DataReceived: self._data,
            h2.events.StreamEnded: self._whole,
            h2.events.StreamReset: self._reset,
            h2.events.WindowUpdated: self._idle,
            h2.events.RemoteSettingsChanged: self._idle,
            h2.events.PingReceived: self._idle,
            h2.events.PriorityUpdated: self._idle,
            h2.events.ConnectionTerminated: lambda _: self._end(None),
        }
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(WINDOW_BYTES)
        self._flush()

    def feed(self, data: bytes) -> None:
        """Take in what was read."""
        try:
            for event in () if self._ended else self._h2.receive_data(data):
                if (handler := self._events.get(type(event))) and not self._ended:
                    handler(event)
            # h2 looks at the length of a frame only when all of it is there.
            if len(self._h2.incoming_buffer._data) > FRAME_BYTES:
                self._end(ErrorCodes.FRAME_SIZE_ERROR)
            self._send()
        except (h2.exceptions.ProtocolError, ValueError, IndexError, KeyError):
            self._end(None)  # h2 has said why

    # -- events -------------------------------------------------------------------------------------------

    def _request(self, event: Any) -> None:
        headers: dict[bytes, bytes] = {}
        for name, value in event.headers:
            former = headers.get(name)
            join = COOKIES if name == b"cookie" else LIST
            headers[name] = value if former is None else former + join + value
        stream = event.stream_id
        if self._listener.draining:
            self._h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
            return
        declared = 0 if event.stream_ended else int(headers.get(b"content-length", b"0")) or None
        target = headers.get(b":path", b"*")
        method = headers[b":method"].decode("latin-1")
        request = self._listener.make(self._connection, method, target, headers, declared)
        request.stream = stream
        self._open[stream] = request
        if declared != 0:
            self._receiving[stream] = request
        self._listener.handle(request)

    def _data(self, event: Any) -> None:
        if not event.data:
            self._idle(event)
        request = self._receiving.get(event.stream_id)
        if request is not None:
            request.feed(event.data)
            if request.dropping and request.received > DRAINED_BODIES * self._listener.limits.body_bytes:
                self._cancel(request)
                return
        if request is not None and not request.is_awaited and not request.dropping:
            request.unacknowledged += event.flow_controlled_length  # nobody has asked for it yet
        elif event.flow_controlled_length:
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def _whole(self, event: Any) -> None:
        if (request := self._receiving.pop(event.stream_id, None)) is not None:
            request.end()

    def _reset(self, event: Any) -> None:
        self._idle(event)
        self._unsent.pop(event.stream_id, None)
        self._open.pop(event.stream_id, None)
        if (request := self._receiving.pop(event.stream_id, None)) is not None:
            request.cut_off()

    def _idle(self, _event: Any) -> None:
        self._idle_frames += 1
        if self._idle_frames > IDLE_FRAMES:
            self._end(ErrorCodes.ENHANCE_YOUR_CALM)

    def _cancel(self, request: Request) -> None:
        del self._receiving[request.stream]
        self._h2.reset_stream(request.stream, ErrorCodes.CANCEL)

    # -- answers ------------------------------------------------------------------------------------------

    def wanted(self, request: Request) -> None:
        """See `Connection.wanted`."""
        if request.unacknowledged and request.stream in self._receiving:
            self._h2.acknowledge_received_data(request.unacknowledged, request.stream)
            request.unacknowledged = 0
            self._flush()

    def answer(self, request: Request, response: Response) -> None:
        """Send the answer to a request, as far as the peer's windows let us."""
        stream = request.stream
        if self._open.pop(stream, None) is None or self._ended:
            return
        if not request.complete:
            request.drop()
            self.wanted(request)
        headers: list[tuple[str, str]] = [
            (":status", str(response.status)),
            ("content-type", response.content_type),
            ("date", self._listener.date.decode()),
            ("x-request-id", request.id),
            ("content-length", str(len(response.body))),
            *[(name.lower(), value) for name, value in response.headers],
        ]
        body = b"" if request.is_head else response.body
        self._idle_frames = max(0, self._idle_frames - IDLE_FRAMES_A_REQUEST)
        self._h2.send_headers(stream, headers, end_stream=not body)
        if body:
            self._unsent[stream] = memoryview(body)
        self._send()

    def _send(self) -> None:
        for stream in () if self._ended else list(self._unsent):
            rest = self._unsent.pop(stream)
            while rest and (room := self._h2.local_flow_control_window(stream)) > 0:
                size = min(room, self._h2.max_outbound_frame_size, len(rest))
                self._h2.send_data(stream, bytes(rest[:size]), end_stream=size == len(rest))
                rest = rest[size:]
                self._progress += size
            if rest:
                self._unsent[stream] = rest
        if not self._unsent:
            self._stuck_since = None
        elif self._stuck_since is None or self._progress >= PROGRESS_BYTES:
            self._stuck_since, self._progress = self._listener.now, 0
        self._flush()
        if self._listener.draining and not self._open and not self._unsent:
            self._end(ErrorCodes.NO_ERROR)

    def _flush(self) -> None:
        if not self._ended and (data := self._h2.data_to_send()):
            self._connection.write(data)

    # -- the end ------------------------------------------------------------------------------------------

    def look_after(self, now: float, *, idle: bool) -> None:
        """Once in a while: end what takes too long."""
        limits = self._listener.limits
        stuck = self._stuck_since is not None and now - self._stuck_since > limits.unread_seconds
        if self._ended or stuck or (idle and not self._open):
            self._end(ErrorCodes.NO_ERROR)
            return
        for request in list(self._receiving.values()):
            if request.dropping and now - request.began > limits.body_seconds:
                self._cancel(request)
        self._flush()

    def drain(self) -> None:
        """The server stops: answer what was begun, then end."""
        # h2's own way to say so lets nothing be sent afterwards.
        self._connection.write(GoAwayFrame(0, last_stream_id=self._h2.highest_inbound_stream_id).serialize())
        self._send()

    def lost(self) -> None:
        """The connection is gone."""
        self._ended = True
        self._open.clear()
        self._unsent.clear()
        for request in self._receiving.values():
            request.cut_off()
        self._receiving.clear()

    def _end(self, code: ErrorCodes | None) -> None:
        if not self._ended:
            if code is not None:
                self._h2.close_connection(code)
            self._flush()
            self.lost()
            self._connection.close()
