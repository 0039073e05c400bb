"""Reads that arrive together share a round trip, whatever their spaces.

While a statement for a space is in flight, further reads of that space wait; when it is back, they go out with all
others that wait. More statements at a time would carry fewer reads each, and each costs as much as many reads. A
statement is sent only after each of its reads was asked for, so no read is answered with an older state.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from kvasir.engines.postgres import shards
from kvasir.engines.postgres.clock import ServerClock
from kvasir.engines.postgres.routing import RoutedPool
from kvasir.errors import response_too_long
from kvasir.model import SYSTEM_SPACE, Entry

ENTRY = "key, value, versionstamp, sequence, created_at, expires_at, refresh, metadata"
#: The instant at which this statement decides what has expired: the one passed in, or the database's own, one for all
#: its rows.
NOW = "(select coalesce($2::bigint, kvasir_time()))"
ALIVE = f"(expires_at is null or expires_at > {NOW})"

#: The instant of the statement will do for keys. Citus sends a statement without subqueries to its node as it is.
GET = f"""
    select {ENTRY} from kvasir_entry where space = $1 and key = any($3) and (expires_at is null or expires_at >
        coalesce($2::bigint, floor(extract(epoch from statement_timestamp()) * 1000)::bigint))"""  # noqa: S608
#: The same for keys of several spaces. The subquery, which `offset 0` keeps apart, is one look at the index for each.
#: For a plain join the planner could choose to read the whole table as long as it is small, and keep to that plan.
GET_SPACES = f"""
    select entry.* from unnest($1::bigint[], $3::bytea[]) as wanted (space, key)
    cross join lateral (
        select {ENTRY}, e.space from kvasir_entry e where e.space = wanted.space and e.key = wanted.key offset 0
    ) as entry where {ALIVE}"""  # noqa: S608
#: The values only if they have no more bytes than $4 in all, so that no more than that ever comes over the wire.
GET_BOUNDED = GET.replace("key, value", "key, case when sum(octet_length(value)) over () <= $4 then value end")
EPOCH = "select last, kvasir_time() from kvasir_head where space = $1"

#: Statements in flight at a time, each for other spaces.
MAX_IN_FLIGHT = 2
#: The same at each node of a cluster. Nodes work at the same time, and two statements would carry half as much each.
MAX_AT_NODE = 1
#: A statement takes no further read once it asks for this many keys.
BATCH_KEYS = 256
#: A read of more keys than this is sent by itself, so that small ones need not wait for it.
MAX_BATCHED_READ_KEYS = 64

Reads = list[tuple[Sequence[bytes], "asyncio.Future[list[Entry | None]]"]]
Batch = dict[int, Reads]


class ReadBatcher:
    """The reads of one process."""

    def __init__(self, pool: RoutedPool, now: Callable[[], int | None], clock: ServerClock | None) -> None:
        self._pool = pool
        self._now = now
        self._clock = clock
        #: By space
        self._waiting: Batch = {}
        #: Spaces, and the number of statements by node
        self._in_flight: set[int] = set()
        self._statements: dict[int | None, int] = defaultdict(int)
        self._epoch_waiting: list[asyncio.Future[int]] = []
        self._epoch_in_flight = False
        self._send_scheduled = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Must be called on the event loop. (Looking it up for every read would cost a system call.)"""
        self._loop = asyncio.get_running_loop()

    async def get(self, space: int, keys: Sequence[bytes], max_bytes: int | None) -> list[Entry | None]:
        """See `Engine.get`."""
        if max_bytes is not None:
            rows = await self._pool.fetch_of(GET_BOUNDED, space, self._now(), keys, max_bytes)
            if any(row[1] is None for row in rows):
                raise response_too_long(max_bytes)
            bounded = {row[0]: Entry(*row) for row in rows}
            return [bounded.get(key) for key in keys]
        if len(keys) > MAX_BATCHED_READ_KEYS:
            found = await self._fetch(space, keys)
            return [found.get(key) for key in keys]
        future: asyncio.Future[list[Entry | None]] = self._loop.create_future()
        self._waiting.setdefault(space, []).append((keys, future))
        self._schedule_send()
        return await future

    def epoch(self) -> asyncio.Future[int]:
        """See `Engine.epoch`."""
        future: asyncio.Future[int] = self._loop.create_future()
        self._epoch_waiting.append(future)
        self._schedule_send()
        return future

    def _schedule_send(self) -> None:
        # At the end of this turn of the loop, when every read that it brings is there.
        if not self._send_scheduled:
            self._send_scheduled = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._send_scheduled = False
        if self._epoch_waiting and not self._epoch_in_flight:
            self._epoch_in_flight = True
            waiting, self._epoch_waiting = self._epoch_waiting, []
            self._start_task(self._answer_epoch(waiting))
        while self._waiting:
            node, batch = self._take()
            if not batch:
                return
            self._statements[node] += 1
            self._in_flight.update(batch)
            self._start_task(self._answer(batch, node))

    def _start_task(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take(self) -> tuple[int | None, Batch]:
        """Remove the reads of the next statement from those that wait; and the node that it is for."""
        batch: Batch = {}
        node: int | None = None
        size = 0
        if not self._pool.spread and self._statements[None] >= MAX_IN_FLIGHT:
            return None, batch
        for space in [space for space in self._waiting if space not in self._in_flight]:
            if self._pool.spread:
                at = self._pool.node_of(space)
                if (batch and at != node) or (at is not None and self._statements[at] >= MAX_AT_NODE):
                    continue
                node = at
            waiting = self._waiting.pop(space)
            taken = 0
            while taken < len(waiting) and size < BATCH_KEYS:
                size += len(waiting[taken][0])
                taken += 1
            batch[space] = waiting[:taken]
            if taken < len(waiting):
                # The rest queues up behind the other spaces.
                self._waiting[space] = waiting[taken:]
            # Through another node of a cluster, a statement keeps to one space.
            if size >= BATCH_KEYS or (self._pool.spread and node is None):
                break
        return node, batch

    async def _answer_epoch(self, futures: list[asyncio.Future[int]]) -> None:
        try:
            epoch, now = await self._fetch_epoch()
            if self._clock is not None:
                self._clock.observe(now)
            for future in futures:
                if not future.done():
                    future.set_result(epoch)
        except Exception as error:
            _fail(futures, error)
        finally:
            self._epoch_in_flight = False
            self._send()

    async def _fetch_epoch(self) -> Sequence[int]:
        if (sql := self._pool.local_epoch) and (rows := await self._pool.fetch_at(None, sql)):
            return tuple(rows[0])
        ((epoch, now),) = await self._pool.fetch_of(EPOCH, SYSTEM_SPACE)
        return epoch, now

    async def _fetch(self, space: int, keys: Sequence[bytes]) -> dict[bytes, Entry]:
        return {row[0]: Entry(*row) for row in await self._pool.fetch_of(GET, space, self._now(), keys)}

    async def _fetch_spaces(
        self, wanted: dict[int, list[bytes]], node: int | None
    ) -> dict[int, dict[bytes, Entry]] | None:
        """None: the node of a cluster does not have them all."""
        spaces = [space for space, keys in wanted.items() for _ in keys]
        keys = [key for keys in wanted.values() for key in keys]
        found: dict[int, dict[bytes, Entry]] = {space: {} for space in wanted}
        rows: Sequence[Any] | None
        if node is None:
            rows = await self._pool.fetch(GET_SPACES, spaces, self._now(), keys)
        else:
            rows = await self._pool.fetch_at(node, shards.CALL_GET, spaces, self._now(), keys)
            if rows is None or (rows and rows[-1][0] is None):
                return None
        for *entry, space in rows:
            found[space][entry[0]] = Entry(*entry)
        return found

    async def _answer(self, batch: Batch, node: int | None) -> None:
        try:
            wanted = {space: list({key for keys, _ in reads for key in keys}) for space, reads in batch.items()}
            found: dict[int, dict[bytes, Entry]] | None = None
            if node is not None or len(wanted) > 1:
                found = await self._fetch_spaces(wanted, node)
            if found is None:
                found = {space: await self._fetch(space, keys) for space, keys in wanted.items()}
            for space, reads in batch.items():
                entries = found[space]
                for keys, future in reads:
                    if not future.done():  # else the caller has left
                        future.set_result([entries.get(key) for key in keys])
        except Exception as error:
            _fail([future for reads in batch.values() for _, future in reads], error)
        finally:
            self._statements[node] -= 1
            self._in_flight.difference_update(batch)
            self._send()


def _fail(futures: Sequence[asyncio.Future[Any]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
