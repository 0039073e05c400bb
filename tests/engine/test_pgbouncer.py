"""The engine behind PgBouncer in transaction mode: nothing it relies on is left in a session of the server."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kvasir.engines.postgres import PostgresEngine
from kvasir.errors import Unavailable, UnknownOutcome
from kvasir.keys import prefix_range
from kvasir.model import SYSTEM_SPACE, Check, Commit, KeyRange, Query, Write
from tests.support.lab import alias, commit, k, new_space, put, there, ulid
from tests.support.pgbouncer import PROGRAM, PgBouncer
from tests.support.postgres import postgres_engine, shared_server
from tests.support.postgres_stories import until

if PROGRAM is None:
    pytest.skip("PgBouncer is missing: apt-get install pgbouncer", allow_module_level=True)

A, B = k("a"), k("b")


@pytest.fixture(scope="module")
def pgbouncer() -> Iterator[PgBouncer]:
    """Three server processes for any number of connections."""
    with PgBouncer(shared_server()) as running:
        yield running


@pytest.fixture
def url(pgbouncer: PgBouncer) -> str:
    """Of an empty database behind it."""
    return pgbouncer.new_database(f"pooled_{uuid.uuid4().hex}")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresEngine]:
    engine = postgres_engine(url, durable=False, connections=8)
    await engine.open()
    try:
        assert engine._pool.behind_pgbouncer
        yield engine
        assert await engine.check() == []
    finally:
        await engine.close()


def test_everything_works_behind_it(url: str) -> None:
    async def story() -> None:
        async with opened(url) as engine:
            space = await new_space(engine)
            first = await commit(
                engine, space.number, *[put(k("p", str(n)), b"%d" % n, metadata=b'{"a":1}') for n in range(30)]
            )
            assert len((await engine.page(space.number, Query(metadata=b'{"a":1}', limit=10))).entries) == 10
            assert (
                len((await engine.page(space.number, Query(range=prefix_range(["p"]), order="newest"))).entries) == 30
            )
            assert (await engine.children(space.number, b"")).children
            assert [len(batch) async for batch in engine.scan(space.number)] == [30]
            watch = await engine.watch(space.number, [KeyRange(b"", b"\xff")])
            await watch.__anext__()
            await commit(engine, space.number, put(k("p", "0"), b"new"), when=[Check(k("p", "0"), first.versionstamp)])
            assert (await watch.__anext__()).changes
            watch.close()
            await engine.alter_space(space.id, name="other", add=[alias("more")])
            assert await engine.resolve(alias("more")) is not None
            assert await engine.end_space(space.id)
            while await engine.sweep():
                pass

    asyncio.run(story())


def test_comparisons_are_exact_with_more_connections_than_processes(url: str) -> None:
    async def story() -> None:
        async with opened(url) as first, opened(url) as second:
            engines = [first, second]
            space = (await new_space(engines[0])).number
            await commit(engines[0], space, put(A, b"0"))

            async def add(engine: PostgresEngine) -> None:
                added = 0
                while added < 20:
                    entry = await there(engine, space, A)
                    write = Write(space, (put(A, b"%d" % (int(entry.value) + 1)),), (Check(A, entry.versionstamp),))
                    (outcome,) = await engine.write([write])
                    added += isinstance(outcome, Commit)

            await asyncio.gather(*(add(engine) for engine in engines * 4))
            assert (await there(engines[1], space, A)).value == b"160"

    asyncio.run(story())


def test_the_settings_of_a_transaction_do_not_stay_in_the_session(url: str) -> None:
    async def story() -> None:
        async with opened(url) as engine:
            await commit(engine, SYSTEM_SPACE, put(A))
            rows = await shared_rows(engine)
            assert {tuple(row) for row in rows} == {("on", "on")}

    asyncio.run(story())


async def shared_rows(engine: PostgresEngine) -> list[Any]:
    """What a stranger finds in the sessions that the engine has used."""
    async with engine._pool.dedicated() as connection:
        sql = "select current_setting('enable_seqscan'), current_setting('enable_bitmapscan')"
        return [await connection.fetchrow(sql) for _ in range(6)]


@pytest.mark.one_server("sessions of this server")
def test_a_process_that_ends_during_a_write_leaves_it_unknown_and_the_next_one_works(url: str) -> None:
    async def story() -> None:
        async with opened(url) as engine:
            space = await new_space(engine)
            async with engine._pool.dedicated() as holder:
                transaction = holder.transaction()
                await transaction.start()
                await holder.execute("select from kvasir_head where space = $1 for update", space.number)
                write = asyncio.create_task(engine.write([Write(space.number, (put(A),))]))

                async def ended() -> bool:
                    async with engine._pool.dedicated() as connection:
                        return bool(
                            await connection.fetchval(
                                "select pg_terminate_backend(pid) from pg_stat_activity where wait_event_type = 'Lock'"
                                " and datname = current_database()"
                            )
                        )

                await until(ended, "the write waits")
                with pytest.raises((UnknownOutcome, Unavailable)):
                    await write
                await transaction.rollback()
            assert await engine.get_space(ulid(1)) == space
            await commit(engine, space.number, put(B))

    asyncio.run(story())
