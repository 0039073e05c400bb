"""A thousand watchers of two servers on one database, while keys change a hundred times a second for a minute."""

from __future__ import annotations

import asyncio
import json
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.harness import Report
from bench.native import Watched
from tests.support.raw_http import Wire, dump, request
from tests.support.serving import Server, serving

WATCHERS, KEYS_EACH = 1_000, 10
KEYS, CHANGES, SECONDS, WRITERS = 100, 100, 60, 20
PATIENCE_SECONDS = 30
#: Of each server, above rest: a connection and a watch of ten keys take some 30 KiB.
MOST_MIB = 64


class Watcher(asyncio.Protocol):
    """One connection. Events of a key must come in the order of its changes; what is between two may be left out."""

    def __init__(self, asked: bytes, keys: Sequence[int]) -> None:
        self._asked = asked
        self.keys = keys
        self._rest = b""
        self.seen: dict[int, int] = {}
        self.kinds: Counter[str] = Counter()
        self.disorder = 0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._asked)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.lost = True

    def data_received(self, data: bytes) -> None:
        # The lines of chunks (RFC 9112, section 7.1) are no fields of an event; whole ones alone are looked at.
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"event: "):
                self.kinds[line[7:].decode()] += 1
            elif line.startswith(b'data: {"key":'):
                told = json.loads(line[6:])
                key, number = int(told["key"][1]), int(told["text"])
                self.disorder += number <= self.seen.get(key, 0)
                self.seen[key] = number


def run(report: Report) -> None:
    """See the module."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 65_536), most))
    with (
        tempfile.TemporaryDirectory() as first,
        tempfile.TemporaryDirectory() as second,
        serving(Path(first), "--no-nemesis") as one,
        serving(Path(second), "--no-nemesis", "--data-dir", str(one.data_dir)) as other,
    ):
        asyncio.run(_watch(report, [one, other]))


async def _watch(report: Report, servers: list[Server]) -> None:
    store, held = servers[0].store, [Watched(server) for server in servers]
    for each in held:
        each.start()
    watchers = []
    for n in range(WATCHERS):
        keys = [(n + step * 7) % KEYS for step in range(KEYS_EACH)]
        asked = request("GET", f"/v1/spaces/{store}/watch?" + "&".join(f"key=k/{key}" for key in keys))
        watcher = Watcher(asked, keys)
        await asyncio.get_running_loop().create_connection(lambda w=watcher: w, "127.0.0.1", servers[n % 2].port)  # type: ignore[misc]
        watchers.append(watcher)
    await _until(lambda: all(watcher.kinds["ready"] for watcher in watchers))
    began = time.monotonic()
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(WRITERS) as threads:
        changing = [loop.run_in_executor(threads, _change, servers, store, writer) for writer in range(WRITERS)]
        written = {key: number for each in await asyncio.gather(*changing) for key, number in each.items()}
    report.figure("changes a second through two servers", CHANGES * SECONDS / (time.monotonic() - began), "/s")
    began = time.monotonic()
    await _until(lambda: not any(_missing(watcher, written) for watcher in watchers))
    report.figure("events that reached 1,000 watchers", sum(watcher.kinds["set"] for watcher in watchers), "")
    report.figure("the last states were there after the last change in", time.monotonic() - began, "s")
    missing = sum(_missing(watcher, written) for watcher in watchers)
    report.target("watchers that miss the last state of a key", missing, 0, "", most=True)
    report.target("events out of order", sum(watcher.disorder for watcher in watchers), 0, "", most=True)
    again = sum(watcher.kinds["resync"] for watcher in watchers)
    report.target("watchers told to read again", again, 0, "", most=True)
    report.target("connections lost", sum(watcher.lost for watcher in watchers), 0, "", most=True)
    most = max(each.above_rest for each in held)
    report.target("memory of a server above rest with 500 watchers", most, MOST_MIB, "MiB", most=True)
    for watcher in watchers:
        watcher.transport.abort()


def _missing(watcher: Watcher, written: dict[int, int]) -> bool:
    return any(watcher.seen.get(key) != written[key] for key in watcher.keys)


def _change(servers: list[Server], store: str, writer: int) -> dict[int, int]:
    """Write to one server and the other in turn, keys that no other writer has; the last number in each."""
    written: dict[int, int] = {}
    began = time.monotonic()
    with Wire(servers[0].port) as one, Wire(servers[1].port) as other:
        for step in range(CHANGES * SECONDS // WRITERS):
            n = step * WRITERS + writer + 1
            time.sleep(max(0.0, began + n / CHANGES - time.monotonic()))
            key = step % (KEYS // WRITERS) * WRITERS + writer
            answer = (one, other)[step % 2].ask("PUT", f"/v1/spaces/{store}/entries/k/{key}", dump(n))
            assert answer.status in (200, 201), answer
            written[key] = n
    return written


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for it, as long as there is patience."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110  # it looks at a thousand connections
        await asyncio.sleep(0.05)
