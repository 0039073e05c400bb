"""The judge of histories itself: histories known to be linearizable pass, and those known not to be are found out."""

from __future__ import annotations

import itertools
import random

import pytest

from tests.support.faults.linearizable import ABSENT, Operation, Value, violation, with_a_stale_read


def write(value: Value, called: int, answered: int | None, key: str = "k") -> Operation:
    return Operation("write", key, value, called, answered)


def read(value: Value, called: int, answered: int, key: str = "k") -> Operation:
    return Operation("read", key, value, called, answered)


def cas(expected: Value, value: Value, called: int, answered: int | None) -> Operation:
    return Operation("cas", "k", value, called, answered, expected)


SOUND = {
    "nothing": [],
    "one after the other": [read(ABSENT, 0, 1), write(1, 2, 3), read(1, 4, 5), cas(1, 2, 6, 7), read(2, 8, 9)],
    "a read beside a write sees the old value": [write(1, 0, 1), write(2, 2, 9), read(1, 3, 4), read(2, 5, 6)],
    "two writes in the order the reads tell": [write(1, 0, 9), write(2, 0, 9), read(2, 10, 11)],
    "a write of unknown outcome that never happened": [write(1, 0, 1), write(2, 2, None), read(1, 3, 4)],
    "a write of unknown outcome that happened late": [write(2, 0, None), write(1, 1, 2), read(1, 3, 4), read(2, 5, 6)],
    "one of two compare-and-sets wins": [cas(ABSENT, 1, 0, 9), read(1, 0, 9), read(1, 10, 11)],
    "a compare-and-set without an answer": [write(1, 0, 1), cas(1, 2, 2, None), read(1, 3, 4), read(2, 5, 6)],
    "a chain of waiting operations": [cas(2, 3, 0, 9), cas(1, 2, 0, 9), cas(ABSENT, 1, 0, 9), read(3, 8, 9)],
    "keys are apart": [write(1, 0, 1), read(ABSENT, 2, 3, key="other")],
    "at the same instant means at once": [write(1, 0, 5), read(ABSENT, 5, 6)],
}

WRONG = {
    "a stale read": ([write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)], 2),
    "a lost write": ([write(1, 0, 1), read(ABSENT, 2, 3)], 1),
    "a value out of nowhere": ([write(1, 0, 1), read(7, 2, 3)], 1),
    "back and forth": ([write(1, 0, 1), write(2, 2, 9), read(2, 3, 4), read(1, 5, 6)], 3),
    "two winners": ([write(0, 0, 1), cas(0, 1, 2, 9), cas(0, 2, 3, 8)], 1),
    "a compare-and-set of what nobody set": ([write(0, 0, 1), cas(1, 2, 3, 4)], 1),
    "an unknown outcome twice": ([write(2, 0, None), read(2, 1, 2), write(1, 3, 4), read(2, 5, 6)], 3),
    "read before it was called": ([read(1, 0, 1), write(1, 2, None)], 0),
    "two readers who disagree": (
        [write(1, 0, 9), write(2, 0, 9), read(1, 10, 11), read(2, 12, 13)],
        3,
    ),
}


@pytest.mark.parametrize("name", SOUND)
def test_a_history_that_could_have_happened(name: str) -> None:
    assert violation(SOUND[name]) is None


@pytest.mark.parametrize("name", WRONG)
def test_a_history_that_could_not(name: str) -> None:
    history, culprit = WRONG[name]
    assert violation(history) is history[culprit]


def brute_force(history: list[Operation]) -> bool:
    """Whether some order explains it, by trying all: the definition, word by word."""
    known = [operation for operation in history if operation.answered is not None]
    unknown = [operation for operation in history if operation.answered is None]
    for size in range(len(unknown) + 1):
        for happened in itertools.combinations(unknown, size):
            if any(_explains(order) for order in itertools.permutations([*known, *happened])):
                return True
    return False


def _explains(order: tuple[Operation, ...]) -> bool:
    value: Value = ABSENT
    for at, operation in enumerate(order):
        if any(later.answered is not None and later.answered < operation.called for later in order[at + 1 :]):
            return False
        result = operation.after(value)
        if result is None:
            return False
        (value,) = result
    return True


def test_it_agrees_with_the_definition_on_small_random_histories() -> None:
    chance = random.Random(5)
    verdicts = []
    for _ in range(400):
        history = []
        for value in range(1, 6):
            called = chance.randrange(12)
            kind = chance.choice(["read", "write", "cas"])
            answered = None if kind != "read" and chance.random() < 0.3 else called + chance.randrange(8)
            found = chance.choice([ABSENT, 1, 2, 3, 4, 5]) if kind == "read" else value
            expected = chance.choice([ABSENT, 1, 2, 3])
            history.append(Operation(kind, "k", found, called, answered, expected))  # type: ignore[arg-type]
        verdicts.append(brute_force(history))
        assert (violation(history) is None) == verdicts[-1], history
    assert 40 < sum(verdicts) < 360


def random_history(length: int, clients: int) -> list[Operation]:
    """What clients of a faultless register record: each operation takes effect between its call and its answer."""
    chance = random.Random(length)
    value: Value = ABSENT
    free = [0] * clients
    history: list[Operation] = []
    instant = 0
    for n in range(length):
        client = chance.randrange(clients)
        instant = max(instant, free[client]) + chance.randrange(1, 20)
        called = chance.randint(free[client], instant)
        answered = instant + chance.randrange(1, 100)
        free[client] = answered + 1
        kind = chance.choice(["read", "write", "cas"])
        if kind == "read":
            history.append(read(value, called, answered))
            continue
        unknown = chance.random() < 0.05
        end = None if unknown else answered
        history.append(write(n, called, end) if kind == "write" else cas(value, n, called, end))
        if not (unknown and chance.random() < 0.5):
            value = n
    return history


def test_a_long_history_with_many_unknown_outcomes_is_judged_and_one_altered_read_is_found() -> None:
    history = random_history(6_000, 8)
    assert sum(operation.answered is None for operation in history) > 150
    assert violation(history) is None
    altered = with_a_stale_read(history)
    assert violation(altered) is not None


def pair(kind: str, value: object, called: int, answered: int | None, *, member: int | None = None) -> Operation:
    return Operation(kind, "k", value, called, answered, member=member)  # type: ignore[arg-type]


PAIRS_SOUND = {
    "both together": [pair("write", (1, 2), 0, 1), pair("read", (1, 2), 2, 3)],
    "one by itself": [
        pair("write", (1, 2), 0, 1),
        pair("write", 3, 2, 3, member=1),
        pair("read", (1, 3), 4, 5),
        pair("read", 3, 6, 7, member=1),
    ],
    "half of what is under way, by a write of the other half": [
        pair("write", (1, 2), 0, 9),
        pair("write", 3, 0, 9, member=0),
        pair("read", (3, 2), 10, 11),
    ],
    "of unknown outcome, found in one member": [
        pair("write", (1, 2), 0, None),
        pair("write", 3, 1, 2, member=0),
        pair("read", (3, 2), 3, 4),
    ],
}
PAIRS_WRONG = {
    "a torn write": [pair("write", (1, 2), 0, 9), pair("read", (1, None), 1, 2)],
    "a torn read": [pair("write", (1, 2), 0, 1), pair("write", (3, 4), 2, 3), pair("read", (3, 2), 4, 5)],
    "a member of a write undone": [pair("write", (1, 2), 0, 1), pair("read", None, 2, 3, member=1)],
}


@pytest.mark.parametrize("name", PAIRS_SOUND)
def test_a_history_of_pairs_that_could_have_happened(name: str) -> None:
    assert violation(PAIRS_SOUND[name], first=(None, None)) is None


@pytest.mark.parametrize("name", PAIRS_WRONG)
def test_a_history_of_pairs_that_could_not(name: str) -> None:
    assert violation(PAIRS_WRONG[name], first=(None, None)) is PAIRS_WRONG[name][-1]
