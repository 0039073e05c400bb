"""HTTP/2 as protocol code: frames by the library h2, and a bound on everything a client can make us do for nothing.

What a peer can repeat without being answered is counted: resets, settings, pings, window updates, empty frames. A
connection that passes the bound ends with ENHANCE_YOUR_CALM. Owns no socket, clock or loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from kvasir.dialects.http import BODILESS, Response, Stream
from kvasir.listeners.http.request import (
    COUNTED_BYTES,
    LONG_HEAD,
    Headers,
    Line,
    Request,
    join,
    long_target,
    refusal,
)

if TYPE_CHECKING:
    from kvasir.listeners.http import HttpListener
    from kvasir.listeners.http.connection import Connection

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Open streams, bytes of a window, and of a frame with its header.
STREAMS, WINDOW_BYTES, FRAME_BYTES = 100, 1 << 20, 16_384 + 9

#: Bytes of answers that are put into frames before others have their turn.
TURN_BYTES = 262_144

#: Frames that ask for work and bring none; an answered request makes up for some of them.
IDLE_FRAMES, IDLE_FRAMES_A_REQUEST = 1_000, 10
_IDLE = (events.WindowUpdated, events.RemoteSettingsChanged, events.PingReceived, events.PriorityUpdated)


def _is_line(field: tuple[bytes, bytes]) -> bool:
    """Whether a field would be a line of its own in HTTP/1.1, where a cookie is not cut into several."""
    return not field[0].startswith(b":") and field[0] != b"cookie"


class Http2:
    """One connection."""

    def __init__(self, listener: HttpListener, connection: Connection) -> None:
        self._listener = listener
        self._connection = connection
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        settings = {
            SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
            SettingCodes.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
            SettingCodes.MAX_HEADER_LIST_SIZE: listener.limits.head_bytes,
        }
        self._h2.local_settings = Settings(client=False, initial_values=settings)
        #: Requests whose bodies are not whole, and those that are not answered, by stream.
        self._receiving: dict[int, Request] = {}
        self._open: dict[int, Request] = {}
        #: What is still to be sent of the answers that wait for the peer's windows, by stream.
        self.unsent: dict[int, memoryview] = {}
        self._idle_frames, self._ended, self._sending = 0, False, False
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

    def feed(self, data: bytes) -> None:
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
        if len(target) > limits.target_bytes:
            self._refuse(event, *long_target(limits.target_bytes))
            return
        request = self._open[stream] = Request(self._listener, self, Line.of(method, target), headers, declared)
        request.stream = stream
        if declared != 0:
            self._receiving[stream] = request
        self._listener.handle(request)

    def _refuse(self, event: Any, status: int, message: str) -> None:
        """Answer a request without a dialect, and take nothing more of it."""
        stream, response = event.stream_id, refusal(status, message)
        headers = [
            (":status", str(response.status)),
            ("content-type", response.content_type),
            ("date", self._listener.date.decode()),
            ("content-length", str(len(response.body))),
        ]
        self._h2.send_headers(stream, headers)
        self.unsent[stream] = memoryview(response.body)
        self._send()
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
            self._cancel(request)
        elif not request.is_unasked:
            self.wanted(request)

    def _whole(self, event: Any) -> None:
        if (request := self._receiving.pop(event.stream_id, None)) is not None:
            request.end()

    def _reset(self, event: Any) -> None:
        self._idle(event)
        self.unsent.pop(event.stream_id, None)
        if (gone := self._open.pop(event.stream_id, None)) is not None:
            gone.abandon()
            if gone.streaming is not None:
                gone.streaming.cancel()
        if (request := self._receiving.pop(event.stream_id, None)) is not None:
            request.cut_off()

    def _idle(self, _event: Any) -> None:
        self._idle_frames += 1
        if self._idle_frames > IDLE_FRAMES:
            self._end(ErrorCodes.ENHANCE_YOUR_CALM)

    def _cancel(self, request: Request) -> None:
        del self._receiving[request.stream]
        self._h2.reset_stream(request.stream, ErrorCodes.CANCEL)

    def wanted(self, request: Request) -> None:
        """The body is waited for, or thrown away: let the peer send more of it."""
        if request.unacknowledged and request.stream in self._receiving:
            self._h2.acknowledge_received_data(request.unacknowledged, request.stream)
            request.unacknowledged = 0
            self._flush()

    def answer(self, request: Request, response: Response) -> None:
        """Send the answer to a request, as far as the peer's windows let us."""
        if self.is_gone(request):
            return  # the stream or the connection is gone
        streamed = response.__class__ is Stream
        if not streamed:
            del self._open[request.stream]
        self.wanted(request)
        self._idle_frames = max(0, self._idle_frames - IDLE_FRAMES_A_REQUEST)
        headers = [
            (":status", str(response.status)),
            ("content-type", response.content_type),
            ("date", self._listener.date.decode()),
            ("x-request-id", request.id),
            *([] if streamed or response.status in BODILESS else [("content-length", str(len(response.body)))]),
            *[(name.lower(), value) for name, value in (*response.headers, *response.usual)],
        ]
        body = b"" if request.is_head else response.body
        self._h2.send_headers(request.stream, headers, end_stream=not body and not streamed)
        if body:
            self.unsent[request.stream] = memoryview(body)
        self._send()
        if len(body) > COUNTED_BYTES:
            self.count_unread()

    @property
    def unread(self) -> int:
        """Bytes of answers that the client has not taken."""
        return self._connection.unread

    def count_unread(self) -> int:
        """Count the bytes of all answers that wait for the peer's windows; returns how many are not written yet."""
        unsent = sum([len(rest) for rest in self.unsent.values()])
        self._connection.count_unread(unsent)
        return unsent

    def send(self, request: Request, piece: bytes) -> None:
        """Send a piece of a streamed answer."""
        if not self.is_gone(request):
            self.unsent[request.stream] = memoryview(piece)
            self._send()

    def has_room(self, request: Request) -> bool:
        """Whether the client takes more of a streamed answer now."""
        return request.stream not in self.unsent and self._connection.has_room(request)

    def is_gone(self, request: Request) -> bool:
        """Whether nobody waits for an answer any more."""
        return request.stream not in self._open

    def end(self, request: Request) -> None:
        """A streamed answer is whole."""
        if self._open.pop(request.stream, None) is not None:
            self._h2.end_stream(request.stream)
            self._send()

    def cut(self, request: Request) -> None:
        """The answer ends before its end, or there is none."""
        if self._open.pop(request.stream, None) is not None:
            self.unsent.pop(request.stream, None)
            self._h2.reset_stream(request.stream, ErrorCodes.INTERNAL_ERROR)
            self._send()

    def wake(self) -> None:
        """There may be room for more of the streamed answers, and of long ones."""
        if self.unsent and not self._sending:
            self._sending = True
            self._connection.soon(self._send_on)
        for request in list(self._open.values()):
            if request.streaming is not None:
                request.streaming.wake()

    def _send(self) -> None:
        budget = TURN_BYTES if self._connection.has_room() else 0
        for stream in list(self.unsent):
            rest = self.unsent.pop(stream)
            while rest and budget > 0 and (room := self._h2.local_flow_control_window(stream)) > 0:
                size = min(room, self._h2.max_outbound_frame_size, len(rest))
                self._h2.send_data(
                    stream, bytes(rest[:size]), end_stream=size == len(rest) and stream not in self._open
                )
                rest = rest[size:]
                budget -= size
                self._idle_frames = max(0, self._idle_frames - 2)  # the peer opens two windows anew for it
            if rest:
                self.unsent[stream] = rest
            elif stream in self._open:
                self.wake()
        self._flush()
        if self.unread:
            self.count_unread()
        if budget <= 0 and not self._sending:
            self._sending = True
            self._connection.soon(self._send_on)
        if self._listener.draining and not self._open and not self.unsent:
            self._end(ErrorCodes.NO_ERROR)

    def _send_on(self) -> None:
        """Others have had their turn. While the client takes nothing, `resume_writing` goes on instead."""
        self._sending = False
        if not self._ended and self._connection.has_room():
            self._send()

    def _flush(self) -> None:
        self._connection.write(self._h2.data_to_send())

    def look_after(self, now: float, *, idle: bool) -> None:
        """Once in a while: end what takes too long."""
        for request in list(self._receiving.values()):
            if request.is_late(now) and request.stream not in self._open:
                self._cancel(request)
        self._flush()
        if idle and not self._open:
            self._end(ErrorCodes.NO_ERROR)

    def drain(self) -> None:
        """The server stops: answer what was begun, then end."""
        # h2's own way to say so lets nothing be sent afterwards.
        self._connection.write(GoAwayFrame(0, last_stream_id=self._h2.highest_inbound_stream_id).serialize())
        self._send()

    def lost(self) -> None:
        """The connection is gone, or as good as gone."""
        self._ended = True
        for request in self._open.values():
            request.abandon()
            if request.streaming is not None:
                request.streaming.cancel()
        self._open.clear()
        self.unsent.clear()
        for request in self._receiving.values():
            request.cut_off()
        self._receiving.clear()

    def _end(self, code: ErrorCodes | None) -> None:
        if not self._ended:
            if code is not None:
                self._h2.close_connection(code)
            self._flush()
            self.lost()
            self._connection.finish()
