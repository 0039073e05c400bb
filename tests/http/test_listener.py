"""The HTTP listener on real sockets, with a toy dialect: order, time, room, and how connections end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import h2.config
import h2.connection
import h2.settings
import pytest
import uvloop

from kvasir.cli import local_authority
from kvasir.dialects.http import Request, Response
from kvasir.dialects.rounds import ROUND_SECONDS
from kvasir.errors import KvasirError
from kvasir.limits import Limits
from kvasir.listeners.http import HttpListener
from kvasir.listeners.http.connection import Connection
from kvasir.metrics import Metrics

PATIENCE_SECONDS = 30.0


class Toy:
    """Answers with what it was asked; `/wait` waits to be let go, as `/read` does, which only reads; `/body` reads its
    body, `/large` is long, and `/set` waits before it changes something."""

    name: ClassVar[str] = "toy"
    operations: ClassVar[tuple[str, ...]] = ("toy",)

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.asked: list[str] = []
        self.set: list[str] = []

    def serves(self, path: str) -> bool:
        return True

    def too_much(self, request: Request, response: Response, error: KvasirError) -> Response:
        return Response(503, b"", "toy", "unavailable")

    def answer_nowait(self, request: Request) -> bool:
        if not request.path.startswith("/now"):
            return False
        self.asked.append(request.path)
        request.answer(Response(200, b"now " + (request.body_nowait() or b""), "toy"))
        return True

    async def __call__(self, request: Request) -> Response:
        self.asked.append(request.path)
        if request.path.startswith(("/wait", "/read")):
            if request.path.startswith("/read"):
                request.reads_only()
            await self.go.wait()
        if request.path.startswith("/set"):
            await self._set(request)
        try:
            body = await request.body() if request.path.startswith("/body") else b""
        except KvasirError as error:
            return Response(400, error.message.encode(), "toy", error.code)
        if request.path == "/large":
            return Response(200, b"x" * 4_000_000, "toy")
        return Response(200, f"{request.method} {request.path} ".encode() + body, "toy")

    async def _set(self, request: Request) -> None:
        """Read what is to be set, until it is let go; then set it, until it is let go again."""
        request.reads_only()
        await self.go.wait()
        request.writes()
        self.set.append("begun")
        self.go.clear()
        await self.go.wait()
        self.set.append("done")


class House:
    """A listener on free ports, with its toy."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.toy = Toy()
        self.clients: list[Client] = []
        metrics = Metrics({"toy": ("toy",)}, 1)
        self.listener = HttpListener((), metrics, limits or Limits(), fallback=self.toy)

    async def open(self, tls: ssl.SSLContext | None = None) -> House:
        listening = socket.create_server(("127.0.0.1", 0), backlog=1_024)
        self.port = listening.getsockname()[1]
        self.listener.listen(listening, tls)
        return self

    async def connect(self) -> Client:
        self.clients.append(Client(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.clients[-1]

    async def close(self) -> None:
        self.toy.go.set()
        for client in self.clients:
            client.close()
        await self.listener.stop(1.0)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, head: bool = False) -> tuple[int, dict[bytes, bytes], bytes]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
            headers = dict(line.split(b": ", 1) for line in lines[1:-2])
            length = 0 if head else int(headers.get(b"content-length", b"0"))
            return int(lines[0].split()[1]), headers, await self.reader.readexactly(length)

    async def ended(self) -> bool:
        """Whether the server has ended the connection; waits for it."""
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self.reader.read() == b""
        return True

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Break off: the server learns of it at once."""
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


def get(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: h", *lines, "", ""]).encode()


def run(work: Coroutine[Any, Any, None]) -> None:
    """On the loop that the server has."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


def told(story: Callable[[House], Awaitable[None]], limits: Limits | None = None) -> None:
    async def whole() -> None:
        house = await House(limits).open()
        try:
            await story(house)
        finally:
            await house.close()

    run(whole())


def test_answers_come_in_the_order_of_their_requests() -> None:
    async def story(house: House) -> None:
        client = await house.connect()
        client.send(get("/wait/1") + get("/2") + b"PUT /body HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab")
        await house.until(lambda: house.toy.asked == ["/wait/1"])
        client.send(b"c" + get("/4"))
        house.toy.go.set()
        bodies = [(await client.answer())[2] for _ in range(4)]
        assert bodies == [b"GET /wait/1 ", b"GET /2 ", b"PUT /body abc", b"GET /4 "]

    told(story)


class Busy(Toy):
    """Works for a while at each request, and counts how many there are in a round of the loop."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds = [0]

    def answer_nowait(self, request: Request) -> bool:
        self.rounds[-1] += 1
        until = time.perf_counter() + ROUND_SECONDS / 2
        while time.perf_counter() < until:
            pass
        return super().answer_nowait(request)

    async def count(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.rounds.append(0)


def together(who: int) -> bytes:
    """Requests of HTTP/1.1."""
    return b"".join(get(f"/now/{who}") for _ in range(10))


def together_in_frames(who: int) -> bytes:
    """Requests of HTTP/2."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
    connection.initiate_connection()
    for n in range(10):
        head = [(":method", "GET"), (":path", f"/now/{who}"), (":scheme", "http"), (":authority", "h")]
        connection.send_headers(1 + 2 * n, head, end_stream=True)
    return connection.data_to_send()


@pytest.mark.parametrize("said", [together, together_in_frames])
def test_connections_share_the_time_for_what_came_together(said: Callable[[int], bytes]) -> None:
    """With a budget for each of them, a round would hold up to sixty requests."""

    async def story(house: House) -> None:
        busy = Busy()
        house.toy = house.listener._fallback = busy
        clients = [await house.connect() for _ in range(20)]
        await house.until(lambda: house.listener.connections == 20)
        counting = asyncio.ensure_future(busy.count())
        for who, client in enumerate(clients):
            client.send(said(who))
        await house.until(lambda: len(busy.asked) == 200)
        counting.cancel()
        assert max(busy.rounds) <= 20  # a handful where nobody else wants the processor
        first_done = next(n for n in range(200) if busy.asked[: n + 1].count(busy.asked[n]) == 10)
        assert len(set(busy.asked[:first_done])) == 20, "all have their turn before one is done"

    told(story)


@pytest.mark.parametrize("first", ["/1", "/wait/1"])
def test_a_thousand_requests_at_once_on_one_connection(first: str) -> None:
    async def story(house: House) -> None:
        client = await house.connect()
        client.send(get(first) + b"".join(get(f"/{n}") for n in range(2, 1_001)))
        await house.until(lambda: bool(house.toy.asked))
        house.toy.go.set()
        for n in range(1, 1_001):
            status, _, body = await client.answer()
            assert (status, body.split()[1]) == (200, (first if n == 1 else f"/{n}").encode())

    told(story)


def test_head_is_get_without_the_body() -> None:
    async def story(house: House) -> None:
        client = await house.connect()
        client.send(get("/a").replace(b"GET", b"HEAD") + get("/b"))
        status, headers, _ = await client.answer(head=True)
        assert (status, headers[b"content-length"]) == (200, b"7")
        assert (await client.answer())[2] == b"GET /b "

    told(story)


def test_a_client_that_expects_it_is_told_to_send_when_its_body_is_wanted() -> None:
    async def story(house: House) -> None:
        client = await house.connect()
        head = "PUT {} HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        client.send(head.format("/body").encode())
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"ab")
        assert (await client.answer())[2] == b"PUT /body ab"
        # Where it is not, the connection ends: nobody knows whether the body still comes.
        client.send(head.format("/other").encode())
        status, headers, _ = await client.answer()
        assert (status, headers[b"connection"]) == (200, b"close")
        assert await client.ended()

    told(story)


def test_what_says_nothing_ends_and_half_a_head_is_told() -> None:
    async def story(house: House) -> None:
        silent, half, kept, working = [await house.connect() for _ in range(4)]
        half.send(get("/a")[:-2])
        kept.send(get("/a"))
        assert (await kept.answer())[0] == 200
        working.send(get("/wait"))
        assert (await half.answer())[0] == 408
        for client in (half, silent, kept):
            assert await client.ended()
        house.toy.go.set()
        assert (await working.answer())[0] == 200

    told(story, Limits(head_seconds=0.5, idle_seconds=0.5))


def test_a_connection_that_fails_is_ended_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    look_after, failing = Connection.look_after, list[Connection]()

    def fails(connection: Connection, now: float) -> None:
        if connection in failing:
            raise RuntimeError("planted")
        look_after(connection, now)

    monkeypatch.setattr(Connection, "look_after", fails)

    async def story(house: House) -> None:
        one = await house.connect()
        await house.until(lambda: any(house.listener._parts))
        failing.extend(set[Connection]().union(*house.listener._parts))
        other = await house.connect()
        assert await one.ended()
        await house.until(lambda: house.listener.connections == 1)
        other.send(get("/a"))
        assert (await other.answer())[0] == 200
        assert not house.listener.running[0].done()

    told(story)


def test_a_head_byte_by_byte_has_no_more_time_than_another() -> None:
    async def story(house: House) -> None:
        client = await house.connect()
        began = time.monotonic()
        with contextlib.suppress(ConnectionError, RuntimeError):  # the latter is uvloop's
            for byte in get("/a", "X: " + "x" * 10_000):
                client.send(bytes([byte]))
                await client.writer.drain()
                await asyncio.sleep(0.01)
                if client.reader.at_eof():
                    break
        assert 0.3 < time.monotonic() - began < PATIENCE_SECONDS / 2

    told(story, Limits(head_seconds=0.5))


def test_a_client_that_does_not_read_is_let_go_and_one_that_reads_slowly_is_not() -> None:
    async def story(house: House) -> None:
        raw = socket.create_connection(("127.0.0.1", house.port))
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        slow = await house.connect()
        raw.sendall(get("/large") * 100)
        slow.send(get("/large"))
        await house.until(lambda: house.listener.connections == 2 and bool(house.toy.asked))
        read = 0
        while read < 4_000_000:
            piece = await slow.reader.read(200_000)
            assert piece
            read += len(piece)
            await asyncio.sleep(0.05)
        await house.until(lambda: house.listener.connections == 1)
        # While nothing is read, nothing more is made.
        assert house.toy.asked.count("/large") < 20
        raw.close()

    told(story, Limits(unread_seconds=1.0))


def test_those_who_connect_together_are_not_accepted_one_a_round() -> None:
    """Each round, all who are there already may have a request."""

    async def story(house: House) -> None:
        with contextlib.ExitStack() as stack:
            for _ in range(90):
                stack.enter_context(socket.create_connection(("127.0.0.1", house.port)))
            for _ in range(20):
                await asyncio.sleep(0)
            assert house.listener.connections == 90

    told(story)


def test_connections_beyond_the_limit_wait_for_one_to_leave() -> None:
    async def story(house: House) -> None:
        first, second, third = [await house.connect() for _ in range(3)]
        for client in (first, second):
            client.send(get("/a"))
            assert (await client.answer())[0] == 200
        third.send(get("/a"))
        await asyncio.sleep(0.1)
        assert house.listener.connections == 2
        first.close()
        assert (await third.answer())[0] == 200

    told(story, Limits(connections=2))


def test_a_body_longer_than_allowed_is_refused_and_the_answer_is_seen() -> None:
    async def story(house: House) -> None:
        client = await house.connect()
        client.send(b"PUT /body HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n\r\n")
        sending = asyncio.ensure_future(send_for_ever(client))
        status, headers, _ = await client.answer()
        assert (status, headers[b"connection"]) == (400, b"close")
        sending.cancel()
        # One that is not much longer is read to its end, and the connection goes on.
        client = await house.connect()
        client.send(b"PUT /body HTTP/1.1\r\nHost: h\r\nContent-Length: 1500\r\n\r\n" + b"x" * 1_500 + get("/next"))
        assert [(await client.answer())[0] for _ in range(2)] == [400, 200]

    told(story, Limits(body_bytes=1_000))


async def send_for_ever(client: Client) -> None:
    with contextlib.suppress(ConnectionError):
        while True:
            client.send(b"x" * 10_000)
            await client.writer.drain()


def test_the_server_stops_at_once_but_for_what_was_begun() -> None:
    async def story(house: House) -> None:
        silent, half, kept, working, uploading = [await house.connect() for _ in range(5)]
        half.send(b"GET /a HT")
        kept.send(get("/a"))
        assert (await kept.answer())[0] == 200
        working.send(get("/wait"))
        uploading.send(b"PUT /body HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na")
        await house.until(lambda: house.listener.in_flight == 2)
        stopping = asyncio.ensure_future(house.listener.stop(PATIENCE_SECONDS))
        for client in (silent, half, kept):
            assert await client.ended()
        with pytest.raises(ConnectionRefusedError):
            await house.connect()
        uploading.send(b"bc")
        house.toy.go.set()
        for client, expected in ((working, b"GET /wait "), (uploading, b"PUT /body abc")):
            _, headers, body = await client.answer()
            assert (headers[b"connection"], body) == (b"close", expected)
            assert await client.ended()
        began = time.monotonic()
        assert await stopping
        assert time.monotonic() - began < 1.0

    told(story)


def test_a_client_that_leaves_while_it_is_answered_harms_nobody() -> None:
    async def story(house: House) -> None:
        for lines in (
            get("/wait"),
            get("/wait") + get("/b") * 5,
            b"PUT /body HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\na",
        ):
            client = await house.connect()
            client.send(lines)
            asked = len(house.toy.asked)
            await house.until(lambda: len(house.toy.asked) > asked)  # noqa: B023
            client.close()
        house.toy.go.set()
        await house.until(lambda: house.listener.in_flight == house.listener.connections == 0)
        client = await house.connect()
        client.send(get("/after"))
        assert (await client.answer())[0] == 200

    told(story)


def test_who_leaves_before_anything_is_written_gives_it_up() -> None:
    async def story(house: House) -> None:
        client = await house.connect()
        client.send(get("/set"))
        await house.until(lambda: house.toy.asked == ["/set"])
        client.close()
        await house.until(lambda: house.listener.in_flight == 0)
        assert house.toy.set == []
        client = await house.connect()
        client.send(get("/set"))
        await house.until(lambda: len(house.toy.asked) == 2)
        house.toy.go.set()
        await house.until(lambda: house.toy.set == ["begun"])
        client.reset()
        await house.until(lambda: house.listener.connections == 0)
        house.toy.go.set()
        await house.until(lambda: house.toy.set == ["begun", "done"])

    told(story)


def test_who_leaves_in_the_turn_that_a_request_begins_in_leaves_nothing_in_flight() -> None:
    async def story(house: House) -> None:
        connection = Connection(house.listener, secure=False)
        left, right = socket.socketpair()
        with right:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, left)
            connection.data_received(get("/set"))
            assert house.listener.in_flight == 1
            connection.connection_lost(None)
            await house.until(lambda: house.listener.in_flight == 0)
            assert house.toy.set == []
            transport.abort()

    told(story)


def test_the_end_of_a_client_is_noticed_while_nothing_is_read_of_it() -> None:
    """It has sent more than is read ahead, so the event loop does not look at its connection."""

    async def story(house: House) -> None:
        client = await house.connect()
        client.send(get("/set") + get("/later") * 5_000)
        await house.until(lambda: house.toy.asked == ["/set"] and len(house.listener.paused) == 1)
        client.reset()
        await house.until(lambda: house.listener.in_flight == 0)
        assert house.toy.asked == ["/set"]
        assert house.toy.set == []
        assert not house.listener.paused

    told(story)


@pytest.mark.parametrize("behind", [10_000, 40_000])
def test_who_leaves_behind_much_that_it_has_sent_is_noticed(behind: int) -> None:
    """It has read all that there was, so it leaves in good order: its end comes behind its requests, a megabyte."""

    async def story(house: House) -> None:
        client = await house.connect()
        client.send(get("/set") + get("/later") * behind)
        await house.until(lambda: house.toy.asked == ["/set"] and len(house.listener.paused) == 1)
        client.close()
        await house.until(lambda: house.listener.in_flight == house.listener.connections == 0)
        assert house.toy.asked == ["/set"]
        assert house.toy.set == []

    told(story)


def test_interim_answers_tell_only_who_has_sent_another_request_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of HTTP/1.0 knows of none, and who has sent nothing behind its request is looked at anyhow. Nor is one whose
    body is not read yet told: many clients take the first answer for the last."""
    monkeypatch.setattr("kvasir.listeners.http.TICK_SECONDS", 0.02)

    async def story(house: House) -> None:
        much, begun, old, alone, half = [await house.connect() for _ in range(5)]
        post = b"POST /read HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"
        half.send(post)
        begun.send(get("/read") + post)
        much.send(get("/read") + get("/now") * 5_000)
        old.send(b"GET /read HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + get("/now") * 5_000)
        alone.send(get("/read"))
        await house.until(lambda: house.toy.asked == ["/read"] * 5 and len(house.listener.paused) == 4)
        async with asyncio.timeout(PATIENCE_SECONDS):
            for client in (much, begun) * 3:  # each time that all are looked at
                head = await client.reader.readuntil(b"\r\n\r\n")
                assert head == b"HTTP/1.1 102 Processing\r\n\r\n"
        house.toy.go.set()
        assert (await old.answer())[0] == (await alone.answer())[0] == (await half.answer())[0] == 200
        answers: list[int] = []
        while len(answers) < 5_001:
            status, *_ = await much.answer()
            if status != 102:
                answers.append(status)
        assert answers == [200] * 5_001

    told(story)


def test_a_handshake_that_does_not_come_to_its_end_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, cert, key = local_authority.write(tmp_path, datetime.now(UTC))
    monkeypatch.setattr("kvasir.listeners.http.HANDSHAKE_SECONDS", 0.5)

    async def whole() -> None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(cert, key)
        house = await House().open(tls)
        plain, half = [await house.connect() for _ in range(2)]
        plain.send(get("/a"))
        half.send(bytes.fromhex("16030100f001"))
        for client in (plain, half):
            await client.ended()
        trust = ssl.create_default_context(cafile=str(authority))
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port, ssl=trust, server_hostname="localhost")
        client = Client(reader, writer)
        client.send(get("/a"))
        assert (await client.answer())[0] == 200
        client.close()
        await house.close()

    run(whole())


def test_handshakes_count_as_connections_and_do_not_hold_up_a_stop(tmp_path: Path) -> None:
    authority, cert, key = local_authority.write(tmp_path, datetime.now(UTC))

    async def whole() -> None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(cert, key)
        house = await House(Limits(connections=3)).open(tls)
        trust = ssl.create_default_context(cafile=str(authority))
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port, ssl=trust, server_hostname="localhost")
        kept = Client(reader, writer)
        kept.send(get("/a"))
        assert (await kept.answer())[0] == 200
        silent = [await house.connect() for _ in range(5)]
        await house.until(lambda: house.listener.connections == 3)
        await asyncio.sleep(0.05)
        assert house.listener.connections == 3
        for client in silent:
            client.close()
        await house.until(lambda: house.listener.connections == 1)
        silent.append(await house.connect())
        await house.until(lambda: house.listener.connections == 2)
        transport: Any = writer.transport
        transport.pause_reading()  # so that it does not take part in the end of TLS
        began = time.monotonic()
        assert await house.listener.stop(PATIENCE_SECONDS)
        assert time.monotonic() - began < 2.0
        transport.abort()
        await house.close()

    run(whole())


def test_a_client_that_keeps_its_window_all_but_closed_is_let_go() -> None:
    async def story(house: House) -> None:
        config = h2.config.H2Configuration(header_encoding=None)
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 10})
        connection.send_headers(
            1, [(":method", "GET"), (":path", "/large"), (":scheme", "http"), (":authority", "h")], end_stream=True
        )
        client = await house.connect()
        client.send(connection.data_to_send())
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while data := await client.reader.read(65_536):
                    connection.receive_data(data)
                    connection.increment_flow_control_window(1, 1)  # a byte now and then is not reading
                    client.send(connection.data_to_send())
                    await asyncio.sleep(0.1)
        assert 1.0 < time.monotonic() - began < PATIENCE_SECONDS / 2

    told(story, Limits(unread_seconds=1.0))
