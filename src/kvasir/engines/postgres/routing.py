"""On a cluster, each request about a space goes straight to the node that has it, which saves the way by another one.

Any node answers for any space, only more slowly, so nothing depends on what is known here: it may be old, and a node
that cannot be reached from here is spoken to through the node of the URL, as all are behind a pooler. A node has
connections of its own, so one that hangs holds up nobody else's requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import asyncpg

from kvasir.engines.postgres import cluster, failures
from kvasir.engines.postgres.address import Host
from kvasir.engines.postgres.connection import CANNOT_CONNECT
from kvasir.engines.postgres.pool import Pool
from kvasir.errors import KvasirError, Unavailable
from kvasir.model import SYSTEM_SPACE

#: How often it sees whether nodes hang, and how often it looks where the spaces are.
PAUSE_SECONDS = 2.0
LOOK_SECONDS = 5.0
#: After how long it tries again to reach a node that could not be reached.
RETRY_SECONDS = 30.0
#: For so long it counts whether the node of the URL reaches another.
ASK_SECONDS = 0.5
#: After how long without an answer it looks whether a node hangs.
HANG_SECONDS = 5.0
#: What is told of a shard whose writes are held up, and of two that wait for each other
LOCKED = ("55P03", "40P01")
#: Of so many spaces it knows the place.
SPACES = 100_000


class AnotherWay(Unavailable):
    """A node has not done this; it may go another way."""


class NotReached(AnotherWay):
    """No connection to a node could be made; nothing was sent. `hangs`: it did not even refuse."""

    def __init__(self, node: str, *, hangs: bool) -> None:
        super().__init__(f"{node} does not answer; nothing was written, try again")
        self.hangs = hangs


class _Way(Pool):
    """The connections to one node, which is known by the identifier of its data."""

    def __init__(
        self, address: tuple[str, int], identifier: int, parameters: Mapping[str, str], **options: Any
    ) -> None:
        name, port = address
        super().__init__(parameters, **options)
        self._hosts = [Host(name, port)]
        self.address = address
        self.what = f"the node {name}:{port} of the database"
        self._identifier = identifier
        self._refusal = NotReached(self.what, hangs=False)

        #: Connections in use, and since when
        self._used: dict[Any, float] = {}
        #: Of writes to one space, which may have to wait for its lock: they leave connections to all else.
        self.alone = asyncio.Semaphore(max(1, self._max_connections // 2))
        self._hangs = False
        #: Whether the node of the URL reaches this one, and when that was asked
        self.is_passed_on, self.asked = False, -math.inf
        self.asking = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def _acquire(self) -> AsyncIterator[Any]:
        if self._hangs:
            raise self._refusal
        async with super()._acquire() as connection:
            self._used[connection] = time.monotonic()
            try:
                yield connection
            finally:
                del self._used[connection]

    async def probe(self) -> None:
        """If an answer has been due for long, see whether the node takes connections. If it does not, end what waits
        for it, and refuse everything at once until it does."""
        if not self._hangs and time.monotonic() - min(self._used.values(), default=math.inf) < HANG_SECONDS:
            return
        try:
            connection = await self._connect(**self._arguments, statement_cache_size=0)
        except TimeoutError as error:
            if not self._hangs:
                self._hangs = True
                failures.log.error("%s", self._failure(error).message)
                for used in list(self._used):
                    with contextlib.suppress(asyncpg.InterfaceError):
                        used.terminate()
        except CANNOT_CONNECT:
            self._hangs = False
        else:
            self._hangs = False
            connection.terminate()

    def _failure(self, error: Exception) -> Unavailable:
        self._refusal = NotReached(self.what, hangs=isinstance(error, TimeoutError))
        return self._refusal

    def _refused(self) -> Unavailable:
        return self._refusal

    async def _check(self, connection: Any) -> None:
        # The name may lead elsewhere from here, or after a while.
        if await connection.fetchval(cluster.IDENTIFIER) != self._identifier:
            raise ValueError("this is another database server")
        await super()._check(connection)


class RoutedPool(Pool):
    """A pool that has a way to each node of a cluster, if there is one."""

    def __init__(self, parameters: Mapping[str, str], *, max_connections: int, durable: bool) -> None:
        super().__init__(parameters, max_connections=max_connections, durable=durable)
        self._parameters = parameters
        #: By the number of the node
        self._ways: dict[int, _Way] = {}
        #: Where the spaces are: by their shards
        self._shards: dict[int, int] = {}
        self._nodes: dict[int, int] = {}
        #: The statement that asks the node of the URL for the epoch; None: the general one
        self.local_epoch: str | None = None
        self._unknown: set[int] = set()
        self._asked = asyncio.Event()
        self._not_before: dict[tuple[str, int], float] = {}
        self._task: asyncio.Task[None] | None = None

    # -- where the spaces are -----------------------------------------------------------------------------

    def start(self) -> None:
        """Look for the nodes, once the tables are there."""
        if self.spread and not self.behind_pgbouncer:
            self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        ways, self._ways = self._ways, {}
        for way in ways.values():
            await way.close()
        await super().close()

    def connections(self) -> tuple[int, int, int]:
        in_use, idle, most = super().connections()
        for way in self._ways.values():
            more = way.connections()
            in_use, idle, most = in_use + more[0], idle + more[1], most + more[2]
        return in_use, idle, most

    def node_of(self, space: int) -> int | None:
        """The node that takes requests about a space directly, as far as this is known now."""
        if not self._ways or space == SYSTEM_SPACE:
            return None
        shard = self._shards.get(space)
        if shard is None:
            self._unknown.add(space)
            self._asked.set()
            return None
        node = self._nodes.get(shard)
        return node if node in self._ways else None

    def by_shard(self, spaces: Iterable[int]) -> Iterable[int]:
        """These spaces of a node, those of a shard after one another, as far as this is known now."""
        return sorted(spaces, key=lambda space: self._shards.get(space, 0)) if self._ways else spaces

    async def _run(self) -> None:
        looked = 0.0
        while True:
            try:
                if time.monotonic() - looked >= LOOK_SECONDS:
                    await self._look()
                    looked = time.monotonic()
                await self._find()
                await asyncio.gather(*(way.probe() for way in self._ways.values()))
            except (KvasirError, *CANNOT_CONNECT) as error:
                failures.log.debug("nodes have to be looked for later: %s", error)
                await asyncio.sleep(1.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._asked.wait(), PAUSE_SECONDS)

    async def _find(self) -> None:
        """Learn in which shards the spaces are that were asked for."""
        self._asked.clear()
        if unknown := list(self._unknown):
            found = await self.fetch(cluster.SHARDS_OF, unknown)
            if len(self._shards) > SPACES:
                self._shards.clear()
            self._shards.update((space, shard) for space, shard in found)
            self._unknown.difference_update(unknown)

    async def _look(self) -> None:
        """Learn where the shards are, and connect to nodes that are new."""
        rows = await self.fetch(cluster.PLACEMENTS)
        found = await self.fetch(cluster.SYSTEM_SHARD)
        self.local_epoch = cluster.LOCAL_EPOCH.format(found[0][0]) if found else None
        nodes = {shard: node for shard, node, _, _ in rows}
        if nodes.keys() != self._nodes.keys():
            self._shards.clear()
        self._nodes = nodes
        addresses = {node: (name, port) for _, node, name, port in rows}
        for node, way in list(self._ways.items()):
            if addresses.get(node) != way.address:
                del self._ways[node]
                await way.close()
        now = time.monotonic()
        wanted = {
            node: address
            for node, address in addresses.items()
            if node not in self._ways and self._not_before.get(address, 0.0) <= now
        }
        if wanted:
            known = {(name, port): int(number) for name, port, number in await self.fetch(cluster.IDENTIFIERS)}
            for node, address in wanted.items():
                self._not_before[address] = now + RETRY_SECONDS
                if address in known:
                    await self._open(node, address, known[address])

    async def _open(self, node: int, address: tuple[str, int], identifier: int) -> None:
        # Each needs some: two for reads, two for writes, one for what takes longer.
        most = max(1, (self._max_connections + 1) // 2)
        way = _Way(address, identifier, self._parameters, max_connections=most, durable=self._durable)
        try:
            await way.open()
            await way.fetch("select 1")
        except (KvasirError, *CANNOT_CONNECT) as error:
            await way.close()
            failures.log.info("the node %s:%s cannot be reached directly: %s", *address, error)
            return
        except asyncio.CancelledError:
            # The engine closes and does not know of this way yet.
            await way.close()
            raise
        self._ways[node] = way
        failures.log.info("requests for the spaces of %s go there directly", way.what)

    # -- statements ---------------------------------------------------------------------------------------

    async def fetch_of(self, sql: str, space: int, *values: Any) -> list[Any]:
        """See `Pool.fetch_of`."""
        if (node := self.node_of(space)) is not None:
            try:
                return await self._ways[node].fetch(sql, space, *values)
            except NotReached as failure:
                if failure.hangs:
                    raise
        return await super().fetch_of(sql, space, *values)

    async def write_of(self, sql: str, space: int, *values: Any) -> list[Any]:
        """See `Pool.write_of`."""
        if (node := self.node_of(space)) is not None:
            way = self._ways[node]
            try:
                async with way.alone:
                    return await way.write(sql, space, *values)
            except NotReached as failure:
                if failure.hangs or not await self._passes_on(way):
                    raise
        return await super().write_of(sql, space, *values)

    async def _passes_on(self, way: _Way) -> bool:
        """Whether the node of the URL reaches a node that cannot be reached directly, as it was a moment ago.

        If it does not, a write is not sent there: now and then Citus says of a connection that was refused that it was
        closed, as it says of one that broke amid a write, and the outcome would have to be called unknown.
        """
        async with way.asking:
            if time.monotonic() - way.asked > ASK_SECONDS:
                try:
                    ((way.is_passed_on,),) = await self.fetch(cluster.REACHES, *way.address)
                except Unavailable:
                    raise
                except KvasirError:  # this user may not ask
                    way.is_passed_on = True
                way.asked = time.monotonic()
        return way.is_passed_on

    async def fetch_at(self, node: int | None, sql: str, *values: Any) -> list[Any] | None:
        """`fetch` from a node that `node_of` told, or that of the URL: None, if another way has to be found."""
        pool = self if node is None else self._ways.get(node)
        try:
            return await pool.fetch(sql, *values) if pool is not None else None
        except NotReached as failure:
            if failure.hangs:
                raise
        except Unavailable:
            raise
        except KvasirError:
            # It has lost the tables of a shard since it was asked, or its functions are old.
            self.local_epoch = None
        return None

    async def write_at(self, node: int | None, sql: str, *values: Any) -> list[Any]:
        """`write` to a node that `node_of` told; None: no cluster. Raises `AnotherWay`, too."""
        pool = self if node is None else self._ways.get(node)
        if pool is None:
            raise NotReached("the node of the space", hangs=False)
        try:
            return await pool.write(sql, *values)
        except Unavailable as failure:
            if getattr(failure.__cause__, "sqlstate", None) in LOCKED and node is not None:
                raise AnotherWay(failure.message) from None
            raise
