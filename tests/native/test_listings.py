"""Many entries: pages, trees, counts, many keys at once, and whole prefixes removed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.native import Client, refusal

WORDS = ["a", "a/b", "a/b/c", "a/d", "ab", "b/a", "z%2Fz/y"]


@pytest.fixture
def filled(kv: Client) -> Client:
    """A store with an entry for each of the words, the last one first."""
    for number, word in enumerate(reversed(WORDS)):
        kv.set(word, number, kvasir_metadata=json.dumps({"odd": number % 2 == 1, "n": {"x": number}}))
    return kv


def keys(answer: Any) -> list[str]:
    return ["/".join(entry["key"]) for entry in answer["entries"]]


def pages(kv: Client, query: str) -> list[str]:
    """The keys of all pages of a listing."""
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = kv.ask("GET", f"entries?{query}" + (f"&cursor={cursor}" if cursor else "")).json()
        found += keys(answer)
        cursor = answer["next"]
    return found


BY_KEY = ["a", "a/b", "a/b/c", "a/d", "ab", "b/a", "z/z/y"]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 1000])
def test_a_listing_goes_page_by_page_in_every_order(filled: Client, limit: int) -> None:
    assert pages(filled, f"limit={limit}") == BY_KEY
    assert pages(filled, f"limit={limit}&order=newest") == BY_KEY
    assert pages(filled, f"limit={limit}&order=oldest&values=false") == BY_KEY[::-1]
    assert pages(filled, f"limit={limit}&prefix=a") == BY_KEY[:4]


def test_an_entry_in_a_listing_is_the_whole_entry(filled: Client) -> None:
    (entry,) = filled.ask("GET", "entries?prefix=ab").json()["entries"]
    assert entry == filled.entry("ab")
    (bare,) = filled.ask("GET", "entries?prefix=ab&values=false").json()["entries"]
    assert bare == {name: member for name, member in entry.items() if name != "value"}


@pytest.mark.parametrize(
    ("prefix", "found"),
    [
        ("a/b", BY_KEY[1:3]),
        ("a%2Fb", BY_KEY[1:3]),  # what most clients make of a/b in a query
        ('["a","b"]', BY_KEY[1:3]),
        ("z%252Fz", BY_KEY[6:]),
        ('["z/z"]', BY_KEY[6:]),
        ("z/z", []),
        ("c", []),
    ],
)
def test_a_prefix_is_written_like_a_path_or_as_an_array(filled: Client, prefix: str, found: list[str]) -> None:
    assert pages(filled, f"prefix={prefix}") == found
    assert filled.ask("GET", f"count?prefix={prefix}").json() == {"count": len(found)}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ('metadata={"odd":true}', ["a/b", "a/d", "b/a"]),
        ('metadata={"n":{"x":0.0}}', ["z/z/y"]),
        ("created_from=2100-01-01T00:00:00Z", []),
        ("created_to=2000-01-01T00:00:00Z", []),
        ("created_from=2000-01-01T00:00:00Z&created_to=2100-01-01T00:00:00%2B00:00", BY_KEY),
    ],
)
def test_filters(filled: Client, query: str, found: list[str]) -> None:
    assert pages(filled, query) == found


def test_a_page_is_bounded_in_bytes(kv: Client) -> None:
    large = b'"' + b"x" * 1_000_000 + b'"'
    for number in range(9):
        kv.set(f"k{number}", large)
    answer = kv.ask("GET", "entries?limit=1000").json()
    assert 1 <= len(answer["entries"]) < 9
    assert pages(kv, "limit=1000") == [f"k{number}" for number in range(9)]
    assert len(kv.ask("GET", "entries?limit=1000&values=false").json()["entries"]) == 9


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        ("prefix=", "prefix", "invalid"),
        ("prefix=[]", "prefix", "invalid"),
        ("prefix=a&all=true", "all", "invalid"),
        ("prefix=a/", "prefix", "invalid"),
        ("prefix=[1]", "prefix", "invalid"),
        ("order=random", "order", "invalid"),
        ("limit=1001", "limit", "invalid"),
        ("cursor=x", "cursor", "invalid_cursor"),
        ("cursor=", "cursor", "invalid_cursor"),
        ("metadata=[]", "metadata", "invalid"),
        ("metadata={", "metadata", "invalid"),
        ("created_from=yesterday", "created_from", "invalid"),
        ("colour=red", "colour", "invalid"),
        ("limit=1&limit=2", "limit", "invalid"),
    ],
)
def test_unfit_queries_are_refused_by_name(kv: Client, query: str, field: str, code: str) -> None:
    assert refusal(kv.ask("GET", f"entries?{query}")) == (400, code, [field])


def test_a_cursor_is_one_of_its_space_and_order(filled: Client, kv: Client) -> None:
    cursor = filled.ask("GET", "entries?limit=1").json()["next"]
    assert refusal(filled.ask("GET", f"entries?cursor={cursor}&order=newest"))[1] == "invalid_cursor"
    assert refusal(filled.ask("GET", f"entries?cursor={cursor[:-1]}"))[1] == "invalid_cursor"
    assert refusal(filled.ask("GET", f"entries?cursor={cursor}%3D"))[1] == "invalid_cursor"
    other = Client(kv.http, kv.http.post("spaces", json={"name": "another"}).json()["id"])
    assert refusal(other.ask("GET", f"entries?cursor={cursor}"))[1] == "invalid_cursor"


@pytest.mark.parametrize(
    ("listing", "name"), [("entries", "cursor"), ("entries?order=newest", "cursor"), ("children", "after")]
)
def test_a_cursor_is_one_of_its_prefix(filled: Client, listing: str, name: str) -> None:
    """Another listing would begin or end somewhere, and say that nothing follows."""
    listing += "&" if "?" in listing else "?"
    cursor = filled.ask("GET", f"{listing}prefix=a&limit=1").json()["next"]
    assert filled.ask("GET", f"{listing}prefix=a&{name}={cursor}").status_code == 200
    for query in ("", "all=true&", "prefix=ab&", "prefix=a/b&", "prefix=b&"):
        answer = filled.ask("GET", f"{listing}{query}{name}={cursor}")
        assert refusal(answer) == (400, "invalid_cursor", [name])
        assert "is not a cursor of this listing" in answer.json()["detail"]


# -- the tree ---------------------------------------------------------------------------------------------


def parts(kv: Client, query: str) -> list[tuple[str, bool, bool]]:
    found: list[tuple[str, bool, bool]] = []
    after: str | None = ""
    while after is not None:
        answer = kv.ask("GET", f"children?{query}" + (f"&after={after}" if after else "")).json()
        found += [(child["part"], child["entry"], child["below"]) for child in answer["children"]]
        after = answer["next"]
    return found


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_children_are_the_next_parts(filled: Client, limit: int) -> None:
    root = [("a", True, True), ("ab", True, False), ("b", False, True), ("z/z", False, True)]
    assert parts(filled, f"limit={limit}") == root
    assert parts(filled, f"limit={limit}&all=true") == root
    assert parts(filled, f"limit={limit}&prefix=a") == [("b", True, True), ("d", True, False)]
    assert parts(filled, f"limit={limit}&prefix=a/b") == [("c", True, False)]
    assert parts(filled, f"limit={limit}&prefix=a/b/c") == []
    assert parts(filled, f'limit={limit}&prefix=["z/z"]') == [("y", True, False)]


def test_children_begin_at_a_part_or_behind_its_place(filled: Client) -> None:
    for limit in (1, 100):
        assert parts(filled, f"limit={limit}&from=ab") == [
            ("ab", True, False),
            ("b", False, True),
            ("z/z", False, True),
        ]
        assert parts(filled, f"limit={limit}&from=ac") == [("b", False, True), ("z/z", False, True)]
        assert parts(filled, f"limit={limit}&from=zz") == []
        assert parts(filled, f"limit={limit}&prefix=a&from=") == [("b", True, True), ("d", True, False)]
        assert parts(filled, f"limit={limit}&prefix=a&from=c") == [("d", True, False)]


def test_unfit_children_are_refused(kv: Client) -> None:
    for query, field in (("prefix=", "prefix"), ("after=x", "after"), ("limit=0", "limit")):
        assert refusal(kv.ask("GET", f"children?{query}"))[2] == [field]


# -- count, many keys, prefixes removed -------------------------------------------------------------------


def test_count(filled: Client) -> None:
    assert filled.ask("GET", "count").json() == {"count": 7}
    assert filled.ask("GET", "count?all=true").json() == {"count": 7}
    assert refusal(filled.ask("GET", "count?prefix=")) == (400, "invalid", ["prefix"])


def test_many_keys_in_their_order(filled: Client) -> None:
    asked = [["ab"], ["nothing"], ["z/z", "y"], ["ab"], [""]]
    answer = filled.ask("POST", "get", json={"keys": asked}).json()["entries"]
    assert answer == [filled.entry("ab"), None, filled.entry("z/z", "y"), filled.entry("ab"), None]
    assert filled.ask("POST", "get", json={"keys": []}).json() == {"entries": []}


def test_many_keys_extend_sliding_lives_unless_told_not_to(kv: Client) -> None:
    kv.set("a", 1, "ttl=1h&refresh=true")
    before = kv.entry("a")["expires_at"]
    (entry,) = kv.ask("POST", "get?extend=false", json={"keys": [["a"]]}).json()["entries"]
    assert entry["expires_at"] == before
    (entry,) = kv.ask("POST", "get", json={"keys": [["a"]]}).json()["entries"]
    assert entry["expires_at"] > before


def test_a_prefix_that_is_too_long_is_blamed_by_its_name(kv: Client) -> None:
    prefix = "x" * 2047
    for method, path in (("GET", "entries"), ("GET", "children"), ("GET", "count"), ("GET", "export"), ("GET", "watch"),
                         ("DELETE", "entries")):  # fmt: skip
        assert refusal(kv.ask(method, f"{path}?prefix={prefix}")) == (413, "too_large", ["prefix"])


@pytest.mark.parametrize(
    ("body", "status", "fields"),
    [
        ({}, 400, ["keys"]),
        ({"keys": "a"}, 400, ["keys"]),
        ({"keys": [["a"], "b"]}, 400, ["keys[1]"]),
        ({"keys": [["a"], []]}, 400, []),
        ({"keys": [["a"], ["x" * 2047]]}, 413, ["keys[1]"]),
        ({"keys": [["a"]] * 1001}, 413, ["keys"]),
    ],
)
def test_unfit_keys_are_refused(kv: Client, body: Any, status: int, fields: list[str]) -> None:
    answer = kv.ask("POST", "get", json=body)
    assert (answer.status_code, refusal(answer)[2]) == (status, fields)


def test_a_prefix_is_removed_if_it_has_as_many_as_expected(filled: Client) -> None:
    wrong = filled.ask("DELETE", "entries?prefix=a&expect=3")
    assert refusal(wrong) == (412, "conflict", [])
    assert wrong.json()["count"] == 4
    assert filled.ask("GET", "count").json() == {"count": 7}
    gone = filled.ask("DELETE", "entries?prefix=a&expect=4")
    assert (gone.status_code, gone.headers["kvasir-count"]) == (204, "4")
    assert filled.ask("DELETE", "entries?prefix=a").headers["kvasir-count"] == "0"
    for query in ("", "prefix=", "prefix=[]", "all=false", "expect=3"):
        assert refusal(filled.ask("DELETE", f"entries?{query}")) == (400, "invalid", ["prefix"])
    assert filled.ask("DELETE", "entries?all=true&expect=3").headers["kvasir-count"] == "3"


@pytest.mark.parametrize("header", ["If-Match", "If-None-Match"])
def test_writes_of_many_entries_refuse_the_conditions_of_one_and_name_their_own(filled: Client, header: str) -> None:
    set_one = json.dumps({"mutations": [{"type": "set", "key": ["a"], "value": 8}]}).encode()
    line = json.dumps({"key": ["a"], "value": 8}).encode()
    for method, path, content, own in (
        ("DELETE", "entries?prefix=a", None, "expect"),
        ("POST", "atomic", set_one, "checks"),
        ("POST", "import", line, "mode"),
    ):
        for text in ("*", '"00000000000000000001"', ""):
            answer = filled.ask(method, path, content=content, headers={header: text})
            assert refusal(answer) == (400, "invalid", [header.lower()])
            assert own in answer.json()["detail"]
    assert filled.ask("GET", "count").json() == {"count": 7}
    assert filled.get("a").json() == 6
