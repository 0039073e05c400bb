"""The PostgreSQL engine: one database for any number of servers, perhaps spread over machines by Citus.

Round trips are what a request costs, so requests that wait share them: reads one statement (see `read_batcher`), writes
of a space, and plain Sets of many, one function call, which is a transaction (see `writing` and `functions`). The clock
of the database decides what has expired, for all servers. The row of a space in `kvasir_head` puts its writes in order.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from kvasir.engine import Clock, Outcome, Waiter, Watch
from kvasir.engines.postgres import checking, listing, loading, tree
from kvasir.engines.postgres.clock import ServerClock
from kvasir.engines.postgres.connection import CANNOT_CONNECT
from kvasir.engines.postgres.failures import failed_connecting
from kvasir.engines.postgres.read_batcher import ReadBatcher
from kvasir.engines.postgres.routing import RoutedPool
from kvasir.engines.postgres.scanning import Scans
from kvasir.engines.postgres.schema import migrate
from kvasir.engines.postgres.spaces import Registry
from kvasir.engines.postgres.status import Status, nodes, status
from kvasir.engines.postgres.sweeping import Sweeper
from kvasir.engines.postgres.watches import Watches
from kvasir.engines.postgres.writing import Writer
from kvasir.limits import Limits
from kvasir.model import Alias, Children, Entry, Gauges, KeyRange, Page, Query, Space, Stats, Write, WriterStats

STATS_SECONDS = 10.0

#: Connections of one process, unless another number is given.
MAX_CONNECTIONS = 10


class PostgresEngine:
    """See `kvasir.engine.Engine`. `parameters`: what to connect to, by libpq's names for it (see `address`).

    `clock`, for tests, replaces the clock of the database.
    """

    write_nowait = None  # a commit waits for the database

    def __init__(
        self,
        parameters: Mapping[str, str],
        *,
        clock: Clock | None = None,
        durable: bool = True,
        limits: Limits | None = None,
        connections: int = MAX_CONNECTIONS,
    ) -> None:
        limits = limits or Limits()
        server_clock = None if clock else ServerClock()
        self.clock: Clock = clock or server_clock or ServerClock()
        self.writer = WriterStats()
        self._fixed_clock = clock
        self._parameters = parameters
        self._durable = durable
        self._pool = RoutedPool(parameters, max_connections=connections, durable=durable)
        self._reads = ReadBatcher(self._pool, self._now, server_clock)
        self._writes = Writer(
            self._pool,
            self._now,
            self.writer,
            durable=durable,
            queue_writes=limits.queue_writes,
            queue_bytes=limits.queue_bytes,
        )
        self._registry = Registry(self._pool, self._now, durable=durable)
        self._sweeper = Sweeper(self._pool, self._now, self.writer)
        self._scans = Scans(self._pool, self._now, limits)
        self._watches = Watches(self._pool, self._now, limits, self._writes, self._reads)
        self._stats: tuple[float, Stats] | None = None
        self._ahead: tuple[float, int] | None = None

    def _now(self) -> int | None:
        """The instant to pass to the database; None: it reads its own clock."""
        return self._fixed_clock() if self._fixed_clock else None

    async def open(self) -> None:
        await self._pool.open()
        self._reads.start()
        self._writes.start()
        try:
            await migrate(self._pool, self._now())
        except CANNOT_CONNECT as error:
            raise failed_connecting(error) from None
        await self.epoch()
        self._pool.start()
        self._sweeper.start()

    async def close(self) -> None:
        await self._watches.close()
        self._scans.close()
        await self._writes.close()
        await self._sweeper.stop()
        await self._pool.close()

    async def status(self) -> Status:
        """What `kvasir db status` shows; the engine need not be open. Raises `Unavailable`."""
        return await status(self._pool, self._parameters)

    async def nodes(self) -> list[tuple[str, str]]:
        """Each host and node with what it is, for `kvasir status`; the engine need not be open."""
        return await nodes(self._pool, self._parameters)

    # -- entries ------------------------------------------------------------------------------------------

    async def get(self, space: int, keys: Sequence[bytes], max_bytes: int | None = None) -> list[Entry | None]:
        return await self._reads.get(space, keys, max_bytes) if keys else []

    def get_nowait(self, space: int, keys: Sequence[bytes]) -> list[Entry | None] | None:  # noqa: ARG002
        return None  # another server may have changed it

    async def write(self, writes: Sequence[Write]) -> list[Outcome]:
        return await self._writes.write(writes) if writes else []

    def submit(self, writes: Sequence[Write], waiter: Waiter) -> None:
        self._writes.submit(writes, waiter)

    async def page(self, space: int, query: Query) -> Page:
        return await listing.page(self._pool, space, query, self._now())

    async def count(self, space: int, range: KeyRange | None = None) -> int:
        return await listing.count(self._pool, space, range, self._now())

    async def children(
        self, space: int, prefix: bytes, *, after: bytes | None = None, limit: int | None = None
    ) -> Children:
        return await tree.children(self._pool, space, prefix, after, limit, self._now())

    async def scan(
        self, space: int, range: KeyRange | None = None, _: bool = False, /
    ) -> AsyncGenerator[list[Entry], None]:
        async with aclosing(self._scans.scan(space, range)) as batches:
            async for batch in batches:
                yield batch

    async def watch(self, space: int, ranges: Sequence[KeyRange], since: int | None = None) -> Watch:
        return await self._watches.watch(space, ranges, since)

    async def load(self, space: int, entries: Sequence[Entry]) -> None:
        if entries:
            await loading.load(self._pool, space, entries, self._now(), durable=self._durable)

    # -- spaces -------------------------------------------------------------------------------------------

    async def create_space(self, space: Space, aliases: Sequence[Alias]) -> Space:
        return await self._registry.create(space, aliases)

    async def resolve(self, alias: Alias) -> Space | None:
        return await self._registry.resolve(alias)

    async def get_space(self, id: str) -> Space | None:
        return await self._registry.by_id(id)

    async def aliases(self, id: str) -> list[Alias]:
        return await self._registry.aliases(id)

    async def alter_space(
        self, id: str, *, name: str | None = None, add: Sequence[Alias] = (), remove: Sequence[Alias] = ()
    ) -> Space | None:
        return await self._registry.alter(id, name, add, remove)

    async def end_space(self, id: str) -> bool:
        return await self._registry.end(id)

    async def list_spaces(
        self, *, organisation: str | None = None, kind: str | None = None, after: str = "", limit: int | None = None
    ) -> list[Space]:
        return await self._registry.living(organisation, kind, after, limit)

    async def count_spaces(self, kind: str, organisation: str | None = None) -> tuple[int, int]:
        return await self._registry.count(kind, organisation)

    # -- the whole ----------------------------------------------------------------------------------------

    async def epoch(self) -> int:
        return await self._reads.epoch()

    def epoch_nowait(self) -> int | None:
        return None

    async def sweep(self) -> int:
        return await self._sweeper.step(wait=True)

    async def check(self) -> list[str]:
        return await checking.check(self._pool)

    async def milliseconds_ahead(self) -> int:
        if self._ahead is None or time.monotonic() - self._ahead[0] > STATS_SECONDS:
            self._ahead = time.monotonic(), await checking.milliseconds_ahead(self._pool, self._now())
        return self._ahead[1]

    async def stats(self) -> Stats:
        if self._stats is None or time.monotonic() - self._stats[0] > STATS_SECONDS:
            figures = await checking.measure(self._pool, self._now())
            self._stats = time.monotonic(), figures
        return self._stats[1]

    def gauges(self) -> Gauges:
        return Gauges(len(self._watches), *self._pool.connections())
