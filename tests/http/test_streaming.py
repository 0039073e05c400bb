"""Answers and bodies that come piece by piece: bounded, ended with their client, and never taken for the whole."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ClassVar, cast

import httpx
import pytest
import uvloop

from kvasir.dialects.http import Request, Response, Stream
from kvasir.errors import KvasirError
from kvasir.limits import Limits
from kvasir.listeners.http import PARTS, TICK_SECONDS, HttpListener
from kvasir.listeners.http.streaming import Streaming
from kvasir.metrics import Metrics

PATIENCE_SECONDS = 30.0
PIECE = b"x" * 65_536


class Pieces:
    """So many pieces, from some place on after `go`. It remembers how many it made, and whether it was closed."""

    def __init__(self, path: str) -> None:
        self._many = 10_000 if path.endswith("/long") else 3
        self._waits, self._fails = path in ("/wait", "/endless", "/endless/long"), path == "/fail"
        self.go = asyncio.Event()
        self.made, self.closed = 0, False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.made == self._many:
            raise StopAsyncIteration
        if self._waits and self.made == 2:
            await self.go.wait()
        if self._fails and self.made == self._many - 1:
            raise RuntimeError("planted")
        self.made += 1
        return PIECE if self._many > 3 else b"%d" % self.made

    async def aclose(self) -> None:
        self.closed = True


class Toy:
    """Streams its answers; to `/body` and below it first reads a body, piece by piece."""

    name: ClassVar[str] = "toy"
    operations: ClassVar[tuple[str, ...]] = ("toy",)

    def __init__(self) -> None:
        self.streams: list[Pieces] = []
        self.pieces: list[int] = []
        self.refusals: list[str] = []
        self.go = asyncio.Event()

    def serves(self, path: str) -> bool:
        return True

    def too_much(self, request: Request, response: Response, error: KvasirError) -> Response:
        return Response(503, b"", "toy", "unavailable")

    def answer_nowait(self, request: Request) -> bool:
        return False

    async def __call__(self, request: Request) -> Response:
        if request.path.startswith("/body"):
            try:
                while piece := await request.piece():
                    self.pieces.append(len(piece))
                    if request.path == "/body/slow":
                        await self.go.wait()
            except KvasirError as error:
                self.refusals.append(error.message)
                return Response(400, error.message.encode(), "toy", error.code)
            return Response(200, b"%d" % sum(self.pieces), "toy")
        self.streams.append(pieces := Pieces(request.path))
        if request.path == "/gone":  # the connection learns of it before the answer has its first turn
            owner = cast("Any", request).owner
            getattr(owner, "_connection", owner).abort()
        return Stream(200, b"", "toy", chunks=pieces, endless=request.path.startswith("/endless"))


class House:
    """A listener, its toy, and httpx as a client."""

    def __init__(self, limits: Limits, *, http2: bool) -> None:
        self.http2 = http2
        self.toy = Toy()
        self.listener = HttpListener((), Metrics({"toy": ("toy",)}, 1), limits, fallback=self.toy)
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        self.listener.listen(listening)
        url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.AsyncClient(base_url=url, http1=not http2, http2=http2, trust_env=False, timeout=30)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
def told(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs a story in a house, on the loop that the server has."""

    def tell(story: Callable[[House], Awaitable[None]], limits: Limits | None = None) -> None:
        async def whole() -> None:
            house = House(limits or Limits(), http2=request.param == "HTTP/2")
            try:
                await story(house)
            finally:
                await house.client.aclose()
                await house.listener.stop(1.0)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(whole())

    return tell


def test_pieces_come_as_they_are_made_and_then_the_next_answer(told: Callable[..., None]) -> None:
    async def story(house: House) -> None:
        async with house.client.stream("GET", "/wait") as answer:
            assert "content-length" not in answer.headers
            pieces = answer.aiter_bytes()
            got = b""
            while len(got) < 2:
                got += await anext(pieces)
            assert got == b"12"
            house.toy.streams[0].go.set()
            assert b"".join([piece async for piece in pieces]) == b"3"
        assert (await house.client.get("/plain")).content == b"123"
        head = await house.client.head("/plain")
        assert (head.status_code, head.content) == (200, b"")
        assert (await house.client.get("/plain")).content == b"123"
        await house.until(lambda: all(stream.closed for stream in house.toy.streams))
        assert house.listener.connections == 1

    told(story)


def test_a_client_that_does_not_read_holds_up_the_pieces_and_is_let_go(told: Callable[..., None]) -> None:
    async def story(house: House) -> None:
        async with house.client.stream("GET", "/long") as answer:
            assert answer.status_code == 200
            (pieces,) = house.toy.streams
            await house.until(lambda: pieces.closed)
            assert pieces.made * len(PIECE) < 64_000_000

    told(story, Limits(unread_seconds=1.0))


@pytest.mark.parametrize("path", ["/endless", "/endless/long"])
def test_a_quiet_stream_is_looked_after_again_once_it_goes_on(told: Callable[..., None], path: str) -> None:
    async def story(house: House) -> None:
        async with house.client.stream("GET", path) as answer:
            got = answer.aiter_raw()
            await anext(got)
            (pieces,) = house.toy.streams
            if not house.http2:
                await house.until(lambda: bool(house.listener._parts[-1]))
                assert not any(house.listener._parts[:-1])
            pieces.go.set()
            if path == "/endless":
                assert b"".join([piece async for piece in got]).endswith(b"3")
            # A client that reads nothing more, or has nothing more to ask for, is let go as ever.
            await house.until(lambda: not house.listener.connections and pieces.closed)
            assert pieces.made * len(PIECE) < 64_000_000

    told(story, Limits(unread_seconds=1.0, idle_seconds=1.0))


def test_a_head_of_a_quiet_stream_leaves_a_connection_that_is_looked_after(
    told: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written when such an answer ends, however late it does."""
    send = Streaming._send

    async def late(streaming: Streaming) -> None:
        await asyncio.sleep(2 * PARTS * TICK_SECONDS)
        await send(streaming)

    monkeypatch.setattr(Streaming, "_send", late)

    async def story(house: House) -> None:
        assert (await house.client.head("/endless")).status_code == 200
        await house.until(lambda: not house.listener.connections)

    told(story, Limits(idle_seconds=1.0))


def test_a_long_answer_comes_whole(told: Callable[..., None]) -> None:
    async def story(house: House) -> None:
        size = 0
        async with house.client.stream("GET", "/long") as answer:
            async for piece in answer.aiter_raw():
                size += len(piece)
                if size > 200_000_000:
                    break
            assert size > 200_000_000
        await house.client.aclose()
        await house.until(lambda: house.toy.streams[0].closed)

    told(story)


@pytest.mark.parametrize("path", ["/endless", "/long"])
def test_a_stream_ends_with_its_client(told: Callable[..., None], path: str) -> None:
    async def story(house: House) -> None:
        async with house.client.stream("GET", path) as answer:
            await anext(answer.aiter_bytes())
        await house.client.aclose()
        await house.until(lambda: house.toy.streams[0].closed)
        await house.until(lambda: not house.listener.connections)

    told(story)


def test_a_stream_whose_client_leaves_before_its_first_piece_is_closed(told: Callable[..., None]) -> None:
    async def story(house: House) -> None:
        with pytest.raises(httpx.TransportError):
            await house.client.get("/gone")
        await house.until(lambda: house.toy.streams[0].closed)
        assert house.toy.streams[0].made == 0
        await house.until(lambda: not house.listener.connections)

    told(story)


def test_what_fails_half_way_is_cut_off(told: Callable[..., None]) -> None:
    async def story(house: House) -> None:
        with pytest.raises(httpx.RemoteProtocolError):
            await house.client.get("/fail")
        assert house.toy.streams[0].closed
        assert (await house.client.get("/plain")).content == b"123"

    told(story)


def test_a_stop_waits_for_a_stream_and_then_ends_it(told: Callable[..., None]) -> None:
    async def story(house: House) -> None:
        assert (await house.client.get("/plain")).content == b"123"
        if house.http2:
            return  # this client takes nothing more once it has been told to go away
        async with house.client.stream("GET", "/wait") as answer:
            stopping = asyncio.create_task(house.listener.stop(20.0))
            await asyncio.sleep(0.1)
            assert not stopping.done()
            house.toy.streams[1].go.set()
            assert await answer.aread() == b"123"
        assert await stopping

    told(story)


def test_a_body_of_any_length_is_taken_piece_by_piece(told: Callable[..., None]) -> None:
    many = 100

    async def body() -> AsyncIterator[bytes]:
        for _ in range(many):
            yield PIECE

    async def story(house: House) -> None:
        answer = await house.client.put("/body", content=body())
        assert answer.content == b"%d" % (many * len(PIECE))
        assert len(house.toy.pieces) > 5
        assert house.listener.held == 0

    told(story, Limits(body_bytes=1_000))


def test_what_is_not_asked_for_is_not_read(told: Callable[..., None]) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1_000):
            yield PIECE
            sent += 1

    async def story(house: House) -> None:
        asking = asyncio.create_task(house.client.put("/body/slow", content=body()))
        await house.until(lambda: bool(house.toy.pieces))
        await asyncio.sleep(0.5)
        assert len(house.toy.pieces) == 1
        assert sent < 500
        house.toy.go.set()
        assert (await asking).content == b"%d" % (1_000 * len(PIECE))

    told(story)


def test_a_body_that_stops_coming_is_refused(told: Callable[..., None]) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield PIECE
        await asyncio.sleep(60)

    async def story(house: House) -> None:
        asking = asyncio.create_task(house.client.put("/body", content=body()))
        await house.until(lambda: bool(house.toy.refusals))
        asking.cancel()
        assert "send it faster" in house.toy.refusals[0]
        assert sum(house.toy.pieces) == len(PIECE)

    told(story, Limits(body_seconds=0.5))


def test_a_client_of_http_1_0_gets_the_pieces_up_to_the_end_of_the_connection() -> None:
    async def story() -> None:
        house = House(Limits(), http2=False)
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(b"GET /plain HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head
        assert b"connection: close" in head
        assert body == b"123"
        writer.close()
        await house.client.aclose()
        await house.listener.stop(1.0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())


def test_a_client_that_has_closed_its_side_still_gets_what_ends_by_itself() -> None:
    async def story() -> None:
        house = House(Limits(), http2=False)
        for path in ("/wait", "/endless"):
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            await reader.readuntil(b"\r\n2\r\n")
            writer.write_eof()
            if path == "/wait":
                house.toy.streams[0].go.set()
                assert (await reader.read()).endswith(b"1\r\n3\r\n0\r\n\r\n")
            else:
                assert await reader.read() == b""
                await house.until(lambda: house.toy.streams[1].closed)
            writer.close()
        await house.client.aclose()
        await house.listener.stop(1.0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(story())
