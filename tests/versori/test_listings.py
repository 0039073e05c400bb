"""ListKV and CountKV: order, pages and cursors, and every option and filter by its name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from kvasir.dialects.versori import cursor
from tests.support.clock import ManualClock
from tests.support.versori import Api

EVIL_CURSORS = [
    "a",
    "products/1",
    "AAAAAAAAAAAAAAAAAAAA",
    "====================",
    "é" * 20,
    "A" * 20_000,
    "\x00" * 20,
]


@pytest.fixture
def numbers(api: Api) -> Api:
    """Keys n/00 to n/09, in this order, a second apart."""
    for number in range(10):
        api.set(f"n/{number:02}", number)
        api.clock.advance(1000)
    return api


def names(numbers: Sequence[int]) -> list[str]:
    return [f"n/{number:02}" for number in numbers]


def walk(api: Api, selector: dict[str, Any], name: str = "after", **options: Any) -> list[list[str]]:
    """The pages from here on, following cursors as a client does."""
    pages = []
    pagination = {"after": "nextCursor", "before": "prevCursor"}
    while True:
        answer = api.page(selector, **options)
        assert answer.status == 200, answer.text
        pages.append(["/".join(entry["key"]) for entry in answer.json["data"]])
        position = answer.json["pagination"][pagination[name]]
        if not position:
            return pages
        selector = {**selector, name: position}


def cursors(api: Api, selector: dict[str, Any] | None = None, **options: Any) -> tuple[str, str]:
    """(prevCursor, nextCursor) of a page."""
    pagination = api.page(selector, **options).json["pagination"]
    assert set(pagination) == {"nextCursor", "prevCursor"}
    return pagination["prevCursor"], pagination["nextCursor"]


# -- order and pages --------------------------------------------------------------------------------------


def test_the_newest_created_come_first_whatever_their_keys(api: Api) -> None:
    for rest in ("b", "c", "a"):
        api.set(rest)
    api.set("b", "again")
    assert api.listed() == ["a", "c", "b"]


def test_a_deleted_or_expired_key_that_is_set_again_is_new(api: Api) -> None:
    api.set("a", expireIn=5)
    api.set("b")
    api.set("c")
    api.call("DELETE", "b")
    api.clock.advance(5)
    api.set("a")
    api.set("b")
    assert api.listed() == ["b", "a", "c"]


def test_reverse(numbers: Api) -> None:
    assert numbers.listed(reverse=True) == names(range(10))
    assert walk(numbers, {}, reverse=True, limit=4) == [names(range(4)), names(range(4, 8)), names(range(8, 10))]
    assert numbers.listed(reverse=False) == names(range(9, -1, -1))
    assert numbers.page(reverse="yes").refusal() == (400, "invalid", ["options.reverse"])


def test_limit(numbers: Api) -> None:
    assert numbers.listed(limit=3) == names([9, 8, 7])
    assert numbers.listed(limit=2.0) == names([9, 8])
    assert len(numbers.listed(limit=100)) == 10
    for wrong in (0, 101, -1, 1.5, "10", True, None, 1e300):
        assert numbers.page(limit=wrong).refusal() == (400, "invalid", ["options.limit"])


def test_limit_is_100_by_default(api: Api) -> None:
    entries = [{"key": ["k", str(number)], "value": number} for number in range(101)]
    api.call("PUT", "batch", {"entries": entries})
    answer = api.page()
    assert len(answer.json["data"]) == 100
    assert answer.json["pagination"]["nextCursor"]
    assert api.page({"after": answer.json["pagination"]["nextCursor"]}).json["data"][0]["key"] == ["k", "0"]


def test_limit_may_be_lowered_by_a_setting(clock: ManualClock) -> None:
    api = Api(clock, page_entries=2)
    for rest in "abc":
        api.set(rest)
    assert api.listed() == ["c", "b"]
    assert api.page(limit=3).refusal() == (400, "invalid", ["options.limit"])


def test_an_entry_of_a_page(api: Api) -> None:
    api.set("a/b", {"x": 1}, expireIn=1000, metadata={"m": 1})
    assert api.page().json["data"] == [
        {
            "key": ["a", "b"],
            "value": {"x": 1},
            "versionstamp": api.get("a/b").json["versionstamp"],
            "createdAt": "2025-06-15T15:06:40.000Z",
            "expiresAt": "2025-06-15T15:06:41.000Z",
            "metadata": {"m": 1},
        }
    ]


# -- cursors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
def test_after_walks_to_the_end_and_before_walks_back(numbers: Api, reverse: bool) -> None:
    order = names(range(10)) if reverse else names(range(9, -1, -1))
    assert walk(numbers, {}, limit=4, reverse=reverse) == [order[:4], order[4:8], order[8:]]
    _, first_next = cursors(numbers, limit=4, reverse=reverse)
    second_prev, second_next = cursors(numbers, {"after": first_next}, limit=4, reverse=reverse)
    assert numbers.listed({"before": second_prev}, limit=4, reverse=reverse) == order[:4]
    third_prev, third_next = cursors(numbers, {"after": second_next}, limit=4, reverse=reverse)
    assert third_next == ""
    assert walk(numbers, {"before": third_prev}, "before", limit=3, reverse=reverse) == [
        order[5:8],
        order[2:5],
        order[:2],
    ]


def test_the_only_page_has_no_cursors(numbers: Api) -> None:
    assert cursors(numbers) == ("", "")
    assert cursors(numbers, limit=10) == ("", "")
    assert cursors(numbers, {"prefix": ["nothing"]}) == ("", "")


def test_a_page_before_something_always_has_a_next_one(numbers: Api) -> None:
    _, middle = cursors(numbers, limit=5)
    first_prev, first_next = cursors(numbers, {"before": middle})
    assert first_prev == ""
    assert numbers.listed({"before": middle}) == names([9, 8, 7, 6])
    assert numbers.listed({"after": first_next}) == names([5, 4, 3, 2, 1, 0])


@pytest.mark.parametrize("reverse", [False, True])
def test_an_empty_page_before_something_leads_back_to_it(numbers: Api, reverse: bool) -> None:
    order = names(range(10)) if reverse else names(range(9, -1, -1))
    _, second = cursors(numbers, limit=1, reverse=reverse)
    assert numbers.listed({"before": second}, reverse=reverse) == []
    prev, following = cursors(numbers, {"before": second}, reverse=reverse)
    assert prev == ""
    assert numbers.listed({"after": following}, reverse=reverse) == order


@pytest.mark.parametrize("reverse", [False, True])
def test_an_empty_page_after_something_leads_back_to_it(numbers: Api, reverse: bool) -> None:
    order = names(range(10)) if reverse else names(range(9, -1, -1))
    _, position = cursors(numbers, limit=9, reverse=reverse)
    numbers.call("DELETE", order[9])
    assert numbers.listed({"after": position}, reverse=reverse) == []
    prev, following = cursors(numbers, {"after": position}, reverse=reverse)
    assert following == ""
    assert numbers.listed({"before": prev}, reverse=reverse) == order[:9]


def test_cursors_stay_good_when_entries_come_and_go(numbers: Api) -> None:
    _, there = cursors(numbers, limit=3)
    numbers.call("DELETE", "n/07")
    numbers.call("DELETE", "n/06")
    numbers.set("n/99")
    numbers.set("n/05", "replaced")
    assert numbers.listed({"after": there}) == names([5, 4, 3, 2, 1, 0])


def test_cursors_say_nothing_of_the_direction(numbers: Api) -> None:
    _, there = cursors(numbers, limit=3)
    assert numbers.listed({"after": there}, reverse=True) == names([8, 9])
    assert numbers.listed({"before": there}, reverse=True) == names(range(7))


@pytest.mark.parametrize("name", ["after", "before"])
def test_after_and_before_refuse_what_is_no_cursor(numbers: Api, name: str) -> None:
    for evil in EVIL_CURSORS:
        assert numbers.page({name: evil}).refusal() == (400, "invalid_cursor", [f"selector.{name}"])
    for wrong in (1, None, ["a"]):
        assert numbers.page({name: wrong}).refusal() == (400, "invalid", [f"selector.{name}"])


def test_a_cursor_with_any_character_changed_is_refused(numbers: Api) -> None:
    _, there = cursors(numbers, limit=3)
    for index, character in enumerate(there):
        mangled = there[:index] + ("B" if character != "B" else "C") + there[index + 1 :]
        assert numbers.page({"after": mangled}).refusal()[1] == "invalid_cursor"
    assert numbers.page({"after": there + "="}).refusal()[1] == "invalid_cursor"


@pytest.mark.parametrize("position", [0, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_cursor_that_no_entry_can_have_is_refused(api: Api, position: int) -> None:
    forged = cursor.encode(api.id, position)
    for name in ("after", "before"):
        assert api.page({name: forged}).refusal() == (400, "invalid_cursor", [f"selector.{name}"])


@pytest.mark.parametrize("position", [1, (1 << 63) - 2])
def test_a_cursor_at_either_end_is_good(api: Api, position: int) -> None:
    for selector in ({"after": cursor.encode(api.id, position)}, {"before": cursor.encode(api.id, position)}):
        assert api.page(selector).status == api.page(selector, reverse=True).status == 200


def test_a_cursor_of_another_store_is_refused(numbers: Api) -> None:
    _, there = cursors(numbers, limit=3)
    numbers.id = numbers.make_space("another").id
    numbers.set("a")
    assert numbers.page({"after": there}).refusal() == (400, "invalid_cursor", ["selector.after"])


def test_after_and_before_exclude_each_other(numbers: Api) -> None:
    _, there = cursors(numbers, limit=3)
    answer = numbers.page({"after": there, "before": there})
    assert answer.refusal() == (400, "invalid", ["selector.after", "selector.before"])


def test_an_empty_cursor_is_none(numbers: Api) -> None:
    assert numbers.listed({"after": "", "before": ""}, limit=2) == names([9, 8])


# -- prefix -----------------------------------------------------------------------------------------------


def test_prefix_matches_part_by_part_and_the_exact_key(api: Api) -> None:
    for rest in ("a", "a/b", "a/b/c", "a/bc", "ab"):
        api.set(rest)
    assert api.listed({"prefix": ["a", "b"]}) == ["a/b/c", "a/b"]
    assert api.count(["a", "b"]) == 2
    assert api.count(["a"]) == 4
    assert api.listed({"prefix": ["missing"]}) == []


def test_prefix_empty_or_missing_is_the_whole_store(numbers: Api) -> None:
    assert len(numbers.listed({"prefix": []})) == len(numbers.listed({})) == 10
    assert numbers.count([]) == numbers.count() == 10
    assert numbers.call("POST", "count", {}).json == {"count": 10}
    assert len(numbers.call("POST", "list", {}).json["data"]) == 10


@pytest.mark.parametrize("operation", ["list", "count"])
def test_prefix_refuses(api: Api, operation: str) -> None:
    for wrong, field in (("a", ""), (None, ""), ({}, ""), ([1], "[0]"), (["a", None], "[1]")):
        answer = api.call("POST", operation, {"selector": {"prefix": wrong}})
        assert answer.refusal() == (400, "invalid", [f"selector.prefix{field}"])
    answer = api.call("POST", operation, {"selector": {"prefix": ["x" * 2047]}})
    assert answer.refusal() == (413, "too_large", ["selector.prefix"])


@pytest.mark.parametrize("operation", ["list", "count"])
def test_selector_is_an_object(api: Api, operation: str) -> None:
    wrongs: tuple[Any, ...] = (None, [], "a")
    for wrong in wrongs:
        assert api.call("POST", operation, {"selector": wrong}).refusal() == (400, "invalid", ["selector"])


def test_prefix_with_cursors(api: Api) -> None:
    for number in range(6):
        api.set(f"a/{number}")
        api.set(f"b/{number}")
    assert walk(api, {"prefix": ["a"]}, limit=4) == [["a/5", "a/4", "a/3", "a/2"], ["a/1", "a/0"]]


# -- filters ----------------------------------------------------------------------------------------------


def at(second: int, fraction: str = "") -> str:
    return f"2025-06-15T15:06:{40 + second}{fraction}Z"


def test_filter_created_after_is_inclusive(numbers: Api) -> None:
    assert numbers.listed({"filter": {"createdAfter": at(7)}}) == names([9, 8, 7])
    assert numbers.listed({"filter": {"createdAfter": at(7, ".0001")}}) == names([9, 8])


def test_filter_created_before_is_inclusive(numbers: Api) -> None:
    assert numbers.listed({"filter": {"createdBefore": at(2)}}) == names([2, 1, 0])
    assert numbers.listed({"filter": {"createdBefore": at(2, ".9999")}}) == names([2, 1, 0])
    assert numbers.listed({"filter": {"createdBefore": at(3), "createdAfter": at(2)}}) == names([3, 2])


def test_filter_refuses(api: Api) -> None:
    wrong: Any
    for name in ("createdAfter", "createdBefore"):
        for wrong in ("yesterday", "", 1, None):
            answer = api.page({"filter": {name: wrong}})
            assert answer.refusal() == (400, "invalid", [f"selector.filter.{name}"])
    for wrong in (None, [], "a=b"):
        assert api.page({"filter": {"metadata": wrong}}).refusal() == (400, "invalid", ["selector.filter.metadata"])
        assert api.page({"filter": wrong}).refusal() == (400, "invalid", ["selector.filter"])


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"status": "failed"}, ["b", "a"]),
        ({"n": 3}, ["c", "a"]),
        ({"n": 3.0, "status": "failed"}, ["a"]),
        ({"deep": {"x": 1}}, ["c"]),
        ({"list": [1, 2]}, ["c"]),
        ({"list": [1]}, []),
        ({"n": "3"}, []),
        ({"n": None}, []),
        ({"flag": 1}, []),
        ({"flag": True}, ["b"]),
        ({}, ["d", "c", "b", "a"]),
    ],
)
def test_filter_metadata_is_containment(api: Api, asked: dict[str, Any], found: list[str]) -> None:
    api.set("a", metadata={"n": 3, "status": "failed"})
    api.set("b", metadata={"status": "failed", "flag": True})
    api.set("c", metadata={"n": 3.0, "deep": {"x": 1, "y": 2}, "list": [1, 2]})
    api.set("d")
    assert api.listed({"filter": {"metadata": asked}}) == found


def test_filters_with_cursors(api: Api) -> None:
    for number in range(12):
        api.set(f"k/{number}", metadata={"even": number % 2 == 0})
    pages = walk(api, {"filter": {"metadata": {"even": True}}}, limit=4)
    assert pages == [["k/10", "k/8", "k/6", "k/4"], ["k/2", "k/0"]]
