"""The one writing thread of this process: a bounded queue, group commit, and what happens when the disk fails.

The thread takes everything that waits (no timer), applies each job all-or-nothing inside one transaction, commits once,
and only then are the callers told, in one step on the event loop. Writers of several processes queue on a file lock,
whose waiters the kernel wakes in order; SQLite's own busy handler would make them sleep.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import apsw

from kvasir.engine import Clock, Outcome
from kvasir.engines.sqlite import connection as connections
from kvasir.engines.sqlite.schema import migrate
from kvasir.engines.sqlite.transaction import ANYTHING_DEAD, Transaction
from kvasir.errors import KvasirError, Unavailable, UnknownOutcome
from kvasir.model import Set, Write, WriterStats

log = logging.getLogger("kvasir.sqlite")

T = TypeVar("T")

#: A group takes no further job once it holds this much, so that nobody waits long for its commit.
GROUP_WRITES = 1_000
GROUP_BYTES = 8 << 20

#: The writer is held this long by a step of the sweep, at most twice that with its commit.
SWEEP_MILLISECONDS = 4.0
SWEEP_EVERY_SECONDS = 0.5
#: Between the steps of a sweep that found work, so that waiting writes and other processes come in between.
SWEEP_PAUSE_SECONDS = 0.005

#: Pages in the write-ahead log before the writer copies them into the database file.
CHECKPOINT_PAGES = 2_000

#: A writer whose commit failed tries to reopen the database at most this often.
REOPEN_SECONDS = 1.0


class Job:
    """Something to do inside a transaction, and who waits for it."""

    __slots__ = ("failure", "future", "result", "size", "work", "writes")

    def __init__(
        self, future: asyncio.Future[Any] | None, writes: Sequence[Write], work: Callable[[Transaction], Any] | None
    ) -> None:
        self.future = future
        self.writes = writes
        self.work = work
        self.size = sum([_size(write) for write in writes])
        self.result: Any = None
        self.failure: KvasirError | None = None


def _size(write: Write) -> int:
    return sum([len(m.value) + len(m.key) + 100 if isinstance(m, Set) else 100 for m in write.mutations])


#: Failures of the database itself: whatever the group had done is undone with them.
FATAL = (
    apsw.FullError,
    apsw.IOError,
    apsw.NoMemError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.InterruptError,
)


def _explain(error: Exception) -> str:
    if isinstance(error, apsw.FullError):
        return "the disk is full; nothing was written, make room and try again"
    log.error("a transaction failed and was undone: %s: %s", type(error).__name__, error)
    return "the database cannot be written just now; nothing was written, try again"


class Writer:
    """Accepts jobs on the event loop, does them in its thread."""

    def __init__(
        self, path: Path, clock: Clock, stats: WriterStats, *, durable: bool, queue_writes: int, queue_bytes: int
    ) -> None:
        self._path = path
        self._clock = clock
        self._stats = stats
        self._durable = durable
        self._queue_writes = queue_writes
        self._queue_bytes = queue_bytes
        self._queued_bytes = 0
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._closing = False
        self._broken_since: float | None = None
        self._swept_at = 0.0
        self._swept_clean = True
        self._wal_pages = 0
        self._lock_file = -1
        self._thread = threading.Thread(target=self._run, name="kvasir-writer", daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self._connection: apsw.Connection
        self._transaction: Transaction

    # -- on the event loop --------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the database and start the thread. Call it on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._lock_file = os.open(f"{self._path}-writer", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with self._turn():
            self._connect()
            migrate(self._connection)
        self._thread.start()

    def submit(self, writes: Sequence[Write], work: Callable[[Transaction], Any] | None = None) -> asyncio.Future[Any]:
        """Queue a job. Its future gives the outcomes of `writes`, or what `work` returns, after the commit.

        Raises `Unavailable` at once when the queue is full or the writer stops.
        """
        if self._closing:
            raise Unavailable("the server is stopping; nothing was written")
        future = self._loop.create_future()
        job = Job(future, writes, work)
        # A job larger than the queue itself may still go in alone: its own limits have let it pass.
        if self._stats.queue_depth and (
            self._stats.queue_depth + len(writes) > self._queue_writes
            or self._queued_bytes + job.size > self._queue_bytes
        ):
            raise Unavailable("too many writes wait for the disk; nothing was written, try again")
        self._stats.queue_depth += len(writes) or 1
        self._queued_bytes += job.size
        self._queue.put(job)
        return future

    async def close(self) -> None:
        """Finish what was accepted, then stop the thread."""
        if self._closing:
            return
        self._closing = True
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        os.close(self._lock_file)
        # The thread's last call to the loop comes before its end; let it run before the caller goes on.
        await asyncio.sleep(0)

    def _resolve(self, group: list[Job]) -> None:
        for job in group:
            self._stats.queue_depth -= len(job.writes) or 1
            self._queued_bytes -= job.size
            if job.future is None or job.future.done():  # the caller has left; its write stands all the same
                continue
            if job.failure is not None:
                job.future.set_exception(job.failure)
            else:
                job.future.set_result(job.result)

    # -- in the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            group = self._next_group()
            if group is None:
                break
            if group:
                self._do(group)
            self._housekeeping()
        with contextlib.suppress(apsw.Error), self._turn():
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._connection.close()

    def _next_group(self) -> list[Job] | None:
        """Everything that waits, within the bounds of a group; [] when it is time for housekeeping; None at the end."""
        try:
            job = self._queue.get(timeout=SWEEP_EVERY_SECONDS if self._swept_clean else SWEEP_PAUSE_SECONDS)
        except Empty:
            return []
        group: list[Job] = []
        writes = size = 0
        while job is not None:
            group.append(job)
            writes += len(job.writes)
            size += job.size
            if writes >= GROUP_WRITES or size >= GROUP_BYTES:
                return group
            try:
                job = self._queue.get_nowait()
            except Empty:
                return group
        if group:
            self._queue.put(None)  # the end comes after this group
        return group or None

    def _do(self, group: list[Job]) -> None:
        try:
            self._commit_together(group)
        except Exception as error:
            self._stats.failures += 1
            failure = error if isinstance(error, KvasirError) else Unavailable(_explain(error))
            for job in group:
                job.failure = failure
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._resolve, group)

    def _commit_together(self, group: list[Job]) -> None:
        with self._turn():
            if self._broken_since is not None:
                self._reopen()
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._transaction.begun()
                for job in group:
                    self._apply(job)
                self._transaction.ending()
            except BaseException:
                self._roll_back()
                raise
            self._finish()
        self._stats.committed(sum(len(job.writes) or 1 for job in group))

    def _finish(self) -> None:
        try:
            self._commit()
        except (apsw.FullError, apsw.BusyError):
            # SQLite knows that the commit record was not written and keeps the transaction open.
            if self._connection.in_transaction and self._roll_back():
                raise
            self._broken("the commit failed and could not be undone")
        except Exception as error:
            self._broken(str(error))

    def _broken(self, why: str) -> None:
        self._broken_since = time.monotonic()
        self._stats.broken = True
        log.error("a commit failed, its outcome is unknown; writes are refused until the database is checked: %s", why)
        raise UnknownOutcome(
            "the disk failed during the commit; the write may or may not have happened: read before writing again"
        )

    def _commit(self) -> None:
        """A seam: tests plant the failure of a commit here."""
        self._connection.execute("COMMIT")

    def _apply_write(self, write: Write) -> Outcome:
        """A seam: tests plant the failure of one write here."""
        return self._transaction.write(write)

    def _apply(self, job: Job) -> None:
        if job.work is not None:
            job.result = self._whole_or_not(lambda: job.work(self._transaction))  # type: ignore[misc]
            if isinstance(job.result, KvasirError):
                job.failure = job.result
            return
        outcomes: list[Outcome] = []
        self._transaction.stamped()
        for write in job.writes:
            if len(write.mutations) == 1:
                # One statement is whole or not by itself; a savepoint would double its cost.
                outcomes.append(self._guarded(lambda write=write: self._apply_write(write)))  # type: ignore[misc]
            else:
                outcomes.append(self._whole_or_not(lambda write=write: self._apply_write(write)))  # type: ignore[misc]
        job.result = outcomes

    def _whole_or_not(self, work: Callable[[], T]) -> T | KvasirError:
        self._connection.execute("SAVEPOINT one")
        result = self._guarded(work)
        if isinstance(result, KvasirError):
            self._connection.execute("ROLLBACK TO one")
        self._connection.execute("RELEASE one")
        return result

    def _guarded(self, work: Callable[[], T]) -> T | KvasirError:
        """What `work` returns, or why it alone failed. A failure of the database itself fails the group."""
        try:
            return work()
        except KvasirError as error:
            return error
        except FATAL:
            raise
        except Exception:
            if not self._connection.in_transaction:
                raise
            log.exception("one write failed inside its group; its neighbours go on")
            return KvasirError("the server failed to apply this write; nothing of it was written")

    def _roll_back(self) -> bool:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except apsw.Error as error:
            self._broken_since = time.monotonic()
            self._stats.broken = True
            log.error("a rollback failed; writes are refused until the database is checked: %s", error)
            return False
        return True

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """The only writer among all processes, for as long as it lasts."""
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def _connect(self) -> None:
        self._connection = connections.for_writing(self._path, durable=self._durable)
        self._connection.set_wal_hook(self._wal_grew)
        self._transaction = Transaction(self._connection, self._clock)

    def _reopen(self) -> None:
        """Come back after a failed commit: a new connection and a sound database, or refuse."""
        if time.monotonic() - (self._broken_since or 0.0) < REOPEN_SECONDS:
            raise Unavailable("the disk failed; nothing was written, try again in a second")
        self._broken_since = time.monotonic()
        with contextlib.suppress(apsw.Error):
            self._connection.close(True)
        try:
            self._connect()
            faults = [row[0] for row in self._connection.execute("PRAGMA quick_check(1)") if row[0] != "ok"]
        except apsw.Error as error:
            faults = [str(error)]
        if faults:
            raise Unavailable(f"the disk failed and the database is not sound ({faults[0]}); nothing was written")
        self._broken_since = None
        self._stats.broken = False
        log.warning("the database was reopened and is sound; writes are accepted again")

    def _housekeeping(self) -> None:
        """A small step of the sweep, and the checkpoint, between groups. What fails waits for the next time."""
        try:
            if self._wal_pages >= CHECKPOINT_PAGES:
                self._checkpoint()
            if time.monotonic() - self._swept_at >= SWEEP_EVERY_SECONDS:
                self._sweep()
        except (apsw.Error, KvasirError) as error:
            self._swept_at = time.monotonic()
            self._swept_clean = True
            self._wal_pages = 0
            log.warning("housekeeping waits: %s", error)

    def _checkpoint(self) -> None:
        with self._turn():
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._wal_pages = 0

    def _sweep(self) -> None:
        job = Job(None, (), lambda transaction: transaction.sweep(SWEEP_MILLISECONDS))
        if self._connection.execute(ANYTHING_DEAD, (self._clock(),)).get:
            self._commit_together([job])
            self._stats.swept += job.result
        self._swept_clean = not job.result
        if self._swept_clean:
            self._swept_at = time.monotonic()

    def _wal_grew(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK
