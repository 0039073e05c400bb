"""The answers of one connection of HTTP/2: as many frames at a time as the peer's windows and other clients allow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes

from kvasir.dialects.http import BODILESS, Response, Stream
from kvasir.listeners.http.request import COUNTED_BYTES, Request

if TYPE_CHECKING:
    from kvasir.listeners.http import HttpListener
    from kvasir.listeners.http.connection import Connection

#: Bytes of answers that are put into frames before others have their turn.
TURN_BYTES = 262_144

#: So many of the frames that ask for work and bring none (see `http2`) does an answered request make up for.
IDLE_FRAMES_A_REQUEST = 10


class Http2Answers:
    """What `http2.Http2` answers by."""

    def __init__(self, listener: HttpListener, connection: Connection) -> None:
        self._listener = listener
        self._connection = connection
        self._h2 = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        #: Requests whose bodies are not whole, and those that are not answered, by stream.
        self._receiving: dict[int, Request] = {}
        self._open: dict[int, Request] = {}
        #: What is still to be sent of the answers that wait for the peer's windows, by stream.
        self.unsent: dict[int, memoryview] = {}
        self._idle_frames, self._ended, self._sending = 0, False, False

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
        if response.__class__ is not Stream:
            del self._open[request.stream]
        self.wanted(request)
        self._idle_frames = max(0, self._idle_frames - IDLE_FRAMES_A_REQUEST)
        self._begin(request.stream, response, request)
        if len(response.body) > COUNTED_BYTES:
            self.count_unread()

    def _begin(self, stream: int, response: Response, request: Request | None = None) -> None:
        streamed = response.__class__ is Stream
        headers = [
            (":status", str(response.status)),
            ("content-type", response.content_type),
            ("date", self._listener.date.decode()),
            *([] if request is None else [("x-request-id", request.id)]),
            *([] if streamed or response.status in BODILESS else [("content-length", str(len(response.body)))]),
            *[(name.lower(), value) for name, value in (*response.headers, *response.usual)],
        ]
        body = b"" if request is not None and request.is_head else response.body
        self._h2.send_headers(stream, headers, end_stream=not body and not streamed)
        if body:
            self.unsent[stream] = memoryview(body)
        self._send()

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
            self._reset_stream(request.stream, ErrorCodes.INTERNAL_ERROR)
            self._send()

    def _reset_stream(self, stream: int, code: ErrorCodes) -> None:
        """End a stream."""
        self._forget(stream)
        self._h2.reset_stream(stream, code)

    def _forget(self, stream: int) -> None:
        """A stream has ended. Nothing of it may be kept: h2 takes no second end, and sends nothing behind one."""
        self.unsent.pop(stream, None)
        if (gone := self._open.pop(stream, None)) is not None:
            gone.abandon()
        if (request := self._receiving.pop(stream, None)) is not None:
            request.cut_off()

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

    def lost(self) -> None:
        """The connection is gone, or as good as gone."""
        self._ended = True
        for stream in [*self._open, *self._receiving, *self.unsent]:
            self._forget(stream)

    def _end(self, code: ErrorCodes | None) -> None:
        if not self._ended:
            if code is not None:
                self._h2.close_connection(code)
            self._flush()
            self.lost()
            self._connection.finish()
