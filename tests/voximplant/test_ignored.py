"""Parameters that a method does not know, or that are misspelt: ignored with a word of warning, or refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest

from kvasir.dialects.voximplant.commands import ITEM
from kvasir.dialects.voximplant.methods import COMMANDS
from tests.support.voximplant import World
from tests.support.voximplant_live import Live, live, read_answer

#: (method, parameters, what the header says, what strict requests are refused for)
IGNORED: list[tuple[str, dict[str, Any], str, str, str]] = [
    ("SetKeyValueItem", {"key": "k", "value": "v", "tll": 60}, "SetKeyValueItem ignores an unknown name that resembles ttl", "tll", "did you mean ttl?"),
    ("SetKeyValueItem", {"key": "k", "value": "v", "TTL": 60}, "SetKeyValueItem ignores an unknown name that resembles ttl", "TTL", "did you mean ttl?"),
    ("SetKeyValueItem", {"key": "k", "value": "v", "expiresAt": 60}, "SetKeyValueItem ignores an unknown name that resembles expires_at", "expiresAt", "did you mean expires_at?"),
    ("SetKeyValueItem", {"key": "k", "value": "v", "count": 1}, "SetKeyValueItem ignores count", "count", "is not known here"),
    ("GetKeyValueItem", {"key": "k", "applicationName": "myapp"}, "GetKeyValueItem ignores an unknown name that resembles application_name", "applicationName", "did you mean application_name?"),
    ("GetKeyValueItems", {"key": "k", "limit": 5, "ofset": 1}, "GetKeyValueItems ignores an unknown name that resembles offset", "ofset", "did you mean offset?"),
    ("DelKeyValueItem", {"key": "k", "if_versoin": "0" * 20}, "DelKeyValueItem ignores an unknown name that resembles if_version", "if_versoin", "did you mean if_version?"),
    ("SetKeyValueItems", {"items": '[{"key":"k","value":"v","tttl":5}]'}, "SetKeyValueItems ignores an unknown name that resembles items[0].ttl", "items[0].tttl", "did you mean items[0].ttl?"),
    ("SetKeyValueItems", {"items": '[{"key":"k","value":"v"}]', "if_absent": 1}, "SetKeyValueItems ignores if_absent; it belongs at items[].if_absent", "if_absent", "it belongs at items[].if_absent"),
    ("DelKeyValueItems", {"keys": '["k"]', "key": "k"}, "DelKeyValueItems ignores key", "key", "is not known here"),
]  # fmt: skip
# ruff: noqa: E501


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live(tmp_path_factory.mktemp("strict"), "--strict-requests") as running:
        yield running


def ask(server: Live, method: str, **parameters: Any) -> tuple[dict[str, str], dict[str, Any]]:
    """Headers and JSON of an answer."""
    body = urlencode({"application_id": 1, "cmd": method} | parameters).encode()
    head = (
        f"POST /platform_api HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {server.token()}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with server.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(head.encode() + body)
        status, headers, answer = read_answer(answers)
    assert status == 200
    return headers, json.loads(answer)


@pytest.mark.parametrize(("method", "parameters", "note", "field", "advice"), IGNORED)
def test_what_is_ignored_is_said(
    server: Live, method: str, parameters: dict[str, Any], note: str, field: str, advice: str
) -> None:
    ask(server, "SetKeyValueItem", key="k", value="before")
    for _ in range(2):
        headers, answer = ask(server, method, **parameters)
        assert "result" in answer
        assert headers["kvasir-warning"] == note
    line = re.escape(re.sub(r"\[\d+\]", "[]", note))
    assert len(re.findall(rf"WARNING kvasir\.ignored: request \S+: {line} \(", server.server.log)) == 1


@pytest.mark.parametrize(("method", "parameters", "note", "field", "advice"), IGNORED)
def test_strict_requests_are_refused(
    strict: Live, method: str, parameters: dict[str, Any], note: str, field: str, advice: str
) -> None:
    _, answer = ask(strict, method, **parameters)
    error = answer["error"]
    assert error["code"] == 101
    assert f"{field} " in error["msg"]
    assert advice in error["msg"]
    assert error["field_name"] in parameters or error["field_name"] == field
    assert ask(strict, "GetKeyValueKeys")[1]["total_count"] == 0, "nothing was done"


def test_names_that_the_api_does_not_know_are_never_repeated(server: Live) -> None:
    headers, answer = ask(server, "SetKeyValueItem", key="k", value="v", **{"hunter2-secret": 1, "x" * 200: 2})
    assert answer["result"]["key"] == "k"
    assert "kvasir-warning" not in headers
    assert "hunter2" not in server.server.log


def test_what_every_method_takes_is_no_mistake(server: Live, strict: Live) -> None:
    common = {"output": "json", "format": "json", "account_id": 0, "application_name": "myapp", "api_key": "old"}
    for where in (server, strict):
        headers, answer = ask(where, "SetKeyValueItem", key="k", value="v", ttl=60, **common)
        assert answer["result"]["key"] == "k"
        assert "kvasir-warning" not in headers
        assert ask(where, "DelKeyValueItem", key="k")[1]["result"] == 1


#: What no parameter may be, unless anything goes.
WRONG = {"by": "x", "count": "x", "offset": "x", "cursor": "!", "ttl": "x", "expires_at": "x"}
WRONG |= {
    "if_version": "x",
    "if_absent": "x",
    "items": "{",
    "keys": "{",
    "key": "/",
    "prefix": "/",
    "value": "v" * 2_001,
}


@pytest.mark.parametrize("method", COMMANDS)
def test_what_the_tables_know_is_read(method: str) -> None:
    """A parameter that nobody reads could be anything."""
    world = World()
    common = set.intersection(*(set(command.known) for command in COMMANDS.values()))
    for name in sorted(set(COMMANDS[method].known) - common):
        good = {"key": "a", "value": "v"} if "key" in COMMANDS[method].known else {}
        if method == "SetKeyValueItems":
            good = {"items": '[{"key":"a","value":"v"}]'}
        if method == "IncrKeyValueItem":
            good = {"key": "n"}
        if method == "TouchKeyValueItem":
            world.result("SetKeyValueItem", key="a", value="v")
        error = world.call(method, **good | {name: WRONG[name]})["error"]
        assert error["field_name"].rpartition(".")[2] == name, error
    assert set(ITEM) == set(COMMANDS["SetKeyValueItem"].known) - common
