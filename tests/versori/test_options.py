"""Every option of every schema does what its test's name says. Those of listings are in test_listings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from kvasir.engines.memory import MemoryEngine
from kvasir.model import Entry
from tests.support.clock import ManualClock
from tests.support.versori import Api

DAY = 86_400_000


def stamp_of(api: Api, rest: str) -> str:
    return str(api.get(rest).json["versionstamp"])


def committed(api: Api, rest: str, **options: object) -> bool:
    answer = api.set(rest, "new", **options)
    assert answer.status == 200, answer.text
    assert answer.json["ok"] is answer.json["committed"]
    return bool(answer.json["committed"])


# -- expireIn ---------------------------------------------------------------------------------------------


def test_expire_in_hides_the_entry_from_its_millisecond_on(api: Api) -> None:
    api.set("a", expireIn=1000)
    assert api.get("a").json["expiresAt"] == "2025-06-15T15:06:41.000Z"
    api.clock.advance(999)
    assert api.value("a") == 1
    api.clock.advance(1)
    assert api.get("a").status == 404
    assert api.listed() == []
    assert api.count() == 0
    assert api.call("POST", "batch", {"keys": [["a"]]}).json == {"entries": []}


def test_expire_in_may_be_a_fraction_and_lives_at_least_a_millisecond(api: Api) -> None:
    api.set("a", expireIn=0.25)
    assert api.value("a") == 1
    api.clock.advance(1)
    assert api.get("a").status == 404


@pytest.mark.parametrize("wrong", [0, -1, "1000", True, None, [1000], 3_155_760_000_001, 1e300])
def test_expire_in_refuses(api: Api, wrong: object) -> None:
    assert api.set("a", expireIn=wrong).refusal() == (400, "invalid", ["options.expireIn"])
    assert api.get("a").status == 404


def test_expire_in_of_a_hundred_years_is_the_longest(api: Api) -> None:
    assert api.set("a", expireIn=3_155_760_000_000).status == 200
    assert api.get("a").json["expiresAt"].startswith("2125-06-16T")


# -- expireAt ---------------------------------------------------------------------------------------------


def test_expire_at_hides_the_entry_from_that_moment_on(api: Api) -> None:
    api.set("a", expireAt="2025-06-15T17:06:40.500+02:00")
    assert api.get("a").json["expiresAt"] == "2025-06-15T15:06:40.500Z"
    api.clock.advance(499)
    assert api.value("a") == 1
    api.clock.advance(1)
    assert api.get("a").status == 404


def test_expire_at_may_be_a_leap_second(api: Api) -> None:
    for text in ("2026-12-31T23:59:60.25Z", "2027-01-01T05:29:60.25+05:30"):
        api.set("a", expireAt=text)
        assert api.get("a").json["expiresAt"] == "2027-01-01T00:00:00.250Z"


def test_expire_at_in_the_past_is_accepted_and_at_once_invisible(api: Api) -> None:
    api.set("a", "old")
    assert committed(api, "a", expireAt="2020-01-01T00:00:00Z")
    assert api.get("a").status == 404


@pytest.mark.parametrize(
    "wrong",
    [
        "tomorrow",
        "2026-06-01",
        "2026-06-01T00:00:00",
        "2026-13-01T00:00:00Z",
        "2026-06-01T00:00:00+0530",
        "2026-06-01T00:00:60Z",
        "9999-12-31T23:59:59-01:00",
        1750000000000,
        None,
        "",
    ],
)
def test_expire_at_refuses(api: Api, wrong: object) -> None:
    assert api.set("a", expireAt=wrong).refusal() == (400, "invalid", ["options.expireAt"])


def test_expire_in_and_expire_at_contradict_each_other(api: Api) -> None:
    answer = api.set("a", expireIn=1, expireAt="2026-06-01T00:00:00Z")
    assert answer.refusal() == (400, "invalid", ["options.expireIn", "options.expireAt"])


# -- refreshOnAccess --------------------------------------------------------------------------------------


def test_refresh_on_access_extends_the_life_by_its_first_length(api: Api) -> None:
    api.set("a", expireIn=1000, refreshOnAccess=True)
    first = api.get("a").json
    api.clock.advance(900)
    again = api.get("a").json
    assert again["expiresAt"] == "2025-06-15T15:06:41.900Z"
    assert {**again, "expiresAt": ""} == {**first, "expiresAt": ""}
    api.clock.advance(999)
    entry = api.call("POST", "batch", {"keys": [["a"]]}).json["entries"][0]
    assert entry["expiresAt"] == "2025-06-15T15:06:42.899Z"
    api.clock.advance(1000)
    assert api.get("a").status == 404


def test_refresh_on_access_counts_from_the_set_with_expire_at(api: Api) -> None:
    api.set("a", expireAt="2025-06-15T15:06:42Z", refreshOnAccess=True)
    api.clock.advance(1500)
    assert api.get("a").json["expiresAt"] == "2025-06-15T15:06:43.500Z"


def test_refresh_on_access_is_not_what_list_and_count_do(api: Api) -> None:
    api.set("a", expireIn=1000, refreshOnAccess=True)
    api.clock.advance(999)
    assert api.listed() == ["a"]
    assert api.count() == 1
    api.clock.advance(1)
    assert api.get("a").status == 404


def test_refresh_on_access_without_an_expiry_means_nothing(api: Api) -> None:
    api.set("a", refreshOnAccess=True)
    assert "expiresAt" not in api.get("a").json


def test_refresh_on_access_refuses_what_is_no_boolean(api: Api) -> None:
    assert api.set("a", refreshOnAccess=1).refusal() == (400, "invalid", ["options.refreshOnAccess"])


# -- ifVersionstamp ---------------------------------------------------------------------------------------


def test_if_versionstamp_commits_only_over_that_version(api: Api) -> None:
    old = api.set("a", "first").json["versionstamp"]
    assert committed(api, "a", ifVersionstamp=old)
    refused = api.set("a", "third", ifVersionstamp=old)
    assert refused.json == {"ok": False, "committed": False, "versionstamp": stamp_of(api, "a")}
    assert refused.response.outcome == "conflict"
    assert api.value("a") == "new"


def test_if_versionstamp_of_an_absent_key_is_not_met(api: Api) -> None:
    answer = api.set("a", ifVersionstamp="0" * 20)
    assert answer.json == {"ok": False, "committed": False, "versionstamp": ""}


@pytest.mark.parametrize("other", ["nonsense", "F" * 20, "f" * 20, "１" * 20])
def test_if_versionstamp_of_no_entry_is_not_met(api: Api, other: str) -> None:
    api.set("a")
    assert not committed(api, "a", ifVersionstamp=other)


def test_if_versionstamp_empty_means_absent(api: Api) -> None:
    assert committed(api, "a", ifVersionstamp="")
    assert not committed(api, "a", ifVersionstamp="")


def test_if_versionstamp_refuses_null(api: Api) -> None:
    assert api.set("a", ifVersionstamp=None).refusal() == (400, "invalid", ["options.ifVersionstamp"])


# -- ifNotExists, overwrite -------------------------------------------------------------------------------


def test_if_not_exists_commits_only_over_nothing(api: Api) -> None:
    assert committed(api, "a", ifNotExists=True)
    answer = api.set("a", "other", ifNotExists=True)
    assert answer.json == {"ok": False, "committed": False, "versionstamp": stamp_of(api, "a")}
    assert committed(api, "a", ifNotExists=False)


def test_if_not_exists_takes_expired_for_absent(api: Api) -> None:
    api.set("a", expireIn=10)
    assert not committed(api, "a", ifNotExists=True)
    api.clock.advance(10)
    assert committed(api, "a", ifNotExists=True)


def test_overwrite_false_commits_only_over_nothing(api: Api) -> None:
    assert committed(api, "a", overwrite=False)
    assert not committed(api, "a", overwrite=False)
    assert committed(api, "a", overwrite=True)


@pytest.mark.parametrize(
    "options",
    [
        {"ifNotExists": True, "overwrite": True},
        {"ifVersionstamp": "0" * 20, "ifNotExists": True},
        {"ifVersionstamp": "0" * 20, "overwrite": False},
    ],
)
def test_conditions_that_contradict_each_other(api: Api, options: dict[str, object]) -> None:
    blamed = sorted(f"options.{name}" for name in options)
    status, code, fields = api.set("a", **options).refusal()
    assert (status, code, sorted(fields)) == (400, "invalid", blamed)


def test_conditions_that_say_the_same_are_one(api: Api) -> None:
    assert committed(api, "a", ifNotExists=True, overwrite=False, ifVersionstamp="")
    assert not committed(api, "a", ifNotExists=True, overwrite=False, ifVersionstamp="")


@pytest.mark.parametrize("name", ["ifNotExists", "overwrite"])
def test_conditions_refuse_what_is_no_boolean(api: Api, name: str) -> None:
    assert api.set("a", **{name: "true"}).refusal() == (400, "invalid", [f"options.{name}"])


# -- metadata ---------------------------------------------------------------------------------------------


def test_metadata_is_kept_as_it_was_sent_and_given_back(api: Api) -> None:
    api.call("PUT", "a", b'{"value":1,"options":{"metadata": {"b": 1.50, "a": [ ]} }}')
    assert '"metadata":{"b": 1.50, "a": [ ]}' in api.get("a").text
    assert '"metadata":{"b": 1.50, "a": [ ]}' in api.page().text


@pytest.mark.parametrize("wrong", [[], "text", 1, None])
def test_metadata_refuses_what_is_no_object(api: Api, wrong: object) -> None:
    assert api.set("a", metadata=wrong).refusal() == (400, "invalid", ["options.metadata"])


def test_metadata_has_its_limit(api: Api) -> None:
    assert api.set("a", metadata={"m": "x" * (16_384 - 9)}).status == 200
    assert api.set("a", metadata={"m": "x" * (16_384 - 8)}).refusal() == (413, "too_large", ["options.metadata"])


def test_a_set_without_options_clears_expiry_refresh_and_metadata(api: Api) -> None:
    api.set("a", expireIn=1000, refreshOnAccess=True, metadata={"m": 1})
    before = api.get("a").json
    api.set("a", 2)
    assert api.get("a").json == {
        "value": 2,
        "versionstamp": stamp_of(api, "a"),
        "createdAt": before["createdAt"],
    }


# -- timeout ----------------------------------------------------------------------------------------------


class SlowEngine(MemoryEngine):
    """Reads wait until they are let go."""

    def get_nowait(self, space: int, keys: Sequence[bytes]) -> None:  # type: ignore[override]
        return None

    async def get(self, space: int, keys: Sequence[bytes], max_bytes: int | None = None) -> list[Entry | None]:
        await asyncio.Event().wait()
        raise AssertionError


def test_timeout_is_a_deadline(clock: ManualClock) -> None:
    api = Api(clock, SlowEngine(clock))
    answer = api.call("POST", "batch", {"keys": [["a"]], "options": {"timeout": 5}})
    assert answer.refusal() == (504, "timeout", [])


class BusyEngine(MemoryEngine):
    """Reads keep the event loop busy."""

    def get_nowait(self, space: int, keys: Sequence[bytes]) -> list[Entry | None]:
        until = time.monotonic() + 0.02
        while time.monotonic() < until:
            pass
        return super().get_nowait(space, keys)


def test_a_deadline_that_passes_while_nothing_waits_is_kept_too(clock: ManualClock) -> None:
    api = Api(clock, BusyEngine(clock))
    answer = api.call("POST", "batch", {"keys": [["a"]], "options": {"timeout": 5}})
    assert answer.refusal() == (504, "timeout", [])


@pytest.mark.parametrize("timeout", [60_000, 1e308])
def test_timeout_that_does_not_pass_changes_nothing(api: Api, timeout: float) -> None:
    api.set("a")
    answer = api.call("POST", "batch", {"keys": [["a"]], "options": {"timeout": timeout}})
    assert [entry["value"] for entry in answer.json["entries"]] == [1]


@pytest.mark.parametrize("wrong", [0, -5, "5", True])
def test_timeout_refuses(api: Api, wrong: object) -> None:
    answer = api.call("POST", "batch", {"keys": [], "options": {"timeout": wrong}})
    assert answer.refusal() == (400, "invalid", ["options.timeout"])


# -- cascade and conditions of a delete -------------------------------------------------------------------


def test_cascade_deletes_the_key_and_all_under_it_part_by_part(api: Api) -> None:
    for rest in ("a/b", "a/b/c", "a/b/c/d", "a/bc", "a", "b"):
        api.set(rest)
    assert api.call("DELETE", "a/b", {"options": {"cascade": True}}).json == {"status": "deleted", "count": 3}
    assert sorted(api.listed()) == ["a", "a/bc", "b"]


def test_cascade_agrees_with_count(api: Api) -> None:
    for rest in ("a/b", "a/b/c", "a/bc"):
        api.set(rest)
    assert api.count(["a", "b"]) == api.call("DELETE", "a/b", {"options": {"cascade": True}}).json["count"] == 2


def test_cascade_of_an_empty_part_is_literal(api: Api) -> None:
    api.call("PUT", "batch", {"entries": [{"key": key, "value": 1} for key in ([""], ["", "x"], ["a"], ["a", ""])]})
    answer = api.call("DELETE", "batch", {"keys": [[""]], "options": {"cascade": True}})
    assert answer.json["count"] == 2
    assert api.count() == 2


def test_cascade_never_empties_a_store(api: Api) -> None:
    api.set("a")
    answer = api.call("DELETE", "batch", {"keys": [[]], "options": {"cascade": True}})
    assert answer.refusal() == (400, "invalid", ["keys[0]"])
    assert api.count() == 1


def test_cascade_false_deletes_only_the_key(api: Api) -> None:
    api.set("a")
    api.set("a/b")
    assert api.call("DELETE", "a", {"options": {"cascade": False}}).json["count"] == 1
    assert api.listed() == ["a/b"]
    assert api.call("DELETE", "a", {"options": {"cascade": "yes"}}).refusal() == (400, "invalid", ["options.cascade"])


def test_delete_with_if_versionstamp(api: Api) -> None:
    api.set("a")
    api.set("a/b")
    wrong = api.call("DELETE", "a", {"options": {"ifVersionstamp": "0" * 20, "cascade": True}})
    assert wrong.refusal() == (409, "conflict", ["options.ifVersionstamp"])
    assert stamp_of(api, "a") in wrong.json["message"]
    assert api.count() == 2
    options = {"ifVersionstamp": stamp_of(api, "a"), "cascade": True}
    assert api.call("DELETE", "a", {"options": options}).json["count"] == 2
    gone = api.call("DELETE", "a", {"options": options})
    assert gone.refusal() == (409, "conflict", ["options.ifVersionstamp"])


def test_delete_of_a_missing_key_without_a_condition_is_no_failure(api: Api) -> None:
    assert api.call("DELETE", "a").json == {"status": "deleted", "count": 0}
    assert api.call("DELETE", "a", {}).status == 200
    assert api.call("DELETE", "a", {"options": {"ifVersionstamp": ""}}).status == 200


def test_batch_delete_is_all_or_nothing(api: Api) -> None:
    stamps = {rest: api.set(rest).json["versionstamp"] for rest in ("a", "b")}
    options = {"ifVersionstamp": stamps["a"]}
    answer = api.call("DELETE", "batch", {"keys": [["a"], ["b"]], "options": options})
    assert answer.refusal() == (409, "conflict", ["options.ifVersionstamp"])
    assert api.count() == 2
    assert api.call("DELETE", "batch", {"keys": [["a"]], "options": options}).json["count"] == 1


def test_batch_delete_cascades_from_each_key(api: Api) -> None:
    for rest in ("a", "a/b", "b/c", "bc"):
        api.set(rest)
    answer = api.call("DELETE", "batch", {"keys": [["a"], ["b"], ["missing"]], "options": {"cascade": True}})
    assert answer.json == {"status": "deleted", "count": 3}
    assert api.listed() == ["bc"]
    assert api.call("DELETE", "batch", {"keys": []}).json == {"status": "deleted", "count": 0}


# -- what all options share -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "rest", "body"),
    [
        ("PUT", "a", {"value": 1}),
        ("DELETE", "a", {}),
        ("POST", "batch", {"keys": []}),
        ("DELETE", "batch", {"keys": []}),
        ("POST", "list", {}),
    ],
)
def test_options_are_an_object(api: Api, method: str, rest: str, body: dict[str, object]) -> None:
    wrongs: tuple[object, ...] = (None, [], "expireIn")
    for wrong in wrongs:
        assert api.call(method, rest, {**body, "options": wrong}).refusal() == (400, "invalid", ["options"])
    assert api.call(method, rest, {**body, "options": {"unknown": 1}, "unknown": 2}).status == 200
