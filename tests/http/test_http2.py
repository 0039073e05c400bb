"""HTTP/2 as protocol code: requests, answers, and a bound on all that a peer can make the server do for nothing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame, PingFrame, PriorityFrame, SettingsFrame

from kvasir.dialects.http import Response
from kvasir.limits import Limits
from kvasir.listeners.http.http1 import Request
from kvasir.listeners.http.http2 import IDLE_FRAMES, PREFACE, STREAMS, Http2

HEADERS = [(b":method", b"GET"), (b":path", b"/a?b"), (b":scheme", b"http"), (b":authority", b"h")]
PUT = [(b":method", b"PUT"), *HEADERS[1:]]


class House:
    """A listener and a connection to look into; `answers` says what a request is answered with, if at all."""

    def __init__(self, answers: Callable[[Request], Response | None] = lambda _: Response(200, b"x", "Op")) -> None:
        self.limits = Limits()
        self.held = 0
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
                self.http.feed(data)

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
        house.http.feed(bytes([byte]))
    assert len(house.requests) == 1


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
        house.http.feed(frame(house))
    assert not house.closed
    for _ in range(IDLE_FRAMES):
        if not house.closed:
            house.http.feed(frame(house))
    assert house.closed
    assert house.ended_with() == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM
    assert all(request.dropping for request in house.requests if not request.complete)


def test_a_flood_of_empty_data_ends_the_connection() -> None:
    house = House(lambda _: None)
    house.client.send_headers(1, PUT)
    house.exchange()
    for _ in range(IDLE_FRAMES + 1):
        if not house.closed:
            house.http.feed(DataFrame(1, b"").serialize())
    assert house.ended_with() == h2.errors.ErrorCodes.ENHANCE_YOUR_CALM


def test_who_is_answered_may_ping_for_ever(house: House) -> None:
    for stream in range(1, 2 * IDLE_FRAMES, 2):
        house.client.send_headers(stream, HEADERS, end_stream=True)
        house.client.ping(b"12345678")
        house.client.ping(b"12345678")
        house.exchange()
    assert not house.closed


def test_a_flood_of_continuation_ends_the_connection() -> None:
    house = House()
    house.exchange()
    house.http.feed(HeadersFrame(1, b"\x82").serialize())
    for _ in range(100):
        if not house.closed:
            house.http.feed(ContinuationFrame(1, b"\x00\x01a\x01b" * 100).serialize())
    assert house.closed
    assert house.requests == []


def test_a_bomb_of_headers_ends_the_connection() -> None:
    """A few bytes that name one long entry of the table again and again."""
    house = House()
    house.exchange()
    entry = b"\x40\x01a\x7f\xa1\x1e" + b"b" * 4_000  # a: bbb…, put into the table
    bomb = HeadersFrame(1, b"\x82\x84\x86" + entry + b"\xbe" * 4_000, flags=["END_HEADERS", "END_STREAM"])
    house.http.feed(bomb.serialize())
    assert house.closed
    assert house.requests == []


@pytest.mark.parametrize("data", [b"x" * 100, b"\xff" * 9, PREFACE])
def test_nonsense_ends_the_connection(data: bytes) -> None:
    house = House()
    house.exchange()
    for _ in range(2_000):
        if not house.closed:
            house.http.feed(data)
    assert house.closed


def test_so_many_streams_at_a_time() -> None:
    house = House(lambda _: None)
    house.exchange()
    for stream in range(1, 2 * STREAMS + 1, 2):
        house.client.send_headers(stream, PUT)
        house.exchange()
    assert len(house.requests) == STREAMS
    assert not house.closed
    house.http.feed(HeadersFrame(2 * STREAMS + 1, b"\x82\x84\x86\x01\x01h", flags=["END_HEADERS"]).serialize())
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
    house.http.feed(HeadersFrame(3, b"\x82\x84\x86\x01\x01h", flags=["END_HEADERS", "END_STREAM"]).serialize())
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
