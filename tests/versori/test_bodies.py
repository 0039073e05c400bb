"""Values are kept byte for byte, and bodies that are no strictly valid JSON change nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kvasir.errors import Invalid, TooLarge, Unavailable
from tests.support.clock import ManualClock
from tests.support.versori import Api

#: Every operation with a body, and the least it takes.
BODIES: list[tuple[str, str, dict[str, Any]]] = [
    ("PUT", "a", {"value": 1}),
    ("DELETE", "a", {}),
    ("POST", "batch", {}),
    ("PUT", "batch", {"entries": []}),
    ("DELETE", "batch", {"keys": []}),
    ("POST", "list", {}),
    ("POST", "count", {}),
]

VALUES = [
    b"null",
    b"true",
    b"0",
    b"-0",
    b"1.10",
    b"1E+2",
    b"123456789012345678901234567890.123456789",
    b'""',
    '"é 🎈 \U0010ffff"'.encode(),
    rb'"\u00e9\ud83c\udf88\/\u0000"',
    b"[]",
    b"[ 1 ,2,\t3\n]",
    b'{"b":1,"a":{"b":2},"":[]}',
    b'{ "z" : 1.0 , "a" : "x:y:z" }',
    b'"{\\"x\\":1}"',
]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_comes_back_byte_for_byte(api: Api, value: bytes) -> None:
    assert api.call("PUT", "a", b'{"value": ' + value + b" }").json["committed"] is True
    api.call("PUT", "batch", b'{"entries":[{"value": ' + value + b' ,"key":["b"]}]}')
    said = b'"value":' + value + b',"versionstamp"'
    for answer in (api.get("a"), api.get("b"), api.page(), api.call("POST", "batch", {"keys": [["a"]]})):
        assert said in answer.response.body


def test_a_member_name_may_be_written_with_escapes(api: Api) -> None:
    assert api.call("PUT", "a", rb'{"v\u0061lue": 1.0, "options": {"met\u0061data": {"m":2}}}').status == 200
    assert b'"value":1.0,' in api.get("a").response.body
    assert api.get("a").json["metadata"] == {"m": 2}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (b"", "ends too early"),
        (b'{"value":', "ends too early"),
        (b'{"value":1} x', "trailing"),
        (b'{"value":NaN}', "invalid character"),
        (b'{"value":Infinity}', ""),
        (b'{"value":1e400}', "out of range"),
        (b'{"value":' + b"1" * 5000 + b"}", "out of range"),
        (b'{"value":01}', ""),
        (b"{'value':1}", ""),
        (b'{"value":"\xff"}', "UTF-8"),
        (b'\xff\xfe{\x00"\x00', ""),
        (b'{"value":"\\ud800"}', ""),
        (b'{"value":"\n"}', ""),
        (b'{"value":1,"value":2}', '"value" occurs twice'),
        (b'{"value":{"a":1,"\\u0061":2}}', '"a" occurs twice'),
        (b'{"value":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "nested deeper than 512"),
        (b'{"value":' + b'{"a":' * 600 + b"1" + b"}" * 600 + b"}", "nested deeper than 512"),
        (b"[]", "must be a JSON object"),
        (b'"value"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
    ],
    ids=range(20),
)
def test_a_bad_body_is_refused_by_every_operation(api: Api, text: bytes, hint: str) -> None:
    for method, rest, _ in BODIES:
        if method == "DELETE" and not text:
            continue
        answer = api.call(method, rest, text)
        assert answer.refusal() == (400, "invalid", [])
        assert hint in answer.json["message"]
    assert api.count() == 0


def test_nesting_of_512_is_allowed(api: Api) -> None:
    text = b"[" * 511 + b"]" * 511
    assert api.call("PUT", "a", b'{"value":' + text + b"}").status == 200
    assert text in api.get("a").response.body
    assert api.call("PUT", "a", b'{"value":[' + text + b"]}").status == 400


def test_value_is_needed_and_null_is_one(api: Api) -> None:
    assert api.call("PUT", "a", {}).refusal() == (400, "invalid", ["value"])
    assert api.call("PUT", "a", {"options": {}}).refusal() == (400, "invalid", ["value"])
    assert api.call("PUT", "a", {"value": None}).status == 200
    assert api.get("a").json["value"] is None


def test_a_value_has_its_limit(clock: ManualClock) -> None:
    api = Api(clock, value_bytes=10)
    assert api.set("a", "x" * 8).status == 200
    assert api.set("a", "x" * 9).refusal() == (413, "too_large", ["value"])
    assert api.value("a") == "x" * 8


def test_a_value_may_have_a_mebibyte_and_no_more(api: Api) -> None:
    assert api.set("a", "x" * 1_048_574).status == 200
    assert api.set("a", "x" * 1_048_575).refusal() == (413, "too_large", ["value"])


def test_unknown_members_are_ignored(api: Api) -> None:
    for method, rest, body in BODIES:
        assert api.call(method, rest, {**body, "unknown": {"deep": []}}).status == 200


def test_a_delete_without_a_body_has_no_options(api: Api) -> None:
    api.set("a")
    assert api.call("DELETE", "a", b"").json == {"status": "deleted", "count": 1}


def test_what_the_listener_says_of_a_body_goes_out_in_the_form_of_the_api(api: Api) -> None:
    target = f"/store/{api.id}/kv/a"
    for error, status in ((TooLarge("over"), 413), (Invalid("too slow"), 400), (Unavailable("full"), 503)):
        assert api.send("PUT", target, error).refusal() == (status, error.code, [])


def test_createdat_is_kept_when_the_value_is_replaced(api: Api) -> None:
    api.set("a")
    first = api.get("a").json
    api.clock.advance(60_123)
    api.set("a", 2)
    second = api.get("a").json
    assert second["createdAt"] == first["createdAt"] == "2025-06-15T15:06:40.000Z"
    assert second["versionstamp"] > first["versionstamp"]
    api.call("DELETE", "a")
    api.set("a", 3)
    assert api.get("a").json["createdAt"] == "2025-06-15T15:07:40.123Z"


# -- BatchGetKV -------------------------------------------------------------------------------------------


def test_batch_get_leaves_out_what_is_missing_and_keeps_the_order(api: Api) -> None:
    for rest in "abc":
        api.set(rest, rest)
    answer = api.call("POST", "batch", {"keys": [["c"], ["missing"], ["a"], ["c"]]})
    assert [entry["value"] for entry in answer.json["entries"]] == ["c", "a", "c"]
    assert api.call("POST", "batch", {}).json == {"entries": []}


def test_batches_have_their_limit(api: Api) -> None:
    keys = [[str(number)] for number in range(1000)]
    entries = [{"key": key, "value": 1} for key in keys]
    over = (400, "too_large")
    assert len(api.call("PUT", "batch", {"entries": entries}).json["successes"]) == 1000
    assert len(api.call("POST", "batch", {"keys": keys}).json["entries"]) == 1000
    extra = {"key": ["extra"], "value": 1}
    assert api.call("PUT", "batch", {"entries": [*entries, extra]}).refusal() == (*over, ["entries"])
    assert api.call("POST", "batch", {"keys": [*keys, ["extra"]]}).refusal() == (*over, ["keys"])
    assert api.call("DELETE", "batch", {"keys": [*keys, ["extra"]]}).refusal() == (*over, ["keys"])
    assert api.call("DELETE", "batch", {"keys": keys}).json["count"] == 1000
    assert api.count() == 0


def test_a_batch_has_a_limit_on_what_it_reads(clock: ManualClock) -> None:
    api = Api(clock, value_bytes=20, batch_answer_bytes=60)
    for name in "abcd":
        api.set(name, "x" * 18)
    read = api.call("POST", "batch", {"keys": [["a"], ["b"], ["c"]]})
    assert len(read.json["entries"]) == 3
    over = api.call("POST", "batch", {"keys": [["a"], ["b"], ["c"], ["d"]]})
    assert over.refusal() == (413, "too_large", [])
    assert "ask for fewer keys" in over.json["message"]
    # A key that is asked for twice is answered, and weighs, twice.
    assert api.call("POST", "batch", {"keys": [["a"]] * 4}).refusal() == (413, "too_large", [])
    assert len(api.call("POST", "batch", {"keys": [["a"], ["b"], ["c"], ["none"]]}).json["entries"]) == 3
    assert api.value("d") == "x" * 18


# -- BatchSetKV -------------------------------------------------------------------------------------------


def batch_set(api: Api, *entries: Any) -> Any:
    answer = api.call("PUT", "batch", {"entries": entries})
    assert answer.status == 200, answer.text
    assert set(answer.json) == {"successes", "failures"}
    return answer.json


def test_batch_set_gives_each_entry_its_outcome_and_all_one_versionstamp(api: Api) -> None:
    old = api.set("taken").json["versionstamp"]
    commits = api.engine.writer.groups.total
    done = batch_set(
        api,
        {"key": ["a"], "value": 1, "options": {"metadata": {"m": 1}}},
        {"key": ["taken"], "value": 2, "options": {"ifNotExists": True}},
        {"key": ["missing"], "value": 2, "options": {"ifVersionstamp": old}},
        {"key": ["taken"], "value": 3, "options": {"ifVersionstamp": old}},
    )
    stamp = api.get("a").json["versionstamp"]
    assert done["successes"] == [
        {"ok": True, "versionstamp": stamp, "committed": True, "key": ["a"]},
        {"ok": True, "versionstamp": stamp, "committed": True, "key": ["taken"]},
    ]
    assert [(failure["key"], failure["index"]) for failure in done["failures"]] == [(["taken"], 1), (["missing"], 2)]
    assert old in done["failures"][0]["error"]
    assert "does not exist" in done["failures"][1]["error"]
    assert api.get("taken").json == {**api.get("taken").json, "value": 3, "versionstamp": stamp}
    assert api.engine.writer.groups.total == commits + 4


def test_batch_set_applies_the_same_key_twice_in_order(api: Api) -> None:
    done = batch_set(api, *({"key": ["a"], "value": number} for number in range(3)))
    assert len(done["successes"]) == 3
    assert api.value("a") == 2
    once = {"key": ["b"], "value": 1, "options": {"ifNotExists": True}}
    done = batch_set(api, once, once)
    assert (len(done["successes"]), len(done["failures"])) == (1, 1)


@pytest.mark.parametrize(
    ("entry", "blamed", "key"),
    [
        ("text", "entries[1]", []),
        (None, "entries[1]", []),
        ({"value": 1}, "entries[1].key", []),
        ({"key": [], "value": 1}, "entries[1].key", []),
        ({"key": "a", "value": 1}, "entries[1].key", []),
        ({"key": ["a", 5], "value": 1}, "entries[1].key[1]", []),
        ({"key": ["x" * 2047], "value": 1}, "entries[1].key", ["x" * 2047]),
        ({"key": ["a"]}, "entries[1].value", ["a"]),
        ({"key": ["a"], "value": "x" * 1_048_576}, "entries[1].value", ["a"]),
        ({"key": ["a"], "value": 1, "options": []}, "entries[1].options", ["a"]),
        ({"key": ["a"], "value": 1, "options": {"expireAt": "never"}}, "entries[1].options.expireAt", ["a"]),
        ({"key": ["a"], "value": 1, "options": {"expireIn": 0}}, "entries[1].options.expireIn", ["a"]),
        ({"key": ["a"], "value": 1, "options": {"metadata": []}}, "entries[1].options.metadata", ["a"]),
        ({"key": ["a"], "value": 1, "options": {"ifNotExists": 1}}, "entries[1].options.ifNotExists", ["a"]),
    ],
    ids=range(14),
)
def test_an_invalid_entry_of_a_batch_leaves_the_others_alone(api: Api, entry: Any, blamed: str, key: list[str]) -> None:
    done = batch_set(api, {"key": ["before"], "value": 1}, entry, {"key": ["after"], "value": 2})
    assert [success["key"] for success in done["successes"]] == [["before"], ["after"]]
    (failure,) = done["failures"]
    assert set(failure) == {"key", "error", "index"}
    assert (failure["key"], failure["index"]) == (key, 1)
    assert failure["error"].split(":")[0].split(" ")[0] == blamed
    assert api.listed() == ["after", "before"]


def test_a_malformed_batch_set_sets_nothing(api: Api) -> None:
    wrongs: list[dict[str, Any]] = [{}, {"entries": None}, {"entries": {}}, {"entries": "a"}, {"keys": [["a"]]}]
    for wrong in wrongs:
        assert api.call("PUT", "batch", wrong).refusal() == (400, "invalid", ["entries"])
    assert api.call("PUT", "batch", b'{"entries":[{"key":["a"],"value":1},]}').refusal() == (400, "invalid", [])
    assert api.call("PUT", "batch", b'{"entries":[{"key":["a"],"value":1,"value":2}]}').status == 400
    assert api.count() == 0


def test_an_empty_batch_set_is_no_failure(api: Api) -> None:
    assert batch_set(api) == {"successes": [], "failures": []}


def test_numbers_in_a_body_keep_their_digits(api: Api) -> None:
    api.call("PUT", "batch", b'{"entries":[{"key":["a"],"value":[1.50,12345678901234567890123]}]}')
    assert b"[1.50,12345678901234567890123]" in api.get("a").response.body
    assert json.loads(api.get("a").text)["value"][1] == 12345678901234567890123
