"""The PostgreSQL engine against SQLite's in the same run, two servers against one, many stores, a large sweep."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from bench.harness import Load, Report, wrk
from bench.versori import BODY, PUT
from kvasir.engines.postgres import PostgresEngine
from kvasir.keys import pack
from kvasir.model import Set, Space, Write
from tests.postgres import PostgresServer
from tests.serving import ORGANISATION, Server, serving

#: Of the loads that show what a server carries.
CONNECTIONS = (128, 256, 512)
FEW, MANY = 10, 10_000
EXPIRED = 1_000_000
#: Until the expired ones expire: time to fill them in and to measure without a sweep.
FUSE_SECONDS = 90

PAGE = BODY % ("POST", '{"options":{"limit":100}}')

#: Round and round the stores that are there in both databases, a key of each.
SPREAD = """
local stores = {%s}
local n = 0
%s
function request()
  n = n + 1
  return wrk.format(nil, "/api/v2/store/" .. stores[n %% #stores + 1] .. "/kv" .. "%s")
end
"""


def run(report: Report) -> None:
    """See the module."""
    with PostgresServer(shared_buffers="256MB", max_wal_size="4GB") as server:
        _against_sqlite(report, server)
        _two_servers(report, server)
        _stores(report, server)
        _sweep(report, server)


def _at(server: Server, path: str) -> str:
    return f"{server.url}/store/{server.store}/kv/{path}"


def _get_and_put(server: Server) -> tuple[Load, Load]:
    put = wrk(_at(server, "products/"), connections=128, headers=server.headers, script=PUT)
    return wrk(_at(server, "products/1"), connections=128, headers=server.headers), put


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
    most: list[dict[str, float]] = []
    for workers in (1, 2):
        database = f"workers{workers}"
        options = ("--no-nemesis", "--engine", server.new_database(database), "--workers", str(workers))
        with tempfile.TemporaryDirectory() as directory, serving(Path(directory), *options) as kvasir:
            best: dict[str, float] = {}
            for connections in CONNECTIONS:
                for name, rate in _carried(server, database, kvasir, connections).items():
                    report.figure(f"{name}, {connections} connections, processes: {workers}", rate, "/s")
                    best[name] = max(rate, best.get(name, 0.0))
            most.append(best)
    one, two = most
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
        with tempfile.TemporaryDirectory() as directory:
            options = ("--no-nemesis", "--engine", url, "--organisation-id", ORGANISATION)
            with serving(Path(directory), *options) as kvasir:
                stores = asyncio.run(_filled(url, number))
                # What filling leaves to be done in the background is no part of the comparison.
                server.query("vacuum analyze", database=f"stores{number}")
                server.query("checkpoint")
                seen.append(_spread(kvasir, stores[:FEW]))
                if number == MANY:
                    for name, rate in _spread(kvasir, stores[:1_000]).items():
                        report.figure(f"{name}, 1,000 stores in turn", rate, "/s")
    few, many = seen
    for name in few:
        report.figure(f"{name}, ten stores in turn, {FEW} there", few[name], "/s")
        report.figure(f"{name}, ten stores in turn, {MANY:,} there", many[name], "/s")
        report.target(f"{name}: cost with {MANY:,} stores / with {FEW}", few[name] / many[name], 1.25, most=True)


def _spread(kvasir: Server, stores: list[str]) -> dict[str, float]:
    names = ",".join(f'"{store}"' for store in stores)
    scripts = {
        "GET": SPREAD % (names, "", "/g/5"),
        "durable PUT": SPREAD % (names, BODY % ("PUT", '{"value":"' + "x" * 100 + '"}'), "/p/1"),
        "page of 100": SPREAD % (names, PAGE, "/list"),
    }
    return {
        name: wrk(f"{kvasir.url}/", connections=64, headers=kvasir.headers, script=script).per_second
        for name, script in scripts.items()
    }


async def _filled(url: str, number: int) -> list[str]:
    """So many stores with 120 entries each; their ULIDs."""
    engine = PostgresEngine(url)
    await engine.open()
    value = b'"' + b"x" * 100 + b'"'

    async def one(n: int) -> str:
        id = f"01HF{n:022d}"
        space = await engine.create_space(Space(id, 0, ORGANISATION, "store", f"s{n}", engine.clock()), [])
        await engine.write([Write(space.number, (Set(pack(["g", str(m)]), value),)) for m in range(120)])
        return id

    stores: list[str] = []
    for start in range(0, number, 50):
        stores += await asyncio.gather(*(one(n) for n in range(start, min(number, start + 50))))
    await engine.close()
    return stores


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
        assert 0 < after < before, "nothing was swept while it was measured"
        report.figure("expired entries reclaimed meanwhile", before - after, "")
    for name, one, two in zip(("GET", "durable PUT"), quiet, busy, strict=True):
        report.figure(f"{name}, 99th percentile, no sweep", one, "ms")
        report.figure(f"{name}, 99th percentile, sweep", two, "ms")
        report.target(f"{name}: 99th percentile with / without a sweep", two / one, 1.5, most=True)


def _slowest(kvasir: Server) -> tuple[float, float]:
    """The 99th percentiles of GET and PUT, the median of three loads each: one alone tells more about the machine."""
    loads = [_get_and_put(kvasir) for _ in range(3)]
    return statistics.median(get.p99_ms for get, _ in loads), statistics.median(put.p99_ms for _, put in loads)


def _left(server: PostgresServer) -> int:
    (row,) = server.query("select count(*) from kvasir_entry where expires_at is not null", database="sweep")
    return int(row[0])
