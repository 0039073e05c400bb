"""How soon watches tell, and what they cost writes: none, and a thousand of other keys."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.harness import Report, wrk
from bench.versori import PUT
from kvasir.engine import Engine, Watch
from kvasir.engines.sqlite import SqliteEngine
from kvasir.keys import pack
from kvasir.model import KeyRange, Set, Space, Write
from tests.support.organisations import ORGANISATION
from tests.support.postgres import PostgresServer, postgres_engine
from tests.support.raw_http import Wire, request
from tests.support.serving import Server, serving

ROUNDS = 300
WATCHES = 1_000
#: Writes of one load, that many of them under way, and loads of each kind in turn
WRITES, TOGETHER, TURNS = 8_000, 64, 7
#: Pairs of servers, with as many turns each. With fewer, one process's luck with its memory makes 3 % of the figure.
PAIRS = 8

#: Another process, which writes the time whenever it reads a line.
WRITER = """
import asyncio, sys, time
from bench.watch import opened
from kvasir.keys import pack
from kvasir.model import Set, Write

async def main(where, space):
    engine = opened(where)
    await engine.open()
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        await engine.write([Write(space, (Set(pack(["at"]), b"1"),))])
        print(time.monotonic_ns(), flush=True)
    await engine.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def opened(where: str) -> Engine:
    """An engine on a database file or URL, not yet open."""
    return postgres_engine(where) if "://" in where else SqliteEngine(Path(where))


def run(report: Report) -> None:
    """See the module."""
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_measure(report, "SQLite", str(Path(directory) / "kvasir.db"), 100))
    _puts(report, "SQLite", [()] * 2 * PAIRS)
    with PostgresServer(shared_buffers="128MB") as server:
        asyncio.run(_measure(report, "PostgreSQL", server.new_database("watch"), 300))
        _puts(report, "PostgreSQL", [("--engine", server.new_database(f"puts{n}")) for n in range(2 * PAIRS)])


async def _measure(report: Report, name: str, where: str, bound: float) -> None:
    engine = opened(where)
    await engine.open()
    space = (
        await engine.create_space(Space("01HF" + "0" * 22, 0, ORGANISATION, "store", "s", engine.clock()), [])
    ).number
    await _cost(report, name, engine, space)
    watch = await engine.watch(space, [_only("at")])
    await anext(watch)
    own = await _latencies(engine, space, watch)
    others = await _latencies_across(where, space, watch)
    watch.close()
    for what, times, most in (("in the same process", own, 10), ("across processes", others, bound)):
        report.figure(f"{name}: a change shows {what}, median", statistics.median(times), "ms")
        report.target(
            f"{name}: a change shows {what}, p99", sorted(times)[len(times) * 99 // 100], most, "ms", most=True
        )
    await engine.close()


def _only(*parts: str) -> KeyRange:
    key = pack(parts)
    return KeyRange(key, key + b"\x00")


async def _latencies(engine: Engine, space: int, watch: Watch) -> list[float]:
    """Milliseconds from the acknowledgement of a write to its being told."""
    times = []
    for n in range(ROUNDS):
        told = asyncio.ensure_future(_told(watch))
        await engine.write([Write(space, (Set(pack(["at"]), b"%d" % n),))])
        acknowledged = time.monotonic_ns()
        times.append(max(0, await told - acknowledged) / 1e6)
        await asyncio.sleep(0.03)
    return times


async def _told(watch: Watch) -> int:
    assert (await anext(watch)).changes
    return time.monotonic_ns()


async def _latencies_across(where: str, space: int, watch: Watch) -> list[float]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, where, str(space),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[1],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    await process.stdout.readline()
    times = []
    for n in range(ROUNDS):
        told = asyncio.ensure_future(_told(watch))
        process.stdin.write(b"write\n")
        acknowledged = int(await process.stdout.readline())
        times.append(max(0, await told - acknowledged) / 1e6)
        await asyncio.sleep(0.02 + n % 7 / 200)  # at every phase of whatever has a period
    process.stdin.close()
    await process.wait()
    return times


async def _cost(report: Report, name: str, engine: Engine, space: int) -> None:
    """Writes of other keys straight to the engine, before anybody has watched and then beside a thousand watches.

    Not in turns: for a minute after a watch, writes are still logged.
    """
    await _load(engine, space)
    without = [await _load(engine, space) for _ in range(TURNS)]
    beside = []
    for _ in range(TURNS):
        watches = [await engine.watch(space, [_only("watched", str(n))]) for n in range(WATCHES)]
        beside.append(await _load(engine, space))
        for watch in watches:
            watch.close()
        await asyncio.sleep(0.2)
    gained = statistics.median(without), statistics.median(beside)
    report.figure(f"{name}: writes to the bare engine", gained[0], "/s")
    report.figure(
        f"{name}: time a write takes more beside {WATCHES:,} watches", 1e6 / gained[1] - 1e6 / gained[0], "µs"
    )


async def _load(engine: Engine, space: int) -> float:
    """Durable writes a second, by callers that each wait for their outcome."""
    value = b'"' + b"x" * 100 + b'"'

    async def caller(number: int) -> None:
        for n in range(WRITES // TOGETHER):
            await engine.write([Write(space, (Set(pack(["other", str(number), str(n % 10)]), value),))])

    began = time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(TOGETHER)))
    return WRITES / (time.perf_counter() - began)


def _puts(report: Report, name: str, options: Sequence[Sequence[str]]) -> None:
    """PUTs of other keys through two servers in turns: one has a thousand watches over HTTP, one has never had any.

    On a server that was watched within the last minute, writes are still logged: it cannot show what watches cost. What
    one process has of luck with its memory is evened out by several pairs; `options` are those of each server.
    """
    without, beside = [], []
    for pair in zip(options[::2], options[1::2], strict=True):
        with contextlib.ExitStack() as stack:
            alone, watched = (_started(stack, each) for each in pair)
            for n in range(WATCHES):
                wire = stack.enter_context(Wire(watched.port))
                wire.send(request("GET", f"/v1/spaces/{watched.store}/watch?key=watched/{n}"))
                assert wire.socket.recv(64).startswith(b"HTTP/1.1 200")
            for turn in range(TURNS):
                if turn % 2:
                    without.append(_put(alone))
                beside.append(_put(watched))
                if turn % 2 == 0:
                    without.append(_put(alone))
    report.figure(f"{name}: durable PUT, nobody watches", statistics.median(without), "/s")
    report.figure(f"{name}: durable PUT, {WATCHES:,} watch other keys", statistics.median(beside), "/s")
    ratio = statistics.median([with_them / alone for with_them, alone in zip(beside, without, strict=True)])
    report.target(f"{name}: durable PUT beside {WATCHES:,} watches / without", ratio, 0.95)


def _started(stack: contextlib.ExitStack, options: Sequence[str]) -> Server:
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    server = stack.enter_context(serving(directory, "--no-nemesis", *options))
    _put(server, 2)
    return server


def _put(server: Server, seconds: int = 1) -> float:
    url = f"{server.url}/store/{server.store}/kv/products/"
    return wrk(url, connections=128, headers=server.headers, script=PUT, seconds=seconds).per_second
