"""The jobs that wait for a commit: how many may wait, how many share one commit, and how their callers get the outcome.

Both durable engines queue their writes by it. It commits nothing and starts no thread or task.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from kvasir import timing
from kvasir.engine import Waiter
from kvasir.errors import KvasirError, Unavailable
from kvasir.limits import refused
from kvasir.model import Set, Write, WriterStats

log = logging.getLogger("kvasir.engines")

#: A group takes no further job once it holds this much, so that nobody waits long for its commit.
GROUP_MUTATIONS = 1_000
GROUP_BYTES = 8 << 20


#: After commits that take this long, the next one waits for the callers who have just got their outcomes, since they
#: are likely to come again: until all are back, or none comes for the second part of a commit's time, or the third is
#: over. On a fast disk a commit is done before they are back.
SLOW_COMMIT_SECONDS, PAUSE_PART, WAIT_PART = 0.001, 1 / 8, 1 / 2


class Job:
    """Writes that share a versionstamp, and the caller that waits for them."""

    __slots__ = ("failure", "mutations", "request", "result", "since", "size", "waiter", "weight", "writes")

    def __init__(self, waiter: Waiter | asyncio.Future[Any] | None, writes: Sequence[Write]) -> None:
        #: None: nobody waits.
        self.waiter = waiter
        self.writes = writes
        #: The request that it is part of, if requests are watched
        self.request = timing.current.get() if timing.recording else None
        #: When it was queued, by `time.perf_counter`; the writer fills it in.
        self.since = 0.0
        #: Writes, as the bounds count them: a job without any counts as one.
        self.weight = len(writes) or 1
        #: How many mutations they have, each write at least one
        self.mutations = self.weight
        #: Bytes, roughly, as the bounds count them.
        self.size = 0
        for write in writes:
            if len(write.mutations) > 1:
                self.mutations += len(write.mutations) - 1
            for mutation in write.mutations:
                self.size += len(mutation.value) + len(mutation.key) + 100 if isinstance(mutation, Set) else 100
        #: What the commit makes of it: `result`, unless there is a `failure`.
        self.result: Any = None
        self.failure: KvasirError | None = None


AnyJob = TypeVar("AnyJob", bound=Job)


def take_group(waiting: deque[AnyJob]) -> list[AnyJob]:
    """Remove the jobs of the next commit from the front of `waiting`: all of them, within the bounds of a group."""
    group: list[AnyJob] = []
    mutations = size = 0
    while waiting and mutations < GROUP_MUTATIONS and size < GROUP_BYTES:
        job = waiting.popleft()
        group.append(job)
        mutations += job.mutations
        size += job.size
    return group


class Inbox:
    """What the event loop hands over to a writer's thread, and the thread takes in groups."""

    def __init__(self) -> None:
        self._handed: SimpleQueue[list[Job] | None] = SimpleQueue()
        #: What the thread has taken out of it and not yet done
        self._backlog: deque[Job] = deque()
        self._ended = False
        #: Jobs of the last group
        self._last_group = 0

    def hand_over(self, jobs: list[Job] | None) -> None:
        """For the event loop. None: nothing comes any more."""
        self._handed.put(jobs)

    def next_group(self, seconds: float, commit_seconds: float) -> list[Job] | None:
        """Everything that waits, within the bounds of a group; [] if nothing comes for so long; None at the end.

        `commit_seconds`: how long a commit takes.
        """
        self._receive(0)
        callers = self._last_group + len(self._backlog)
        if not self._backlog and not self._ended:
            self._receive(seconds)
        if self._backlog and commit_seconds >= SLOW_COMMIT_SECONDS:
            self._gather(callers, commit_seconds)
        group = take_group(self._backlog)
        self._last_group = len(group)
        return group or (None if self._ended else group)

    def _gather(self, callers: int, commit_seconds: float) -> None:
        """Wait for the callers of the last commit: they would miss this one, and wait for two."""
        until = time.perf_counter() + WAIT_PART * commit_seconds
        waiting = 0
        while waiting < len(self._backlog) < callers and time.perf_counter() < until and not self._ended:
            waiting = len(self._backlog)
            self._receive(PAUSE_PART * commit_seconds)

    def _receive(self, seconds: float) -> None:
        """Take in what was handed over; if that is nothing, what is handed over within so many seconds."""
        with contextlib.suppress(Empty):
            jobs = self._handed.get(timeout=seconds) if seconds else self._handed.get_nowait()
            while jobs is not None:
                self._backlog.extend(jobs)
                jobs = self._handed.get_nowait()
            self._ended = True


def observe_commit(stats: WriterStats, group: Sequence[Job], began: float, durable: float) -> None:
    """Count a commit of these jobs, which began and became durable at these moments of `time.perf_counter`."""
    stats.groups.observe(sum([job.weight for job in group]))
    stats.commits.observe(durable - began)
    for job in group:
        if job.since:  # not of the engine's own work
            stats.waits.observe(began - job.since)
    if timing.recording:
        tell_requests(group, began, durable)


def tell_requests(group: Sequence[Job], began: float, ended: float) -> None:
    """Tell the requests that these jobs are part of how long they waited, and how long their commit took."""
    for job in group:
        if job.request is not None and job.since:
            job.request.spent(timing.WAIT, job.since, began)
            job.request.spent(timing.COMMIT, began, ended)


class CommitQueue:
    """Counts what waits for a commit in this process, in `stats.queue_depth` too. For the event loop only."""

    def __init__(self, stats: WriterStats, *, max_writes: int, max_bytes: int) -> None:
        self._stats = stats
        self._max_writes = max_writes
        self._max_bytes = max_bytes
        self._bytes = 0
        #: Whether it admits no further job
        self.closed = False

    def admit(self, job: Job) -> None:
        """Count a job in. Raises `Unavailable` if the queue is full or closed."""
        if self.closed:
            raise Unavailable("the server is stopping; nothing was written")
        depth = self._stats.queue_depth
        # A job larger than the whole queue may still go in alone: it is within the limits of a request.
        if depth and (depth + job.weight > self._max_writes or self._bytes + job.size > self._max_bytes):
            refused("queue_writes" if depth + job.weight > self._max_writes else "queue_bytes")
            raise Unavailable("too many writes are waiting; nothing was written, try again")
        self._stats.queue_depth = depth + job.weight
        self._bytes += job.size

    def close(self) -> None:
        """Admit no further job."""
        self.closed = True

    def resolve(self, jobs: Iterable[Job]) -> None:
        """Count these jobs out and give their callers the result or the failure."""
        for job in jobs:
            self._stats.queue_depth -= job.weight
            self._bytes -= job.size
            waiter = job.waiter
            if waiter is None or waiter.done():  # the caller has left; its write stands all the same
                continue
            try:
                if job.failure is not None:
                    waiter.set_exception(job.failure)
                else:
                    waiter.set_result(job.result)
            except Exception:
                # A fault in what is told of the outcome; the others are told all the same.
                log.exception("the outcome of a write could not be told")
