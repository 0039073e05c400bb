"""The one writing thread of this process: group commit, what happens when the disk fails, and housekeeping.

The thread takes everything that waits, applies each job all-or-nothing inside one transaction, commits once, and only
then do the callers get their outcomes, in one step on the event loop. Writers of several processes queue on a file
lock, whose waiters the kernel wakes in order; SQLite's own busy handler would make them sleep.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import apsw

from kvasir import timing
from kvasir.engine import Clock, Outcome, Waiter
from kvasir.engines.commit_queue import CommitQueue, Inbox, Job, observe_commit, tell_requests
from kvasir.engines.sqlite import connection as connections
from kvasir.engines.sqlite import failures, sweeping
from kvasir.engines.sqlite.changelog import Row
from kvasir.engines.sqlite.checkpoints import COPY_PAGES, Checkpoints, copy
from kvasir.engines.sqlite.group import Group, WorkJob
from kvasir.engines.sqlite.recovery import hold_open, migrate_noticeably, overwrite_interrupted_commits
from kvasir.engines.sqlite.seqlocks import ONLY_COMMIT, Seqlocks, WritersLock
from kvasir.engines.sqlite.transaction import Transaction
from kvasir.errors import KvasirError, Unavailable, UnknownOutcome
from kvasir.model import Write, WriterStats

log = logging.getLogger("kvasir.sqlite")

T = TypeVar("T")

SWEEP_EVERY_SECONDS = 0.5
#: Between the steps of a sweep that found work, so that waiting writes and other processes come in between.
SWEEP_PAUSE_SECONDS = 0.005

#: However slow the disk was, callers are not waited for as if commits took longer than this.
HELD_UP_SECONDS = 0.05

#: A writer whose commit failed tries to reopen the database at most this often.
REOPEN_SECONDS = 1.0


def commit(connection: apsw.Connection) -> None:
    """End the transaction under way. When it returns, the disk has it (see `connection`)."""
    connection.execute("COMMIT")


class Writer:
    """Accepts jobs on the event loop, does them in its thread."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        stats: WriterStats,
        *,
        durable: bool,
        queue_writes: int,
        queue_bytes: int,
        commit: Callable[[apsw.Connection], None],
    ) -> None:
        self._path = path
        self._clock = clock
        self._stats = stats
        self._durable = durable
        self._commit = commit
        self.queue = CommitQueue(stats, max_writes=queue_writes, max_bytes=queue_bytes)
        #: Called after jobs have been resolved, with what their commit has logged, and how many were logged up to it
        self.on_resolved: Callable[[tuple[Row, int] | None], None] | None = None
        self._logged: tuple[Row, int] | None = None
        #: What this turn of the event loop has brought
        self._arrived: list[Job] = []
        self._turn_began = 0.0
        #: When the commit under way, or the attempt at one, began
        self._began = 0.0
        self._inbox = Inbox()
        #: When the last commit or attempt to reopen failed; None: all is well.
        self._failed_at: float | None = None
        #: How long the last commit took and the one before: a single one may have been held up.
        self._commit_seconds = 0.0, 0.0
        self._swept_at = 0.0
        self._swept_clean = True
        self._checkpoints = Checkpoints()
        self._no_room = failures.Complaint()
        self._housekeeping = failures.Complaint()
        #: Pages of the write-ahead log that await a checkpoint, as far as this process knows
        self._log_pages = 0
        self._thread = threading.Thread(target=self._run, name="kvasir-writer", daemon=True)
        self.seqlocks: Seqlocks
        self._writers_lock: WritersLock
        self._loop: asyncio.AbstractEventLoop
        self._connection: apsw.Connection
        self._anchor: apsw.Connection
        self._transaction: Transaction

    # -- on the event loop --------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the database and start the thread. Raises `Unavailable` and what APSW and the file system do."""
        self._loop = asyncio.get_running_loop()
        self._writers_lock = WritersLock(self._path)
        try:
            with self._writers_lock, contextlib.ExitStack() as opened:
                self._open_database(opened)
                opened.pop_all()
        except BaseException:
            self._writers_lock.close()
            raise
        self._thread.start()

    def _open_database(self, opened: contextlib.ExitStack) -> None:
        self.seqlocks = Seqlocks(self._path)
        opened.callback(self.seqlocks.close)
        if self.seqlocks.any_held():
            connections.sync_log(self._path)
        self._connect()
        opened.callback(self._connection.close, True)
        migrate_noticeably(self._connection, self.seqlocks)
        self._anchor = hold_open(self._path)
        opened.callback(self._anchor.close, True)
        self._recover_interrupted_commits()

    def write(self, writes: Sequence[Write]) -> asyncio.Future[list[Outcome]]:
        """Queue writes that share a versionstamp. The future gives their outcomes after the commit.

        Raises `Unavailable` at once when the queue is full or the writer stops.
        """
        future: asyncio.Future[list[Outcome]] = self._loop.create_future()
        self._enqueue(Job(future, writes))
        return future

    def submit(self, writes: Sequence[Write], waiter: Waiter) -> None:
        """The same for a waiter. See `Engine.submit`."""
        self._enqueue(Job(waiter, writes))

    def run(self, work: Callable[[Transaction], T]) -> asyncio.Future[T]:
        """Queue any other work. The future gives what it returns, after the commit. Raises like `write`."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._enqueue(WorkJob(future, work))
        return future

    def _enqueue(self, job: Job) -> None:
        self.queue.admit(job)
        if not self._arrived:
            self._turn_began = time.perf_counter()
            # One wake of the thread for all that this turn of the loop brings: each wake takes the interpreter's lock.
            self._loop.call_soon(self._hand_over)
        job.since = self._turn_began
        self._arrived.append(job)

    def _hand_over(self) -> None:
        if self._arrived:
            self._inbox.hand_over(self._arrived)
            self._arrived = []

    def _resolve(self, group: list[Job], logged: tuple[Row, int] | None) -> None:
        self.queue.resolve(group)
        if self.on_resolved is not None:
            self.on_resolved(logged)

    async def close(self) -> None:
        """Finish what was accepted, then stop the thread."""
        if self.queue.closed:
            return
        self.queue.close()
        self._hand_over()
        self._inbox.hand_over(None)
        await asyncio.to_thread(self._thread.join)
        self._writers_lock.close()
        self.seqlocks.close()
        # The thread's last call to the loop comes before its end; let it run before the caller goes on.
        await asyncio.sleep(0)

    # -- in the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._take_turn():
            pass
        with contextlib.suppress(apsw.Error), self._writers_lock:
            copy(self._connection)
        self._connection.close()
        self._anchor.close()

    def _take_turn(self) -> bool:
        """One group, if any waits, and housekeeping. False: nothing comes any more."""
        quiet = SWEEP_EVERY_SECONDS if self._swept_clean else SWEEP_PAUSE_SECONDS
        group = self._inbox.next_group(quiet, min(*self._commit_seconds, HELD_UP_SECONDS))
        if group is None:
            return False
        if group:
            self._do(group)
        self._do_housekeeping()
        return True

    def _do(self, group: list[Job]) -> None:
        self._began = time.perf_counter()
        self._logged = None
        try:
            self._commit_group(group)
        except Exception as error:
            self._stats.failures += 1
            failure = error if isinstance(error, KvasirError) else self._told(error)
            if timing.recording:
                tell_requests(group, self._began, time.perf_counter())
            for job in group:
                job.failure = failure
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._resolve, group, self._logged)

    def _commit_group(self, group: list[Job]) -> None:
        if self._failed_at is not None:
            self._reopen()
        with self._writers_lock:
            began = self._began = time.perf_counter()
            self._transaction.cursor.execute("BEGIN IMMEDIATE")
            try:
                self._transaction.read_meta(watched=self.seqlocks.watched())
                Group(self._transaction).apply(group)
                self._transaction.save_meta()
            except BaseException:
                self._roll_back()
                raise
            changes = self._transaction.changes or ONLY_COMMIT
            self.seqlocks.write_begin(changes)
            committing = time.perf_counter()
            try:
                self._commit_or_fail()
                durable = time.perf_counter()
            finally:
                # After a commit of unknown outcome they stay held: everyone asks the database until it is reopened.
                if self._failed_at is None:
                    self.seqlocks.write_end(changes)
            if (row := self._transaction.logged) is not None:
                self._logged = row, self.seqlocks.count_logged()
        self._commit_seconds = durable - committing, self._commit_seconds[0]
        observe_commit(self._stats, group, began, durable)
        if self._no_room.goes_on:
            self._no_room.over("there is room again; writes are accepted")

    def _told(self, error: Exception) -> Unavailable:
        """What the callers are told of a transaction that was undone."""
        if reason := failures.no_room(error, self._connection):
            self._no_room.about(f"{reason}: writes are refused until there is room")
        return Unavailable(failures.explain(error, self._connection))

    def _commit_or_fail(self) -> None:
        try:
            self._commit(self._connection)
        except Exception as error:
            if self._can_be_undone(error) and self._roll_back():
                raise
            self._fail_commit(str(error))

    def _can_be_undone(self, error: Exception) -> bool:
        """Whether a commit that failed has not happened and, after a rollback, never will."""
        if isinstance(error, apsw.BusyError):
            return self._connection.in_transaction
        if failures.no_room(error, self._connection) is None:
            return False
        if failures.was_not_written(error):
            return True
        if getattr(error, "extendedresult", 0) not in failures.UNPUBLISHED or not self._roll_back():
            return False
        try:
            overwrite_interrupted_commits(self._connection, self.seqlocks)
        except apsw.Error:
            return False
        return True

    def _fail_commit(self, why: str) -> None:
        self._close_failed()
        log.error("a commit failed with unknown outcome; writes are refused until the database is checked: %s", why)
        raise UnknownOutcome(
            "the disk failed during the commit; the write may or may not have happened: read before writing again"
        )

    def _close_failed(self) -> None:
        self._failed_at = time.monotonic()
        self._stats.broken = True
        # The transaction may still hold SQLite's own lock, which processes that are well wait for.
        with contextlib.suppress(apsw.Error):
            self._connection.close(True)

    def _roll_back(self) -> bool:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except apsw.Error as error:
            self._close_failed()
            log.error("a rollback failed; writes are refused until the database is checked: %s", error)
            return False
        return True

    def _connect(self) -> None:
        self._connection = connections.for_writing(self._path, durable=self._durable)
        self._connection.set_wal_hook(self._log_has_grown)
        self._transaction = Transaction(self._connection, self._clock)

    def _log_has_grown(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._log_pages = pages
        return apsw.SQLITE_OK

    # -- after a failure ----------------------------------------------------------------------------------

    def _reopen(self) -> None:
        """Come back after a failed commit: with a sound database and a commit of our own, or not at all.

        The check takes as long as the database is large, so writers of other processes do not wait for it.
        Raises `Unavailable`.
        """
        if time.monotonic() - (self._failed_at or 0.0) < REOPEN_SECONDS:
            raise Unavailable("the disk failed; nothing was written, try again in a second")
        self._close_failed()
        try:
            self._connect()
            faults = [row[0] for row in self._connection.execute("PRAGMA quick_check(1)") if row[0] != "ok"]
            if not faults:
                with self._writers_lock:
                    overwrite_interrupted_commits(
                        self._connection, self.seqlocks
                    )  # which shows that the disk can write and sync again
        except apsw.Error as error:
            reason = failures.no_room(error, self._connection) or f"the disk still fails ({error})"
            self._close_failed()
            raise Unavailable(f"{reason}; nothing was written, try again in a second") from None
        if faults:
            self._close_failed()
            raise Unavailable(f"the disk failed and the database is not sound ({faults[0]}); nothing was written")
        self._failed_at = None
        self._stats.broken = False
        log.warning("the database was reopened and is sound; writes are accepted again")

    def _recover_interrupted_commits(self) -> None:
        """Clean up after a writer that died, here or in another process. Needs the writers' lock."""
        if not self.seqlocks.any_held():
            return
        log.warning("a writer died in the middle of a commit; unless readers see its writes by now, they are undone")
        try:
            overwrite_interrupted_commits(self._connection, self.seqlocks)
        except apsw.Error as error:
            self._close_failed()  # reading goes on meanwhile, and the thread tries again
            log.error("cleaning up failed; writes are refused until the database is checked: %s", error)

    # -- housekeeping -------------------------------------------------------------------------------------

    def _do_housekeeping(self) -> None:
        """A checkpoint and a small step of the sweep, between groups. What fails waits for the next time."""
        try:
            if self._failed_at is not None:
                self._swept_clean = True
                # Not only when somebody writes: whoever asks whether this server is ready sends no writes until it is.
                if time.monotonic() - self._failed_at >= REOPEN_SECONDS:
                    self._reopen()
                return
            if self._log_pages >= COPY_PAGES:
                with self._writers_lock:
                    self._checkpoints.run(self._connection, self._log_pages)
                self._log_pages = 0
            if time.monotonic() - self._swept_at >= SWEEP_EVERY_SECONDS:
                self._sweep()
                if self._housekeeping.goes_on:
                    self._housekeeping.over("housekeeping goes on")
        except Exception as error:
            self._swept_at = time.monotonic()
            self._swept_clean = True
            self._log_pages = 0
            self._housekeeping.about(f"housekeeping has to wait: {error}")

    def sweep(self, transaction: Transaction) -> int:
        """A step of the sweep, as the work of a job: how much it removed. 0: nothing is left to do."""
        swept = sweeping.sweep(transaction)
        if swept:
            self.seqlocks.sweep_begin(self._clock())
        return swept

    def _sweep(self) -> None:
        if self.seqlocks.any_held():
            with self._writers_lock:  # a writer that is merely in the middle of a commit finishes it first
                self._recover_interrupted_commits()
        job = WorkJob(None, self.sweep)
        if sweeping.has_expired(self._connection, self._clock()):
            self._commit_group([job])
            self._stats.swept += job.result
        self._swept_clean = not job.result
        if self._swept_clean:
            self._swept_at = time.monotonic()
