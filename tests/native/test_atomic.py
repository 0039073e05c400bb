"""Transactions: all or nothing, every option of every mutation, and what fails."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.support.native import Client, refusal


def atomic(kv: Client, *mutations: Any, checks: Any = ()) -> httpx.Response:
    return kv.ask("POST", "atomic", json={"checks": list(checks), "mutations": list(mutations)})


def put(key: str, value: Any = 1, **options: Any) -> dict[str, Any]:
    return {"type": "set", "key": key.split("/"), "value": value, **options}


def test_every_mutation_in_one_commit(kv: Client) -> None:
    for key in ("old", "touched", "gone", "p/1", "p/2"):
        kv.set(key, 0)
    answer = atomic(
        kv,
        put("new"),
        put("old"),
        {"type": "delete", "key": ["gone"]},
        {"type": "delete", "key": ["never"]},
        {"type": "delete_prefix", "prefix": ["p"], "expect": 2},
        {"type": "touch", "key": ["touched"], "ttl": "1h"},
        {"type": "touch", "key": ["never"], "expires_at": None},
        {"type": "increment", "key": ["n"], "by": 5, "initial": 10},
        {"type": "increment", "key": ["n"]},
    )
    assert answer.status_code == 200
    assert answer.json()["results"] == [
        {"type": "set", "replaced": False},
        {"type": "set", "replaced": True},
        {"type": "delete", "removed": 1},
        {"type": "delete", "removed": 0},
        {"type": "delete_prefix", "removed": 2},
        {"type": "touch", "touched": True},
        {"type": "touch", "touched": False},
        {"type": "increment", "value": 15, "text": "15"},
        {"type": "increment", "value": 16, "text": "16"},
    ]
    assert kv.get("n").headers["etag"] == f'"{answer.json()["versionstamp"]}"' == kv.get("new").headers["etag"]
    assert kv.entry("touched")["expires_at"]
    assert kv.ask("GET", "count").json() == {"count": 4}


def test_all_checks_that_fail_are_told_and_nothing_is_done(kv: Client) -> None:
    stamp = kv.set("a", 1).json()["versionstamp"]
    answer = atomic(
        kv,
        put("b"),
        {"type": "delete_prefix", "prefix": ["a"], "expect": 7},
        checks=[
            {"key": ["a"], "versionstamp": stamp},
            {"key": ["a"], "versionstamp": None},
            {"key": ["c"], "present": True},
            {"key": ["a"], "present": False},
            {"key": ["c"], "versionstamp": stamp},
        ],
    )
    assert refusal(answer) == (412, "conflict", [])
    assert answer.json()["failed"] == [
        {"check": 1, "key": ["a"], "versionstamp": stamp},
        {"check": 2, "key": ["c"], "versionstamp": None},
        {"check": 3, "key": ["a"], "versionstamp": stamp},
        {"check": 4, "key": ["c"], "versionstamp": None},
        {"mutation": 1, "prefix": ["a"], "count": 1},
    ]
    assert kv.entry("b") is None
    assert atomic(kv, put("b"), checks=[{"key": ["a"], "versionstamp": stamp}]).status_code == 200
    assert atomic(kv, checks=[{"key": ["a"], "present": True}]).status_code == 200


def test_a_set_with_every_option(kv: Client) -> None:
    text = b'{"mutations":[{"type":"set","key":["a"],"value": 1.50 ,"ttl":"1h","refresh":true,"metadata":{"x": 1.0}}]}'
    assert kv.ask("POST", "atomic", content=text).status_code == 200
    entry = kv.get("a", "form=entry&extend=false")
    assert b'"value":1.50,' in entry.content
    assert b'"metadata":{"x": 1.0}' in entry.content
    assert entry.json()["refresh"] == 3_600_000
    atomic(kv, put("a", 2, keep=["expiry", "metadata"]))
    assert kv.entry("a") | {"value": 0, "versionstamp": ""} == entry.json() | {"value": 0, "versionstamp": ""}
    atomic(kv, {"type": "set", "key": ["a"], "text": "  9007199254740993\n", "metadata": None})
    assert kv.get("a").content == b"  9007199254740993\n"
    assert kv.entry("a")["expires_at"] is None
    assert atomic(kv, put("large", metadata={"x": "y" * 16_000})).status_code == 200
    assert atomic(kv, put("large", metadata={"x": "y" * 16_384})).status_code == 413


def test_a_put_keeps_what_it_is_told_to_keep(kv: Client) -> None:
    kv.set("a", 1, "ttl=1h&refresh=true", kvasir_metadata='{"x":1}')
    before = kv.entry("a")
    for keep, kept in (
        ("expiry,metadata", ("expires_at", "refresh", "metadata")),
        ("expiry", ("expires_at", "refresh")),
    ):
        assert kv.set("a", 2, f"keep={keep}").status_code == 200
        assert {name for name in ("expires_at", "refresh", "metadata") if kv.entry("a")[name] == before[name]} == {
            *kept
        }
    assert kv.set("b", 1, "keep=expiry&ttl=1h").status_code == 201
    assert kv.entry("b")["expires_at"] is not None
    assert refusal(kv.set("a", 1, "keep=value")) == (400, "invalid", ["keep"])


def test_touch_changes_the_life_and_nothing_else(kv: Client) -> None:
    stamp = kv.set("a", 1).json()["versionstamp"]
    for options, expected in (
        ({"expires_at": "2100-01-01T00:00:00Z"}, "2100-01-01T00:00:00.000Z"),
        ({"expires_at": "2099-01-01T00:00:00Z", "extend": True}, "2100-01-01T00:00:00.000Z"),
        ({"expires_at": "2099-01-01T00:00:00Z"}, "2099-01-01T00:00:00.000Z"),
        ({"expires_at": None}, None),
    ):
        assert atomic(kv, {"type": "touch", "key": ["a"], **options}).status_code == 200
        assert (kv.entry("a")["expires_at"], kv.entry("a")["versionstamp"]) == (expected, stamp)


@pytest.mark.parametrize(
    ("value", "by", "result"),
    [
        (b"41", 1, 42),
        (b" -5 ", 5, 0),
        (b"9223372036854775806", 1, 2**63 - 1),
        (b"0", -(2**63), -(2**63)),
        (b"9007199254740993", "2", 9007199254740995),
        (b"0", str(-(2**63)), -(2**63)),
        (b"7", "-0", 7),
    ],
)
def test_an_increment_is_exact_and_keeps_life_and_metadata(kv: Client, value: bytes, by: Any, result: int) -> None:
    kv.set("n", value, "ttl=1h", kvasir_metadata='{"x":1}')
    before = kv.entry("n")
    answer = atomic(kv, {"type": "increment", "key": ["n"], "by": by})
    assert answer.json()["results"] == [{"type": "increment", "value": result, "text": str(result)}]
    assert kv.get("n").content == str(result).encode()
    after = kv.entry("n")
    assert [after[name] for name in ("expires_at", "metadata")] == [before[name] for name in ("expires_at", "metadata")]


@pytest.mark.parametrize("value", [b"1.0", b"1e3", b'"1"', b"null", b"9223372036854775807", b"9223372036854775808"])
def test_what_cannot_be_incremented_is_refused_and_nothing_is_done(kv: Client, value: bytes) -> None:
    kv.set("n", value)
    answer = atomic(kv, put("other"), {"type": "increment", "key": ["n"]})
    assert refusal(answer) == (400, "not_incremented", [])
    assert kv.get("n").content == value
    assert kv.entry("other") is None


@pytest.mark.parametrize(
    ("mutation", "field"),
    [
        ({}, "mutations[0].type"),
        ({"type": "rename", "key": ["a"]}, "mutations[0].type"),
        ({"type": "set", "key": ["a"]}, "mutations[0].value"),
        ({"type": "set", "key": [], "value": 1}, "mutations[0].key"),
        ({"type": "set", "key": ["a"], "value": 1, "text": "1"}, "mutations[0].text"),
        ({"type": "set", "key": ["a"], "text": "{"}, "mutations[0].text"),
        (put("a", ttl="1"), "mutations[0].ttl"),
        (put("a", ttl="1s", expires_at="2100-01-01T00:00:00Z"), "mutations[0].ttl"),
        (put("a", expires_at="2000-01-01T00:00:00Z"), "mutations[0].expires_at"),
        (put("a", expires_at="soon"), "mutations[0].expires_at"),
        (put("a", refresh=True), "mutations[0].refresh"),
        (put("a", metadata=[]), "mutations[0].metadata"),
        (put("a", keep=["value"]), "mutations[0].keep[0]"),
        (put("a", colour="red"), "mutations[0].colour"),
        ({"type": "delete_prefix", "prefix": []}, "mutations[0].prefix"),
        ({"type": "delete_prefix", "prefix": ["a"], "all": True}, "mutations[0].all"),
        ({"type": "delete_prefix", "prefix": ["a"], "expect": -1}, "mutations[0].expect"),
        ({"type": "delete_prefix", "prefix": ["a"], "expect": 2**53 + 1}, "mutations[0].expect"),
        ({"type": "delete_prefix", "prefix": ["a"], "expect": 2**63}, "mutations[0].expect"),
        ({"type": "touch", "key": ["a"]}, "mutations[0].ttl"),
        ({"type": "touch", "key": ["a"], "ttl": "1s", "expires_at": None}, "mutations[0].ttl"),
        ({"type": "increment", "key": ["a"], "by": 2**63}, "mutations[0].by"),
        ({"type": "increment", "key": ["a"], "initial": "x"}, "mutations[0].initial"),
        *(
            ({"type": "increment", "key": ["a"], "by": text}, "mutations[0].by")
            for text in ("1_0", " 5 ", "5\n", "٣", "+5", "05", "-", "", "0x1", str(2**63), "9" * 400)
        ),
    ],
)
def test_unfit_mutations_are_refused_by_name(kv: Client, mutation: Any, field: str) -> None:
    answer = atomic(kv, mutation)
    assert refusal(answer) == (400, "invalid", [field])
    assert kv.ask("GET", "count").json() == {"count": 0}


@pytest.mark.parametrize(
    "check", [{"key": ["a"]}, {"key": ["a"], "versionstamp": None, "present": True}, {"key": [], "present": True}]
)
def test_unfit_checks_are_refused(kv: Client, check: Any) -> None:
    assert refusal(atomic(kv, checks=[check]))[0] == 400


@pytest.mark.parametrize("text", ["", "ABC", '"{}"', "{}0", "{}\n", "W/{}", "0000000000000000ABCD"])
def test_a_check_of_what_is_no_versionstamp_is_refused_by_name(kv: Client, text: str) -> None:
    """As a condition it could never hold: who repeats the transaction on each 412 would do so for ever."""
    stamp = kv.set("a", 1).json()["versionstamp"]
    right = {"key": ["a"], "versionstamp": stamp}
    wrong = {"key": ["a"], "versionstamp": text.format(stamp)}
    answer = atomic(kv, put("a", 2), checks=[right, wrong])
    assert refusal(answer) == (400, "invalid", ["checks[1].versionstamp"])


@pytest.mark.parametrize("stamp", ["0" * 20, "f" * 20, "00000000000000000001"])
def test_a_versionstamp_that_no_entry_has_is_a_condition_that_is_not_met(kv: Client, stamp: str) -> None:
    kv.set("a", 1)
    assert refusal(atomic(kv, put("a", 2), checks=[{"key": ["a"], "versionstamp": stamp}])) == (412, "conflict", [])


def test_a_word_that_is_none_of_those_allowed_is_answered_with_these(kv: Client) -> None:
    for mutation, allowed in (
        ({"type": "rename", "key": ["a"]}, "set, delete, delete_prefix, touch, increment"),
        (put("a", keep=["expiry", "value"]), "expiry, metadata"),
    ):
        (field,) = atomic(kv, mutation).json()["fields"]
        assert field["message"] == f"must be one of: {allowed}"


def test_a_member_that_is_missing_unknown_or_of_another_type_is_named_in_plain_words(kv: Client) -> None:
    for mutation, name, message in (
        ({"type": "set", "value": 1}, "mutations[0].key", "is missing"),
        (put("a", colour=1), "mutations[0].colour", "is not known here"),
        (put("a", ttl=5), "mutations[0].ttl", "expected a string or null, got an integer"),
        (put("a", refresh="yes"), "mutations[0].refresh", "expected true or false, got a string"),
    ):
        (field,) = atomic(kv, mutation).json()["fields"]
        assert (field["field"], field["message"]) == (name, message)


def test_a_refusal_repeats_no_more_than_a_little_of_what_was_sent(kv: Client) -> None:
    long = "x" * 100_000
    for body in ({long: 1}, {"mutations": [{"type": long}]}, {"mutations": [put("a", **{long: 1})]},
                 {"mutations": [{"type": "set", "key": ["a"], "value": 1, "keep": [long]}]}):  # fmt: skip
        answer = kv.ask("POST", "atomic", json=body)
        assert refusal(answer)[0] == 400
        assert len(answer.content) < 2_000
    lines = b"\n".join([json.dumps({"key": ["a"], "value": 1, f"{long}{n}": 1}).encode() for n in range(5)])
    report = kv.ask("POST", "import", content=lines).json()
    assert [len(line["reason"]) < 500 for line in report["refusals"]] == [True] * 5


def test_limits_of_a_transaction(kv: Client) -> None:
    assert refusal(kv.ask("POST", "atomic", json={})) == (400, "invalid", [])
    assert atomic(kv, *[put(f"k{n}") for n in range(1_000)]).status_code == 200
    assert refusal(atomic(kv, *[put(f"k{n}") for n in range(1_001)])) == (413, "too_large", [])
    assert refusal(atomic(kv, put("a"), put("x" * 2047))) == (413, "too_large", ["mutations[1].key"])
    large = refusal(atomic(kv, put("a"), put("b", "x" * 2**20)))
    assert large == (413, "too_large", ["mutations[1].value"])
    prefix = refusal(atomic(kv, put("a"), {"type": "delete_prefix", "prefix": ["x" * 2047]}))
    assert prefix == (413, "too_large", ["mutations[1].prefix"])
    assert kv.ask("DELETE", "entries?all=true&expect=1000").status_code == 204
