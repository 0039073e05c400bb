"""HTTP/2 as protocol code: requests, answers, and a bound on all that a peer can make the server do for nothing."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame, PingFrame, PriorityFrame, SettingsFrame

from kvasir.dialects.http import Response, Stream
from kvasir.limits import Limits
from kvasir.listeners.http.http2 import IDLE_FRAMES, PREFACE, STREAMS, Http2
from kvasir.listeners.http.request import Request

HEADERS = [(b":method", b"GET"), (b":path", b"/a?b"), (b":scheme", b"http"), (b":authority", b"h")]
PUT = [(b":method", b"PUT"), *HEADERS[1:]]


class House:
    """A listener and a connection to look into; `answers` says what a request is answered with, if at all."""

    def __init__(self, answers: Callable[[Request], Response | None] = lambda _: Response(200, b"x", "Op")) -> None:
        self.limits = Limits()
        self.held = self.unread = 0
        self.now = 0.0
        self.date = b"Thu, 01 Jan 1970 00:00:00 GMT"
        self.draining = False
        self.requests: list[Request] = []
        self.sent = b""
        self.closed = False
        self._answers = answers
        self.ids = map(str, itertools.count(1))
        house: Any = self
        self.http = Http2(house, house)
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
        self.client.initiate_connection()

    def handle(self, request: Request) -> None:
        self.requests.append(request)
        response = self._answers(request)
        if response is not None:
            self.http.answer(request, response)

    def write(self, data: bytes) -> None:
        assert not self.closed or not data
        self.sent += data

    def has_room(self) -> bool:
        return True

    def count_unread(self, size: int) -> None:
        self.unread = size

    def soon(self, work: Callable[[], None]) -> None:
        work()

    def finish(self) -> None:
        self.closed = True

    def exchange(self) -> list[h2.events.Event]:
        """Bytes both ways until there are none; what the client was told."""
        events: list[h2.events.Event] = []
        while True:
            data, sent = self.client.data_to_send(), self.sent
            self.sent = b""
            if not data and not sent:
                return events
            events += self.client.receive_data(sent)
            if not self.closed:
                self.feed(data)

    def feed(self, data: bytes) -> None:
        """What the connection does with bytes that it has read."""
        self.http.feed(data)
        while self.http.requests:
            self.http.handle_next()

    def ended_with(self) -> h2.errors.ErrorCodes | int | None:
        """Why the server has ended the connection."""
        told = [event for event in self.exchange() if isinstance(event, h2.events.ConnectionTerminated)]
        assert bool(told) == self.closed
        return told[-1].error_code if told else None


@pytest.fixture
def house() -> House:
    house = House()
    house.exchange()
    return house


def body_of(events: list[h2.events.Event], stream: int) -> bytes:
    return b"".join(e.data for e in events if isinstance(e, h2.events.DataReceived) and e.stream_id == stream)


def status_of(events: list[h2.events.Event], stream: int) -> bytes | None:
    """The status of the answer on this stream; None if there is none."""
    found = [e for e in events if isinstance(e, h2.events.ResponseReceived) and e.stream_id == stream]
    return dict(found[0].headers)[b":status"] if found else None


def test_a_request_and_its_answer(house: House) -> None:
    house.client.send_headers(1, [*HEADERS, (b"cookie", b"a=b"), (b"cookie", b"c=d")], end_stream=True)
    events = house.exchange()
    (request,) = house.requests
    assert (request.method, request.path, request.query, request.header("cookie")) == ("GET", "/a", "b", "a=b; c=d")
    (answer,) = [event for event in events if isinstance(event, h2.events.ResponseReceived)]
    assert dict(answer.headers)[b"x-request-id"] == b"1"
    assert body_of(events, 1) == b"x"
    assert any(isinstance(event, h2.events.StreamEnded) for event in events)


def test_an_answer_beyond_the_windows_is_sent_as_they_open() -> None:
    whole = bytes(range(256)) * 2_000
    house = House(lambda _: Response(200, whole, "Op"))
    house.exchange()
    house.client.send_headers(1, HEADERS, end_stream=True)
    received = b""
    while len(received) < len(whole):
        events = house.exchange()
        received += body_of(events, 1)
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                house.client.acknowledge_received_data(event.flow_controlled_length, 1)
    assert received == whole


def test_a_body_in_pieces_is_taken_in(house: House) -> None:
    silent = House(lambda _: None)
    silent.client.send_headers(1, [*PUT, (b"content-length", b"6")])
    silent.client.send_data(1, b"abc")
    silent.exchange()
    (request,) = silent.requests
    assert (request.declared, request.received, request.complete) == (6, 3, False)
    silent.client.send_data(1, b"def", end_stream=True)
    silent.exchange()
    assert (request.received, request.complete) == (6, True)


def test_bytes_one_by_one_mean_the_same() -> None:
    house = House()
    house.client.send_headers(1, HEADERS, end_stream=True)
    for byte in house.client.data_to_send():
        house.feed(bytes([byte]))
    assert len(house.requests) == 1


def test_a_stream_that_is_reset_in_the_same_read_harms_no_other() -> None:
    large = House(lambda _: Response(200, b"x" * 100_000, "Op"))
    large.exchange()
    large.client.send_headers(1, HEADERS, end_stream=True)
    large.exchange()  # as far as its window lets the answer
    large.client.send_headers(3, HEADERS, end_stream=True)
    large.client.send_headers(5, PUT)
    large.client.send_data(5, b"abc")
    large.client.reset_stream(1)
    large.client.reset_stream(5)
    large.client.send_headers(7, HEADERS, end_stream=True)
    events = large.exchange()
    assert not large.closed
    answered = [event.stream_id for event in events if isinstance(event, h2.events.ResponseReceived)]
    assert answered == [3, 7]


def floods() -> Iterator[tuple[str, Callable[[House], bytes]]]:
    def resets(house: House) -> bytes:
        stream = house.client.get_next_available_stream_id()
        house.client.send_headers(stream, PUT)
        house.client.reset_stream(stream)
        return house.client.data_to_send()

    def settings(_: House) -> bytes:
        return bytes(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65_535}).serialize())

    def windows(house: House) -> bytes:
        house.client.increment_flow_control_window(1)
        return house.client.data_to_send()

    yield "resets", resets
    yield "settings", settings
    yield "pings", lambda _: bytes(PingFrame(0, b"12345678").serialize())
    yield "priorities", lambda _: bytes(PriorityFrame(3, stream_weight=1).serialize())
    yield "window updates", windows


@pytest.mark.parametrize(("name", "frame"), list(floods()))
def test_a_flood_ends_the_connection(name: str, frame: Callable[[House], bytes]) -> None:
    house = House(lambda _: None)
    house.exchange()
    for _ in range(IDLE_FRAMES // 2):
        house.feed(frame(house))
    assert not house.closed
    for _ in range(IDLE_FRAMES):
        if not house.closed:
            house.feed(frame(house))
    assert house.closed
    assert house.ended_with() == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
    assert all(request.dropping for request in house.requests if not request.complete)


def test_a_flood_of_empty_data_ends_the_connection() -> None:
    house = House(lambda _: None)
    house.client.send_headers(1, PUT)
    house.exchange()
    for _ in range(IDLE_FRAMES + 1):
        if not house.closed:
            house.feed(DataFrame(1, b"").serialize())
    assert house.ended_with() == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM


def test_who_is_answered_may_ping_for_ever(house: House) -> None:
    for stream in range(1, 2 * IDLE_FRAMES, 2):
        house.client.send_headers(stream, HEADERS, end_stream=True)
        house.client.ping(b"12345678")
        house.client.ping(b"12345678")
        house.exchange()
    assert not house.closed


@pytest.mark.parametrize("target", ['/a?key=["é"]', "/é"])
def test_a_target_that_is_not_ascii_is_refused_as_in_the_other_version(target: str) -> None:
    """Its bytes would be taken for characters, and a value be stored under another key than was meant."""
    house = House()
    house.exchange()
    headers = [(b":method", b"PUT"), (b":path", target.encode()), *HEADERS[2:]]
    house.client.send_headers(1, headers, end_stream=True)
    house.client.send_headers(3, HEADERS, end_stream=True)
    events = house.exchange()
    assert (status_of(events, 1), status_of(events, 3)) == (b"400", b"200")
    assert b"percent-encode" in body_of(events, 1)
    assert [request.path for request in house.requests] == ["/a"]


def test_a_flood_of_continuation_ends_the_connection() -> None:
    house = House()
    house.exchange()
    house.feed(HeadersFrame(1, b"\x82").serialize())
    for _ in range(100):
        if not house.closed:
            house.feed(ContinuationFrame(1, b"\x00\x01a\x01b" * 100).serialize())
    assert house.closed
    assert house.requests == []


@pytest.mark.parametrize("ended", [True, False], ids=["whole", "with a body to come"])
def test_a_head_beyond_the_limits_is_refused_and_other_streams_go_on(ended: bool) -> None:
    house = House()
    house.limits = Limits(head_lines=10, target_bytes=20)
    house.exchange()
    lines = [(b"n%d" % n, b"x") for n in range(10)]
    crumbs = [(b"cookie", b"a=b")] * 20
    path = b"/" + b"p" * 19
    of_path = [(b":method", b"GET"), (b":path", path), *HEADERS[2:]]
    for stream, headers in enumerate(([*HEADERS, *lines, *crumbs], of_path)):
        house.client.send_headers(2 * stream + 1, headers, end_stream=True)
    events = house.exchange()
    assert (status_of(events, 1), status_of(events, 3)) == (b"200", b"200")
    assert len(house.requests) == 2
    too_long = [(b":method", b"GET"), (b":path", path + b"p"), *HEADERS[2:]]
    for stream, headers in ((5, [*HEADERS, *lines, (b"n", b"x")]), (7, too_long)):
        house.client.send_headers(stream, headers, end_stream=ended)
    events = house.exchange()
    assert (status_of(events, 5), status_of(events, 7)) == (b"431", b"414")
    assert b"too many lines" in body_of(events, 5)
    assert b"longer than 20 bytes; send what is long, as many keys, in a body" in body_of(events, 7)
    resets = [event.stream_id for event in events if isinstance(event, h2.events.StreamReset)]
    assert resets == ([] if ended else [5, 7])
    assert len(house.requests) == 2
    house.client.send_headers(9, HEADERS, end_stream=True)
    assert status_of(house.exchange(), 9) == b"200"


def test_a_bomb_of_headers_ends_the_connection() -> None:
    """A few bytes that name one long entry of the table again and again."""
    house = House()
    house.exchange()
    entry = b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4_000  # a: bbb…, put into the table
    bomb = HeadersFrame(1, b"\x82\x84\x86" + entry + b"\xbe" * 4_000, flags=["END_HEADERS", "END_STREAM"])
    house.feed(bomb.serialize())
    assert house.closed
    assert house.requests == []


@pytest.mark.parametrize("data", [b"x" * 100, b"\xff" * 9, PREFACE])
def test_nonsense_ends_the_connection(data: bytes) -> None:
    house = House()
    house.exchange()
    for _ in range(2_000):
        if not house.closed:
            house.feed(data)
    assert house.closed


def test_so_many_streams_at_a_time() -> None:
    house = House(lambda _: None)
    house.exchange()
    for stream in range(1, 2 * STREAMS + 1, 2):
        house.client.send_headers(stream, PUT)
        house.exchange()
    assert len(house.requests) == STREAMS
    assert not house.closed
    house.feed(HeadersFrame(2 * STREAMS + 1, b"\x82\x84\x86\x01\x01h", flags=["END_HEADERS"]).serialize())
    assert len(house.requests) == STREAMS


def test_an_idle_connection_ends_and_one_at_work_does_not() -> None:
    house = House(lambda _: None)
    house.exchange()
    house.client.send_headers(1, PUT)
    house.exchange()
    house.http.look_after(1_000.0, idle=True)
    assert not house.closed
    house.http.answer(house.requests[0], Response(200, b"", "Op"))
    house.http.look_after(1_000.0, idle=True)
    assert house.ended_with() == h2.errors.ErrorCodes.NO_ERROR


def test_a_drain_answers_what_was_begun_and_refuses_the_rest() -> None:
    house = House(lambda _: None)
    house.exchange()
    house.client.send_headers(1, HEADERS, end_stream=True)
    house.exchange()
    house.draining = True
    house.http.drain()
    assert not house.closed
    house.feed(HeadersFrame(3, b"\x82\x84\x86\x01\x01h", flags=["END_HEADERS", "END_STREAM"]).serialize())
    house.http.answer(house.requests[0], Response(200, b"last", "Op"))
    assert house.closed
    assert b"last" in house.sent


def test_a_stream_that_is_reset_cuts_its_body_off() -> None:
    house = House(lambda _: None)
    house.exchange()
    house.client.send_headers(1, PUT)
    house.client.send_data(1, b"abc")
    house.exchange()
    house.client.reset_stream(1)
    house.exchange()
    (request,) = house.requests
    assert request.dropping
    house.http.answer(request, Response(200, b"", "Op"))  # which goes nowhere
    assert not house.closed


def late() -> float:
    """A time at which no body may come in any more."""
    return time.perf_counter() + 1_000


def test_a_stream_that_is_cut_is_not_ended_again_for_its_late_body() -> None:
    silent = House(lambda _: None)
    silent.client.send_headers(1, PUT)
    silent.exchange()
    (request,) = silent.requests
    request.drop()
    silent.http.cut(request)
    silent.http.look_after(late(), idle=False)
    assert [event.stream_id for event in silent.exchange() if isinstance(event, h2.events.StreamReset)] == [1]
    assert not silent.closed


def test_an_answer_that_waits_for_windows_is_not_ended_for_a_late_body() -> None:
    large = House(lambda _: Response(200, b"x" * 100_000, "Op"))
    large.client.send_headers(1, PUT)
    large.exchange()
    large.requests[0].drop()
    large.http.look_after(late(), idle=False)
    large.client.send_headers(3, HEADERS, end_stream=True)
    large.client.increment_flow_control_window(1 << 20)
    large.client.increment_flow_control_window(1 << 20, 1)
    events = large.exchange()
    assert not large.closed
    assert status_of(events, 3) == b"200"
    assert any(isinstance(event, h2.events.StreamEnded) and event.stream_id == 1 for event in events)
    large.http.look_after(late(), idle=False)
    assert [event.stream_id for event in large.exchange() if isinstance(event, h2.events.StreamReset)] == [1]


def test_a_body_without_end_ends_the_answer_that_is_sent_meanwhile() -> None:
    house = House(lambda _: None)
    house.limits = Limits(body_bytes=10)
    house.client.send_headers(1, PUT)
    house.exchange()
    (request,) = house.requests
    request.drop()
    house.http.answer(request, Stream(200, b"", "Op", chunks=cast("Any", None)))
    house.http.send(request, b"one")
    house.client.send_data(1, b"x" * 50)
    house.exchange()
    assert house.http.is_gone(request)
    house.http.send(request, b"two")
    assert not house.closed


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", length: int | None = None) -> bytes:
    """One frame, however wrong."""
    length = len(payload) if length is None else length
    return length.to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


DATA, HEADERS_FRAME, PRIORITY, RESET, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED = 0x1, 0x4, 0x8
ACK = 0x1
#: :method GET, :scheme http, :path /, :authority h
GET = b"\x82\x86\x84\x41\x01h"
GET_1 = frame(HEADERS_FRAME, END_HEADERS | END_STREAM, 1, GET)
POST = b"\x83\x86\x84\x41\x01h"
POST_1 = frame(HEADERS_FRAME, END_HEADERS, 1, POST)
RESET_1 = frame(RESET, 0, 1, (8).to_bytes(4))


def setting(number: int, value: int) -> bytes:
    return frame(SETTINGS, 0, 0, number.to_bytes(2) + value.to_bytes(4))


def headers_1(block: bytes, flags: int = END_HEADERS | END_STREAM) -> bytes:
    return frame(HEADERS_FRAME, flags, 1, block)


def literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


#: The cases of h2spec that are answered by an end of the connection or of the stream, by the section of RFC 9113 (or
#: 7540, where it was another) or of RFC 7541.
VIOLATIONS: dict[str, bytes] = {
    "4.2 a DATA frame beyond the maximum size": POST_1 + frame(DATA, 0, 1, b"x" * 16_385),
    "4.2 a HEADERS frame beyond the maximum size": headers_1(GET + b"x" * 16_385),
    "4.3 a header block that cannot be decoded": headers_1(b"\xff\xff\xff\xff\xff\xff"),
    "4.3 PRIORITY within a header block": headers_1(GET, 0) + frame(PRIORITY, 0, 1, bytes(5)),
    "4.3 HEADERS of another stream within a header block": headers_1(GET, 0) + frame(HEADERS_FRAME, 5, 3, GET),
    "5.1 DATA on an idle stream": frame(DATA, END_STREAM, 1, b"x"),
    "5.1 RST_STREAM on an idle stream": RESET_1,
    "5.1 WINDOW_UPDATE on an idle stream": frame(WINDOW, 0, 1, (1).to_bytes(4)),
    "5.1 CONTINUATION on an idle stream": frame(CONTINUATION, END_HEADERS, 1, GET),
    "5.1 DATA on a half-closed stream": GET_1 + frame(DATA, END_STREAM, 1, b"x"),
    "5.1 HEADERS on a half-closed stream": GET_1 + GET_1,
    "5.1 CONTINUATION on a half-closed stream": GET_1 + frame(CONTINUATION, END_HEADERS, 1, GET),
    "5.1 DATA after RST_STREAM": POST_1 + RESET_1 + frame(DATA, END_STREAM, 1, b"x"),
    "5.1 HEADERS after RST_STREAM": POST_1 + RESET_1 + GET_1,
    "5.1 CONTINUATION after RST_STREAM": POST_1 + RESET_1 + frame(CONTINUATION, END_HEADERS, 1, GET),
    "5.1.1 a stream with an even number": frame(HEADERS_FRAME, 5, 2, GET),
    "5.1.1 a stream with a smaller number": frame(HEADERS_FRAME, 5, 5, GET) + frame(HEADERS_FRAME, 5, 3, GET),
    "5.3.1 HEADERS that depend on their own stream": headers_1((1).to_bytes(4) + b"\x00" + GET, 0x25),
    "5.3.1 PRIORITY that depends on its own stream": frame(PRIORITY, 0, 1, (1).to_bytes(4) + b"\x00"),
    "5.5 an unknown frame within a header block": headers_1(GET, 0) + frame(0xFF, 0, 1, b"x"),
    "6.1 DATA on stream 0": frame(DATA, 0, 0, b"x"),
    "6.1 DATA with too much padding": POST_1 + frame(DATA, PADDED | END_STREAM, 1, b"\x06xxxxx"),
    "6.2 HEADERS on stream 0": frame(HEADERS_FRAME, 5, 0, GET),
    "6.2 HEADERS with too much padding": headers_1(b"\xff" + GET, 0xD),
    "6.3 PRIORITY on stream 0": frame(PRIORITY, 0, 0, bytes(5)),
    "6.3 PRIORITY of 4 bytes": frame(PRIORITY, 0, 1, bytes(4)),
    "6.4 RST_STREAM on stream 0": frame(RESET, 0, 0, bytes(4)),
    "6.4 RST_STREAM of 3 bytes": POST_1 + frame(RESET, 0, 1, bytes(3)),
    "6.5 an acknowledgement with content": frame(SETTINGS, ACK, 0, bytes(6)),
    "6.5 SETTINGS on a stream": frame(SETTINGS, 0, 1, b"\x00\x03" + bytes(4)),
    "6.5 SETTINGS of 3 bytes": frame(SETTINGS, 0, 0, bytes(3)),
    "6.5.2 ENABLE_PUSH 2": setting(2, 2),
    "6.5.2 INITIAL_WINDOW_SIZE beyond the maximum": setting(4, 2**31),
    "6.5.2 MAX_FRAME_SIZE below the minimum": setting(5, 16_383),
    "6.5.2 MAX_FRAME_SIZE beyond the maximum": setting(5, 2**24),
    "6.7 PING on a stream": frame(PING, 0, 1, bytes(8)),
    "6.7 PING of 6 bytes": frame(PING, 0, 0, bytes(6)),
    "6.8 GOAWAY on a stream": frame(GOAWAY, 0, 1, bytes(8)),
    "6.9 WINDOW_UPDATE by 0": frame(WINDOW, 0, 0, bytes(4)),
    "6.9 WINDOW_UPDATE of a stream by 0": POST_1 + frame(WINDOW, 0, 1, bytes(4)),
    "6.9 WINDOW_UPDATE of 3 bytes": frame(WINDOW, 0, 0, bytes(3)),
    "6.9.1 a window beyond the maximum": frame(WINDOW, 0, 0, (2**31 - 1).to_bytes(4)) * 2,
    "6.9.1 a stream's window beyond the maximum": POST_1 + frame(WINDOW, 0, 1, (2**31 - 1).to_bytes(4)) * 2,
    "6.9.2 a setting that takes a window beyond the maximum": (
        POST_1 + frame(WINDOW, 0, 1, (2**31 - 65_536).to_bytes(4)) + setting(4, 65_600)
    ),
    "6.10 DATA within a header block": headers_1(POST, 0) + frame(DATA, END_STREAM, 1, b"x"),
    "6.10 CONTINUATION on stream 0": headers_1(GET, END_STREAM) + frame(CONTINUATION, END_HEADERS, 0, b""),
    "6.10 CONTINUATION of another stream": headers_1(GET, END_STREAM) + frame(CONTINUATION, END_HEADERS, 3, b""),
    "8.1 a second HEADERS frame that does not end the stream": POST_1 + headers_1(literal(b"x", b"1"), END_HEADERS),
    "8.1.2 a name in capitals": headers_1(GET + literal(b"X-Test", b"1")),
    "8.1.2.1 an unknown pseudo header": headers_1(GET + literal(b":test", b"1")),
    "8.1.2.1 the pseudo header of an answer": headers_1(GET + literal(b":status", b"200")),
    "8.1.2.1 a pseudo header in a trailer": POST_1 + headers_1(literal(b":method", b"200")),
    "8.1.2.1 a pseudo header after others": headers_1(b"\x82\x86" + literal(b"x", b"1") + b"\x84\x41\x01h"),
    "8.1.2.2 a Connection header": headers_1(GET + literal(b"connection", b"keep-alive")),
    "8.1.2.2 TE with anything but trailers": headers_1(GET + literal(b"te", b"trailers, deflate")),
    "8.1.2.3 an empty path": headers_1(b"\x82\x86" + literal(b":path", b"") + b"\x41\x01h"),
    "8.1.2.3 no method": headers_1(b"\x86\x84\x41\x01h"),
    "8.1.2.3 no scheme": headers_1(b"\x82\x84\x41\x01h"),
    "8.1.2.3 no path": headers_1(b"\x82\x86\x41\x01h"),
    "8.1.2.3 two methods": headers_1(b"\x82" + GET),
    "8.1.2.3 two schemes": headers_1(b"\x86" + GET),
    "8.1.2.3 two paths": headers_1(b"\x84" + GET),
    "8.1.2.6 less than the declared length": (
        headers_1(POST + literal(b"content-length", b"2"), END_HEADERS) + frame(DATA, END_STREAM, 1, b"x")
    ),
    "8.1.2.6 more than the declared length, in frames": (
        headers_1(POST + literal(b"content-length", b"1"), END_HEADERS)
        + frame(DATA, 0, 1, b"x")
        + frame(DATA, END_STREAM, 1, b"x")
    ),
    "8.2 PUSH_PROMISE by a client": GET_1 + frame(PUSH, END_HEADERS, 1, (2).to_bytes(4) + GET),
    "HPACK 2.3.3 an index beyond the tables": headers_1(GET + b"\xc6"),
    "HPACK 4.2 a table size at the end of a block": headers_1(GET + b"\x20"),
    "HPACK 5.2 padding of a whole byte": headers_1(GET + b"\x00\x81\xff\x00"),
    "HPACK 5.2 padding of zeros": headers_1(GET + b"\x00\x81\x18\x00"),
    "HPACK 5.2 the end of string within a string": headers_1(GET + b"\x00\x84\xff\xff\xff\xff\x00"),
    "HPACK 6.1 index 0": headers_1(GET + b"\x80"),
    "HPACK 6.3 a table beyond the setting": headers_1(b"\x3f\xe1\x7f" + GET),
}

#: What must change nothing.
IGNORED: dict[str, bytes] = {
    "4.1 a frame of an unknown type": frame(0xFF, 0, 0, b"12345678"),
    "4.1 unknown flags": frame(PING, 0x16, 0, bytes(8)),
    "4.1 the reserved bit": frame(PING, 0, 2**31, bytes(8)),
    "5.1 PRIORITY on an idle stream": frame(PRIORITY, 0, 1, (0).to_bytes(4) + b"\x01"),
    "5.1 PRIORITY, RST_STREAM and WINDOW_UPDATE on a closed stream": (
        GET_1 + RESET_1 + frame(PRIORITY, 0, 1, bytes(5)) + frame(WINDOW, 0, 1, (1).to_bytes(4)) + RESET_1
    ),
    "6.5.2 an unknown setting": setting(0xFF, 1),
    "6.7 an acknowledged PING": frame(PING, ACK, 0, bytes(8)),
    "6.10 a header block in many frames": (
        headers_1(GET[:2], END_STREAM) + frame(CONTINUATION, 0, 1, GET[2:4]) + frame(CONTINUATION, 4, 1, GET[4:])
    ),
    "6.1 and 6.2 padding": headers_1(b"\x02" + POST + b"\0\0", 0xC) + frame(DATA, 9, 1, b"\x03x\0\0\0"),
    "8.1 a trailer": POST_1 + headers_1(literal(b"x", b"1")),
}


@pytest.mark.parametrize("name", VIOLATIONS)
@pytest.mark.parametrize("whole", [True, False])
def test_what_h2spec_sends_against_the_protocol(name: str, whole: bool) -> None:
    house = House(lambda _: None)
    house.exchange()
    sent = VIOLATIONS[name]
    for piece in [sent] if whole else [bytes([byte]) for byte in sent]:
        if not house.closed:
            house.feed(piece)
    kinds = kinds_in(house.sent)
    assert house.closed == (GOAWAY in kinds)
    assert house.closed or RESET in kinds
    if not name.startswith(("5.1 ", "5.1.1 a stream with a smaller", "8.2 ")):  # which begin with a good request
        assert not [request for request in house.requests if request.complete]


def kinds_in(sent: bytes) -> list[int]:
    kinds = []
    while sent:
        kinds.append(sent[3])
        sent = sent[9 + int.from_bytes(sent[:3]) :]
    return kinds


@pytest.mark.parametrize("name", IGNORED)
def test_what_h2spec_sends_within_the_protocol(name: str) -> None:
    house = House()
    house.exchange()
    for byte in IGNORED[name] + frame(HEADERS_FRAME, END_HEADERS | END_STREAM, 7, GET):
        house.feed(bytes([byte]))
    assert not house.closed
    assert house.requests[-1].complete
    assert HEADERS_FRAME in kinds_in(house.sent)
