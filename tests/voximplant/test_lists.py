"""The two list methods: which items, in what order, how many, and how to go on."""

from __future__ import annotations

from typing import Any

import pytest

from kvasir.dialects.voximplant import Settings
from kvasir.dialects.voximplant.commands import SCAN_ENTRIES
from kvasir.limits import Limits
from tests.support.voximplant import NOW, World, settings_with

LISTS = ("GetKeyValueItems", "GetKeyValueKeys")


def filled(*keys: str, settings: Settings | None = None) -> World:
    world = World(settings)
    for key in keys:
        world.result("SetKeyValueItem", key=key, value=f"value of {key}", ttl=100)
    return world


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["key"] for item in items]


def test_items_and_keys_as_documented() -> None:
    world = filled("test", "test:1")
    documented = [
        {"key": "test", "value": "value of test", "expires_at": NOW + 100},
        {"key": "test:1", "value": "value of test:1", "expires_at": NOW + 100},
    ]
    answer = world.call("GetKeyValueItems", key="test")
    for item, expected in zip(answer["result"], documented, strict=True):
        assert item.items() >= expected.items()
    for item, expected in zip(world.result("GetKeyValueKeys", key="test"), documented, strict=True):
        assert item.items() >= {"key": expected["key"], "expires_at": expected["expires_at"]}.items()
        assert "value" not in item


@pytest.mark.parametrize("method", LISTS)
def test_node_finds_the_list_beside_the_result(method: str) -> None:
    answer = filled("a1", "a2", "b").call(method, key="a", count=1)
    assert answer["items"] == answer["result"]
    assert names(answer["items"]) == ["a1"]
    assert (answer["count"], answer["total_count"]) == (1, 2)


@pytest.mark.parametrize("method", LISTS)
@pytest.mark.parametrize(
    ("pattern", "mode", "found"),
    [
        ("test", "prefix", ["test", "test:1", "test:2", "testing:1"]),
        ("test", "namespace", ["test", "test:1", "test:2"]),
        ("test:", "prefix", ["test:1", "test:2"]),
        ("test:", "namespace", ["test:1", "test:2"]),
        ("test:1", "namespace", ["test:1"]),
        ("Test", "prefix", ["Test:1"]),
        (".#+", "prefix", []),
        ("te", "namespace", []),
        ("ё", "prefix", ["ёж"]),
    ],
)
def test_pattern(method: str, pattern: str, mode: Any, found: list[str]) -> None:
    world = filled(
        "test", "test:1", "test:2", "testing:1", "Test:1", "te.st", "ёж", settings=settings_with(pattern=mode)
    )
    answer = world.call(method, key=pattern)
    assert names(answer["result"]) == found
    assert answer["total_count"] == len(found)


def test_keys_without_a_pattern_are_all() -> None:
    world = filled("b", "a", "Я", "ё")
    assert names(world.result("GetKeyValueKeys")) == ["a", "b", "Я", "ё"]
    assert names(world.result("GetKeyValueKeys", key="")) == ["a", "b", "Я", "ё"]


def test_nothing_found_is_an_empty_list() -> None:
    assert World().call("GetKeyValueItems", key="x") == {"result": [], "items": [], "count": 0, "total_count": 0}


@pytest.mark.parametrize("method", LISTS)
@pytest.mark.parametrize(
    ("given", "code", "shown"),
    [
        ({}, None, range(10)),
        ({"count": 0}, None, range(0)),
        ({"count": 50}, None, range(50)),
        ({"count": 51}, None, range(50)),
        ({"count": 10**18}, None, range(50)),
        ({"offset": 0, "count": 3}, None, range(3)),
        ({"offset": 57}, None, range(57, 60)),
        ({"offset": 60}, None, range(0)),
        ({"offset": 10**18}, None, range(0)),
        ({"count": -1}, 497, range(0)),
        ({"offset": -1}, 497, range(0)),
        ({"count": "many"}, 496, range(0)),
        ({"offset": "1.0"}, 496, range(0)),
        ({"cursor": "nonsense"}, 496, range(0)),
        ({"cursor": "MTpr", "offset": 1}, 458, range(0)),
    ],
    ids=ascii,
)
def test_count_and_offset(method: str, given: dict[str, Any], code: int | None, shown: range) -> None:
    everything = [f"k{number:02}" for number in range(60)]
    world = filled(*everything)
    answer = world.call(method, key="k", **given)
    if code is not None:
        assert answer["error"]["code"] == code
        return
    assert names(answer["result"]) == [everything[number] for number in shown]
    assert (answer["count"], answer["total_count"]) == (len(shown), 60)
    assert ("next_cursor" in answer) == (bool(shown) and shown[-1] < 59)


def test_a_count_out_of_range_is_told_the_largest_page() -> None:
    error = filled("a").call("GetKeyValueKeys", count=-1)["error"]
    assert "in range of 0..50" in error["msg"]
    assert filled("a").call("GetKeyValueKeys", count="9" * 100)["count"] == 1


def test_default_and_largest_page_are_settings() -> None:
    world = filled(*(f"k{number}" for number in range(9)), settings=settings_with(page_default=3, page_maximum=5))
    assert world.call("GetKeyValueKeys")["count"] == 3
    assert world.call("GetKeyValueKeys", count=9)["count"] == 5


@pytest.mark.parametrize("method", LISTS)
@pytest.mark.parametrize("count", [1, 7, 50])
def test_cursor_neither_skips_nor_repeats(method: str, count: int) -> None:
    lasting = [f"k{number:03}" for number in range(60)]
    world = filled(*lasting)
    seen: list[str] = []
    answer = world.call(method, key="k", count=count)
    while True:
        seen += names(answer["result"])
        # Entries come and go around the cursor, the one it stands on included.
        world.result("SetKeyValueItem", key=f"{seen[-1][:4]}:new", value="")
        world.result("DelKeyValueItem", key=seen[-1])
        world.result("SetKeyValueItem", key="k#before", value="")
        if "next_cursor" not in answer:
            break
        answer = world.call(method, key="k", count=count, cursor=answer["next_cursor"])
        assert answer["total_count"] == 60
    assert [key for key in seen if ":" not in key] == lasting
    assert len(seen) == len(set(seen))


def test_total_counts_what_can_be_addressed_and_nothing_else() -> None:
    """Across several of the pages the listing reads, with entries of other APIs in between."""
    world = World()
    for number in range(SCAN_ENTRIES + 50):
        world.put(f"k{number:03}", value=b'"v"')
        if number % 3 == 0:
            world.put(f"k{number:03}", "part", value=b'"v"')
            world.put(f"k{number:03} ", value=b'"v"')
            world.put(f"k{number:03}!", value=b'"v"')
            world.put(f"k{number:03}:long", value=b'"' + b"v" * 2_001 + b'"')
    for offset in (0, 45, 145):
        answer = world.call("GetKeyValueItems", key="k", offset=offset, count=50)
        assert answer["total_count"] == SCAN_ENTRIES + 50
        assert names(answer["result"]) == [f"k{number:03}" for number in range(offset, min(offset + 50, 150))]


def test_a_page_of_too_many_bytes_is_refused_and_never_shortened() -> None:
    """A client that pages by offset would miss the items that are left out."""
    world = World(limits=Limits(page_bytes=100))
    for number in range(6):
        world.result("SetKeyValueItem", key=f"a{number}", value="x" * 38)  # 40 bytes of JSON
    assert len(world.result("GetKeyValueItems", key="a", count=2)) == 2
    pages: list[dict[str, Any]] = [{"count": 3}, {}, {"count": 3, "offset": 2}]
    for page in pages:
        error = world.call("GetKeyValueItems", key="a", **page)["error"]
        assert (error["code"], error["field_name"], error["reason"]) == (101, "count", "too_large")
    assert len(world.result("GetKeyValueKeys", key="a")) == 6
    world.result("SetKeyValueItem", key="b", value="x" * 150)
    assert len(world.result("GetKeyValueItems", key="b")) == 1
