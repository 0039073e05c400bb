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
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

import apsw

from kvasir.engine import Clock, Outcome
from kvasir.engines.commit_queue import CommitQueue, Job, take_group
from kvasir.engines.sqlite import connection as connections
from kvasir.engines.sqlite.cells import Cells
from kvasir.engines.sqlite.checkpoints import COPY_PAGES, Checkpoints, copy
from kvasir.engines.sqlite.group import Group, WorkJob
from kvasir.engines.sqlite.schema import migrate
from kvasir.engines.sqlite.transaction import ANYTHING_DEAD, Transaction
from kvasir.errors import KvasirError, Unavailable, UnknownOutcome
from kvasir.model import Write, WriterStats

log = logging.getLogger("kvasir.sqlite")

T = TypeVar("T")

#: The writer is held this long by a step of the sweep, at most twice that with its commit.
SWEEP_MILLISECONDS = 4.0
SWEEP_EVERY_SECONDS = 0.5
#: Between the steps of a sweep that found work, so that waiting writes and other processes come in between.
SWEEP_PAUSE_SECONDS = 0.005

#: The smallest change. Nothing hangs on it: whoever sees the epoch move only reads again what it had cached.
SETTLE = "UPDATE meta SET epoch = epoch + 1"

#: A writer whose commit failed tries to reopen the database at most this often.
REOPEN_SECONDS = 1.0


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
        self._queue = CommitQueue(stats, max_writes=queue_writes, max_bytes=queue_bytes)
        self._waiting: list[Job] = []
        self._handed_over: SimpleQueue[list[Job] | None] = SimpleQueue()
        self._backlog: deque[Job] = deque()
        self._ended = False
        self._closing = False
        self._broken_since: float | None = None
        self._swept_at = 0.0
        self._swept_clean = True
        self._checkpoints = Checkpoints()
        #: Pages of the write-ahead log that await a checkpoint, as far as this process knows
        self._log_pages = 0
        self._lock_file = -1
        self._thread = threading.Thread(target=self._run, name="kvasir-writer", daemon=True)
        self.cells: Cells
        self._loop: asyncio.AbstractEventLoop
        self._connection: apsw.Connection
        self._transaction: Transaction

    # -- on the event loop --------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the database and start the thread. Call it on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._lock_file = os.open(f"{self._path}-writer", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with self._turn():
                self._connect()
                migrate(self._connection)
                self.cells = Cells(self._path)
                self._settle_for_the_dead()
        except BaseException:
            self._connection.close(True)
            os.close(self._lock_file)
            raise
        self._thread.start()

    def submit(self, writes: Sequence[Write]) -> asyncio.Future[list[Outcome]]:
        """Queue writes that share a versionstamp. The future gives their outcomes after the commit.

        Raises `Unavailable` at once when the queue is full or the writer stops.
        """
        future: asyncio.Future[list[Outcome]] = self._loop.create_future()
        self._enqueue(Job(future, writes))
        return future

    def run(self, work: Callable[[Transaction], T]) -> asyncio.Future[T]:
        """Queue any other work. The future gives what it returns, after the commit. Raises like `submit`."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._enqueue(WorkJob(future, work))
        return future

    def _enqueue(self, job: Job) -> None:
        self._queue.admit(job)
        if not self._waiting:
            # One wake of the thread for all that this turn of the loop brings: each wake takes the interpreter's lock.
            self._loop.call_soon(self._hand_over)
        self._waiting.append(job)

    def _hand_over(self) -> None:
        if self._waiting:
            self._handed_over.put(self._waiting)
            self._waiting = []

    async def close(self) -> None:
        """Finish what was accepted, then stop the thread."""
        if self._closing:
            return
        self._closing = True
        self._queue.close()
        self._hand_over()
        self._handed_over.put(None)
        await asyncio.to_thread(self._thread.join)
        os.close(self._lock_file)
        self.cells.close()
        # The thread's last call to the loop comes before its end; let it run before the caller goes on.
        await asyncio.sleep(0)

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
            copy(self._connection)
        self._connection.close()

    def _next_group(self) -> list[Job] | None:
        """Everything that waits, within the bounds of a group; [] when it is time for housekeeping; None at the end."""
        if not self._backlog and not self._ended:
            self._take(SWEEP_EVERY_SECONDS if self._swept_clean else SWEEP_PAUSE_SECONDS)
        while not self._handed_over.empty():
            self._take(0)
        if not self._backlog:
            return None if self._ended else []
        return take_group(self._backlog)

    def _take(self, seconds: float) -> None:
        try:
            jobs = self._handed_over.get(timeout=seconds) if seconds else self._handed_over.get_nowait()
        except Empty:
            return
        if jobs is None:
            self._ended = True
        else:
            self._backlog.extend(jobs)

    def _do(self, group: list[Job]) -> None:
        try:
            self._commit_together(group)
        except Exception as error:
            self._stats.failures += 1
            failure = error if isinstance(error, KvasirError) else Unavailable(_explain(error))
            for job in group:
                job.failure = failure
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._queue.resolve, group)

    def _commit_together(self, group: list[Job]) -> None:
        if self._broken_since is not None:
            self._reopen()
        with self._turn():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._transaction.begun()
                Group(self._connection, self._transaction).apply(group)
                self._transaction.ending()
            except BaseException:
                self._roll_back()
                raise
            changes = self._transaction.changes
            self.cells.begin(changes)
            try:
                self._finish()
            finally:
                # After a commit of unknown outcome they stay odd: everybody asks the database until it is reopened.
                if self._broken_since is None:
                    self.cells.end(changes)
        self._stats.committed(sum([job.weight for job in group]))

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
        self._let_go()
        log.error("a commit failed, its outcome is unknown; writes are refused until the database is checked: %s", why)
        raise UnknownOutcome(
            "the disk failed during the commit; the write may or may not have happened: read before writing again"
        )

    def _let_go(self) -> None:
        self._broken_since = time.monotonic()
        self._stats.broken = True
        # The transaction may still hold SQLite's own lock, which other processes, that are well, wait for.
        with contextlib.suppress(apsw.Error):
            self._connection.close(True)

    def _commit(self) -> None:
        """A seam: tests plant the failure of a commit here."""
        self._connection.execute("COMMIT")

    def _roll_back(self) -> bool:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except apsw.Error as error:
            self._let_go()
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
        self._connection.set_wal_hook(self._log_has_grown)
        self._transaction = Transaction(self._connection, self._clock)

    def _log_has_grown(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    def _reopen(self) -> None:
        """Come back after a failed commit: a sound database and a commit of our own in place of that one, or refuse.

        The examination takes as long as the database is large, so writers of other processes do not wait for it.
        """
        if time.monotonic() - (self._broken_since or 0.0) < REOPEN_SECONDS:
            raise Unavailable("the disk failed; nothing was written, try again in a second")
        self._let_go()
        try:
            self._connect()
            faults = [row[0] for row in self._connection.execute("PRAGMA quick_check(1)") if row[0] != "ok"]
            if not faults:
                with self._turn():
                    self._settle()  # by which the disk also shows that it can write and sync
        except apsw.Error as error:
            faults = [str(error)]
        if faults:
            self._let_go()
            raise Unavailable(f"the disk failed and the database is not sound ({faults[0]}); nothing was written")
        self._broken_since = None
        self._stats.broken = False
        log.warning("the database was reopened and is sound; writes are accepted again")

    def _settle_for_the_dead(self) -> None:
        if not self.cells.any_odd():
            return
        log.warning("a writer died in the middle of a commit; what readers do not see of it is undone")
        try:
            self._settle()
        except apsw.Error as error:
            # Reading goes on meanwhile, and the thread tries again.
            self._let_go()
            log.error("that failed; writes are refused until the database is checked: %s", error)

    def _settle(self) -> None:
        """Decide what becomes of a commit that nobody saw end: what readers do not see by now must never appear.

        Its frames may lie in the write-ahead log, whole but not published, and the next recovery would publish them.
        A commit of our own takes their place. Needs the writers' lock.
        """
        self._connection.execute(SETTLE)
        self.cells.put_right()

    def _housekeeping(self) -> None:
        """A small step of the sweep, and the checkpoint, between groups. What fails waits for the next time."""
        try:
            if self._broken_since is not None:
                # Not only when somebody writes: who asks whether this server is ready sends nobody until it is.
                self._reopen()
            elif self._log_pages >= COPY_PAGES:
                with self._turn():
                    self._checkpoints.run(self._connection, self._log_pages)
                self._log_pages = 0
            if time.monotonic() - self._swept_at >= SWEEP_EVERY_SECONDS:
                self._sweep()
        except Exception as error:
            self._swept_at = time.monotonic()
            self._swept_clean = True
            self._log_pages = 0
            log.warning("housekeeping waits: %s", error)

    def sweep(self, transaction: Transaction) -> int:
        """A step of the sweep, as the work of a job; how much it removed. 0: nothing is left to do."""
        swept = transaction.sweep(SWEEP_MILLISECONDS)
        if swept:
            self.cells.swept(self._clock())
        return swept

    def _sweep(self) -> None:
        if self.cells.any_odd():
            with self._turn():  # whoever is merely in the middle of a commit ends it first
                self._settle_for_the_dead()
        job = WorkJob(None, self.sweep)
        if self._connection.execute(ANYTHING_DEAD, (self._clock(),)).get:
            self._commit_together([job])
            self._stats.swept += job.result
        self._swept_clean = not job.result
        if self._swept_clean:
            self._swept_at = time.monotonic()
