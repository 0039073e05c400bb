"""An application is a space like any other: what other APIs keep there, and what they see of what is set here."""

from __future__ import annotations

import pytest

from kvasir.dialects.voximplant.commands import MAX_BYTES_PER_CHARACTER
from tests.support.voximplant import NOW, World, settings_with


def test_a_value_is_a_json_string_under_a_key_of_one_part() -> None:
    world = World()
    world.result("SetKeyValueItem", key="test:1", value='héllo "\n😀', ttl=9)
    entry = world.entry("test:1")
    assert entry is not None
    assert entry.value == '"héllo \\"\\n😀"'.encode()
    assert entry.expires_at == (NOW + 9) * 1000


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (b'"text"', "text"),
        (b'"\\u0041\\ud83d\\ude00\\n"', "A😀\n"),
        (b"1.50", "1.50"),
        (b"12345678901234567890123", "12345678901234567890123"),
        (b"true", "true"),
        (b"null", "null"),
        (b'{"b": [1,  2], "a": "\xc3\xa9"}', '{"b": [1,  2], "a": "é"}'),
        (b'"' + b"v" * 2_000 + b'"', "v" * 2_000),
        (b'"' + b"\\ud83d\\ude00" * 2_000 + b'"', "😀" * 2_000),
        (b"[" + b"1" * 1_998 + b"]", "[" + "1" * 1_998 + "]"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_values_of_other_apis(stored: bytes, shown: str) -> None:
    world = World()
    world.put("k", value=stored)
    assert world.result("GetKeyValueItem", key="k")["value"] == shown
    assert world.result("GetKeyValueItems", key="k")[0]["value"] == shown
    # No end of life is 0: an integer, as some clients insist.
    assert world.result("GetKeyValueItem", key="k")["expires_at"] == 0


@pytest.mark.parametrize(
    ("parts", "value"),
    [
        (("k",), b'"' + b"v" * 2_001 + b'"'),
        (("k",), b'"' + b"\\ud83d\\ude00" * 2_001 + b'"'),
        (("k",), b"[" + b"1" * 1_999 + b"]"),
        (("k",), b'"' + b"v" * (2_000 * MAX_BYTES_PER_CHARACTER) + b'"'),
        (("k", "part"), b"1"),
        (("k k",), b"1"),
        (("k\x00",), b"1"),
        (("k" * 201,), b"1"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_what_cannot_be_addressed_is_not_there_and_never_truncated(parts: tuple[str, ...], value: bytes) -> None:
    world = World()
    world.put(*parts, value=value)
    world.result("SetKeyValueItem", key="ka", value="")
    for method in ("GetKeyValueItem", "TouchKeyValueItem"):
        assert world.call(method, key="k")["error"]["reason"] == "not_found"
    for method in ("GetKeyValueItems", "GetKeyValueKeys"):
        answer = world.call(method, key="k")
        assert [item["key"] for item in answer["result"]] == ["ka"]
        assert answer["total_count"] == 1
        assert world.call(method, key="k", offset=1)["result"] == []
    assert world.result("DelKeyValueItems", prefix="k") == {"deleted": 1, "more": False}
    entry = world.entry(*parts)
    assert entry is not None
    assert entry.value == value


def test_the_limits_are_settings() -> None:
    world = World(settings_with(key_characters=3, value_characters=3))
    assert world.code("SetKeyValueItem", key="kkk", value="😀😀😀") is None
    assert world.code("SetKeyValueItem", key="kkkk", value="v") == 477
    assert world.code("SetKeyValueItem", key="kkk", value="vvvv") == 477
    world.put("k", value=b'"vvvv"')
    assert world.code("GetKeyValueItem", key="k") == 496


def test_set_and_delete_name_a_key_whatever_it_holds() -> None:
    world = World()
    world.put("k", value=b'"' + b"v" * 5_000 + b'"')
    assert world.code("SetKeyValueItem", key="k", value="w", if_absent=1) == 493
    assert world.result("SetKeyValueItem", key="k", value="w")["value"] == "w"
    world.put("k", value=b'"' + b"v" * 5_000 + b'"')
    assert world.result("DelKeyValueItem", key="k") == 1
    assert world.entry("k") is None


def test_life_set_by_another_api() -> None:
    world = World()
    world.put("k", value=b"1", ttl=1_500)
    assert world.result("GetKeyValueItem", key="k")["expires_at"] == NOW + 1
    world.now += 1_500
    assert world.code("GetKeyValueItem", key="k") == 496
