"""Stories about the PostgreSQL engine and a real server, some of them told while somebody else holds its locks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from kvasir.engines.postgres import PostgresEngine
from kvasir.engines.postgres.pool import Pool
from kvasir.model import Mutation, Write
from tests.support.clock import ManualClock
from tests.support.lab import Schema, connected, new_space
from tests.support.postgres import postgres_engine
from tests.support.serving import PATIENCE_SECONDS


def run_story(
    schema: Schema, story: Callable[[PostgresEngine], Awaitable[None]], url: str = "", **options: Any
) -> None:
    """Run a story about a fresh engine; its database must be sound afterwards."""

    async def run() -> None:
        given: dict[str, Any] = {"clock": ManualClock(), "durable": False, "connections": 4} | options
        engine = postgres_engine(url or schema.url, **given)
        await engine.open()
        try:
            await asyncio.wait_for(story(engine), PATIENCE_SECONDS)
            assert await engine.check() == []
        finally:
            await engine.close()

    asyncio.run(run())


def queued(engine: PostgresEngine, space: int, *mutations: Mutation) -> asyncio.Task[Any]:
    """One write, of which nobody waits for the outcome yet."""
    return asyncio.create_task(engine.write([Write(space, mutations)]))


async def until(condition: Callable[[], Awaitable[object]], what: str) -> None:
    """Wait until `condition` returns something true."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class Hold:
    """Holds the row of a space, so that its writers wait on the server."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def waiting(self) -> list[int]:
        """Process ids of the backends that wait for the row, at least one."""
        found: list[int] = []

        async def look() -> bool:
            rows = await self.connection.fetch(
                "select pid from pg_stat_activity where pg_backend_pid() = any(pg_blocking_pids(pid))"
            )
            found[:] = [row["pid"] for row in rows]
            return bool(found)

        await until(look, "a write waits for its row")
        return found

    async def release(self) -> None:
        await self.connection.execute("rollback")


@asynccontextmanager
async def holding(schema: Schema, *spaces: int) -> AsyncIterator[Hold]:
    """Hold the rows of these spaces in a transaction of another client."""
    connection = await connected(schema.url)
    try:
        await connection.execute("begin")
        await connection.execute("select from kvasir_head where space = any($1) for update", list(spaces))
        yield Hold(connection)
    finally:
        await connection.close()


class Sent:
    """What a pool sends to its database, by the text of the statement."""

    def __init__(self, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.statements: list[str] = []
        for name in ("fetch", "write"):
            self._spy(pool, name, monkeypatch)

    def _spy(self, pool: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        original = getattr(pool, name)

        async def spy(sql: str, *values: Any) -> Any:
            if "kvasir_sweep" not in sql:  # which comes in between where the machine is slow
                self.statements.append(sql)
            return await original(sql, *values)

        monkeypatch.setattr(pool, name, spy)

    def count(self, sql: str) -> int:
        return self.statements.count(sql)


async def several(engine: PostgresEngine, count: int) -> list[int]:
    return [(await new_space(engine, n)).number for n in range(count)]
