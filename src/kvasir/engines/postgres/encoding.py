"""Writes -> the arrays for one call of a function that writes, and its result -> outcomes. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from kvasir.engine import Outcome
from kvasir.engines.integers import not_incremented
from kvasir.engines.postgres import functions as kinds
from kvasir.errors import space_gone
from kvasir.model import (
    Check,
    Commit,
    Condition,
    Conflict,
    Delete,
    DeleteRange,
    Increment,
    Mutation,
    Set,
    Touch,
    Unmet,
    Write,
)

CALL_SET = "select kvasir_set($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
CALL_SET_SPACES = "select * from kvasir_set_spaces($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
CALL_WRITE = "select kvasir_write($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)"

#: From so many Sets on they are done together by one statement, which on a cluster takes as long to plan as several.
RUN_SETS = 12

#: Sorts above every packed key, which begins with 02.
END = b"\xff"


class Call(Protocol):
    """One call of a function, and what its result means for each write."""

    sql: str

    @property
    def values(self) -> Sequence[Any]:
        """The arguments after space, now and durability."""
        ...

    def outcomes(self, results: list[int | None] | None) -> list[list[Outcome]]:
        """For each job, the outcomes of its writes."""
        ...


def encode(jobs: list[Sequence[Write]], *, least_sets: int = 1) -> Call:
    """The call for jobs of one space; the writes of each job share a versionstamp.

    `least_sets`: from how many plain Sets on `kvasir_set` is called, which takes nothing else.
    """
    sets = Sets.of(jobs)
    return sets if sets is not None and len(sets.last) >= least_sets else _Writes(jobs)


def _gone(jobs: list[Sequence[Write]]) -> list[list[Outcome]]:
    return [[space_gone() for _ in writes] for writes in jobs]


class Sets:
    """Unconditional single Sets. Of several Sets of one key only the last is sent, in the place of the first."""

    sql = CALL_SET

    def __init__(self, jobs: list[Sequence[Write]]) -> None:
        self._jobs = jobs
        #: The last Set of each key with the number of its job, in the order of the first Sets.
        self._last: dict[bytes, tuple[Set, int]] = {}

    @classmethod
    def of(cls, jobs: list[Sequence[Write]]) -> Sets | None:
        """The call for jobs of one space; None if they are something else."""
        call = cls(jobs)
        writes = expiring = 0
        for number, job in enumerate(jobs):
            for write in job:
                mutation = _plain_set(write)
                if mutation is None:
                    return None
                expiring += mutation.expires_at is not None
                writes += 1
                call._last[mutation.key] = mutation, number
        # After a Set that expires before now, the next one of its key would create a new entry.
        return None if expiring and writes > len(call._last) else call

    @property
    def last(self) -> Collection[tuple[Set, int]]:
        """What is sent: Sets and the numbers of their jobs."""
        return self._last.values()

    @property
    def values(self) -> Sequence[Any]:
        return len(self._jobs), [number for _, number in self.last], *_columns([mutation for mutation, _ in self.last])

    def outcomes(self, results: list[int | None] | None) -> list[list[Outcome]]:
        if results is None:
            return _gone(self._jobs)
        base = results[0] or 0
        counts = dict(zip(self._last, results[1:], strict=True))
        outcomes: list[list[Outcome]] = []
        for number, writes in enumerate(self._jobs):
            commits: list[Outcome] = []
            for write in writes:
                mutation: Any = write.mutations[0]
                commits.append(Commit(base + number, (counts[mutation.key] or 0,)))
                counts[mutation.key] = 1
            outcomes.append(commits)
        return outcomes


class SetsOfSpaces:
    """Unconditional single Sets of several spaces. `spaces`: those whose jobs are nothing else; no other is sent."""

    sql = CALL_SET_SPACES

    def __init__(self, groups: dict[int, list[Sequence[Write]]]) -> None:
        #: None for a space with one write, the ordinary case
        self.spaces: dict[int, Sets | None] = {}
        self._jobs = 1
        #: Space, job and Set of what is sent
        self._rows: list[tuple[int, int, Set]] = []
        for space, jobs in groups.items():
            if len(jobs) == 1 and len(jobs[0]) == 1:
                if (mutation := _plain_set(jobs[0][0])) is not None:
                    self.spaces[space] = None
                    self._rows.append((space, 0, mutation))
            elif (call := Sets.of(jobs)) is not None:
                self.spaces[space] = call
                self._jobs = max(self._jobs, len(jobs))
                self._rows += [(space, job, mutation) for mutation, job in call.last]

    @property
    def values(self) -> Sequence[Any]:
        """The arguments after now and durability."""
        rows = self._rows
        return (
            list(self.spaces),
            self._jobs,
            [space for space, _, _ in rows],
            [job for _, job, _ in rows],
            *_columns([mutation for _, _, mutation in rows]),
        )

    def outcomes(self, row: Sequence[list[int] | None]) -> dict[int, list[list[Outcome]]]:
        """By space, for each job the outcomes of its writes. A space that is missing was left out."""
        taken, stamps, replaced = row
        outcomes: dict[int, list[list[Outcome]]] = {}
        if taken is None or stamps is None or replaced is None:
            return outcomes
        done = set(taken)
        sent = [job for space, job, _ in self._rows if space in done]
        start = 0
        for space, call in self.spaces.items():
            if space not in done:
                continue
            if call is None:
                outcomes[space] = [[Commit(stamps[start], (replaced[start],))]]
                start += 1
            else:
                end = start + len(call.last)
                outcomes[space] = call.outcomes([stamps[start] - sent[start], *replaced[start:end]])
                start = end
        return outcomes


def _plain_set(write: Write) -> Set | None:
    """The mutation of a write that is one unconditional Set; None for all others."""
    if write.conditions or len(write.mutations) != 1:
        return None
    mutation = write.mutations[0]
    if mutation.__class__ is not Set or mutation.keep_expiry or mutation.keep_metadata:
        return None
    return mutation


def _columns(sets: list[Set]) -> tuple[list[Any], ...]:
    """Kind, key, number, refresh, value and metadata."""
    return (
        [kinds.SET if mutation.ttl is None else kinds.SET_TTL for mutation in sets],
        [mutation.key for mutation in sets],
        [mutation.expires_at if mutation.ttl is None else mutation.ttl for mutation in sets],
        [mutation.refresh for mutation in sets],
        [mutation.value for mutation in sets],
        [mutation.metadata for mutation in sets],
    )


class _Columns:
    """The arrays of `kvasir_write`, one item an operation: a condition or a mutation."""

    __slots__ = ("job", "key", "kind", "metadata", "number", "refresh", "value", "write")

    def __init__(self) -> None:
        self.job: list[int] = []
        self.write: list[int] = []
        self.kind: list[int] = []
        self.key: list[bytes] = []
        #: A versionstamp, an instant or a time to live, by kind.
        self.number: list[int | None] = []
        self.refresh: list[bool] = []
        #: A value, or the end of a range.
        self.value: list[bytes | None] = []
        self.metadata: list[bytes | None] = []

    def add(
        self,
        job: int,
        write: int,
        kind: int,
        key: bytes,
        number: int | None = None,
        value: bytes | None = None,
        metadata: bytes | None = None,
        *,
        refresh: bool = False,
    ) -> None:
        self.job.append(job)
        self.write.append(write)
        self.kind.append(kind)
        self.key.append(key)
        self.number.append(number)
        self.refresh.append(refresh)
        self.value.append(value)
        self.metadata.append(metadata)

    def add_condition(self, job: int, write: int, condition: Condition) -> None:
        if isinstance(condition, Check):
            self.add(job, write, kinds.CHECK, condition.key, condition.versionstamp)
        else:
            self.add(job, write, kinds.PRESENT, condition.key)

    def add_mutation(self, job: int, write: int, mutation: Mutation) -> None:
        if isinstance(mutation, Set):
            kind, number = (kinds.SET, mutation.expires_at) if mutation.ttl is None else (kinds.SET_TTL, mutation.ttl)
            kind |= kinds.KEEP_EXPIRY * mutation.keep_expiry | kinds.KEEP_METADATA * mutation.keep_metadata
            self.add(
                job, write, kind, mutation.key, number, mutation.value, mutation.metadata, refresh=mutation.refresh
            )
        elif isinstance(mutation, Delete):
            self.add(job, write, kinds.DELETE, mutation.key)
        elif isinstance(mutation, Touch):
            kind = kinds.TOUCH_EXTEND if mutation.extend else kinds.TOUCH
            self.add(job, write, kind, mutation.key, mutation.expires_at)
        elif isinstance(mutation, Increment):
            # An absent key is given the initial value first.
            self.add(
                job, write, kinds.SET | kinds.KEEP_ALL, mutation.key, mutation.expires_at, b"%d" % mutation.initial
            )
            self.add(job, write, kinds.INCREMENT, mutation.key, mutation.delta)
        else:
            start, end = _bounds(mutation)
            self.add(job, write, kinds.DELETE_RANGE, start, value=end)

    def mark_run(self, first: int) -> None:
        """Mark the Sets of different keys that the operations from `first` on begin with, if they are many."""
        seen: set[bytes] = set()
        end = first
        while end < len(self.kind) and self.kind[end] in (kinds.SET, kinds.SET_TTL) and self.key[end] not in seen:
            seen.add(self.key[end])
            end += 1
        if len(seen) >= RUN_SETS:
            self.kind[first:end] = [kind | kinds.RUN for kind in self.kind[first:end]]

    def add_expectation(self, job: int, write: int, mutation: Mutation) -> None:
        if isinstance(mutation, DeleteRange) and mutation.expect is not None:
            start, end = _bounds(mutation)
            self.add(job, write, kinds.EXPECT, start, mutation.expect, end)


class _Writes:
    """Any writes."""

    sql = CALL_WRITE

    def __init__(self, jobs: list[Sequence[Write]]) -> None:
        self._jobs = jobs

    @property
    def values(self) -> Sequence[Any]:
        columns = _Columns()
        writes = 0
        for number, job in enumerate(self._jobs):
            for write in job:
                for condition in write.conditions:
                    columns.add_condition(number, writes, condition)
                for mutation in write.mutations:
                    columns.add_expectation(number, writes, mutation)
                first = len(columns.kind)
                for mutation in write.mutations:
                    columns.add_mutation(number, writes, mutation)
                if len(write.mutations) >= RUN_SETS:
                    columns.mark_run(first)
                writes += 1
        return (
            len(self._jobs),
            writes,
            columns.job,
            columns.write,
            columns.kind,
            columns.key,
            columns.number,
            columns.refresh,
            columns.value,
            columns.metadata,
        )

    def outcomes(self, results: list[int | None] | None) -> list[list[Outcome]]:
        if results is None:
            return _gone(self._jobs)
        base = results[0] or 0
        outcomes: list[list[Outcome]] = []
        index = 1
        for number, job in enumerate(self._jobs):
            of_job: list[Outcome] = []
            for write in job:
                outcome, index = _outcome(write, base + number, results, index)
                of_job.append(outcome)
            outcomes.append(of_job)
        return outcomes


def _bounds(mutation: DeleteRange) -> tuple[bytes, bytes]:
    return (b"", END) if mutation.range is None else (mutation.range.start, mutation.range.end)


def _outcome(write: Write, stamp: int, results: list[int | None], index: int) -> tuple[Outcome, int]:
    """The outcome of the write whose results begin at `index`, and where those of the next one begin."""
    unmet: list[Unmet] = []
    for condition in write.conditions:
        actual = results[index]
        if actual is not None:
            unmet.append(Unmet(condition, None if actual == -1 else actual))
        index += 1
    for mutation in write.mutations:
        if isinstance(mutation, DeleteRange) and mutation.expect is not None:
            if (count := results[index]) is not None:
                unmet.append(Unmet(mutation, count=count))
            index += 1
    counts: list[int] = []
    refused = False
    for mutation in write.mutations:
        if isinstance(mutation, Increment):
            index += 1
            refused |= results[index] is None
        counts.append(results[index] or 0)
        index += 1
    if unmet:
        return Conflict(tuple(unmet)), index
    return not_incremented() if refused else Commit(stamp, tuple(counts)), index
