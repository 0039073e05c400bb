"""Applies a group of jobs inside one transaction: each write all-or-nothing by itself. Runs in the writer's thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import apsw
from msgspec import Struct

from kvasir.engine import Outcome
from kvasir.engines.commit_queue import Job
from kvasir.engines.sqlite.bulk import SIZES
from kvasir.engines.sqlite.transaction import Transaction
from kvasir.errors import KvasirError
from kvasir.model import SYSTEM_SPACE, Commit, Set, Write

log = logging.getLogger("kvasir.sqlite")

A = TypeVar("A")
T = TypeVar("T")

#: Fewer plain Sets than this are applied one by one.
MIN_RUN = 4

#: Failures of the database itself: they undo whatever the group had done.
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


class WorkJob(Job):
    """Anything else to do inside the transaction. Its result is what `work` returns."""

    __slots__ = ("work",)

    def __init__(self, future: asyncio.Future[Any] | None, work: Callable[[Transaction], Any]) -> None:
        super().__init__(future, ())
        self.work = work


class PlainSet(Struct, gc=False):
    """A write that is one unconditional Set, and where its outcome goes."""

    write: Write
    stamp: int
    outcomes: list[Outcome]
    #: Its place among `outcomes`
    place: int
    #: The one of the same key that it overwrites
    former: PlainSet | None = None

    def history(self) -> list[PlainSet]:
        """Those of the same key, in their order, this one last."""
        found = [self]
        while (former := found[-1].former) is not None:
            found.append(former)
        return found[::-1]


class Group:
    """Jobs that share a commit."""

    def __init__(self, transaction: Transaction) -> None:
        self._connection = transaction.connection
        self._transaction = transaction
        #: Plain Sets that are to be applied together: the last one of each space and key, and how many there are
        self._run: dict[tuple[int, bytes], PlainSet] = {}
        self._sets = 0

    def apply(self, jobs: list[Job]) -> None:
        """Fill in every job's result or failure. If the database itself fails this raises, and everything is undone."""
        run = self._run
        for job in jobs:
            if isinstance(job, WorkJob):
                self._apply_run()
                job.result = self._whole_or_not(job.work, self._transaction)
                if isinstance(job.result, KvasirError):
                    job.failure = job.result
                continue
            stamp = self._transaction.stamp()
            job.result = [None] * len(job.writes)
            for place, write in enumerate(job.writes):
                key = _plain_key(write)
                if key is None:
                    self._apply_run()
                    job.result[place] = self._apply_write(write, stamp)
                    continue
                former = run.get(key)
                if former is not None and not _lasts(former.write):
                    self._apply_run()
                    former = None
                run[key] = PlainSet(write, stamp, job.result, place, former)
                self._sets += 1
        self._apply_run()

    def _apply_run(self) -> None:
        """Apply the run as a whole; if that fails, each of its writes alone."""
        run, sets = list(self._run.values()), self._sets
        self._run.clear()
        self._sets = 0
        if sets >= MIN_RUN:
            # One statement is all-or-nothing by itself, but several are not.
            guard = self._guarded if len(run) <= SIZES[-1] else self._whole_or_not
            outcomes = guard(self._set_many, run)
            if not isinstance(outcomes, KvasirError):
                for plain, outcome in zip(run, outcomes, strict=True):
                    if plain.former is None:
                        plain.outcomes[plain.place] = outcome
                    else:
                        _tell_history(plain, outcome)
                return
        for last in run:
            for plain in last.history():
                plain.outcomes[plain.place] = self._apply_write(plain.write, plain.stamp)

    def _set_many(self, run: list[PlainSet]) -> list[Outcome]:
        rows: Any = [(plain.write.space, plain.write.mutations[0]) for plain in run]
        return self._transaction.set_many(rows, [plain.stamp for plain in run])

    def _apply_write(self, write: Write, stamp: int) -> Outcome:
        # A single mutation is all-or-nothing by itself; a savepoint would double its cost.
        guard = self._guarded if len(write.mutations) == 1 else self._whole_or_not
        return guard(lambda write: self._transaction.write(write, stamp), write)

    def _whole_or_not(self, work: Callable[[A], T], argument: A) -> T | KvasirError:
        self._connection.execute("SAVEPOINT work")
        log = self._transaction.log
        logged = 0 if log is None else len(log)
        result = self._guarded(work, argument)
        if isinstance(result, KvasirError):
            self._connection.execute("ROLLBACK TO work")
            if log is not None:
                del log[logged:]
        self._connection.execute("RELEASE work")
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


def _lasts(write: Write) -> bool:
    """Whether an entry that a plain Set makes is still there for the next one, which is told so."""
    mutation = write.mutations[0]
    return mutation.__class__ is Set and mutation.expires_at is None and (mutation.ttl is None or mutation.ttl > 0)


def _tell_history(last: PlainSet, outcome: Outcome) -> None:
    """What the first of several Sets of a key has found is known; the others have found that one."""
    counts = outcome.counts if isinstance(outcome, Commit) else ()
    for plain in last.history():
        plain.outcomes[plain.place] = Commit(plain.stamp, counts) if counts else outcome
        counts = counts and (1,)


def _plain_key(write: Write) -> tuple[int, bytes] | None:
    """Space and key of a write that is one unconditional Set; None for all others."""
    if write.conditions or len(write.mutations) != 1 or write.space == SYSTEM_SPACE:
        return None
    mutation = write.mutations[0]
    if mutation.__class__ is not Set or mutation.keep_expiry or mutation.keep_metadata:
        return None
    return (write.space, mutation.key)
