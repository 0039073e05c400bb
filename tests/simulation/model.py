"""What may be true: the histories that agree with everything that clients were told and have read so far.

A group of jobs that shares a commit takes effect as a whole or not at all. While nobody knows whether it has, both are
possible, and every answer and every read rules out what contradicts it. If nothing is left, a promise was broken.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from msgspec import Struct

from kvasir.errors import NotFound
from kvasir.model import (
    SYSTEM_SPACE,
    Alias,
    Check,
    Commit,
    Conflict,
    Delete,
    DeleteRange,
    Present,
    Set,
    Space,
    Write,
)


class Violation(BaseException):
    """A promise was broken. No `except Exception` of the engine's may hide it."""

    def __init__(self, what: str) -> None:
        super().__init__(re.sub("x{20,}", "x…", what))


class Value(Struct, frozen=True):
    """What an entry holds. No two Sets set the same text, so that it says who has set it."""

    text: bytes
    expires_at: int | None


class Living(Struct, frozen=True):
    """A space; its number is known once anybody was told it."""

    id: str
    name: str
    aliases: frozenset[Alias]


class State:
    """A database without its numbers."""

    def __init__(self, entries: dict[tuple[str, bytes], Value], spaces: dict[str, Living]) -> None:
        self.entries = entries
        self.spaces = spaces

    def copy(self) -> State:
        return State(dict(self.entries), dict(self.spaces))

    def living(self, id: str, key: bytes, now: int) -> Value | None:
        value = self.entries.get((id, key))
        return None if value is None or (value.expires_at is not None and value.expires_at <= now) else value

    def resolve(self, alias: Alias) -> Living | None:
        return next((space for space in self.spaces.values() if alias in space.aliases), None)


class WriteAll(Struct, frozen=True):
    """A job: writes to the space with this ULID. The first of the numbers is the space's own."""

    id: str
    writes: tuple[Write, ...]


class Create(Struct, frozen=True):
    """A job: a space under an alias."""

    space: Space
    alias: Alias


class Alter(Struct, frozen=True):
    """A job: rename a space, add an alias."""

    id: str
    name: str
    alias: Alias


class End(Struct, frozen=True):
    """A job: end a space."""

    id: str


Job = WriteAll | Create | Alter | End

_numbers = itertools.count(1)


class Group:
    """Jobs that one process commits together, at one instant."""

    def __init__(self, jobs: Sequence[Job], now: int, floor: int, epoch: int) -> None:
        self.number = next(_numbers)
        self.jobs = jobs
        self.now = now
        #: The highest versionstamp and the latest epoch that anyone knew before
        self.floor = floor
        self.epoch = epoch


class World:
    """One history that is possible."""

    def __init__(self, state: State, pending: tuple[Group, ...], outcomes: dict[int, list[Any]]) -> None:
        self.state = state
        #: Groups that may yet take effect
        self.pending = pending
        #: What the callers of those that have taken effect must be told, by the group's number
        self.outcomes = outcomes

    @property
    def identity(self) -> tuple[object, ...]:
        return (*self.outcomes, None, *(group.number for group in self.pending))

    def without(self, groups: Iterable[Group]) -> World:
        gone = set(groups)
        return World(self.state, tuple([group for group in self.pending if group not in gone]), self.outcomes)

    def after(self, group: Group, stamps: dict[bytes, int]) -> World:
        """The same, in which this group has taken effect by now."""
        state = self.state.copy()
        told = [_apply(state, job, group.now, stamps) for job in group.jobs]
        rest = tuple([other for other in self.pending if other is not group])
        return World(state, rest, self.outcomes | {group.number: told})


class Model:
    """All histories that are possible, and the numbers that are known."""

    def __init__(self) -> None:
        self.worlds = [World(State({}, {}), (), {})]
        #: Groups whose process can do nothing for them any more
        self._adrift: set[Group] = set()
        self.numbers: dict[str, int] = {"": SYSTEM_SPACE}
        #: The versionstamp of each text that was ever set, as far as anybody was told
        self.stamps: dict[bytes, int] = {}
        self._owner_of_stamp: dict[int, object] = {}
        self.highest = 0
        self.epoch = 0
        self._least_epoch = 0

    def begin(self, jobs: Sequence[Job], now: int) -> Group:
        """These jobs may take effect from now on."""
        group = Group(jobs, now, self.highest, self.epoch)
        self.worlds = [World(world.state, (*world.pending, group), world.outcomes) for world in self.worlds]
        return group

    def acknowledge(self, group: Group, answers: list[Any]) -> None:
        """The callers were told these outcomes, so it has taken effect for good."""
        worlds = [world for world in self._futures() if group.number in world.outcomes]
        self._keep(
            (world for world in worlds if self._agree(world.outcomes[group.number], answers)),
            lambda: f"told {answers}; right would have been {[world.outcomes[group.number] for world in worlds]}",
        )
        self._learn(group, answers)
        self.settle()

    def refuse(self, group: Group) -> None:
        """The callers were told that nothing happened."""
        self._keep(
            (world.without([group]) for world in self.worlds if group in world.pending),
            lambda: "told that nothing happened, but it had been read",
        )

    def set_adrift(self, group: Group) -> None:
        """Nobody will be told; whether it takes effect is seen later."""
        self._adrift.add(group)

    def settle(self) -> None:
        """What is adrift and has not taken effect by now never will."""
        if self._adrift:
            self._keep([world.without(self._adrift) for world in self._futures()], lambda: "")
            self._adrift.clear()

    def read(self, agrees: Callable[[State], bool], what: Callable[[], str]) -> None:
        """Somebody has read something that agrees with these states only."""
        self._keep((world for world in self._futures() if agrees(world.state)), what)

    def _futures(self) -> list[World]:
        """What the worlds are or may have become by now."""
        if not any(world.pending for world in self.worlds):
            return self.worlds
        found: dict[tuple[object, ...], World] = {}
        waiting = list(self.worlds)
        for world in waiting:
            if world.identity not in found:
                found[world.identity] = world
                waiting += [world.after(group, self.stamps) for group in world.pending]
        return list(found.values())

    def read_epoch(self, epoch: int) -> None:
        """Somebody has read the epoch."""
        if epoch < self.epoch:
            raise Violation(f"the epoch went back from {self.epoch} to {epoch}")
        if epoch < self._least_epoch:
            raise Violation(f"the epoch is {epoch} still, after a change was acknowledged that had to move it")
        self.epoch = epoch

    def know_stamp(self, text: bytes, stamp: int, owner: object) -> None:
        """Somebody was told the versionstamp of this text. `owner`: what else may have the same one."""
        if self.stamps.setdefault(text, stamp) != stamp:
            raise Violation(f"{text!r} had the versionstamp {self.stamps[text]}, now it has {stamp}")
        if self._owner_of_stamp.setdefault(stamp, owner) != owner:
            raise Violation(f"the versionstamp {stamp} was given twice")
        self.highest = max(self.highest, stamp)

    def know_number(self, space: Space) -> None:
        """Somebody was told the number of a space."""
        if self.numbers.setdefault(space.id, space.number) != space.number:
            raise Violation(f"the space {space.id} had another number before")
        if list(self.numbers.values()).count(space.number) > 1:
            raise Violation(f"the number {space.number} was given to two spaces")
        self.highest = max(self.highest, space.number)

    def _keep(self, worlds: Iterable[World], what: Callable[[], str]) -> None:
        left = {world.identity: world for world in worlds}
        if not left:
            raise Violation(f"{what()}; possible: {[vars(world.state) for world in self.worlds]}")
        self.worlds = list(left.values())

    def _agree(self, expected: list[Any], answers: list[Any]) -> bool:
        return all(_agrees(right, told) for right, told in zip(expected, answers, strict=True))

    def _learn(self, group: Group, answers: list[Any]) -> None:
        last = group.floor
        for job, answer in zip(group.jobs, answers, strict=True):
            if isinstance(job, Create):
                self.know_number(answer)
                continue
            if not isinstance(job, WriteAll):
                self._moved(group, answer is True or (isinstance(answer, Space) and answer.id == job.id))
                continue
            for write, outcome in zip(job.writes, answer, strict=True):
                if not isinstance(outcome, Commit):
                    continue
                if outcome.versionstamp < last or outcome.versionstamp == group.floor:
                    raise Violation(f"the versionstamp {outcome.versionstamp} does not follow {last}")
                last = outcome.versionstamp
                for text in texts_of(write):
                    self.know_stamp(text, outcome.versionstamp, job)
                self._moved(group, write.space == SYSTEM_SPACE)

    def _moved(self, group: Group, moved: bool) -> None:
        if moved:
            self._least_epoch = max(self._least_epoch, group.epoch + 1)


def texts_of(write: Write) -> list[bytes]:
    """What a write sets."""
    return [mutation.value for mutation in write.mutations if isinstance(mutation, Set)]


def _apply(state: State, job: Job, now: int, stamps: dict[bytes, int]) -> Any:
    """What the caller must be told: outcomes of writes, (ULID, name) of a space, None, or whether it was there."""
    if isinstance(job, WriteAll):
        return [_write(state, job.id, write, now, stamps) for write in job.writes]
    if isinstance(job, Create):
        taken = state.resolve(job.alias)
        if taken is None:
            taken = state.spaces[job.space.id] = Living(job.space.id, job.space.name, frozenset([job.alias]))
        return (taken.id, taken.name)
    space = state.spaces.get(job.id)
    if isinstance(job, End):
        if space is not None:
            del state.spaces[job.id]
            _clear(state, job.id)
        return space is not None
    if space is None:
        return None
    taken = state.resolve(job.alias)
    if taken is None or taken.id == job.id:
        taken = state.spaces[job.id] = Living(job.id, job.name, space.aliases | {job.alias})
    return (taken.id, taken.name)


def _write(state: State, id: str, write: Write, now: int, stamps: dict[bytes, int]) -> Any:
    if id and id not in state.spaces:
        return NotFound
    unmet: list[tuple[bytes, int | None]] = []
    for condition in write.conditions:
        assert isinstance(condition, Check | Present)
        value = state.living(id, condition.key, now)
        # A versionstamp that nobody knows is not the one that somebody asks for.
        actual = None if value is None else stamps.get(value.text, -1)
        if not (actual == condition.versionstamp if isinstance(condition, Check) else value is not None):
            unmet.append((condition.key, actual))
    if unmet:
        return unmet
    return Commit(-1, tuple([_mutate(state, id, mutation, now) for mutation in write.mutations]))


def _mutate(state: State, id: str, mutation: object, now: int) -> int:
    if isinstance(mutation, DeleteRange):
        count = sum(state.living(id, key, now) is not None for of, key in state.entries if of == id)
        _clear(state, id)
        return count
    assert isinstance(mutation, Set | Delete)
    before = state.living(id, mutation.key, now) is not None
    if isinstance(mutation, Set):
        state.entries[id, mutation.key] = Value(mutation.value, mutation.expires_at)
    else:
        state.entries.pop((id, mutation.key), None)
    return int(before)


def _clear(state: State, id: str) -> None:
    for place in [place for place in state.entries if place[0] == id]:
        del state.entries[place]


def _agrees(right: Any, told: Any) -> bool:
    """Whether a caller was told the right thing. Versionstamps are looked at elsewhere."""
    if isinstance(told, list):
        return len(told) == len(right) and all(_agrees(*pair) for pair in zip(right, told, strict=True))
    if isinstance(told, Space):
        return bool((told.id, told.name) == right)
    if isinstance(told, Commit):
        return isinstance(right, Commit) and told.counts == right.counts
    if isinstance(told, Conflict):
        found = [(told.key, told.versionstamp)]
        return isinstance(right, list) and (right == found or right == [(told.key, -1)])
    return type(told) is right or (told is right)
