"""Faults of the engine itself, planted to see that the simulation finds them. Each is one patch, for tests only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import apsw

from kvasir.engines.commit_queue import Job
from kvasir.engines.sqlite import connection, recovery, transaction
from kvasir.engines.sqlite.group import Group
from kvasir.engines.sqlite.seqlocks import Seqlocks

Patch = contextlib.AbstractContextManager[object]


def _missing_fsync() -> Patch:
    """A commit is written to the log and not synced."""
    for_writing = connection.for_writing

    def carelessly(path: Path, *, durable: bool) -> apsw.Connection:
        return for_writing(path, durable=False)

    return mock.patch.object(connection, "for_writing", carelessly)


def _early_acknowledgement() -> Patch:
    """The callers are told before the commit."""
    apply = Group.apply

    def apply_and_tell(self: Group, jobs: list[Job]) -> None:
        apply(self, jobs)
        for job in jobs:
            if job.waiter is not None and job.failure is None:
                job.waiter.set_result(job.result)

    return mock.patch.object(Group, "apply", apply_and_tell)


def _lost_epoch() -> Patch:
    """A change of Kvasir's own records leaves the epoch as it was."""
    return mock.patch.object(transaction, "SAVE_META", transaction.SAVE_META.replace("+ ?", "+ 0 * ?"))


def _silent_epoch() -> Patch:
    """The epoch moves in the database, but no other process hears of it."""
    write_begin = Seqlocks.write_begin

    def write_some(self: Seqlocks, locks: Sequence[int]) -> None:
        write_begin(self, [lock for lock in locks if lock])

    return mock.patch.object(Seqlocks, "write_begin", write_some)


def _unsettled_commit() -> Patch:
    """Nothing takes the place of a commit that was cut off: it may turn up later."""
    return mock.patch.object(recovery, "MOVE_EPOCH", "SELECT 1")


def _trusted_log() -> Patch:
    """After a failed sync and a crash, the log is read though some of its pages will never reach the disk."""
    return mock.patch.object(connection, "sync_log")


PLANTS: dict[str, Callable[[], Patch]] = {
    "missing-fsync": _missing_fsync,
    "early-acknowledgement": _early_acknowledgement,
    "lost-epoch": _lost_epoch,
    "silent-epoch": _silent_epoch,
    "unsettled-commit": _unsettled_commit,
    "trusted-log": _trusted_log,
}


@contextlib.contextmanager
def planted(name: str | None) -> Iterator[None]:
    """The engine meanwhile has this fault; None: it is as it is."""
    with contextlib.ExitStack() as patches:
        if name is not None:
            patches.enter_context(PLANTS[name]())
        yield
