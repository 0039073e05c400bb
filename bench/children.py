"""Children of the root, of a prefix with a million entries below each of ten parts, and of one with ten: one time."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

import apsw

from bench.harness import Report, anonymous_mib
from kvasir.engine import Engine
from kvasir.engines.memory import MemoryEngine
from kvasir.engines.postgres import PostgresEngine
from kvasir.engines.sqlite import SqliteEngine
from kvasir.keys import pack, under
from kvasir.model import Entry, Joined, Set, Space, Write
from tests.support.organisations import ORGANISATION
from tests.support.postgres import PostgresServer, postgres_engine

#: Entries below each of ten parts
MANY = int(os.environ.get("KVASIR_BENCH_ENTRIES", "1_000_000"))
#: The memory engine keeps all of them in this process, so it has fewer.
FEW = MANY // 10
ROUNDS = 200
VALUE = b'"' + b"x" * 20 + b'"'


def run(report: Report) -> None:
    """See the module."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "kvasir.db"
        asyncio.run(_measure(report, "SQLite", SqliteEngine(path, durable=False), MANY))
    with PostgresServer(shared_buffers="256MB", max_wal_size="8GB", fsync="off") as server:
        url = server.new_database("children")
        engine = postgres_engine(url, durable=False)
        asyncio.run(_measure(report, "PostgreSQL", engine, MANY))
    asyncio.run(_measure(report, "memory", MemoryEngine(), FEW))


async def _measure(report: Report, name: str, engine: Engine, entries: int) -> None:
    await engine.open()
    space = (
        await engine.create_space(Space("01HF" + "0" * 22, 0, ORGANISATION, "store", "s", engine.clock()), [])
    ).number
    await engine.write([Write(space, (Set(pack(["few", str(part), "x"]), VALUE),)) for part in range(10)])
    for part in range(10):
        await _fill(engine, space, part, entries)
    taken: dict[str, list[float]] = {"the root": [], "ten parts with ten below": [], "ten parts with many below": []}
    prefixes = dict(zip(taken, (b"", pack(["few"]), pack(["many"])), strict=True))
    await engine.children(space, b"", limit=1)  # the memory engine sorts its keys when it is asked first
    for _ in range(ROUNDS):
        for what, prefix in prefixes.items():
            began = time.perf_counter()
            page = await engine.children(space, prefix, limit=100)
            taken[what].append(time.perf_counter() - began)
            assert len(page.children) == (10 if prefix else 2)
    median = {what: statistics.median(times) * 1_000_000 for what, times in taken.items()}
    for what, micros in median.items():
        report.figure(f"{name}: children of {what}", micros, "µs")
    few, many = median["ten parts with ten below"], median["ten parts with many below"]
    report.target(f"{name}: {entries:,} below each / ten below each", many / few, 2, most=True)
    if not isinstance(engine, MemoryEngine):
        await _export(report, name, engine, space)
    await engine.close()


#: The same as a load, in one statement
FILL = """
    insert into kvasir_entry (space, key, value, versionstamp, sequence, created_at)
    select $1, $2::bytea || convert_to(lpad(n::text, 7, '0'), 'UTF8') || '\\x00'::bytea, $3, $4 + n, $4 + n, 1
    from generate_series(0, $5 - 1) as n"""


async def _fill(engine: Engine, space: int, part: int, entries: int) -> None:
    first = 10 + part * entries
    if isinstance(engine, PostgresEngine):
        prefix = pack(["many", str(part)]) + b"\x02"
        async with engine._pool.dedicated() as connection:
            await connection.execute(FILL, space, prefix, VALUE, first, entries)
            await connection.execute("analyze kvasir_entry")
        return
    for start in range(0, entries, 5_000):
        numbers = range(start, min(start + 5_000, entries))
        keys = [pack(["many", str(part), f"{n:07}"]) for n in numbers]
        await engine.load(
            space, [Entry(key, VALUE, first + n, first + n, 1) for n, key in zip(numbers, keys, strict=True)]
        )


async def _export(report: Report, name: str, engine: Engine, space: int) -> None:
    """A scan of a million entries, as an export makes it, against a bare loop over the rows where that can be had."""
    before = anonymous_mib(os.getpid())
    most = before
    looked = 0.0
    began = time.perf_counter()
    entries = 0
    async with aclosing(engine.scan(space, under(pack(["many", "5"])), True)) as batches:
        async for batch in batches:
            entries += batch.count if isinstance(batch, Joined) else len(batch)
            if time.monotonic() - looked > 0.1:
                looked = time.monotonic()
                most = max(most, anonymous_mib(os.getpid()))
    rate = entries / (time.perf_counter() - began)
    report.figure(f"{name}: scan of {entries:,} entries", rate, "/s")
    report.target(f"{name}: memory of a scan above rest", most - before, 64, "MiB", most=True)
    if isinstance(engine, SqliteEngine):
        connection = apsw.Connection(str(engine._path), flags=apsw.SQLITE_OPEN_READONLY)
        began = time.perf_counter()
        rows = 0
        for _ in connection.execute(
            "SELECT * FROM entry WHERE space = ? AND key >= ? AND key < ? ORDER BY key",
            (space, pack(["many", "5"]), under(pack(["many", "5"])).end),
        ):
            rows += 1
        report.target(f"{name}: scan / a bare loop over the rows", rate / (rows / (time.perf_counter() - began)), 0.5)
