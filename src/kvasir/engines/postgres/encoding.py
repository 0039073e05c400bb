"""Writes -> arrays for one call of `kvasir_set` or `kvasir_write`, and their results -> outcomes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from kvasir.engine import Outcome
from kvasir.engines.postgres import functions as kinds
from kvasir.errors import NotFound
from kvasir.model import Check, Commit, Condition, Conflict, Delete, Mutation, Set, Touch, Write

CALL_SET = "select kvasir_set($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
CALL_WRITE = "select kvasir_write($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"

#: Sorts above every packed key, which begins with 02.
END = b"\xff"


class Call(Protocol):
    """One call of a function, and what its result means to whom."""

    sql: str

    @property
    def values(self) -> Sequence[Any]:
        """The arguments after space, now and durability."""
        ...

    def outcomes(self, results: list[int | None] | None) -> list[list[Outcome]]:
        """For each job the outcomes of its writes."""
        ...


def encode(jobs: list[Sequence[Write]], *, may_set: bool) -> Call:
    """The call for jobs of one space; the writes of each job share a versionstamp.

    `may_set`: whether `kvasir_set`, the quick way for plain Sets, is to be had.
    """
    return (_Sets.of(jobs) if may_set else None) or _Writes(jobs)


def _gone(jobs: list[Sequence[Write]]) -> list[list[Outcome]]:
    return [[NotFound("the store is gone", code="store_not_found") for _ in writes] for writes in jobs]


class _Sets:
    """Unconditional single Sets. Of several of one key the last is sent, in the place of the first."""

    sql = CALL_SET

    def __init__(self, jobs: list[Sequence[Write]]) -> None:
        self._jobs = jobs
        #: The last Set of each key with the number of its job, in the order of the first.
        self._last: dict[bytes, tuple[Set, int]] = {}

    @classmethod
    def of(cls, jobs: list[Sequence[Write]]) -> _Sets | None:
        call = cls(jobs)
        writes = until = 0
        for number, job in enumerate(jobs):
            for write in job:
                if write.conditions or len(write.mutations) != 1 or write.mutations[0].__class__ is not Set:
                    return None
                mutation = write.mutations[0]
                until += mutation.expires_at is not None
                writes += 1
                call._last[mutation.key] = mutation, number
        # A Set that was born expired would have made the next one of its key a new entry.
        return None if until and writes > len(call._last) else call

    @property
    def values(self) -> Sequence[Any]:
        sets = [mutation for mutation, _ in self._last.values()]
        return (
            len(self._jobs),
            [number for _, number in self._last.values()],
            [kinds.SET if mutation.ttl is None else kinds.SET_TTL for mutation in sets],
            list(self._last),
            [mutation.expires_at if mutation.ttl is None else mutation.ttl for mutation in sets],
            [mutation.refresh for mutation in sets],
            [mutation.value for mutation in sets],
            [mutation.metadata for mutation in sets],
        )

    def outcomes(self, results: list[int | None] | None) -> list[list[Outcome]]:
        if results is None:
            return _gone(self._jobs)
        base = results[0] or 0
        counts = dict(zip(self._last, results[1:], strict=True))
        outcomes: list[list[Outcome]] = []
        for number, writes in enumerate(self._jobs):
            told: list[Outcome] = []
            for write in writes:
                mutation: Any = write.mutations[0]
                told.append(Commit(base + number, (counts[mutation.key] or 0,)))
                counts[mutation.key] = 1
            outcomes.append(told)
        return outcomes


Row = tuple[int, bytes | None, int | None, bool, bytes | None, bytes | None]


class _Writes:
    """Any writes, one row a condition and a mutation."""

    sql = CALL_WRITE

    def __init__(self, jobs: list[Sequence[Write]]) -> None:
        self._jobs = jobs

    @property
    def values(self) -> Sequence[Any]:
        numbers: list[int] = []
        of_write: list[int] = []
        rows: list[Row] = []
        writes = 0
        for number, job in enumerate(self._jobs):
            for write in job:
                rows += [_condition(condition) for condition in write.conditions]
                rows += [_mutation(mutation) for mutation in write.mutations]
                numbers += [number] * (len(rows) - len(numbers))
                of_write += [writes] * (len(rows) - len(of_write))
                writes += 1
        columns = zip(*rows, strict=True) if rows else [()] * 6
        return (len(self._jobs), writes, numbers, of_write, *map(list, columns))

    def outcomes(self, results: list[int | None] | None) -> list[list[Outcome]]:
        if results is None:
            return _gone(self._jobs)
        base = results[0] or 0
        outcomes: list[list[Outcome]] = []
        at = 1
        for number, writes in enumerate(self._jobs):
            told: list[Outcome] = []
            for write in writes:
                told.append(_outcome(write, base + number, results, at))
                at += len(write.conditions) + len(write.mutations)
            outcomes.append(told)
        return outcomes


def _outcome(write: Write, stamp: int, results: list[int | None], at: int) -> Outcome:
    for condition in write.conditions:
        actual = results[at]
        if actual is not None:
            return Conflict(condition.key, None if actual == -1 else actual)
        at += 1
    return Commit(stamp, tuple([count or 0 for count in results[at : at + len(write.mutations)]]))


def _condition(condition: Condition) -> Row:
    if isinstance(condition, Check):
        return kinds.CHECK, condition.key, condition.versionstamp, False, None, None
    return kinds.PRESENT, condition.key, None, False, None, None


def _mutation(mutation: Mutation) -> Row:
    if isinstance(mutation, Set):
        life = (kinds.SET, mutation.expires_at) if mutation.ttl is None else (kinds.SET_TTL, mutation.ttl)
        return life[0], mutation.key, life[1], mutation.refresh, mutation.value, mutation.metadata
    if isinstance(mutation, Delete):
        return kinds.DELETE, mutation.key, None, False, None, None
    if isinstance(mutation, Touch):
        kind = kinds.TOUCH_EXTEND if mutation.extend else kinds.TOUCH
        return kind, mutation.key, mutation.expires_at, False, None, None
    start, end = (b"", END) if mutation.range is None else (mutation.range.start, mutation.range.end)
    return kinds.DELETE_RANGE, start, None, False, end, None
