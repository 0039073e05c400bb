"""Members that a command does not know, or that are misspelt: ignored with a line in the log, or refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from kvasir.dialects.nemesis.commands.profiles import PROFILES
from tests.support.nemesis import client
from tests.support.serving import Server, serving

#: (profile, command, members beside the token, what the log says, what strict requests are refused for)
IGNORED: list[tuple[str, str, dict[str, Any], str, str]] = [
    ("session", "SH_NEW", {"name": "a", "expirey": {"duration": 5, "deleteSession": True}}, "an unknown name that resembles expiry", "expirey is not known here; did you mean expiry?"),
    ("session", "SH_NEW", {"name": "a", "duration": 5}, "duration; it belongs at expiry.duration", "duration has no effect here; it belongs at expiry.duration"),
    ("session", "SH_NEW", {"name": "a", "expiry": {"duration": 5, "deleteSession": True, "shared": True}}, "expiry.shared; it belongs at shared", "expiry.shared has no effect here; it belongs at shared"),
    ("session", "KV_SET", {"keys": {"a": 1}, "expiry": 5}, "expiry", "expiry is not known here, and requests are strict; leave it out"),
    ("session", "KV_GET", {"keys": ["a"], "kesy": ["b"]}, "an unknown name that resembles keys", "kesy is not known here; did you mean keys?"),
    ("session", "KV_FIND", {"path": "$.a", "rsp": "keys", "key": ["a"]}, "an unknown name that resembles keys", "key is not known here; did you mean keys?"),
    ("session", "SH_SAVE", {"name": "ignored", "tkn": "1", "tokens": []}, "an unknown name that resembles tkns", "tokens is not known here; did you mean tkns?"),
    ("0.9", "KV_SET", {"keys": {"a": 1}, "key": 1}, "an unknown name that resembles keys", "key is not known here; did you mean keys?"),
    ("0.9", "KV_COUNT", {"keys": []}, "keys", "keys is not known here"),
]  # fmt: skip
# ruff: noqa: E501

NEED_TOKEN = {"KV_SET", "KV_GET", "KV_FIND"}


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("strict"), "--strict-requests") as running:
        yield running


def ask(server: Server, profile: str, command: str, members: dict[str, Any]) -> dict[str, Any]:
    with client(f"{server.nemesis_url}/{profile}") as caller:
        if profile == "session" and command in NEED_TOKEN:
            members = members | {"tkn": caller.session("ignored")}
        reply: dict[str, Any] = caller.ask({command: members})[f"{command}_RSP"]
        return reply


@pytest.mark.parametrize(("profile", "command", "members", "note", "advice"), IGNORED)
def test_what_is_ignored_is_logged(
    server: Server, profile: str, command: str, members: dict[str, Any], note: str, advice: str
) -> None:
    for _ in range(2):
        assert ask(server, profile, command, members).get("st", 1) in (1, 120)
    line = re.escape(f"{command} ignores {note} (")
    assert len(re.findall(f"WARNING kvasir.ignored: NemesisDB API: {line}", server.log)) == 1


@pytest.mark.parametrize(("profile", "command", "members", "note", "advice"), IGNORED)
def test_strict_commands_are_refused(
    strict: Server, profile: str, command: str, members: dict[str, Any], note: str, advice: str
) -> None:
    reply = ask(strict, profile, command, members)
    assert reply["st"] == 13
    if profile == "session":
        assert advice in reply["m"]


def test_names_that_the_api_does_not_know_are_never_repeated(server: Server) -> None:
    ask(server, "session", "KV_SET", {"keys": {"a": 1}, "hunter2-secret": 1})
    assert "hunter2" not in server.log


def test_names_of_the_clients_own_are_no_mistake(strict: Server) -> None:
    with client(strict.nemesis_url) as caller:
        token = caller.session("own", shared=False, expiry={"duration": 0, "deleteSession": False})
        keys = {"a": {"b": [1], "expiry": 1}, "t": "x", "tkn": 1}
        assert caller.do("KV_SET", tkn=token, keys=keys)["keys"] == {"a": 20, "t": 20, "tkn": 20}
        assert caller.do("KV_APPEND", tkn=token, t="y")["st"] == 1
        assert caller.do("KV_UPDATE", tkn=token, key="a", **{"/b": 3})["st"] == 1
        assert caller.do("KV_UPDATE", tkn=token, key="a", path="$.b", value=4)["cnt"] == 1
        assert caller.do("KV_FIND", tkn=token, path="/b", **{"==": 4})["keys"] == ["a"]
        assert caller.do("KV_FIND", tkn=token, path="$.b", rsp="keys", keys=["a"])["keys"] == ["a"]
        assert caller.do("SH_EXISTS", tkns=[token])["tkns"] == {token: True}


def test_every_command_knows_its_own_checked_parameters() -> None:
    for profile in PROFILES.values():
        for command in profile.commands.values():
            assert {row.name for row in command.shape.parameters} <= set(command.shape.known)
