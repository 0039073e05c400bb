"""One entry: the value itself, ETags, conditions, lives, metadata; keys in both forms."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import httpx
import pytest

from kvasir.dialects.native import preconditions
from kvasir.errors import Invalid
from tests.support.native import Client, array, refusal

FIXED = {"cache-control": "no-store, no-transform", "x-content-type-options": "nosniff"}


@pytest.mark.parametrize(
    "value", [b"1", b'{"a": 9.50, "b":[1e2,\n18446744073709551617]}', b'"\xc3\xa9\\u00e9"', b" null \n", b"false"]
)
def test_a_value_comes_back_byte_for_byte(kv: Client, value: bytes) -> None:
    put = kv.set("a/b", value)
    assert put.status_code == 201
    got = kv.get("a/b")
    assert (got.status_code, got.content) == (200, value)
    assert got.headers["content-type"] == "application/json"
    assert got.headers["etag"] == put.headers["etag"] == f'"{put.json()["versionstamp"]}"'
    assert got.headers["kvasir-created-at"].endswith("Z")
    assert "kvasir-expires-at" not in got.headers
    assert kv.set("a/b", value).status_code == 200
    for answer in (put, got, kv.get("nothing")):
        assert FIXED.items() <= dict(answer.headers).items()


@pytest.mark.parametrize("wrong", [b"", b"{", b"\xff", b'{"a":1,"a":2}', b"NaN", b"1 2"])
def test_what_is_no_json_is_refused(kv: Client, wrong: bytes) -> None:
    assert refusal(kv.set("a", wrong)) == (400, "invalid", [])
    assert kv.get("a").status_code == 404


def test_an_empty_body_is_called_so(kv: Client) -> None:
    for method, path in (("PUT", "entries/a"), ("POST", "atomic"), ("POST", "get")):
        answer = kv.ask(method, path)
        assert refusal(answer) == (400, "invalid", [])
        assert answer.json()["detail"].startswith("the body is empty; it must be ")


def test_a_value_may_be_a_mebibyte_and_no_more(kv: Client) -> None:
    assert kv.set("a", b'"' + b"x" * (2**20 - 2) + b'"').status_code == 201
    assert refusal(kv.set("a", b'"' + b"x" * (2**20 - 1) + b'"')) == (413, "too_large", ["value"])


def test_head_is_get_without_the_body(kv: Client) -> None:
    kv.set("a", [1, 2, 3])
    got, head = kv.get("a"), kv.ask("HEAD", "entries/a")
    assert head.content == b""
    for name in ("etag", "content-length", "kvasir-created-at"):
        assert head.headers[name] == got.headers[name]
    assert kv.ask("HEAD", "entries/b").status_code == 404


# -- keys -------------------------------------------------------------------------------------------------

PATHS: list[tuple[str, list[str]]] = [
    ("a", ["a"]),
    ("a%2Fb/c", ["a/b", "c"]),
    ("a%2fb/c", ["a/b", "c"]),
    ("a+b", ["a+b"]),
    ("a%20b%3F%23", ["a b?#"]),
    ("%C3%A9", ["é"]),
    ("%EF%BF%BD", ["\ufffd"]),
    ("%00", ["\x00"]),
    ("%252F", ["%2F"]),
    ("..a/b.", ["..a", "b."]),
    ("entries/get/count", ["entries", "get", "count"]),
    ("[%22a%22]", ['["a"]']),
]


@pytest.mark.parametrize(("path", "key"), PATHS)
def test_a_path_is_split_and_then_decoded(kv: Client, path: str, key: list[str]) -> None:
    assert kv.set(path, path).status_code == 201
    assert kv.entry(*key)["key"] == key
    assert kv.get(path).json() == path
    assert kv.delete(path).headers["kvasir-count"] == "1"


@pytest.mark.parametrize(
    "path", ["", "a//b", "a/", "/a", "%2E", "a/%2e%2e/b", "%80", "a/%FF", "%ED%A0%80", "%", "a%2", "a/%zz"]
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_path_that_is_no_key_is_refused_and_told_the_general_form(kv: Client, path: str, method: str) -> None:
    answer = kv.ask(method, f"entries/{path}", content=b"1" if method == "PUT" else None)
    assert refusal(answer) == (400, "invalid", ["key"])
    assert "/entry?key=" in answer.json()["detail"]


@pytest.mark.parametrize(
    "key", [[""], ["", ""], ["."], ["a", "..", "b"], ["a/b", ""], ["\x00\xff"], ["x"] * 500, ["🎈", "\U0010ffff"]]
)
def test_the_general_form_takes_any_key(kv: Client, key: list[str]) -> None:
    target = f"entry?key={array(*key)}"
    assert kv.ask("PUT", target, content=b"7").status_code == 201
    assert kv.ask("GET", target).content == b"7"
    assert kv.entry(*key)["key"] == key
    assert kv.ask("HEAD", target).headers["etag"]
    gone = kv.ask("DELETE", target)
    assert (gone.status_code, gone.headers["kvasir-count"]) == (204, "1")
    assert kv.ask("GET", target).status_code == 404


@pytest.mark.parametrize("wrong", ["", "a", "[]", "[1]", '["a"', "null", '["\\ud800"]'])
def test_the_general_form_takes_arrays_of_strings_only(kv: Client, wrong: str) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = kv.ask(method, "entry", params={"key": wrong}, content=b"1" if method == "PUT" else None)
        assert refusal(answer) == (400, "invalid", ["key"])
        assert refusal(kv.ask(method, "entry", content=b"1" if method == "PUT" else None))[2] == ["key"]


def test_a_key_may_have_2048_bytes_packed_and_no_more(kv: Client) -> None:
    assert kv.set("x" * 2046).status_code == 201
    for method in ("GET", "PUT", "DELETE"):
        answer = kv.ask(method, "entries/" + "x" * 2047, content=b"1" if method == "PUT" else None)
        assert refusal(answer) == (413, "too_large", ["key"])


# -- conditions -------------------------------------------------------------------------------------------


def test_if_match_writes_over_that_versionstamp_only(kv: Client) -> None:
    first = kv.set("a", 1).headers["etag"]
    second = kv.set("a", 2, if_match=first).headers["etag"]
    stale = kv.set("a", 3, if_match=first)
    assert refusal(stale) == (412, "conflict", [])
    assert stale.headers["etag"] == second
    assert stale.json()["versionstamp"] == second.strip('"')
    assert kv.set("a", 4, if_match=f'{first}, {second}, "x"').status_code == 200
    assert kv.delete("a", if_match=second).status_code == 412
    assert kv.delete("a", if_match="*").status_code == 204


def test_if_match_of_a_key_that_is_not_there(kv: Client) -> None:
    for header in ("*", '"00000000000000000001"', '"anything"', '"a", "b"'):
        answer = kv.set("a", 1, if_match=header)
        assert refusal(answer) == (412, "conflict", [])
        assert "etag" not in answer.headers
        assert answer.json()["versionstamp"] is None
        assert kv.delete("a", if_match=header).status_code == 412
        assert kv.get("a", if_match=header).status_code == 412


def test_if_none_match_writes_only_if_nothing_is_there(kv: Client) -> None:
    tag = kv.set("a", 1, if_none_match="*").headers["etag"]
    again = kv.set("a", 2, if_none_match="*")
    assert (again.status_code, again.headers["etag"]) == (412, tag)
    assert refusal(kv.set("a", 2, if_none_match=tag)) == (400, "invalid", ["if-none-match"])
    assert refusal(kv.set("a", 2, if_none_match="*", if_match="*")) == (400, "invalid", ["if-none-match"])
    assert kv.get("a").json() == 1


def test_if_none_match_reads_only_what_has_changed(kv: Client) -> None:
    old = kv.set("a", 1).headers["etag"]
    tag = kv.set("a", 2).headers["etag"]
    for header in (tag, f"W/{tag}", f"{old}, {tag}", "*"):
        answer = kv.get("a", if_none_match=header)
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
        assert "content-length" not in answer.headers
    assert kv.get("a", if_none_match=old).json() == 2
    assert kv.get("b", if_none_match="*").status_code == 404
    assert kv.get("a", if_match=old).status_code == 412
    assert kv.get("a", if_match=tag).json() == 2


def test_a_weak_tag_in_if_match_is_refused_and_named(kv: Client) -> None:
    tag = kv.set("a", 1).headers["etag"]
    for method in ("GET", "PUT", "DELETE"):
        answer = kv.ask(method, "entries/a", headers={"If-Match": f"W/{tag}"}, content=b"2" if method == "PUT" else b"")
        assert refusal(answer) == (400, "invalid", ["if-match"])
        assert "proxy" in answer.json()["detail"]


@pytest.mark.parametrize("wrong", ["x", '"a" "b"', '"a', '"a";', "*, *", "W/x"])
def test_what_is_no_list_of_tags_is_refused(kv: Client, wrong: str) -> None:
    assert refusal(kv.set("a", 1, if_match=wrong)) == (400, "invalid", ["if-match"])
    assert refusal(kv.get("a", if_none_match=wrong)) == (400, "invalid", ["if-none-match"])


@pytest.mark.parametrize("empty", ["", ",", ", ,"])
@pytest.mark.parametrize("header", ["if-match", "if-none-match"])
def test_a_condition_without_a_tag_is_refused_and_not_passed_over(kv: Client, header: str, empty: str) -> None:
    kv.set("a", 1)
    for method, content in (("GET", None), ("PUT", b"2"), ("DELETE", None)):
        for path in ("entries/a", f"entry?key={array('a')}"):
            answer = kv.ask(method, path, headers={header: empty}, content=content)
            assert refusal(answer) == (400, "invalid", [header])
    assert kv.get("a").json() == 1
    assert kv.get("a", if_none_match=',"x" ,').json() == 1, "empty members beside a tag mean nothing"


class _Conditional:
    """As much of a request as conditions look at."""

    def __init__(self, text: str) -> None:
        self._text = text

    def header(self, _: str) -> str:
        return self._text


@pytest.mark.parametrize(("before", "after"), [('"a",', "x"), ('"a"', "x"), ('"a",', '"b')])
def test_a_list_of_tags_is_read_in_one_pass(before: str, after: str) -> None:
    request: Any = _Conditional(before + " " * 60_000 + after)
    with pytest.raises(Invalid):
        preconditions.tags(request, "if-match")
    # Only what gives back nothing of what it has taken looks at each character once.
    assert re.findall(r"\*(?!\+)|(?<!\*)\+", preconditions.MEMBER.pattern) == []


# -- lives and metadata -----------------------------------------------------------------------------------


def milliseconds(answer: httpx.Response) -> int:
    """What is left of an entry's life, from its creation on."""
    entry: Any = answer.headers
    return instant(entry["kvasir-expires-at"]) - instant(entry["kvasir-created-at"])


def instant(text: str) -> int:
    seconds = time.mktime(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
    return int(seconds) * 1000 + int(text[20:23])


@pytest.mark.parametrize(
    ("ttl", "length"),
    [("1500ms", 1_500), ("90s", 90_000), ("15m", 900_000), ("24h", 86_400_000), ("36525d", 3_155_760_000_000)],
)
def test_a_ttl_counts_from_the_commit(kv: Client, ttl: str, length: int) -> None:
    kv.set("a", 1, f"ttl={ttl}")
    assert milliseconds(kv.get("a")) == length
    kv.set("a", 1)
    assert "kvasir-expires-at" not in kv.get("a").headers


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("ttl=1", "ttl"),
        ("ttl=0s", "ttl"),
        ("ttl=-1s", "ttl"),
        ("ttl=1.5s", "ttl"),
        ("ttl=36526d", "ttl"),
        ("ttl=", "ttl"),
        ("ttl=1s&ttl=2s", "ttl"),
        ("ttl=1s&expires_at=2100-01-01T00:00:00Z", "ttl"),
        ("expires_at=2000-01-01T00:00:00Z", "expires_at"),
        ("expires_at=tomorrow", "expires_at"),
        ("refresh=true", "refresh"),
        ("refresh=yes&ttl=1s", "refresh"),
        ("tll=1s", "tll"),
        ("form=entry", "form"),
    ],
)
def test_unfit_parameters_are_refused_by_name(kv: Client, query: str, field: str) -> None:
    assert refusal(kv.set("a", 1, query)) == (400, "invalid", [field])
    assert kv.get("a").status_code == 404


def test_an_expiry_is_exact(kv: Client) -> None:
    kv.set("a", 1, "expires_at=2100-01-01T02:00:00.123%2B02:00")
    assert kv.get("a").headers["kvasir-expires-at"] == "2100-01-01T00:00:00.123Z"
    kv.set("a", 1, "ttl=300ms")
    end = instant(kv.get("a").headers["kvasir-expires-at"])
    while (answer := kv.get("a")).status_code == 200:
        assert time.time() * 1000 < end + 60_000
    assert answer.status_code == 404
    assert time.time() * 1000 >= end - 1


def test_only_get_extends_a_sliding_life(kv: Client) -> None:
    kv.set("a", 1, "ttl=1h&refresh=true")
    entry = kv.entry("a")
    tag = kv.get("a", "form=entry&extend=false").headers["etag"]
    for answer in (
        kv.ask("HEAD", "entries/a"),
        kv.get("a", "extend=false"),
        kv.get("a", if_none_match=f'"{entry["versionstamp"]}"'),
        kv.get("a", "form=entry", if_none_match=tag),
    ):
        assert answer.status_code in (200, 304)
    assert kv.entry("a")["expires_at"] == entry["expires_at"]
    time.sleep(0.002)  # the clock of the server moves on
    extended = kv.get("a")
    assert extended.headers["kvasir-expires-at"] > entry["expires_at"]
    assert extended.headers["etag"] == f'"{entry["versionstamp"]}"'
    assert kv.entry("a")["expires_at"] == extended.headers["kvasir-expires-at"]
    changed = kv.get("a", "form=entry&extend=false", if_none_match=tag)
    assert changed.status_code == 200, "the whole entry has another ETag once its expiry has changed"
    assert kv.set("a", 2, if_match=changed.headers["etag"]).status_code == 200


def test_the_whole_entry(kv: Client) -> None:
    kv.set("a/b", b"1.50", "ttl=1h&refresh=true", kvasir_metadata='{"n": 1.0, "\\u00e9": []}')
    answer = kv.get("a/b", "form=entry")
    assert list(answer.json()) == [
        "key", "value", "versionstamp", "created_at", "expires_at", "refresh", "metadata"
    ]  # fmt: skip
    assert b'"value":1.50,' in answer.content
    assert b'"metadata":{"n": 1.0, "\\u00e9": []}' in answer.content
    assert answer.json()["refresh"] == 3_600_000
    kv.set("a/b", 2)
    entry = kv.entry("a", "b")
    assert (entry["expires_at"], entry["refresh"], entry["metadata"]) == (None, None, None)


def test_metadata_in_a_header_is_an_object_in_ascii_of_at_most_4_kib(kv: Client) -> None:
    fits = json.dumps({"a": "x" * (4_096 - 9)})
    assert len(fits) == 4_096
    assert kv.set("a", 1, kvasir_metadata=fits).status_code == 201
    assert kv.entry("a")["metadata"] == json.loads(fits)
    assert refusal(kv.set("a", 1, kvasir_metadata=fits.replace("x", "xx", 1))) == (
        413,
        "too_large",
        ["kvasir-metadata"],
    )
    assert refusal(kv.set("a", 1, kvasir_metadata="[]")) == (400, "invalid", ["kvasir-metadata"])
    for wrong in ("{", "", '{"a":1,"a":2}', '{"a":1}, {"b":2}'):
        answer = kv.set("a", 1, kvasir_metadata=wrong)
        assert refusal(answer) == (400, "invalid", ["kvasir-metadata"])
        assert answer.json()["detail"].startswith("kvasir-metadata must be a JSON object: ")
    raw = kv.ask("PUT", "entries/a", content=b"1", headers=[(b"Kvasir-Metadata", '{"é":1}'.encode())])
    assert refusal(raw) == (400, "invalid", ["kvasir-metadata"])


# -- delete -----------------------------------------------------------------------------------------------


def test_delete_says_how_many_it_removed(kv: Client) -> None:
    kv.set("a", 1)
    for removed in ("1", "0"):
        answer = kv.delete("a")
        assert (answer.status_code, answer.content, answer.headers["kvasir-count"]) == (204, b"", removed)
        assert "content-length" not in answer.headers
