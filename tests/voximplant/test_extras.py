"""What Kvasir adds to the documented methods, none of which a client trips over."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from kvasir import keys
from kvasir.access.service_tokens import ServiceTokenVerifier
from kvasir.dialects.voximplant import VoximplantDialect
from kvasir.limits import Limits
from kvasir.store.store import Store
from tests.support.request import FakeRequest
from tests.support.voximplant import NOW, World, settings_with

DAYS_30 = 2_592_000
NEVER_VERSION = "0" * 20


# -- version, created_at, updated_at -----------------------------------------------------------------------------


def test_version_and_times_of_an_item() -> None:
    world = World()
    first = world.result("SetKeyValueItem", key="k", value="one")
    world.now += 7_000
    second = world.result("SetKeyValueItem", key="k", value="two")
    assert first["version"] < second["version"]
    assert (first["updated_at"], second["updated_at"]) == (NOW, NOW + 7)
    read = world.result("GetKeyValueItem", key="k")
    assert read == second | {"created_at": NOW}
    assert world.result("GetKeyValueItems", key="k") == [read]
    assert world.result("GetKeyValueKeys") == [{name: read[name] for name in read if name != "value"}]
    entry = world.entry("k")
    assert entry is not None
    assert read["version"] == keys.versionstamp_text(entry.versionstamp)


# -- conditions --------------------------------------------------------------------------------------------------


def test_if_version() -> None:
    world = World()
    old = world.result("SetKeyValueItem", key="k", value="one")["version"]
    new = world.result("SetKeyValueItem", key="k", value="two", if_version=old)["version"]
    for method in ("SetKeyValueItem", "DelKeyValueItem"):
        error = world.call(method, key="k", value="three", if_version=old)["error"]
        assert (error["code"], error["reason"], error["version"], error["field_name"]) == (
            496,
            "conflict",
            new,
            "if_version",
        )
    assert world.result("GetKeyValueItem", key="k")["value"] == "two"
    assert world.result("DelKeyValueItem", key="k", if_version=new) == 1
    error = world.call("SetKeyValueItem", key="k", value="three", if_version=new)["error"]
    assert (error["reason"], error["version"]) == ("conflict", None)


@pytest.mark.parametrize("yes", [1, "1", "true", "True"])
def test_if_absent(yes: object) -> None:
    world = World()
    version = world.result("SetKeyValueItem", key="k", value="one", if_absent=yes)["version"]
    error = world.call("SetKeyValueItem", key="k", value="two", if_absent=yes)["error"]
    assert error == {
        "msg": "The 'key' is not unique.",
        "code": 493,
        "field_name": "key",
        "reason": "conflict",
        "version": version,
    }
    assert world.result("SetKeyValueItem", key="k", value="two", if_absent=0)["value"] == "two"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"if_version": "1"}, 496),
        ({"if_version": "x" * 20}, 496),
        ({"if_version": NEVER_VERSION, "if_absent": 1}, 458),
        ({"if_version": NEVER_VERSION}, 496),
        ({"if_absent": "maybe"}, 496),
    ],
    ids=str,
)
def test_conditions_that_cannot_hold(given: dict[str, Any], code: int) -> None:
    world = World()
    assert world.code("SetKeyValueItem", key="k", value="v", **given) == code
    assert world.entry("k") is None


# -- IncrKeyValueItem --------------------------------------------------------------------------------------------


def test_increment() -> None:
    world = World()
    assert world.result("IncrKeyValueItem", key="n")["value"] == "1"
    assert world.result("IncrKeyValueItem", key="n", by=41)["value"] == "42"
    assert world.result("IncrKeyValueItem", key="n", by=-50)["value"] == "-8"
    item = world.result("IncrKeyValueItem", key="n", by=0)
    assert item == {
        name: value for name, value in world.result("GetKeyValueItem", key="n").items() if name != "created_at"
    }


def test_increment_keeps_the_life_unless_told_otherwise() -> None:
    world = World()
    assert world.result("IncrKeyValueItem", key="n")["expires_at"] == NOW + DAYS_30
    world.now += 10_000
    assert world.result("IncrKeyValueItem", key="n")["expires_at"] == NOW + DAYS_30
    assert world.result("IncrKeyValueItem", key="n", ttl=5)["expires_at"] == NOW + 15
    assert world.result("IncrKeyValueItem", key="n", expires_at=NOW + 20)["expires_at"] == NOW + 20
    world.now += 10_000
    assert world.result("IncrKeyValueItem", key="n")["value"] == "1"  # it had expired


@pytest.mark.parametrize(
    ("value", "by", "code", "field"),
    [
        (b'"text"', 1, 496, "value"),
        (b'""', 1, 496, "value"),
        (b'"1.5"', 1, 496, "value"),
        (b"{}", 1, 496, "value"),
        (b'"9223372036854775807"', 1, 497, "by"),
        (b'"-9223372036854775808"', -1, 497, "by"),
        (b'"1"', "many", 496, "by"),
        (b'"1"', 2**63, 497, "by"),
        (b'"' + b"1" * 3_000 + b'"', 1, 496, "value"),
    ],
)
def test_increment_refuses(value: bytes, by: object, code: int, field: str) -> None:
    world = World()
    world.put("n", value=value)
    error = world.call("IncrKeyValueItem", key="n", by=by)["error"]
    assert (error["code"], error["field_name"]) == (code, field)
    entry = world.entry("n")
    assert entry is not None
    assert entry.value == value


def test_increment_of_what_another_api_stored() -> None:
    world = World()
    world.put("n", value=b"41")
    assert world.result("IncrKeyValueItem", key="n").items() >= {"value": "42", "expires_at": 0}.items()
    entry = world.entry("n")
    assert entry is not None
    assert entry.value == b"42"


def test_increments_at_once_are_all_counted() -> None:
    """Through two dialects with stores of their own, as two processes have them."""
    world = World()
    other = Store(world.engine, Limits(), lambda: world.now)
    dialects = [world.dialect, VoximplantDialect(other, ServiceTokenVerifier(other, world.engine), settings_with())]
    headers = {"authorization": f"Bearer {world.token}"}

    async def all_of_them() -> None:
        target = "/platform_api/IncrKeyValueItem?key=n&application_id=1"
        requests = [FakeRequest("POST", target, headers=headers) for _ in range(100)]
        answers = await asyncio.gather(*(dialects[at % 2](request) for at, request in enumerate(requests)))
        assert sorted(int(json.loads(answer.body)["result"]["value"]) for answer in answers) == list(range(1, 101))

    asyncio.run(all_of_them())


# -- TouchKeyValueItem -------------------------------------------------------------------------------------------


def test_touch() -> None:
    world = World()
    before = world.result("SetKeyValueItem", key="k", value="v", ttl=10)
    world.now += 5_000
    touched = world.result("TouchKeyValueItem", key="k", ttl=10)
    assert touched == before | {"expires_at": NOW + 15, "created_at": NOW}
    assert world.result("GetKeyValueItem", key="k") == touched
    assert world.result("TouchKeyValueItem", key="k", expires_at=NOW + 99)["expires_at"] == NOW + 99
    assert world.result("TouchKeyValueItem", key="k")["expires_at"] == NOW + 5 + DAYS_30
    world.result("TouchKeyValueItem", key="k", ttl=0)
    assert world.entry("k") is None
    assert world.call("TouchKeyValueItem", key="k")["error"]["reason"] == "not_found"


# -- bulk --------------------------------------------------------------------------------------------------------


def test_set_items() -> None:
    world = World()
    items = [
        {"key": "a", "value": "1"},
        {"key": "b", "value": 2, "ttl": 7},
        {"key": "c", "value": "", "expires_at": NOW + 9},
    ]
    result = world.result("SetKeyValueItems", items=json.dumps(items), ttl=60)
    assert [(item["key"], item["value"], item["expires_at"] - NOW) for item in result] == [
        ("a", "1", 60),
        ("b", "2", 7),
        ("c", "", 9),
    ]
    assert len({item["version"] for item in result}) == 1
    assert [item["key"] for item in world.result("GetKeyValueKeys")] == ["a", "b", "c"]
    # As JSON, a real array does as well.
    body = json.dumps({"application_id": 1, "items": items}).encode()
    assert len(world.ask("/platform_api/SetKeyValueItems", body=body, content_type="application/json")["result"]) == 3


@pytest.mark.parametrize(
    ("items", "code", "field"),
    [
        ('[{"key":"new","value":"v"},{"key":"old","value":"v","if_absent":1}]', 493, "items[1].key"),
        (
            f'[{{"key":"new","value":"v"}},{{"key":"old","value":"v","if_version":"{NEVER_VERSION}"}}]',
            496,
            "items[1].if_version",
        ),
        ('[{"key":"new","value":"v"},{"key":"b a d","value":"v"}]', 496, "items[1].key"),
        ('[{"key":"new","value":"v"},{"value":"v"}]', 134, "items[1].key"),
        ('[{"key":"new","value":"v"},{"key":"x"}]', 134, "items[1].value"),
        ('[{"key":"new","value":"v"},{"key":"x","value":"v","ttl":-1}]', 497, "items[1].ttl"),
        ('[{"key":"new","value":"v"},{"key":"x","value":"v","ttl":1,"expires_at":1}]', 458, "items[1].expires_at"),
        ('[{"key":"new","value":"v"},{"key":"new","value":"w"}]', 496, "items[1].key"),
        ('[{"key":"new","value":"v"},5]', 496, "items"),
        ('[{"key":"new","value":"v","value":"w"}]', 496, "items"),
        ('{"key":"new","value":"v"}', 496, "items"),
        ("[", 496, "items"),
        ("[]", 497, "items"),
        ("", 134, "items"),
    ],
)
def test_set_items_is_all_or_nothing(items: str, code: int, field: str) -> None:
    world = World()
    world.result("SetKeyValueItem", key="old", value="v")
    error = world.call("SetKeyValueItems", items=items)["error"]
    assert (error["code"], error["field_name"]) == (code, field)
    assert [item["key"] for item in world.result("GetKeyValueKeys")] == ["old"]


def test_bulk_is_bounded() -> None:
    world = World(limits=Limits(batch_keys=3))
    names = ["a", "b", "c", "d"]
    for method, parameter, elements in (
        ("SetKeyValueItems", "items", [{"key": name, "value": ""} for name in names]),
        ("DelKeyValueItems", "keys", names),
    ):
        assert world.code(method, **{parameter: json.dumps(elements[:3])}) is None
        assert world.code(method, **{parameter: json.dumps(elements)}) == 497


def test_delete_items_by_key() -> None:
    world = World()
    for key in ("a", "b", "c"):
        world.result("SetKeyValueItem", key=key, value="")
    assert world.result("DelKeyValueItems", keys='["a", "c", "a", "nothing"]') == {"deleted": 2, "more": False}
    assert [item["key"] for item in world.result("GetKeyValueKeys")] == ["b"]


@pytest.mark.parametrize(("mode", "left"), [("prefix", ["b", "tes"]), ("namespace", ["b", "tes", "testing"])])
def test_delete_items_by_prefix_is_what_the_list_shows(mode: Any, left: list[str]) -> None:
    world = World(settings_with(pattern=mode))
    for key in ("b", "tes", "test", "test:1", "testing"):
        world.result("SetKeyValueItem", key=key, value="")
    world.put("test", "part", value=b"1")
    world.put("test:long", value=b'"' + b"v" * 2_001 + b'"')
    gone = 5 - len(left)
    assert world.result("DelKeyValueItems", prefix="test") == {"deleted": gone, "more": False}
    assert [item["key"] for item in world.result("GetKeyValueKeys")] == left
    assert world.entry("test", "part")
    assert world.entry("test:long")
    assert world.result("DelKeyValueItems", prefix="test:") == {"deleted": 0, "more": False}


def test_delete_items_of_a_long_prefix_in_steps() -> None:
    world = World(limits=Limits(batch_keys=4))
    for number in range(10):
        world.result("SetKeyValueItem", key=f"k{number}", value="")
    steps = [world.result("DelKeyValueItems", prefix="k") for _ in range(3)]
    assert steps == [{"deleted": 4, "more": True}, {"deleted": 4, "more": True}, {"deleted": 2, "more": False}]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, 134),
        ({"prefix": ""}, 134),
        ({"keys": "[]"}, 497),
        ({"keys": '[""]'}, 134),
        ({"keys": '["a b"]'}, 496),
        ({"keys": "[1]"}, 496),
        ({"keys": '["a"]', "prefix": "a"}, 458),
    ],
    ids=str,
)
def test_delete_items_refuses(given: dict[str, Any], code: int) -> None:
    assert World().code("DelKeyValueItems", **given) == code
