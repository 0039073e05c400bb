"""Members at the wrong place, unknown and misspelt ones: ignored with a word of warning, or refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvasir.dialects.ignored import MOST_NAMES
from kvasir.dialects.versori import members, openapi
from kvasir.limits import Limits
from tests.support.raw_http import Answer, Wire
from tests.support.serving import Server, serving
from tests.support.versori import Api

# ruff: noqa: E501
#: (method, path below …/kv/, body, what the header says, the field that strict requests are refused for)
IGNORED: list[tuple[str, str, Any, str, str]] = [
    ("PUT", "a", {"value": 1, "expireIn": 200}, "SetKV ignores expireIn; it belongs at options.expireIn", "expireIn"),
    ("PUT", "a", {"value": 1, "options": {"value": 2}}, "SetKV ignores options.value; it belongs at value", "options.value"),
    ("PUT", "a", {"value": 1, "options": {"cascade": True}}, "SetKV ignores options.cascade", "options.cascade"),
    ("PUT", "a", {"value": 1, "options": {"expire_in": 5}}, "SetKV ignores an unknown name that resembles options.expireIn", "options.expire_in"),
    ("PUT", "a", {"value": 1, "Options": {}}, "SetKV ignores an unknown name that resembles options", "Options"),
    ("PUT", "a?expireIn=200", {"value": 1}, "SetKV ignores ?expireIn; it belongs at options.expireIn", "?expireIn"),
    ("GET", "a?versionstamp=1&limit=1", None, "GetKV ignores ?limit", "?versionstamp"),
    ("DELETE", "b", {"ifVersionstamp": "0" * 20}, "DeleteKV ignores ifVersionstamp; it belongs at options.ifVersionstamp", "ifVersionstamp"),
    ("DELETE", "b", {"options": {"prefix": ["a"]}}, "DeleteKV ignores options.prefix", "options.prefix"),
    ("POST", "batch", {"keys": [["a"]], "timeout": 5}, "BatchGetKV ignores timeout; it belongs at options.timeout", "timeout"),
    ("DELETE", "batch", {"keys": [["b"]], "cascade": True}, "BatchDeleteKV ignores cascade; it belongs at options.cascade", "cascade"),
    ("PUT", "batch", {"entries": [], "options": {"expireIn": 5}}, "BatchSetKV ignores options; it belongs at entries[].options", "options"),
    ("POST", "list", {"options": {"after": "x"}}, "ListKV ignores options.after; it belongs at selector.after", "options.after"),
    ("POST", "list", {"prefix": ["a"]}, "ListKV ignores prefix; it belongs at selector.prefix", "prefix"),
    ("POST", "list", {"selector": {"metadata": {"a": 1}}}, "ListKV ignores selector.metadata; it belongs at selector.filter.metadata", "selector.metadata"),
    ("POST", "list", {"selector": {"filter": {"limit": 1}}}, "ListKV ignores selector.filter.limit; it belongs at options.limit", "selector.filter.limit"),
    ("POST", "count", {"selector": {"after": "x"}}, "CountKV ignores selector.after", "selector.after"),
]  # fmt: skip


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("strict"), "--strict-requests") as running:
        yield running


def ask(server: Server, method: str, rest: str, body: Any = None) -> Answer:
    with Wire(server.port) as wire:
        text = b"" if body is None else json.dumps(body).encode()
        return wire.ask(method, f"/store/{server.store}/kv/{rest}", text)


@pytest.mark.parametrize(("method", "rest", "body", "note", "field"), IGNORED)
def test_what_is_ignored_is_said(server: Server, method: str, rest: str, body: Any, note: str, field: str) -> None:
    ask(server, "PUT", "a", {"value": 0})
    for _ in range(2):
        answer = ask(server, method, rest, body)
        assert answer.status == 200
        assert answer.headers["kvasir-warning"] == note
    line = re.sub(r"\[\d+\]", "[]", note)
    assert len(re.findall(rf"WARNING kvasir\.ignored: request \S+: {re.escape(line)} \(", server.log)) == 1


@pytest.mark.parametrize(("method", "rest", "body", "note", "field"), IGNORED)
def test_strict_requests_are_refused(strict: Server, method: str, rest: str, body: Any, note: str, field: str) -> None:
    answer = ask(strict, method, rest, body)
    assert (answer.status, answer.json()["code"]) == (400, "invalid")
    blamed = {each["field"]: each["message"] for each in answer.json()["fields"]}
    assert field in blamed
    if "belongs at" in note:
        assert blamed[field] == f"has no effect here; it belongs at {note.partition('belongs at ')[2]}"
    if "resembles" in note:
        assert blamed[field] == f"is not known here; did you mean {note.partition('resembles ')[2]}?"
    assert ask(strict, "POST", "count", {}).json()["count"] == 0, "nothing was done"


def test_an_unconditional_delete_says_what_it_did_not_look_at(server: Server) -> None:
    ask(server, "PUT", "kept", {"value": 1})
    answer = ask(server, "DELETE", "kept", {"ifVersionstamp": "0" * 20})
    assert (answer.json()["count"], "ifVersionstamp" in answer.headers["kvasir-warning"]) == (1, True)


def test_entries_of_a_batch_are_looked_at_one_by_one(server: Server, strict: Server) -> None:
    entries = [{"key": ["x", str(n)], "value": n} for n in range(20)]
    for n in range(3, 20):
        entries[n]["expireIn"] = 5
    said = ask(server, "PUT", "batch", {"entries": entries}).headers["kvasir-warning"].split("; BatchSetKV")
    assert said[0] == "BatchSetKV ignores entries[3].expireIn; it belongs at entries[3].options.expireIn"
    assert len(said) == MOST_NAMES
    done = ask(strict, "PUT", "batch", {"entries": entries}).json()
    assert (len(done["successes"]), [each["index"] for each in done["failures"]]) == (3, list(range(3, 20)))
    assert "entries[3].options.expireIn" in done["failures"][0]["error"]
    ask(strict, "DELETE", "x", {"options": {"cascade": True}})
    # The same when the batch is too large to be read in one go.
    entries[2]["value"] = "v" * 100_000
    said = (
        ask(server, "PUT", "batch", {"entries": entries, "cascade": 1}).headers["kvasir-warning"].split("; BatchSetKV")
    )
    assert said[0] == "BatchSetKV ignores cascade"
    assert said[1].startswith(" ignores entries[3].expireIn;")
    assert len(said) == MOST_NAMES
    done = ask(strict, "PUT", "batch", {"entries": entries}).json()
    assert len(done["successes"]) == 3
    assert ask(strict, "PUT", "batch", {"entries": entries, "cascade": 1}).status == 400
    ask(strict, "DELETE", "x", {"options": {"cascade": True}})


def test_names_that_the_api_does_not_know_are_never_repeated(server: Server, strict: Server) -> None:
    secret = "hunter2-" + "x" * 5_000
    answer = ask(server, "PUT", "a", {"value": 1, secret: 1, "a\r\nSet-Cookie: b": 2, "customer 4711": 3})
    assert answer.status == 200
    assert "kvasir-warning" not in answer.headers
    assert (
        ask(server, "PUT", "a", {"value": {"expireIn": 1}, "options": {"metadata": {"value": 1}}}).headers.get(
            "kvasir-warning"
        )
        is None
    )
    for name in ("hunter2", "Set-Cookie", "4711"):
        assert name not in server.log
    # To the one who sent it, a piece of it is no secret.
    refused = ask(strict, "PUT", "a", {"value": 1, secret: 1, "a\r\nb\x1b": 2})
    assert [each["field"] for each in refused.json()["fields"]] == [secret[:64], "a\r\nb\x1b"]
    assert "hunter2" not in strict.log


def test_very_many_names_take_no_time_and_no_room(server: Server) -> None:
    body = {"value": 1, **{f"option{n}": n for n in range(20_000)}}
    assert len(ask(server, "PUT", "a", body).headers.get("kvasir-warning", "")) <= 1_000
    entries = [{"key": ["x"], "value": n, **{f"valu{m}": m for m in range(20)}} for n in range(1_000)]
    answer = ask(server, "PUT", "batch", {"entries": entries})
    assert answer.status == 200
    assert len(answer.headers["kvasir-warning"]) <= 1_000


def test_what_is_known_is_taken_as_ever(strict: Server) -> None:
    options = {"metadata": {"any": {"name": 1}}, "expireIn": 60_000, "refreshOnAccess": True, "overwrite": True}
    assert ask(strict, "PUT", "good", {"value": {"expireIn": 1}, "options": options}).status == 200
    assert ask(strict, "GET", "good").status == 200
    wanted = {"selector": {"prefix": ["good"], "filter": {"metadata": {"any": {"name": 1}}}}, "options": {"limit": 1}}
    assert len(ask(strict, "POST", "list", wanted).json()["data"]) == 1
    assert ask(strict, "POST", "batch", {"keys": [["good"]], "options": {"timeout": 5_000}}).status == 200
    assert ask(strict, "DELETE", "good", {"options": {"cascade": False}}).status == 200
    assert ask(strict, "PUT", "batch", {"value": 1, "options": {}}).status == 200
    assert ask(strict, "DELETE", "batch", {"options": {}}).status == 200


# -- the tables -----------------------------------------------------------------------------------------------


def _names(document: dict[str, Any], schema: dict[str, Any]) -> Any:
    """What a schema of the API's document says of an object, in the form of `kvasir.dialects.ignored.Known`."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        schema = schema["anyOf"][0]
        return _names(document, schema)
    if schema.get("type") == "array":
        inner = _names(document, schema["items"])
        return [inner] if inner else None
    if "properties" not in schema:
        return None
    return {name: _names(document, each) for name, each in schema["properties"].items()}


def test_the_tables_are_those_of_the_document() -> None:
    document = openapi.document(Limits())
    described = {}
    for methods in document["paths"].values():
        for one in methods.values():
            if "requestBody" in one and "_" not in one["operationId"]:
                described[one["operationId"]] = _names(
                    document, one["requestBody"]["content"]["application/json"]["schema"]
                )
    assert described == members.BODIES


def test_what_the_tables_know_is_read(api: Api) -> None:
    """A member that nobody reads could have any type."""
    paths = {"SetKV": ("PUT", "a"), "DeleteKV": ("DELETE", "a"), "BatchGetKV": ("POST", "batch")}
    paths |= {"BatchDeleteKV": ("DELETE", "batch"), "ListKV": ("POST", "list"), "CountKV": ("POST", "count")}
    for operation, (method, rest) in paths.items():
        for path in members.KNOWN.places[operation].values():
            if path in ("value", "options.metadata.*"):
                continue
            body: Any = {"value": 1} if operation == "SetKV" else {"keys": [["a"]]}
            holder = body
            *above, name = path.split(".")
            for step in above:
                holder = holder.setdefault(step, {})
            holder[name] = 0  # of the wrong type for all, or out of range
            assert api.call(method, rest, body).refusal() == (400, "invalid", [path]), operation


def test_the_setting_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    assert "`--strict-requests`" in page
