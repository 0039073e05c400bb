"""Stories about the PostgreSQL engine and a real server, some of them told while somebody else holds its locks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from kvasir.engines.postgres import PostgresEngine
from kvasir.model import Mutation, Write
from tests.support.clock import ManualClock
from tests.support.lab import Schema
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
    connection = await asyncpg.connect(schema.url)
    try:
        await connection.execute("begin")
        await connection.execute("select from kvasir_head where space = any($1) for update", list(spaces))
        yield Hold(connection)
    finally:
        await connection.close()
