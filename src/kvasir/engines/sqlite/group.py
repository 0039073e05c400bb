"""Applies a group of jobs inside one transaction: each write all-or-nothing by itself. Runs in the writer's thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import apsw

from kvasir.engine import Outcome
from kvasir.engines.sqlite import bulk
from kvasir.engines.sqlite.transaction import Transaction
from kvasir.errors import KvasirError
from kvasir.model import Set, Write

log = logging.getLogger("kvasir.sqlite")

A = TypeVar("A")
T = TypeVar("T")

#: Fewer plain Sets than this are applied one by one.
SMALLEST_RUN = 4

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


class _Pending:
    """A write of the group, and where its outcome goes."""

    __slots__ = ("at", "outcomes", "stamp", "write")

    def __init__(self, write: Write, stamp: int, outcomes: list[Outcome], at: int) -> None:
        self.write = write
        self.stamp = stamp
        self.outcomes = outcomes
        self.at = at


def _size(write: Write) -> int:
    return sum([len(m.value) + len(m.key) + 100 if isinstance(m, Set) else 100 for m in write.mutations])


class Group:
    """Jobs that share a commit."""

    def __init__(self, connection: apsw.Connection, transaction: Transaction) -> None:
        self._connection = connection
        self._transaction = transaction
        self._run_keys: set[bytes] = set()

    def apply(self, jobs: list[Job]) -> None:
        """Fill in every job's result or failure. Raises when the database itself fails: then all is undone."""
        run: list[_Pending] = []
        for job in jobs:
            if job.work is not None:
                self._apply_run(run)
                job.result = self._whole_or_not(job.work, self._transaction)
                if isinstance(job.result, KvasirError):
                    job.failure = job.result
                continue
            stamp = self._transaction.stamp()
            job.result = [None] * len(job.writes)
            for at, write in enumerate(job.writes):
                pending = _Pending(write, stamp, job.result, at)
                if not bulk.is_plain(write):
                    self._apply_run(run)
                    self._apply_one(pending)
                    continue
                key = write.mutations[0].key  # type: ignore[union-attr]  # a plain write is a Set
                if run and (run[0].write.space != write.space or key in self._run_keys):
                    self._apply_run(run)
                run.append(pending)
                self._run_keys.add(key)
        self._apply_run(run)

    def _apply_run(self, run: list[_Pending]) -> None:
        """Apply plain Sets of different keys in one space together; if that fails, each by itself."""
        if len(run) >= SMALLEST_RUN:
            outcomes = self._whole_or_not(self._set_many, run)
            if not isinstance(outcomes, KvasirError):
                for pending, outcome in zip(run, outcomes, strict=True):
                    pending.outcomes[pending.at] = outcome
                run.clear()
        for pending in run:
            self._apply_one(pending)
        run.clear()
        self._run_keys.clear()

    def _set_many(self, run: list[_Pending]) -> list[Outcome]:
        sets = [(pending.write.mutations[0], pending.stamp) for pending in run]
        return self._transaction.set_many(run[0].write.space, sets)  # type: ignore[arg-type]  # plain writes are Sets

    def _apply_one(self, pending: _Pending) -> None:
        # One mutation is whole or not by itself; a savepoint would double its cost.
        guard = self._guarded if len(pending.write.mutations) == 1 else self._whole_or_not
        pending.outcomes[pending.at] = guard(
            lambda pending: self._transaction.write(pending.write, pending.stamp), pending
        )

    def _whole_or_not(self, work: Callable[[A], T], argument: A) -> T | KvasirError:
        self._connection.execute("SAVEPOINT one")
        result = self._guarded(work, argument)
        if isinstance(result, KvasirError):
            self._connection.execute("ROLLBACK TO one")
        self._connection.execute("RELEASE one")
        return result

    def _guarded(self, work: Callable[[A], T], argument: A) -> T | KvasirError:
        """What `work` returns, or why it alone failed. A failure of the database itself fails the group."""
        try:
            return work(argument)
        except KvasirError as error:
            return error
        except FATAL:
            raise
        except Exception:
            if not self._connection.in_transaction:
                raise
            log.exception("one write failed inside its group; its neighbours go on")
            return KvasirError("the server failed to apply this write; nothing of it was written")
