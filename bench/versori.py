"""The Versori API over HTTP: single keys, batches, listings, a million keys, two workers, memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import tempfile
import urllib.request
from pathlib import Path

from bench import stores
from bench.harness import TURNS, Load, Report, anonymous_mib, hello, wrk
from bench.stores import BODY
from kvasir.engines.sqlite import SqliteEngine
from kvasir.keys import pack
from kvasir.model import Set, Write
from tests.support.serving import Server, serving

MANY = 1_000_000
FEW = 1_000

#: Keys go round, so that a PUT both creates and replaces.
PUT = """
wrk.method = "PUT"
wrk.body = '{"value":"' .. string.rep("x", 100) .. '"}'
wrk.headers["Content-Type"] = "application/json"
local n = 0
function request() n = n + 1; return wrk.format(nil, wrk.path .. (n % 10000)) end
"""


def run(report: Report) -> None:
    """See the module."""
    with hello() as url:
        floor = {connections: wrk(url, connections=connections) for connections in (16, 64, 128)}
    for connections, load in floor.items():
        report.figure(f"empty server, {connections} connections", load.per_second, "/s")
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory), "--no-nemesis") as server:
        _singles_and_batches(report, server, floor)
    _workers(report)
    _stores(report)
    _sizes(report)


def _at(server: Server, path: str) -> str:
    return f"{server.url}/store/{server.store}/kv/{path}"


def _set(server: Server, path: str) -> None:
    body = json.dumps({"value": "x" * 100}).encode()
    request = urllib.request.Request(_at(server, path), body, server.headers, method="PUT")
    with urllib.request.urlopen(request):
        pass


def _singles_and_batches(report: Report, server: Server, floor: dict[int, Load]) -> None:
    _set(server, "products/1")
    get = {}
    for connections, empty in floor.items():
        get[connections] = wrk(_at(server, "products/1"), connections=connections, headers=server.headers).per_second
        report.figure(f"GET, {connections} connections", get[connections], "/s")
        report.target(f"GET / empty server, {connections} connections", get[connections] / empty.per_second, 0.6)
    put = wrk(_at(server, "products/"), connections=128, headers=server.headers, script=PUT)
    report.figure("durable PUT, 128 connections", put.per_second, "/s")
    report.figure("durable PUT, 99th percentile", put.p99_ms, "ms")
    report.target("durable PUT / empty server, 128 connections", put.per_second / floor[128].per_second, 0.33)
    keys = [["products", str(n)] for n in range(100)]
    batch_get = wrk(
        _at(server, "batch"),
        connections=16,
        headers=server.headers,
        script=BODY % ("POST", json.dumps({"keys": keys})),
    )
    report.figure("BatchGet of 100, keys", batch_get.per_second * 100, "/s")
    report.target("BatchGet of 100 / GET, keys", batch_get.per_second * 100 / max(get.values()), 8)
    entries = [{"key": key, "value": "x" * 100} for key in keys]
    batch_set = wrk(
        _at(server, "batch"),
        connections=16,
        headers=server.headers,
        script=BODY % ("PUT", json.dumps({"entries": entries})),
    )
    report.figure("BatchSet of 100, keys", batch_set.per_second * 100, "/s")
    report.target("BatchSet of 100 / PUT, keys", batch_set.per_second * 100 / put.per_second, 4)


def _workers(report: Report) -> None:
    with contextlib.ExitStack() as stack:
        servers: dict[int, Server] = {}
        for workers in (1, 2):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            servers[workers] = stack.enter_context(serving(directory, "--no-nemesis", "--workers", str(workers)))
        for server in servers.values():
            _set(server, "products/1")
        for operation, connections, least in (("PUT", 128, 1.0), ("PUT", 256, 1.0), ("GET", 256, 1.15)):
            loads: dict[int, list[Load]] = {workers: [] for workers in servers}
            for _ in range(TURNS):
                for workers, server in servers.items():
                    url, script = _at(server, "products/"), PUT
                    if operation == "GET":
                        url, script = _at(server, "products/1"), ""
                    loads[workers].append(wrk(url, connections=connections, headers=server.headers, script=script))
            _compare_workers(report, f"{operation}, {connections} connections", loads, least)


def _compare_workers(report: Report, what: str, loads: dict[int, list[Load]], least: float) -> None:
    rates = {workers: statistics.median(load.per_second for load in those) for workers, those in loads.items()}
    tails = {workers: statistics.median(load.p99_ms for load in those) for workers, those in loads.items()}
    for workers in loads:
        said = f"/s, 99th percentile {tails[workers]:.2f} ms"
        report.figure(f"{what}, {workers} worker{'s' * (workers > 1)}", rates[workers], said)
    report.target(f"{what}: two workers / one", rates[2] / rates[1], least)
    report.target(f"{what}: 99th percentile of two / of one", tails[2] / tails[1], 3, most=True)


def _stores(report: Report) -> None:
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory), *stores.OPTIONS) as server:
        made = asyncio.run(stores.filled(SqliteEngine(server.data_dir / "kvasir.db"), stores.MANY))
        stores.in_turn(report, server, made, {"durable PUT": 0.9})


def _sizes(report: Report) -> None:
    """The same requests in a small and a large store of one database each."""
    seen: list[dict[str, float]] = []
    for size in (FEW, MANY):
        with tempfile.TemporaryDirectory() as directory:
            with serving(Path(directory), "--no-nemesis") as server:
                store = server.store
                server.stop()
            asyncio.run(_fill(server.data_dir / "kvasir.db", store, size))
            with serving(Path(directory), "--no-nemesis") as server:
                seen.append(_measured(server, size))
                if size == MANY:
                    every = wrk(_at(server, ""), connections=16, headers=server.headers, script=_gets(MANY, 7_919))
                    report.figure("GET, all of 1,000,000 keys in turn", 1e6 / every.per_second, "µs")
                    report.target(
                        "anonymous memory of a worker, 1,000,000 keys", anonymous_mib(server.pid), 150, "MiB", most=True
                    )
    small, large = seen
    # A thousand keys are among those kept from the last read; a million are not.
    cost = small["GET, 1,000 keys in turn"] / every.per_second
    report.target("GET: every key of 1,000,000 / of 1,000 in turn", cost, 1.5, most=True)
    for name in small:
        report.figure(f"{name}, {FEW:,} keys", 1e6 / small[name], "µs")
        report.figure(f"{name}, {MANY:,} keys", 1e6 / large[name], "µs")
        report.target(f"{name}: cost at {MANY:,} / at {FEW:,} keys", small[name] / large[name], 1.5, most=True)


def _measured(server: Server, size: int) -> dict[str, float]:
    headers = server.headers
    # Ten keys are under this prefix, however large the store: the page costs what they cost.
    prefix = json.dumps({"selector": {"prefix": ["small"]}})
    return {
        "GET, 1,000 keys in turn": wrk(
            _at(server, ""), connections=16, headers=headers, script=_gets(size, size // FEW)
        ).per_second,
        "page of 100 newest": wrk(
            _at(server, "list"), connections=16, headers=headers, script=BODY % ("POST", "{}")
        ).per_second,
        "page of a prefix with 10 keys": wrk(
            _at(server, "list"), connections=16, headers=headers, script=BODY % ("POST", prefix)
        ).per_second,
    }


def _gets(size: int, step: int) -> str:
    """Every `step`th key of the store in turn."""
    return f"""
local n = 0
function request()
  n = (n + {step}) % {size}
  return wrk.format(nil, wrk.path .. "g" .. math.floor(n / {size // FEW * 10}) .. "/" .. n)
end
"""


async def _fill(path: Path, store: str, size: int) -> None:
    """Put `size` entries of 200 bytes into a store, and ten more under a prefix of their own, the oldest of all."""
    engine = SqliteEngine(path)
    await engine.open()
    space = await engine.get_space(store)
    assert space is not None
    step = size // FEW
    value = b'"' + b"x" * 200 + b'"'
    keys = [pack(["small", str(n)]) for n in range(10)]
    keys += [pack([f"g{n // (step * 10)}", str(n)]) for n in range(size)]
    for start in range(0, len(keys), 1_000):
        await engine.write([Write(space.number, (Set(key, value),)) for key in keys[start : start + 1_000]])
    await engine.close()
