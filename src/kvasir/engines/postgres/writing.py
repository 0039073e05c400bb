"""Group commit across the network: the waiting writes of a space are sent together, in one call and one transaction.

Groups of one space follow one another; groups of different spaces are sent in parallel, each on its own connection.
There is no timer: a group forms while the previous commit is under way.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from kvasir.engine import Outcome
from kvasir.engines.commit_queue import CommitQueue, Job, take_group
from kvasir.engines.postgres import encoding
from kvasir.engines.postgres.pool import Pool
from kvasir.errors import KvasirError, Unavailable, UnknownOutcome
from kvasir.model import Write, WriterStats


class Writer:
    """Accepts writes on the event loop and sends them."""

    def __init__(
        self,
        pool: Pool,
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
        self._queue = CommitQueue(stats, max_writes=queue_writes, max_bytes=queue_bytes)
        #: Jobs by their space
        self._waiting: dict[int, deque[Job]] = {}
        self._senders: set[asyncio.Task[None]] = set()
        #: Whether Citus distributes the tables: it cannot route the statements of `kvasir_set`.
        self.distributed = False
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """Must be called on the event loop. (Looking it up for every write would cost a system call.)"""
        self._loop = asyncio.get_running_loop()

    async def submit(self, writes: Sequence[Write]) -> list[Outcome]:
        """See `Engine.write`. Raises `Unavailable` at once when the queue is full or the writer is stopping."""
        space = writes[0].space
        if len(writes) == 1 or all(write.space == space for write in writes):
            return await self._enqueue(space, writes)
        return await self._submit_by_space(writes)

    async def _submit_by_space(self, writes: Sequence[Write]) -> list[Outcome]:
        """Writes of several spaces: a failure of one space is the outcome of its writes."""
        indices: dict[int, list[int]] = {}
        for index, write in enumerate(writes):
            indices.setdefault(write.space, []).append(index)
        jobs = [self._enqueue(space, [writes[index] for index in chosen]) for space, chosen in indices.items()]
        outcomes: list[Outcome | None] = [None] * len(writes)
        for chosen, result in zip(indices.values(), await asyncio.gather(*jobs, return_exceptions=True), strict=True):
            if isinstance(result, BaseException) and not isinstance(result, KvasirError):
                raise result
            for number, index in enumerate(chosen):
                outcomes[index] = result if isinstance(result, KvasirError) else result[number]
        return [outcome for outcome in outcomes if outcome is not None]

    def _enqueue(self, space: int, writes: Sequence[Write]) -> asyncio.Future[list[Outcome]]:
        future: asyncio.Future[list[Outcome]] = self._loop.create_future()
        job = Job(future, writes)
        self._queue.admit(job)
        waiting = self._waiting.get(space)
        if waiting is None:
            self._waiting[space] = deque((job,))
            sender = self._loop.create_task(self._send_all(space))
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        else:
            waiting.append(job)
        return future

    async def close(self) -> None:
        """Finish what was accepted, and accept no more."""
        self._queue.close()
        while self._senders:
            await asyncio.wait(self._senders)

    async def _send_all(self, space: int) -> None:
        waiting = self._waiting[space]
        while waiting:
            await self._send(space, take_group(waiting))
        del self._waiting[space]

    async def _send(self, space: int, group: list[Job]) -> None:
        failure: KvasirError | None = None
        try:
            await self._commit(space, group)
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
            for job in group:
                job.failure = failure
        self._queue.resolve(group)

    async def _commit(self, space: int, group: list[Job]) -> None:
        call = encoding.encode([job.writes for job in group], may_set=not self.distributed)
        ((results,),) = await self._pool.write(call.sql, space, self._now(), self._durable, *call.values)
        self._stats.committed(sum([job.weight for job in group]))
        for job, outcomes in zip(group, call.outcomes(results), strict=True):
            job.result = outcomes
