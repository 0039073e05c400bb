"""Whether a recorded history of one key could have happened one operation at a time.

Linearizability after Herlihy and Wing: every operation takes effect at one instant between its call and its answer.
Keys are independent of each other, so each is judged alone. Keys that are read and written together are one register
whose value is a tuple, of which an operation may also read or write one member. The algorithm is Wing and Gong's search
with Lowe's just-in-time linearization ("Testing for linearizability", 2017): going through calls and answers in the
order of time, it keeps every configuration that explains the past, the register's value with the calls that have taken
effect before they were answered, and chooses the order of waiting operations only when an answer asks for it. Equal
configurations are kept once.

A write without a known outcome may take effect at any time after its call, or never. One whose value nobody ever found
is left out, since that explains as much. The others wait for ever, and a configuration is dropped when another one has
the same value and has spent fewer of them: what can follow the former can follow the latter.
"""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

#: The value of an absent key
ABSENT = None

Value = int | None | tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class Operation:
    """One call on a key, by one client, with what was answered.

    A read found `value`; a write set it; a compare-and-set did so because the register held `expected`. `answered` is
    None when nobody knows whether a write or compare-and-set happened. What certainly did not happen is no part of a
    history, but a compare-and-set that was refused is a read of what it found.
    """

    kind: Literal["read", "write", "cas"]
    key: str
    value: Value
    #: Any clock that only grows
    called: int
    answered: int | None
    expected: Value = ABSENT
    #: Which member of the register's tuple it concerns; None: the whole
    member: int | None = None

    def after(self, value: Value) -> tuple[Value] | None:
        """What the register holds afterwards if it held `value` before; None: the answer contradicts that."""
        held = value[self.member] if self.member is not None and isinstance(value, tuple) else value
        if self.kind != "write" and held != (self.value if self.kind == "read" else self.expected):
            return None
        if self.member is None or not isinstance(value, tuple):
            return (self.value,)
        return ((*value[: self.member], self.value, *value[self.member + 1 :]),)  # type: ignore[arg-type]


Configuration = tuple[Value, frozenset[Operation]]


def violation(history: Iterable[Operation], *, first: Value = ABSENT) -> Operation | None:
    """The first answer, by time, that no order of the operations of its key explains; None: the history is sound.

    Keys held `first` in the beginning.
    """
    keys: dict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        keys[operation.key].append(operation)
    found = [wrong for operations in keys.values() if (wrong := _judge(operations, first)) is not None]
    return min(found, key=lambda operation: operation.answered or 0, default=None)


def _judge(operations: list[Operation], first: Value) -> Operation | None:
    found = {atom for each in operations if each.kind == "read" for atom in _atoms(each.value)}
    found |= {atom for each in operations if each.kind == "cas" for atom in _atoms(each.expected)}
    operations = [each for each in operations if each.answered is not None or found & _atoms(each.value)]
    # At the same instant, calls come first: such operations overlap.
    events = [(operation.called, 0, n) for n, operation in enumerate(operations)]
    events += [(operation.answered, 1, n) for n, operation in enumerate(operations) if operation.answered is not None]
    waiting: set[Operation] = set()
    past: list[Configuration] = [(first, frozenset())]
    for _, is_answer, n in sorted(events):
        if not is_answer:
            waiting.add(operations[n])
            continue
        past = _explained(operations[n], past, waiting)
        if not past:
            return operations[n]
        waiting.remove(operations[n])
        # What took effect in every configuration waits no longer, although its own answer never comes.
        settled = frozenset.intersection(*(_spent(done) for _, done in past))
        waiting -= settled
        past = [(value, done - settled) for value, done in past]
    return None


def _atoms(value: Value) -> set[int | None]:
    return set(value) if isinstance(value, tuple) else {value}


def _explained(answer: Operation, before: list[Configuration], waiting: set[Operation]) -> list[Configuration]:
    """Every configuration in which the answered operation, and perhaps waiting ones before it, took effect."""
    unexplored = deque(before)
    seen = _Seen()
    after = _Seen()
    while unexplored:
        value, done = unexplored.popleft()
        if answer in done:
            after.add((value, done - {answer}))
            continue
        for operation in waiting - done:
            if (result := operation.after(value)) is not None:
                configuration = (result[0], done | {operation})
                if seen.add(configuration):
                    unexplored.append(configuration)
    return after.all()


def _spent(done: frozenset[Operation]) -> frozenset[Operation]:
    return frozenset(operation for operation in done if operation.answered is None)


class _Seen:
    """Configurations, each once and none that another one makes needless."""

    def __init__(self) -> None:
        self._spent: dict[Configuration, list[frozenset[Operation]]] = defaultdict(list)

    def add(self, configuration: Configuration) -> bool:
        """Whether it is new and not needless."""
        value, done = configuration
        spent = _spent(done)
        others = self._spent[value, done - spent]
        if any(other <= spent for other in others):
            return False
        others[:] = [other for other in others if not spent <= other]
        others.append(spent)
        return True

    def all(self) -> list[Configuration]:
        return [(value, known | spent) for (value, known), choices in self._spent.items() for spent in choices]


def with_a_stale_read(history: list[Operation]) -> list[Operation]:
    """The history with one read, from its middle, that finds what had been overwritten long before."""
    for at in range(len(history) // 2, len(history)):
        late = history[at]
        if late.kind != "read" or late.answered is None:
            continue
        done = [each for each in history if each.key == late.key and (each.answered or late.called) < late.called]
        writes = sorted((each for each in done if each.kind == "write"), key=lambda each: each.called)
        for first, second in itertools.pairwise(writes):
            # A key may be absent again and again; a value is there once.
            if first.value != ABSENT and (first.answered or 0) < second.called:
                return [*history[:at], replace(late, value=first.value), *history[at + 1 :]]
    raise AssertionError("no read could be made stale")


def with_a_torn_read(history: list[Operation]) -> list[Operation]:
    """The history with one read of a whole tuple, from its middle, that finds a write of all members by half."""
    whole = [each for each in history if each.kind == "write" and each.member is None and each.answered is not None]
    for at in range(len(history) // 2, len(history)):
        read = history[at]
        if read.kind != "read" or read.member is not None or not isinstance(read.value, tuple):
            continue
        before = [each for each in whole if (each.answered or 0) < read.called and isinstance(each.value, tuple)]
        for one in before:
            if read.value[0] == one.value[0] and read.value[1:] == one.value[1:]:  # type: ignore[index]
                other = next(each for each in before if each is not one)
                torn = (read.value[0], *other.value[1:])  # type: ignore[index]
                return [*history[:at], replace(read, value=torn), *history[at + 1 :]]
    raise AssertionError("no read could be torn")
