"""The PostgreSQL engine against SQLite's in the same run, two servers against one, many stores, a large sweep."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
import time
from pathlib import Path

from bench import stores
from bench.harness import SECONDS, TURNS, Load, Report, wrk
from bench.stores import BODY
from bench.versori import PUT
from tests.support.postgres import PostgresServer, postgres_engine
from tests.support.serving import Server, serving

#: Of the loads that show what a server carries.
CONNECTIONS = (128, 256, 512)
FEW, MANY = 10, 10_000
EXPIRED = 1_000_000
#: Until the expired ones expire: time to fill them in and to measure without a sweep.
FUSE_SECONDS = 90
#: Loads while nothing is swept, and as many while it is; how long each takes.
SLICES, SLICE_SECONDS = 9, 2
PAGE = BODY % ("POST", '{"options":{"limit":100}}')


def run(report: Report) -> None:
    """See the module."""
    with PostgresServer(shared_buffers="256MB", max_wal_size="4GB") as server:
        _against_sqlite(report, server)
        _two_servers(report, server)
        _stores(report, server)
        _sweep(report, server)


def _at(server: Server, path: str) -> str:
    return f"{server.url}/store/{server.store}/kv/{path}"


def _get_and_put(server: Server, seconds: float = SECONDS) -> tuple[Load, Load]:
    put = wrk(_at(server, "products/"), connections=128, headers=server.headers, script=PUT, seconds=seconds)
    return wrk(_at(server, "products/1"), connections=128, headers=server.headers, seconds=seconds), put


def _against_sqlite(report: Report, server: PostgresServer) -> None:
    url = server.new_database("single")
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory), "--no-nemesis") as kvasir:
        sqlite = _get_and_put(kvasir)
    options = ("--no-nemesis", "--engine", url)
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory), *options) as kvasir:
        postgres = _get_and_put(kvasir)
    for name, bound, one, other in zip(("GET", "durable PUT"), (0.35, 0.5), sqlite, postgres, strict=True):
        report.figure(f"{name}, SQLite", one.per_second, "/s")
        report.figure(f"{name}, PostgreSQL", other.per_second, "/s")
        report.figure(f"{name}, PostgreSQL, 99th percentile", other.p99_ms, "ms")
        report.target(f"{name}: PostgreSQL / SQLite, 128 connections", other.per_second / one.per_second, bound)


def _two_servers(report: Report, server: PostgresServer) -> None:
    """What one process carries, and what two do: the most that any number of connections gets out of them."""
    with contextlib.ExitStack() as stack:
        kvasirs: list[tuple[str, Server]] = []
        for workers in (1, 2):
            database = f"workers{workers}"
            options = ("--no-nemesis", "--engine", server.new_database(database), "--workers", str(workers))
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            kvasirs.append((database, stack.enter_context(serving(Path(directory), *options))))
        best: list[dict[str, float]] = [{}, {}]
        for connections in CONNECTIONS:
            turns = [[_carried(server, *kvasir, connections) for kvasir in kvasirs] for _ in range(TURNS)]
            for processes, most in enumerate(best):
                for name in turns[0][0]:
                    rate = statistics.median(turn[processes][name] for turn in turns)
                    report.figure(f"{name}, {connections} connections, processes: {processes + 1}", rate, "/s")
                    most[name] = max(rate, most.get(name, 0.0))
    one, two = best
    for name in one:
        report.target(f"{name}: two processes / one, the most of each", two[name] / one[name], 1)


def _carried(server: PostgresServer, database: str, kvasir: Server, connections: int) -> dict[str, float]:
    put = wrk(_at(kvasir, "products/"), connections=connections, headers=kvasir.headers, script=PUT)
    # What the writes leave to be done in the background is no part of the reads.
    server.query("vacuum analyze kvasir_entry, kvasir_head", database=database)
    server.query("checkpoint")
    get = wrk(_at(kvasir, "products/1"), connections=connections, headers=kvasir.headers)
    url = _at(kvasir, "list")
    page = wrk(url, connections=connections, headers=kvasir.headers, script=PAGE)
    return {"GET": get.per_second, "durable PUT": put.per_second, "page of 100": page.per_second}


def _stores(report: Report, server: PostgresServer) -> None:
    """The same load on the same ten stores, alone and among ten thousand; then on a thousand in turn."""
    seen: list[dict[str, float]] = []
    for number in (FEW, MANY):
        url = server.new_database(f"stores{number}")
        with (
            tempfile.TemporaryDirectory() as directory,
            serving(Path(directory), *stores.OPTIONS, "--engine", url) as kvasir,
        ):
            made = asyncio.run(stores.filled(postgres_engine(url), number))
            # What filling leaves to be done in the background is no part of the comparison.
            server.query("vacuum analyze", database=f"stores{number}")
            server.query("checkpoint")
            seen.append(_spread(kvasir, made[:FEW]))
            if number == MANY:
                stores.in_turn(report, kvasir, made[: stores.MANY], {"GET": 0.6, "durable PUT": 0.6})
    few, many = seen
    for name in few:
        report.figure(f"{name}, ten stores in turn, {FEW} there", few[name], "/s")
        report.figure(f"{name}, ten stores in turn, {MANY:,} there", many[name], "/s")
        report.target(f"{name}: cost with {MANY:,} stores / with {FEW}", few[name] / many[name], 1.25, most=True)


def _spread(kvasir: Server, made: list[str]) -> dict[str, float]:
    scripts = {
        "GET": stores.spread(made, "g/5"),
        "durable PUT": stores.spread(made, "p/1", stores.PUT),
        "page of 100": stores.spread(made, "list", PAGE),
    }
    return {
        name: wrk(f"{kvasir.url}/", connections=64, headers=kvasir.headers, script=script).per_second
        for name, script in scripts.items()
    }


def _sweep(report: Report, server: PostgresServer) -> None:
    """The slowest hundredth of requests while a million expired entries are reclaimed."""
    url = server.new_database("sweep")
    with (
        tempfile.TemporaryDirectory() as directory,
        serving(Path(directory), "--no-nemesis", "--engine", url) as kvasir,
    ):
        lit = time.monotonic()
        server.query(
            "insert into kvasir_entry select s.number, '\\x02'::bytea || int4send(n) || '\\x00', '\"x\"', 1, n, 1,"
            f" kvasir_now() + {FUSE_SECONDS * 1_000} from kvasir_space s, generate_series(1, {EXPIRED}) n",
            database="sweep",
        )
        server.query("vacuum analyze kvasir_entry", database="sweep")
        server.query("checkpoint")
        # The first load brings the caches to where they stay.
        _get_and_put(kvasir)
        quiet = _slowest(kvasir)
        assert time.monotonic() - lit < FUSE_SECONDS, "this machine is too slow for FUSE_SECONDS"
        time.sleep(max(0.0, FUSE_SECONDS + 1 - (time.monotonic() - lit)))
        before = _left(server)
        busy = _slowest(kvasir)
        after = _left(server)
        assert 0 < after < before, "nothing was left to sweep before it was measured"
        report.figure("expired entries reclaimed meanwhile", before - after, "")
    for name, one, two in zip(("GET", "durable PUT"), quiet, busy, strict=True):
        for when, slices in (("no sweep", one), ("sweep", two)):
            middle = statistics.median(slices)
            report.figure(f"{name}, 99th percentile, {when}: the median of {SLICES}", middle, "ms")
            report.figure(
                f"{name}, 99th percentile, {when}: over twice that, of {SLICES}", _over(2 * middle, slices), ""
            )
        ratio = statistics.median(two) / statistics.median(one)
        report.target(f"{name}: 99th percentile with / without a sweep", ratio, 1.5, most=True)


def _slowest(kvasir: Server) -> tuple[list[float], list[float]]:
    """The 99th percentiles of GET and PUT, of loads in turn.

    Many short ones, because the machine itself stalls now and then for some 50 ms. For all that would have been sent
    meanwhile wrk counts on, and so one stall is the 99th percentile of the load that meets it.
    """
    loads = [_get_and_put(kvasir, SLICE_SECONDS) for _ in range(SLICES)]
    return [get.p99_ms for get, _ in loads], [put.p99_ms for _, put in loads]


def _over(bound: float, values: list[float]) -> int:
    return sum(value > bound for value in values)


def _left(server: PostgresServer) -> int:
    (row,) = server.query("select count(*) from kvasir_entry where expires_at is not null", database="sweep")
    return int(row[0])
