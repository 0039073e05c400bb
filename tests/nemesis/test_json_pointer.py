"""The order of all values in a KV_FIND by a JSON Pointer, and what it costs to compare with one value many times."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from kvasir.dialects.nemesis import json_pointer
from kvasir.dialects.nemesis.json_pointer import Operand
from kvasir.limits import NemesisLimits
from tests.support.nemesis import client, local

#: Each is less than the next.
ASCENDING: list[Any] = [
    *(None, False, True, -1, 0, 0.5, 1, 2**63),
    *({}, {"a": None}, {"a": 1}, {"b": 0, "a": 1}, {"a": 1, "c": 0}, {"a": {}}, {"a": {"b": [1]}}, {"a": {"b": [2]}}),
    *({"b": 0}, {"é": 0}, {"￿": 0}, {"😀": 0}),
    *([], [None], [None, 0], [1], [1, 2], [2], [{}], [[]], [[], 0], [""]),
    *("", "a", "aa", "b", "é", "\uffff", "😀"),
]


def spend_nothing(_: int) -> None:
    pass


def test_the_order_of_all_values() -> None:
    operands = [Operand(value) for value in ASCENDING]
    for less, greater in combinations(range(len(ASCENDING)), 2):
        assert operands[greater].order(ASCENDING[less], spend_nothing) == -1, (ASCENDING[less], ASCENDING[greater])
        assert operands[less].order(ASCENDING[greater], spend_nothing) == 1, (ASCENDING[less], ASCENDING[greater])
    for value, operand in zip(ASCENDING, operands, strict=True):
        assert operand.order(value, spend_nothing) == 0


def test_what_is_compared_with_is_sorted_once_however_many_values_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    sort = json_pointer._sorted_parts

    def counted(value: dict[str, Any]) -> list[Any]:
        sizes.append(len(value))
        return sort(value)

    monkeypatch.setattr(json_pointer, "_sorted_parts", counted)
    spent: list[int] = []
    operand = Operand({f"m{number * 7_919 % 40_000}": number for number in range(40_000)})
    for _ in range(500):
        assert operand.order({}, spent.append) == -1
    assert not sizes, "the lengths decide"
    for _ in range(500):
        assert operand.order({"m": 0}, spent.append) == -1
    assert sorted(sizes) == [1] * 500 + [40_000]
    assert sum(spent) == 40_000 + 500 * 2


def test_what_is_compared_is_paid_for_before_it_is() -> None:
    class Spent(Exception):
        pass

    left = 0

    def spend(steps: int) -> None:
        nonlocal left
        left -= steps
        if left < 0:
            raise Spent

    many = {f"m{number}": number for number in range(1_000)}
    for value, cost in ((many, 3_000), (list(range(1_000)), 2_000), ("x" * 64_000, 1_000), ([many, many], 4 + 5_000)):
        left = cost
        assert Operand(value).order(value, spend) == 0
        assert left == 0
        left = cost - 1
        with pytest.raises(Spent):
            Operand(value).order(value, spend)


def test_a_search_by_a_pointer_ends_when_its_steps_are_spent() -> None:
    many = {f"m{number}": 0 for number in range(1_000)}
    with local(commands=NemesisLimits(path_steps=10_000)) as server, client(server.url) as caller:
        token = caller.session()
        caller.do("KV_SET", tkn=token, keys={"a": many, "b": {}})
        assert caller.do("KV_FIND", tkn=token, path="", **{"==": many})["keys"] == ["a"]
        caller.do("KV_SET", tkn=token, keys=dict.fromkeys("cdefg", many))
        refused = caller.do("KV_FIND", tkn=token, path="", **{"==": many})
        assert (refused["st"], "10,000 steps" in refused["m"]) == (42, True)
