"""Group commit across the network: the writes of a space that wait go together, in one call and one transaction.

Groups of one space follow each other; groups of different spaces go at the same time, each on its own connection.
There is no timer: the commit before is what lets a group gather.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from kvasir.engine import Outcome
from kvasir.engines.postgres import encoding
from kvasir.engines.postgres.link import Link
from kvasir.errors import KvasirError, Unavailable, UnknownOutcome
from kvasir.model import Set, Write, WriterStats

#: A group takes no further job once it holds this much, so that nobody waits long for its commit.
GROUP_WRITES = 1_000
GROUP_BYTES = 8 << 20


class Job:
    """Writes of one space that share a versionstamp, and who waits for them."""

    __slots__ = ("future", "size", "writes")

    def __init__(self, future: asyncio.Future[list[Outcome]], writes: Sequence[Write]) -> None:
        self.future = future
        self.writes = writes
        self.size = sum([_size(write) for write in writes])


def _size(write: Write) -> int:
    return sum([len(m.value) + len(m.key) + 100 if isinstance(m, Set) else 100 for m in write.mutations])


class Writer:
    """Accepts writes on the event loop and sends them."""

    def __init__(
        self,
        link: Link,
        now: Callable[[], int | None],
        stats: WriterStats,
        *,
        durable: bool,
        queue_writes: int,
        queue_bytes: int,
    ) -> None:
        self._link = link
        self._now = now
        self._stats = stats
        self._durable = durable
        self._queue_writes = queue_writes
        self._queue_bytes = queue_bytes
        self._queued_bytes = 0
        self._waiting: dict[int, deque[Job]] = {}
        self._senders: set[asyncio.Task[None]] = set()
        self._closing = False
        #: Whether Citus spreads the tables: it knows how to route the statements of `kvasir_write` only.
        self.spread = False
        self._loop: asyncio.AbstractEventLoop

    def start(self) -> None:
        """To be called on the event loop. To look for it at every write would cost a system call."""
        self._loop = asyncio.get_running_loop()

    async def submit(self, writes: Sequence[Write]) -> list[Outcome]:
        """See `Engine.write`. Raises `Unavailable` at once when the queue is full or the writer stops."""
        space = writes[0].space
        if len(writes) == 1 or all(write.space == space for write in writes):
            return await self._queue(space, writes)
        return await self._apart(writes)

    async def _apart(self, writes: Sequence[Write]) -> list[Outcome]:
        """Writes of several spaces: a failure of one space is the outcome of its writes."""
        places: dict[int, list[int]] = {}
        for place, write in enumerate(writes):
            places.setdefault(write.space, []).append(place)
        jobs = [self._queue(space, [writes[place] for place in of]) for space, of in places.items()]
        outcomes: list[Outcome | None] = [None] * len(writes)
        for of, told in zip(places.values(), await asyncio.gather(*jobs, return_exceptions=True), strict=True):
            if isinstance(told, BaseException) and not isinstance(told, KvasirError):
                raise told
            for number, place in enumerate(of):
                outcomes[place] = told if isinstance(told, KvasirError) else told[number]
        return [outcome for outcome in outcomes if outcome is not None]

    def _queue(self, space: int, writes: Sequence[Write]) -> asyncio.Future[list[Outcome]]:
        if self._closing:
            raise Unavailable("the server is stopping; nothing was written")
        job = Job(self._loop.create_future(), writes)
        # A job larger than the queue itself may still go in alone: its own limits have let it pass.
        if self._stats.queue_depth and (
            self._stats.queue_depth + len(writes) > self._queue_writes
            or self._queued_bytes + job.size > self._queue_bytes
        ):
            raise Unavailable("too many writes wait for the database; nothing was written, try again")
        self._stats.queue_depth += len(writes)
        self._queued_bytes += job.size
        waiting = self._waiting.get(space)
        if waiting is None:
            self._waiting[space] = deque((job,))
            sender = self._loop.create_task(self._send_all(space))
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        else:
            waiting.append(job)
        return job.future

    async def close(self) -> None:
        """Finish what was accepted."""
        self._closing = True
        while self._senders:
            await asyncio.wait(self._senders)

    async def _send_all(self, space: int) -> None:
        waiting = self._waiting[space]
        while waiting:
            group = self._take(waiting)
            await self._send(space, group)
        del self._waiting[space]

    def _take(self, waiting: deque[Job]) -> list[Job]:
        group: list[Job] = []
        writes = size = 0
        while waiting and writes < GROUP_WRITES and size < GROUP_BYTES:
            job = waiting.popleft()
            group.append(job)
            writes += len(job.writes)
            size += job.size
        return group

    async def _send(self, space: int, group: list[Job]) -> None:
        told: list[list[Outcome]] | KvasirError
        try:
            told = await self._commit(space, group)
        except KvasirError as error:
            told = error
        except Exception as error:  # a fault of this program must not leave its callers waiting
            told = KvasirError(f"the server failed to apply this write: {type(error).__name__}")
        if isinstance(told, KvasirError):
            self._stats.failures += 1
            if len(group) > 1 and not isinstance(told, Unavailable | UnknownOutcome):
                # Certainly nothing was written, and one of them is to blame: its neighbours go on.
                for job in group:
                    await self._send(space, [job])
                return
        for place, job in enumerate(group):
            self._stats.queue_depth -= len(job.writes)
            self._queued_bytes -= job.size
            if job.future.done():  # the caller has left; its write stands all the same
                continue
            if isinstance(told, KvasirError):
                job.future.set_exception(told)
            else:
                job.future.set_result(told[place])

    async def _commit(self, space: int, group: list[Job]) -> list[list[Outcome]]:
        call = encoding.encode([job.writes for job in group], may_set=not self.spread)
        ((results,),) = await self._link.write(call.sql, space, self._now(), self._durable, *call.values)
        self._stats.committed(sum([len(job.writes) for job in group]))
        return call.outcomes(results)
