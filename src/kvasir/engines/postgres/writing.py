"""Group commit across the network: the waiting writes of a space are sent together, in one call and one transaction.

Groups of one space follow one another. Plain Sets of several spaces share a call, too, which leaves out a space that is
locked: it is then sent by itself, and so is everything else, each space on a connection of its own. There is no timer:
groups form while previous commits are under way, and a second shared call goes only when it is worth as much as the
first. On a cluster, a call is for spaces of the same node.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from msgspec import Struct

from kvasir import timing
from kvasir.engine import Outcome, Waiter
from kvasir.engines.commit_queue import (
    GROUP_BYTES,
    GROUP_MUTATIONS,
    CommitQueue,
    Job,
    observe_commit,
    take_group,
    tell_requests,
)
from kvasir.engines.integers import not_incremented
from kvasir.engines.postgres import encoding
from kvasir.engines.postgres.failures import WriteRefused
from kvasir.engines.postgres.routing import AnotherWay, RoutedPool
from kvasir.errors import KvasirError, Unavailable, UnknownOutcome
from kvasir.model import SYSTEM_SPACE, Commit, Write, WriterStats

#: Calls under way at a time at each node, but for spaces that cannot share one. Of two, one at most waits for a lock.
MAX_CALLS = 2

#: Jobs by their space
Groups = dict[int, list[Job]]


class _Whole(Struct):
    """Writes of several spaces, and who waits for all of them."""

    waiter: Waiter
    #: Those that are there
    outcomes: list[Any]
    #: Spaces whose outcomes are to come
    missing: int


class _Part(Struct):
    """A `Waiter` for those of one space."""

    whole: _Whole
    #: Their places among all
    indices: list[int]

    def done(self) -> bool:
        return self.whole.waiter.done()

    def set_result(self, outcomes: list[Outcome]) -> None:
        whole = self.whole
        for index, outcome in zip(self.indices, outcomes, strict=True):
            whole.outcomes[index] = outcome
        whole.missing -= 1
        if not whole.missing and not self.done():
            whole.waiter.set_result(whole.outcomes)

    def set_exception(self, error: KvasirError) -> None:
        self.set_result([error] * len(self.indices))


class Writer:
    """Accepts writes on the event loop and sends them."""

    def __init__(
        self,
        pool: RoutedPool,
        now: Callable[[], int | None],
        stats: WriterStats,
        *,
        durable: bool,
        queue_writes: int,
        queue_bytes: int,
    ) -> None:
        self._pool = pool
        self._now = now
        self._stats = stats
        self._durable = durable
        self.queue = CommitQueue(stats, max_writes=queue_writes, max_bytes=queue_bytes)
        #: Called after jobs of a space have been resolved, which shared a transaction
        self.on_resolved: Callable[[int, list[Job]], None] | None = None
        #: Jobs by their space
        self._waiting: dict[int, deque[Job]] = {}
        #: Spaces that have a group under way
        self._in_flight: set[int] = set()
        #: How many of the senders count against `MAX_CALLS`, by node
        self._calls: dict[int | None, int] = defaultdict(int)
        #: Jobs of shared calls under way, by node
        self._sharing: dict[int | None, int] = defaultdict(int)
        self._senders: set[asyncio.Task[None]] = set()
        self._start_scheduled = False
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Must be called on the event loop. (Looking it up for every write would cost a system call.)"""
        self._loop = asyncio.get_running_loop()

    async def write(self, writes: Sequence[Write]) -> list[Outcome]:
        """See `Engine.write`. Raises `Unavailable` at once when the queue is full or the writer is stopping."""
        future: asyncio.Future[list[Outcome]] = self._loop.create_future()
        self.submit(writes, future)
        return await future

    def submit(self, writes: Sequence[Write], waiter: Waiter) -> None:
        """See `Engine.submit`. Where there are several spaces, a failure of one is the outcome of its writes."""
        space = writes[0].space
        if len(writes) == 1 or all(write.space == space for write in writes):
            self._enqueue(space, Job(waiter, writes))
            return
        indices: dict[int, list[int]] = {}
        for index, write in enumerate(writes):
            indices.setdefault(write.space, []).append(index)
        whole = _Whole(waiter, [None] * len(writes), len(indices))
        for number, chosen in indices.items():
            part = _Part(whole, chosen)
            try:
                self._enqueue(number, Job(part, [writes[index] for index in chosen]))
            except KvasirError as failure:
                part.set_exception(failure)

    def _enqueue(self, space: int, job: Job) -> None:
        self.queue.admit(job)
        job.since = time.perf_counter()
        waiting = self._waiting.get(space)
        if waiting is None:
            self._waiting[space] = deque((job,))
        else:
            waiting.append(job)
        # At the end of this turn of the loop, when every write that it brings is there.
        if not self._start_scheduled and (self._pool.spread or self._calls[None] < MAX_CALLS):
            self._start_scheduled = True
            self._loop.call_soon(self._start_calls)

    async def close(self) -> None:
        """Finish what was accepted, and accept no more."""
        self.queue.close()
        while self._waiting or self._senders:
            self._start_calls()
            await asyncio.wait(self._senders)

    def _start_calls(self) -> None:
        self._start_scheduled = False
        while self._waiting and (self._pool.spread or self._calls[None] < MAX_CALLS):
            node, groups = self._take_groups()
            if not groups:
                return
            self._in_flight.update(groups)
            if self._pool.spread and node is None:
                # Through another node, each space by itself
                self._start_task(self._send_alone(groups))
                continue
            self._calls[node] += 1
            # A space by itself may wait for its lock; but then the next call waits for none.
            shared = len(groups) > 1 or self._calls[node] > 1
            if shared:
                self._sharing[node] += sum(map(len, groups.values()))
            self._start_task(self._send_shared(groups, node) if shared else self._send_alone(groups, node, calls=1))

    def _take_groups(self) -> tuple[int | None, Groups]:
        """Remove the jobs of the next call from those that wait; and the node that it is for."""
        groups: Groups = {}
        mutations = size = 0
        node: int | None = None
        ready = [(space, self._pool.node_of(space)) for space in self._waiting if space not in self._in_flight]
        waiting_at: dict[int | None, int] = defaultdict(int)
        for space, at in ready:
            waiting_at[at] += len(self._waiting[space])
        for space, at in ready:
            if (groups and at != node) or not self._may_start(at, waiting_at[at]):
                continue
            node = at
            waiting = self._waiting.pop(space)
            groups[space] = group = take_group(waiting)
            if waiting:
                # The rest queues up behind the other spaces.
                self._waiting[space] = waiting
            for job in group:
                mutations += job.mutations
                size += job.size
            if mutations >= GROUP_MUTATIONS or size >= GROUP_BYTES or (self._pool.spread and node is None):
                break
        return node, groups

    def _may_start(self, node: int | None, jobs: int) -> bool:
        """Whether one more call for a node may start, now that so many jobs wait for it.

        A second one starts only if it is worth as much as the one under way, unless that may wait for a lock. Small
        ones would cost the database more than they save in time.
        """
        if self._pool.spread and node is None:
            return True
        calls = self._calls[node]
        return not calls or (calls < MAX_CALLS and jobs >= self._sharing[node])

    def _start_task(self, work: Coroutine[None, None, None]) -> None:
        sender = self._loop.create_task(work)
        self._senders.add(sender)
        sender.add_done_callback(self._senders.discard)

    async def _send_shared(self, groups: Groups, node: int | None) -> None:
        failure: KvasirError | None = None
        alone: Groups = {}
        began = time.perf_counter()
        try:
            alone = await self._commit_shared(groups, node)
        except AnotherWay:
            alone = groups
        except KvasirError as error:
            failure = error
            if not isinstance(error, Unavailable | UnknownOutcome):
                # Certainly nothing was written. One space is to blame; the others must not suffer for it.
                alone = groups
        except Exception as error:  # a bug here must not leave the callers waiting
            failure = KvasirError(f"the server failed to apply this write: {type(error).__name__}")
        for space, group in groups.items():
            if space in alone:
                self._start_task(self._send_alone({space: group}))
                continue
            if failure is not None and timing.recording:
                tell_requests(group, began, time.perf_counter())
            for job in group:
                job.failure = failure
            self._resolve(space, group)
        self._stats.failures += failure is not None
        self._sharing[node] -= sum(map(len, groups.values()))
        self._finish(groups.keys() - alone.keys(), node, calls=1)

    async def _send_alone(self, groups: Groups, node: int | None = None, *, calls: int = 0) -> None:
        for space, group in groups.items():
            await self._send(space, group)
        self._finish(groups, node, calls)

    def _finish(self, spaces: Iterable[int], node: int | None, calls: int) -> None:
        self._calls[node] -= calls
        self._in_flight.difference_update(spaces)
        self._start_calls()

    async def _send(self, space: int, group: list[Job]) -> None:
        failure: KvasirError | None = None
        began = time.perf_counter()
        try:
            await (self._commit(space, group) if len(group) > 1 else self._commit_job(space, group[0]))
        except KvasirError as error:
            failure = error
        except Exception as error:  # a bug here must not leave the callers waiting
            failure = KvasirError(f"the server failed to apply this write: {type(error).__name__}")
        if failure is not None:
            self._stats.failures += 1
            if len(group) > 1 and not isinstance(failure, Unavailable | UnknownOutcome):
                # Certainly nothing was written. One of them is to blame; the others must not suffer for it.
                for job in group:
                    await self._send(space, [job])
                return
            if timing.recording:
                tell_requests(group, began, time.perf_counter())
            for job in group:
                job.failure = failure
        self._resolve(space, group)

    def _resolve(self, space: int, group: list[Job]) -> None:
        self.queue.resolve(group)
        if self.on_resolved is not None:
            self.on_resolved(space, group)

    async def _commit_job(self, space: int, job: Job) -> None:
        """Commit one job, without those of its writes that are refused."""
        try:
            await self._commit(space, [job])
        except WriteRefused as refusal:
            kept = list(enumerate(job.writes))
            del kept[refusal.number]
            rest = Job(None, [])
            while kept:
                rest = Job(None, [write for _, write in kept])
                try:
                    await self._commit(space, [rest])
                    break
                except WriteRefused as another:
                    del kept[another.number]
            outcomes = dict(zip([place for place, _ in kept], rest.result or [], strict=True))
            job.result = [outcomes.get(place) or not_incremented() for place in range(len(job.writes))]

    async def _commit(self, space: int, group: list[Job]) -> None:
        call = encoding.encode([job.writes for job in group], least_sets=self._pool.least_sets(space))
        began = time.perf_counter()
        ((results,),) = await self._pool.write_of(call.sql, space, self._now(), self._durable, *call.values)
        observe_commit(self._stats, group, began, time.perf_counter())
        for job, outcomes in zip(group, call.outcomes(results), strict=True):
            job.result = outcomes
        if space == SYSTEM_SPACE and any(isinstance(outcome, Commit) for job in group for outcome in job.result or ()):
            await self._pool.confirm()

    async def _commit_shared(self, groups: Groups, node: int | None) -> Groups:
        """Commit the plain Sets of several spaces. Returns the groups that have to be sent by themselves."""
        spaces = self._pool.by_shard(groups)
        call = encoding.SetsOfSpaces({space: [job.writes for job in groups[space]] for space in spaces})
        if not call.spaces:
            return groups
        began = time.perf_counter()
        (row,) = await self._pool.write_at(node, call.sql, self._now(), self._durable, *call.values)
        durable = time.perf_counter()
        done = call.outcomes(row)
        for space, outcomes in done.items():
            for job, of_job in zip(groups[space], outcomes, strict=True):
                job.result = of_job
        if done:
            observe_commit(self._stats, [job for space in done for job in groups[space]], began, durable)
        return {space: group for space, group in groups.items() if space not in done}
