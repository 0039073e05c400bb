"""The NemesisDB API against an empty picows echo: reads, writes, idle connections, a second in which much expires."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect, ws_create_server

from bench.harness import SECONDS, TURNS, Report, anonymous_mib
from tests.support.serving import free_ports, serving, wait_until

#: (connections, messages that each has under way)
SHAPES = ((1, 1), (1, 16), (16, 1), (16, 16))
IDLE = 10_000
EXPIRING = 10_000
SESSIONS = 1_000
VALUE = {"forename": "James", "surname": "Bond", "email": "jb@mi5.com", "visits": 45642}


class Load(msgspec.Struct):
    """What a load saw."""

    per_second: float
    p99_ms: float


def run(report: Report) -> None:
    """See the module."""
    floors = _floors(report)
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory)) as server:
        _reads(report, server.nemesis_url, floors, "sqlite", 0.5)
        _writes(report, server.nemesis_url, floors, "sqlite")
        _sessions(report, server.nemesis_url)
        _expiring(report, server.nemesis_url)
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory), "--engine", "memory:") as server:
        _reads(report, server.nemesis_url, floors, "memory", None)
        _writes(report, server.nemesis_url, floors, "memory")
    _idle(report)


def _message(command: str, tkn: str, keys: Any) -> bytes:
    return json.dumps({command: {"tkn": tkn, "keys": keys}}, separators=(",", ":")).encode()


# -- the parts --------------------------------------------------------------------------------------------------


def _floors(report: Report) -> dict[tuple[str, int, int], float]:
    """The echo's messages a second, with the very messages that Kvasir gets."""
    tkn = "1" * 19
    messages = {"get": _message("KV_GET", tkn, ["profile"]), "set": _message("KV_SET", tkn, {"profile": VALUE})}
    floors = {}
    with _echo() as url:
        for kind, message in messages.items():
            for connections, depth in SHAPES:
                floors[kind, connections, depth] = _load(url, [message], connections, depth).per_second
                name = f"echo of a KV_{kind.upper()}, {connections} × {depth}"
                report.figure(name, floors[kind, connections, depth], "/s")
    return floors


def _reads(
    report: Report, url: str, floors: dict[tuple[str, int, int], float], engine: str, bound: float | None
) -> None:
    tkn = _session(url)
    _ask(url, _message("KV_SET", tkn, {"profile": VALUE}))
    for connections, depth in SHAPES:
        load = _load(url, [_message("KV_GET", tkn, ["profile"])], connections, depth)
        name = f"KV_GET, {engine}, {connections} × {depth}"
        report.figure(name, load.per_second, "/s")
        if bound is not None:
            report.target(f"{name}, of the echo", load.per_second / floors["get", connections, depth], bound)


def _writes(report: Report, url: str, floors: dict[tuple[str, int, int], float], engine: str) -> None:
    tkn = _session(url)
    for connections, depth in SHAPES:
        load = _load(url, [_message("KV_SET", tkn, {"profile": VALUE})], connections, depth)
        name = f"KV_SET, {engine}, {connections} × {depth}"
        report.figure(name, load.per_second, "/s")
        ratio = load.per_second / floors["set", connections, depth]
        if engine == "memory":
            report.target(f"{name}, of the echo", ratio, 0.6)
        elif connections * depth == 256:
            report.target(f"{name}, of the echo", ratio, 0.25)


def _sessions(report: Report, url: str) -> None:
    """KV_SET in one session against a thousand in turn."""
    new = b'{"SH_NEW":{"name":"bench"}}'
    answers = asyncio.run(_ask_many(url, [new] * SESSIONS))
    messages = [_message("KV_SET", json.loads(answer)["SH_NEW_RSP"]["tkn"], {"profile": VALUE}) for answer in answers]
    turns = [[_load(url, chosen, 16, 16).per_second for chosen in (messages[:1], messages)] for _ in range(TURNS)]
    one, many = [statistics.median(column) for column in zip(*turns, strict=True)]
    report.figure(f"KV_SET, {SESSIONS:,} sessions in turn, 16 × 16", many, "/s")
    report.target(f"KV_SET: {SESSIONS:,} sessions in turn / one", many / one, 0.85)


def _expiring(report: Report, url: str) -> None:
    """Sessions with a key each, all ending within one second, while another client reads."""
    tkn = _session(url)
    _ask(url, _message("KV_SET", tkn, {"profile": VALUE}))
    message = _message("KV_GET", tkn, ["profile"])
    before = _load(url, [message], 1, 1)
    ends = asyncio.run(_many_sessions(url))
    time.sleep(max(0.0, ends - time.time() - 2))
    during = _load(url, [message], 1, 1, seconds=6.0)
    report.figure("KV_GET, p99 while nothing expires", before.p99_ms, "ms")
    held_up = during.p99_ms - before.p99_ms
    report.target(f"KV_GET, p99 added by {EXPIRING:,} sessions that expire", held_up, 20, "ms", most=True)


async def _many_sessions(url: str) -> float:
    """Create them, over many connections, so that all end in the same second; the Unix time of that second."""
    ends = int(time.time()) + 40

    async def some(count: int) -> None:
        for _ in range(count // 25):
            new = {"SH_NEW": {"name": "e", "expiry": {"duration": round(ends - time.time()), "deleteSession": True}}}
            answers = await _ask_many(url, [json.dumps(new).encode()] * 25)
            tokens = [json.loads(answer)["SH_NEW_RSP"]["tkn"] for answer in answers]
            await _ask_many(url, [_message("KV_SET", tkn, {"a": 1}) for tkn in tokens])

    await asyncio.gather(*[some(EXPIRING // 40) for _ in range(40)])
    if time.time() > ends - 4:
        raise AssertionError("creating the sessions took too long for them to end together")
    return float(ends)


def _idle(report: Report) -> None:
    """What a connection costs that has said one thing and then nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = IDLE + 1_000
    if hard < needed:
        raise AssertionError(f"{IDLE:,} connections need {needed:,} open files; ulimit -Hn says {hard:,}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory)) as server:
        tkn = _session(server.nemesis_url)
        message = _message("KV_GET", tkn, ["profile"])
        before = anonymous_mib(server.pid)
        after = asyncio.run(_sit(server.nemesis_url, message, server.pid))
    report.target("an idle connection", (after - before) * 1024 / IDLE, 40, "KiB", most=True)


async def _sit(url: str, message: bytes, pid: int) -> float:
    """Open all connections, let each say something, and measure."""
    for _ in range(IDLE // 500):
        clients = [_Client(itertools.repeat(message), 1, once=True) for _ in range(500)]
        await asyncio.gather(*[ws_connect(lambda client=client: client, url) for client in clients])
        await asyncio.gather(*[client.answered.wait() for client in clients])
        _KEPT.extend(clients)
    await asyncio.sleep(1)
    return anonymous_mib(pid)


_KEPT: list[Any] = []


# -- the clients ------------------------------------------------------------------------------------------------


class _Client(WSListener):
    """Keeps `depth` messages under way: for each that is answered, the next of `messages` goes out."""

    def __init__(self, messages: Iterator[bytes], depth: int, *, once: bool = False) -> None:
        self._messages = messages
        self._depth = depth
        self._once = once
        self._sent = 0.0
        self.count = 0
        self.taken: list[float] = []
        self.answered = asyncio.Event()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self._sent = time.perf_counter()
        for _ in range(self._depth):
            transport.send(WSMsgType.TEXT, next(self._messages))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:  # noqa: ARG002
        self.count += 1
        if self._once:
            self.answered.set()
            return
        if self._depth == 1:
            now = time.perf_counter()
            self.taken.append(now - self._sent)
            self._sent = now
        transport.send(WSMsgType.TEXT, next(self._messages))


async def _loading(url: str, messages: list[bytes], connections: int, depth: int, seconds: float) -> Load:
    in_turn = itertools.cycle(messages)
    clients = [_Client(in_turn, depth) for _ in range(connections)]
    for client in clients:
        await ws_connect(lambda client=client: client, url)
    await asyncio.sleep(0.3)
    for client in clients:
        client.taken.clear()
    before = sum(client.count for client in clients)
    began = time.perf_counter()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - began
    count = sum(client.count for client in clients) - before
    taken = [time for client in clients for time in client.taken]
    p99 = statistics.quantiles(taken, n=100)[98] * 1000 if len(taken) > 100 else 0.0
    for client in clients:
        client.transport.disconnect()
    return Load(count / took, p99)


def _load(url: str, messages: list[bytes], connections: int, depth: int, *, seconds: float = 0.0) -> Load:
    """Load from a process of its own, with these messages in turn."""
    command = [
        sys.executable,
        "-m",
        "bench.nemesis",
        "load",
        url,
        str(connections),
        str(depth),
        str(seconds or SECONDS),
    ]
    said = subprocess.run(command, input=b"\n".join(messages), check=True, capture_output=True)
    return msgspec.json.decode(said.stdout, type=Load)


class _Asker(WSListener):
    def __init__(self, wanted: int) -> None:
        self.answers: list[bytes] = []
        self.wanted = wanted
        self.all = asyncio.Event()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:  # noqa: ARG002
        self.answers.append(frame.get_payload_as_bytes())
        if len(self.answers) == self.wanted:
            self.all.set()


async def _ask_many(url: str, messages: list[bytes]) -> list[bytes]:
    asker = _Asker(len(messages))
    transport, _ = await ws_connect(lambda: asker, url)
    for message in messages:
        transport.send(WSMsgType.TEXT, message)
    await asyncio.wait_for(asker.all.wait(), 60)
    transport.disconnect()
    return asker.answers


def _ask(url: str, message: bytes) -> Any:
    return json.loads(asyncio.run(_ask_many(url, [message]))[0])


def _session(url: str) -> str:
    return str(_ask(url, b'{"SH_NEW":{"name":"bench"}}')["SH_NEW_RSP"]["tkn"])


# -- the floor ----------------------------------------------------------------------------------------------------


class _Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.TEXT:
            transport.send(WSMsgType.TEXT, frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()


async def _echoing(port: int) -> None:
    await ws_create_server(lambda _: _Echo(), "127.0.0.1", port)
    await asyncio.Event().wait()


@contextlib.contextmanager
def _echo() -> Iterator[str]:
    """An empty picows server in a process of its own; its URL."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "bench.nemesis", "echo", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    url = f"ws://127.0.0.1:{port}/"
    try:
        wait_until(lambda: _listens(url), "the echo answers")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _listens(url: str) -> bool:
    try:
        return bool(asyncio.run(_ask_many(url, [b"1"])))
    except OSError:
        return False


def main(role: str, *arguments: str) -> None:
    """A process of the benchmark."""
    if role == "echo":
        uvloop.run(_echoing(int(arguments[0])))
    else:
        url, connections, depth, seconds = arguments
        messages = sys.stdin.buffer.read().splitlines()
        load = uvloop.run(_loading(url, messages, int(connections), int(depth), float(seconds)))
        print(msgspec.json.encode(load).decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
