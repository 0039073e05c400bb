"""A row for every documented rule of the five methods: what is sent, and the error code or None for success."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.voximplant import NOW, World, settings_with

DAYS_30 = 2_592_000
DAYS_90 = 7_776_000

METHODS_WITH_KEY = ("SetKeyValueItem", "GetKeyValueItem", "GetKeyValueItems", "GetKeyValueKeys", "DelKeyValueItem")

#: key -> code
KEYS: list[tuple[str, int | None]] = [
    ("test", None),
    ("test:1234", None),
    ("azAZ09аяАЯёЁ_-:;.#+", None),
    ("Ё", None),
    ("a" * 200, None),
    ("ё" * 200, None),
    ("a" * 201, 477),
    ("ё" * 201, 477),
    ("a\n", 496),
    ("\na", 496),
    ("a b", 496),
    ("a/b", 496),
    ("a@b", 496),
    ("a%b", 496),
    ("a=b", 496),
    ("a,b", 496),
    ("é", 496),
    ("І", 496),
    ("a\x00", 496),
    ("🙂", 496),
]


@pytest.mark.parametrize("method", METHODS_WITH_KEY)
@pytest.mark.parametrize(("key", "code"), KEYS)
def test_key_expression(method: str, key: str, code: int | None) -> None:
    world = World()
    world.call("SetKeyValueItem", key=key, value="v")
    assert world.code(method, key=key, value="v") == code


@pytest.mark.parametrize("method", METHODS_WITH_KEY)
@pytest.mark.parametrize("key", [None, ""])
def test_empty_and_missing_key(method: str, key: str | None) -> None:
    optional = method == "GetKeyValueKeys"
    answer = World().call(method, key=key, value="v")
    if optional:
        assert answer["result"] == []
    else:
        assert answer["error"] == {"msg": "Required parameter is empty.", "code": 134, "field_name": "key"}


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("", None),
        ("v" * 2_000, None),
        ("v" * 2_001, 477),
        ("😀" * 2_000, None),
        ("😀" * 2_001, 477),
        ("ж" * 2_000, None),
        ("ж" * 2_001, 477),
        ("\x01" * 2_000, None),
        ("line\nbreak & = + % \x00 \u2028", None),
        (None, 134),
    ],
    ids=ascii,
)
def test_value(value: str | None, code: int | None) -> None:
    world = World()
    assert world.code("SetKeyValueItem", key="k", value=value) == code
    if code is None:
        assert world.result("GetKeyValueItem", key="k")["value"] == value


def test_length_message_names_the_bound() -> None:
    error = World().call("SetKeyValueItem", key="k", value="v" * 2_001)["error"]
    assert error["msg"] == "The 'value' parameter length must not exceed 2000 symbols."
    assert error["field_name"] == "value"


#: parameters -> code, or the seconds from now until the item expires
LIVES: list[tuple[dict[str, Any], int | None, int]] = [
    ({}, None, DAYS_30),
    ({"ttl": 0}, None, 0),
    ({"ttl": 1}, None, 1),
    ({"ttl": DAYS_90}, None, DAYS_90),
    ({"ttl": -1}, 497, 0),
    ({"ttl": DAYS_90 + 1}, 497, 0),
    ({"ttl": "undefined"}, 496, 0),
    ({"ttl": ""}, 496, 0),
    ({"ttl": "1.5"}, 496, 0),
    ({"ttl": "1e3"}, 496, 0),
    ({"ttl": "+1"}, 496, 0),
    ({"ttl": " 1"}, 496, 0),
    ({"ttl": "1\n"}, 496, 0),
    ({"ttl": "١"}, 496, 0),
    ({"ttl": "9" * 19}, 497, 0),
    ({"ttl": "9" * 10_000}, 496, 0),
    ({"expires_at": NOW}, None, 0),
    ({"expires_at": NOW + 5}, None, 5),
    ({"expires_at": NOW + DAYS_90}, None, DAYS_90),
    ({"expires_at": NOW + DAYS_90 + 1}, 497, 0),
    ({"expires_at": NOW - 1}, 497, 0),
    ({"expires_at": NOW * 1000}, 497, 0),
    ({"expires_at": "tomorrow"}, 496, 0),
    ({"ttl": 5, "expires_at": NOW + 5}, 458, 0),
]


@pytest.mark.parametrize(("given", "code", "life"), LIVES, ids=lambda given: ascii(given)[:60])
def test_life(given: dict[str, Any], code: int | None, life: int) -> None:
    world = World()
    answer = world.call("SetKeyValueItem", key="k", value="v", **given)
    if code is not None:
        assert answer["error"]["code"] == code
        assert answer["error"]["field_name"] in given
        assert world.entry("k") is None
        return
    expires_at = answer["result"]["expires_at"]
    assert isinstance(expires_at, int)
    assert expires_at == NOW + life
    assert "ttl" not in answer["result"]
    if life:
        world.now += life * 1000 - 1
        world.token = world.sign()
        assert world.result("GetKeyValueItem", key="k")["expires_at"] == expires_at
        world.now += 1
    # From its millisecond on it is gone, for every method.
    assert world.code("GetKeyValueItem", key="k") == 496
    assert world.call("GetKeyValueItems", key="k")["total_count"] == 0
    assert world.call("GetKeyValueKeys")["result"] == []


def test_range_message_names_the_range() -> None:
    error = World().call("SetKeyValueItem", key="k", value="v", ttl=-1)["error"]
    assert error["msg"] == "ttl should be in range of 0..7776000."


def test_set_answers_the_item_as_it_is_now() -> None:
    world = World()
    assert (
        world.result("SetKeyValueItem", key="test:1", value="one", ttl=60).items()
        >= {
            "key": "test:1",
            "value": "one",
            "expires_at": NOW + 60,
        }.items()
    )
    world.now += 7_000
    # An update without ttl starts 30 days anew.
    assert (
        world.result("SetKeyValueItem", key="test:1", value="two").items()
        >= {
            "key": "test:1",
            "value": "two",
            "expires_at": NOW + 7 + DAYS_30,
        }.items()
    )
    assert world.result("GetKeyValueItem", key="test:1").items() >= {"key": "test:1", "value": "two"}.items()


def test_missing_key() -> None:
    world = World()
    assert world.call("GetKeyValueItem", key="nothing") == {
        "error": {
            "msg": "The 'key' parameter is invalid.",
            "code": 496,
            "field_name": "key",
            "reason": "not_found",
        }
    }
    malformed = world.call("GetKeyValueItem", key="no thing")["error"]
    assert malformed["code"] == 496
    assert "reason" not in malformed


@pytest.mark.parametrize(
    ("code", "msg"), [(134, "Required parameter is empty."), (9_000, "The 'key' parameter is invalid.")]
)
def test_missing_key_code_is_a_setting(code: int, msg: str) -> None:
    error = World(settings_with(missing_key_code=code)).call("GetKeyValueItem", key="nothing")["error"]
    assert (error["code"], error["msg"], error["reason"]) == (code, msg, "not_found")


def test_delete_is_idempotent_and_answers_a_number() -> None:
    world = World()
    world.result("SetKeyValueItem", key="k", value="v")
    for _ in range(2):
        answer = world.call("DelKeyValueItem", key="k")
        assert answer == {"result": 1}
        assert type(answer["result"]) is int
    assert world.entry("k") is None


#: application parameters -> code
APPLICATIONS: list[tuple[dict[str, Any], int | None]] = [
    ({"application_id": 1}, None),
    ({"application_id": "1"}, None),
    ({"application_id": 1, "application_name": "myapp1"}, None),
    ({"application_id": 1, "application_name": "myapp1.someone.voximplant.com"}, None),
    ({"application_id": None, "application_name": "myapp1"}, None),
    ({"application_id": None, "application_name": "myapp1.someone.voximplant.com"}, None),
    ({"application_id": "", "application_name": "myapp1"}, None),
    ({"application_id": 0, "application_name": "myapp1"}, None),
    ({"application_id": 0, "application_name": "nobody"}, 107),
    ({"application_id": 0, "application_name": ""}, 116),
    ({"application_id": 0}, 116),
    ({"application_id": 1, "application_name": "other"}, 107),
    ({"application_id": 1, "application_name": "nobody"}, 107),
    ({"application_id": None, "application_name": "nobody"}, 107),
    ({"application_id": None, "application_name": "foreign"}, 107),
    ({"application_id": None}, 134),
    ({"application_id": ""}, 134),
    ({"application_id": 4}, 116),
    ({"application_id": 3}, 116),
    ({"application_id": -1}, 116),
    ({"application_id": "one"}, 116),
    ({"application_id": "1.0"}, 116),
    ({"application_id": "9" * 30}, 116),
]


@pytest.mark.parametrize(("given", "code"), APPLICATIONS, ids=ascii)
def test_application(given: dict[str, Any], code: int | None) -> None:
    world = World()
    world.application("other", 2)
    home, world.owner = world.owner, world.owner.__class__("01JZX0W7M2Q4T8V6B3N5C9D1EG", "owner", "stranger")
    world.application("foreign", 3)
    world.owner = home
    assert world.code("SetKeyValueItem", key="k", value="v", **given) == code


def test_unknown_application_code_is_a_setting() -> None:
    error = World(settings_with(unknown_application_code=558)).call("GetKeyValueKeys", application_id=9)["error"]
    assert (error["code"], error["msg"]) == (558, "Application is not found.")


def test_keys_are_unique_within_an_application() -> None:
    world = World()
    world.application("other", 2)
    world.result("SetKeyValueItem", key="k", value="one")
    world.result("SetKeyValueItem", key="k", value="two", application_id=2)
    assert world.result("GetKeyValueItem", key="k")["value"] == "one"
    assert world.result("GetKeyValueItem", key="k", application_id=2)["value"] == "two"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"output": "json"}, None),
        ({"output": "JSON"}, None),
        ({"output": "xml"}, 105),
        ({"format": "csv"}, 105),
        ({"account_id": "1"}, None),
        ({"account_id": "2"}, 100),
        ({"account_id": "one"}, 115),
        ({"session_id": "anything", "whatever": "else"}, None),
    ],
    ids=ascii,
)
def test_parameters_of_every_method(given: dict[str, Any], code: int | None) -> None:
    assert World().code("GetKeyValueKeys", **given) == code
