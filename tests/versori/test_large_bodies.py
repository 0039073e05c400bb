"""Bodies that are read item by item beside the event loop: the same answers as for small ones; bounds on their size."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kvasir import jsontext
from kvasir.dialects.versori import batches
from kvasir.limits import Limits
from tests.support.clock import ManualClock
from tests.support.versori import Api

ENTRIES: list[Any] = [
    {"key": ["a"], "value": 1},
    {"key": ["a", "ü"], "value": {"x": [1, 2.50, "ä,]}{["]}, "options": {"metadata": {"m": [1]}, "expireIn": 1000}},
    {"key": ["b"], "value": "x" * 100},
    {"key": [], "value": 1},
    {"key": "c", "value": 1},
    {"value": 1},
    {"key": ["c"]},
    {"key": ["d"], "value": 1, "options": []},
    {"key": ["d"], "value": 1, "options": {"ifVersionstamp": 1}},
    {"key": ["e"], "value": None, "options": {"ifNotExists": True}},
    5,
    [],
    None,
    {"key": ["f"], "value": [[]] * 10},
]

TEXTS = [
    b"",
    b"[]",
    b"5",
    b"{}",
    b'{"options":{"cascade":true}}',
    b'{"entries":5}',
    b'{"entries":null,"keys":null}',
    b'{"entries":[],"keys":[]}',
    b'{"entries":[1],"entries":[1]}',
    b'{"keys":[["a"]],"keys":[["a"]]}',
    b'{"keys":[["a"],["b"]] ',
    b'{"keys":[["a"],["b",]]}',
    b'{"keys":[["a"] ["b"]]}',
    b'{"keys":[["a"],["\xff"]]}',
    b'{"keys":[["a"],["\\ud800"]]}',
    b'{"keys":[["a"],[1e999]]}',
    b'{"keys":[["a"],{"a":1,"a":2}]}',
    b'{"entries":[{"key":["a"],"value":{"a":1,"a":2}}]}',
    b'{"keys":[["a"],5]}',
    b'{"keys":[["a"],[]]}',
    b'{"keys":[["a"],["' + b"x" * 3_000 + b'"]]}',
    b' { "options" : {"timeout":5000,"cascade":true} , "keys" : [ ["a"] , [ "b" , "" ] ] , "more":[1] } ',
    b'{"options":{"timeout":-1,"cascade":1},"keys":[["a"]]}',
    json.dumps({"entries": ENTRIES}).encode(),
    json.dumps({"keys": [["a"]] * 8}).encode(),
    json.dumps({"keys": [["a"]] * 9}).encode(),
    json.dumps({"keys": [["a", "b"]] * 7 + [["x" * 2_044]]}).encode(),
]


def answers(clock: ManualClock, text: bytes, keys: int) -> list[Any]:
    api = Api(clock, batch_keys=keys)
    found = []
    for method in ("PUT", "POST", "DELETE"):
        answer = api.call(method, "batch", text)
        found.append((answer.status, answer.json))
    return found


def bare(answer: Any) -> Any:
    """An answer without what differs: versionstamps, numbers of items, and where in the text a fault is."""
    text = json.dumps(answer)
    for word in ("more than 8", "at byte"):
        text = text.replace(word, "9")
    return [(status, body.get("code"), [field["field"] for field in body.get("fields", [])], len(text) and set(body))
            for status, body in answer]  # fmt: skip


@pytest.mark.parametrize("index", range(len(TEXTS)))
@pytest.mark.parametrize("most_places", [4_096, 1])
def test_item_by_item_a_body_means_the_same(
    monkeypatch: pytest.MonkeyPatch, clock: ManualClock, index: int, most_places: int
) -> None:
    keys = 20 if b"entries" in TEXTS[index] else 8
    at_once = answers(clock, TEXTS[index], keys)
    monkeypatch.setattr(jsontext, "LIGHT_BYTES", -1)
    monkeypatch.setattr(jsontext, "LIGHT_TOKENS", -1)
    monkeypatch.setattr(batches, "MOST_PLACES", most_places)
    batches._cutters.cache_clear()
    in_items = answers(clock, TEXTS[index], keys)
    assert bare(in_items) == bare(at_once)
    batches._cutters.cache_clear()
    for (_, first), (_, second) in zip(at_once, in_items, strict=True):
        for member in ("entries", "successes", "failures", "count"):
            told = [json.loads(json.dumps(body.get(member), sort_keys=True)) for body in (first, second)]
            for items in told:
                for item in items if isinstance(items, list) else ():
                    item.pop("versionstamp", None)
            assert told[0] == told[1]


def text_of(size: int, frame: bytes) -> bytes:
    """A body of exactly so many bytes: the frame, and blanks."""
    return frame + b" " * (size - len(frame))


LIMITS = Limits()


@pytest.mark.parametrize(
    ("method", "rest", "most", "frame"),
    [
        ("PUT", "a", LIMITS.set_body_bytes, b'{"value":1}'),
        ("DELETE", "a", LIMITS.query_body_bytes, b"{}"),
        ("POST", "list", LIMITS.query_body_bytes, b"{}"),
        ("POST", "count", LIMITS.query_body_bytes, b"{}"),
        ("POST", "batch", LIMITS.keys_body_bytes, b'{"keys":[["a"]]}'),
        ("DELETE", "batch", LIMITS.keys_body_bytes, b'{"keys":[["a"]]}'),
        ("PUT", "batch", LIMITS.batch_body_bytes, b'{"entries":[{"key":["a"],"value":1}]}'),
    ],
)
def test_each_operation_bounds_its_body(api: Api, method: str, rest: str, most: int, frame: bytes) -> None:
    assert api.call(method, rest, text_of(most, frame)).status == 200
    assert api.call(method, rest, text_of(most + 1, frame)).refusal()[:2] == (413, "too_large")


def test_the_longest_value_key_and_metadata_fit_into_a_body(api: Api) -> None:
    value = b'"' + b"x" * (LIMITS.value_bytes - 2) + b'"'
    metadata = b'{"m":"' + b"x" * (LIMITS.metadata_bytes - 8) + b'"}'
    options = b'{"metadata":' + metadata + b',"expireAt":"2126-01-01T00:00:00.000000000+00:00","refreshOnAccess":true}'
    assert api.call("PUT", "a", b'{"value":' + value + b',"options":' + options + b"}").status == 200
    key = b'["' + b"\\u0061" * (LIMITS.key_bytes - 2) + b'"]'
    entry = b'{"key":' + key + b',"value":' + value + b',"options":' + options + b"}"
    answer = api.call("PUT", "batch", b'{"entries":[' + entry + b"]}")
    assert len(answer.json["successes"]) == 1
    keys = b'{"keys":[' + b",".join([key] * 400 + [b'["' + b"x" * 2_000 + b'"]'] * 600) + b"]}"
    assert api.call("POST", "batch", keys).status == 413  # 400 MiB
    assert api.call("DELETE", "batch", keys).json["count"] == 1
    filtered = b'{"selector":{"prefix":' + key + b',"filter":{"metadata":' + metadata + b"}}}"
    assert api.call("POST", "list", filtered).status == 200


def test_a_filter_by_metadata_is_no_longer_than_metadata_may_be(api: Api) -> None:
    fits = {"m": "x" * (LIMITS.metadata_bytes - 9)}
    assert api.call("POST", "list", {"selector": {"filter": {"metadata": fits}}}).status == 200
    fits["m"] += "x"
    refusal = api.call("POST", "list", {"selector": {"filter": {"metadata": fits}}}).refusal()
    assert refusal == (413, "too_large", ["selector.filter.metadata"])


@pytest.mark.parametrize("rest", ["a", "batch"])
def test_a_text_has_a_bounded_number_of_containers(clock: ManualClock, rest: str) -> None:
    api = Api(clock, json_containers=5_000)

    def put(containers: int) -> Any:
        value = b"[" + b",".join([b"[]"] * (containers - 2) + [b'"[]{}[]\\"[]"']) + b"]"
        if rest == "a":
            return api.call("PUT", "a", b'{"value":' + value + b"}")
        return api.call("PUT", "batch", b'{"entries":[{"key":["a"],"value":' + value + b"}]}")

    assert put(5_000 - (rest == "batch")).json.get("failures", []) == []
    too_many = put(5_001)
    if rest == "a":
        assert too_many.refusal()[:2] == (413, "too_large")
    else:
        assert "5,000" in too_many.json["failures"][0]["error"]


def test_hundreds_of_thousands_of_keys_are_refused_without_decoding_them(api: Api) -> None:
    text = b'{"keys":[' + b'["a"],' * 850_000 + b'["a"]]}'
    assert api.call("POST", "batch", text).refusal() == (400, "too_large", ["keys"])


class Text(bytes):
    """Counts no more than that: how long the longest text is that it was searched for."""

    longest = 0

    def find(self, sub: Any, *bounds: Any) -> int:
        Text.longest = max(Text.longest, len(sub))
        return super().find(sub, *bounds)


@pytest.mark.parametrize("before", [b"", b"[]", b"[],[],", b'"entries":[[],[],[]],', b"[" + b"[]," * 50 + b"x"])
def test_where_items_begin_is_found_without_a_search_for_all_of_them(before: bytes) -> None:
    """Which takes the standard library a second, for megabytes that repeat themselves."""
    items = b"[" + b"[]," * 5_000 + b"1]"
    text = Text(before + items + b"}")
    assert batches._place(text, memoryview(items), 1_000) == len(before)
    assert Text.longest < 100
    assert batches._place(text, memoryview(items), 100) == (len(before) if len(before) <= 100 else -1)
