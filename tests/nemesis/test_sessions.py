"""Sessions: order and commits, expiry, rights and limits, saves, and the same keys over HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from kvasir.dialects.nemesis.commands import saves, update
from kvasir.dialects.nemesis.jsonpath import compiler
from kvasir.engine import Outcome
from kvasir.engines.memory import MemoryEngine
from kvasir.errors import KvasirError, Unavailable, UnknownOutcome
from kvasir.limits import Limits, NemesisLimits
from kvasir.model import Write
from kvasir.server.save_directory import SaveDirectory
from tests.support.cli import Commands, run
from tests.support.clock import START, ManualClock
from tests.support.nemesis import TEXT, Client, Raw, client, frame, local
from tests.support.organisations import ORGANISATION
from tests.support.raw_http import Client as Api
from tests.support.serving import Server, serving, wait_until
from tests.support.waiting_engine import WaitingEngine


class Counting(WaitingEngine):
    """Counts commits and fails on command."""

    def __init__(self) -> None:
        super().__init__()
        self.lots: list[int] = []
        self.failure: KvasirError | None = None

    async def write(self, writes: Sequence[Write]) -> list[Outcome]:
        if self.failure is not None:
            raise self.failure
        self.lots.append(sum(len(write.mutations) for write in writes))
        return await super().write(writes)


# -- order and commits ----------------------------------------------------------------------------------------


def test_replies_come_in_the_order_of_the_requests(tmp_path: Path) -> None:
    """Writes, reads, refusals and slow commands, all sent before the first reply is read."""
    with serving(tmp_path) as server, client(server.nemesis_url) as caller:
        token = caller.session()
        expected: list[Any] = []
        for number in range(200):
            caller.send({"KV_SET": {"tkn": token, "keys": {"n": number}}})
            expected.append({"KV_SET_RSP": {"tkn": token, "keys": {"n": 21 if number else 20}}})
            caller.send({"KV_GET": {"tkn": token, "keys": ["n"]}})
            expected.append({"KV_GET_RSP": {"tkn": token, "keys": {"n": number}}})
            caller.send("nonsense")
            expected.append({"ERR": {"st": 3, "m": ""}})
            if number % 50 == 0:
                caller.send({"KV_FIND": {"tkn": token, "path": f"$[?(@ == {number})]", "rsp": "keys"}})
                expected.append({"KV_FIND_RSP": {"tkn": token, "st": 1, "keys": []}})
                caller.send({"KV_UPDATE": {"tkn": token, "key": "n", "path": "$", "value": number}})
                expected.append({"KV_UPDATE_RSP": {"tkn": token, "st": 1, "cnt": 1}})
        assert [caller.receive() for _ in expected] == expected


def test_quiet_writes_come_before_the_reads_after_them(tmp_path: Path) -> None:
    with serving(tmp_path) as server, client(server.nemesis_url) as caller:
        token = caller.session()
        for number in range(100):
            caller.send({"KV_SETQ": {"tkn": token, "keys": {f"q{number}": number}}})
        assert caller.do("KV_COUNT", tkn=token)["cnt"] == 100


def test_writes_that_arrive_together_share_a_commit() -> None:
    engine = Counting()
    with local(engine=engine) as server, client(server.url) as caller:
        token = caller.session()
        message = json.dumps({"KV_SET": {"tkn": token, "keys": {"a": 1}}}).encode()
        with Raw(server.port) as raw:
            raw.send(frame(TEXT, message) * 16)
            for _ in range(16):
                assert raw.receive() is not None
    assert sum(engine.lots) == 16
    assert len(engine.lots) <= 4


def test_writes_to_many_sessions_share_a_commit_and_have_their_own_outcomes() -> None:
    engine = Counting()
    with local(engine=engine) as server, client(server.url) as caller:
        tokens = [caller.session() for _ in range(15)]
        sent = [
            (token, {"KV_SET": {"tkn": token, "keys": {"a": n}}}) for n, token in enumerate([*tokens, "1", *tokens])
        ]
        with Raw(server.port) as raw:
            raw.send(*[frame(TEXT, json.dumps(message).encode()) for _, message in sent])
            replies = [json.loads(reply[1]) for reply in (raw.receive() for _ in sent) if reply]
        assert [reply["KV_SET_RSP"].get("keys") for reply in replies] == ([{"a": 20}] * 15 + [None] + [{"a": 21}] * 15)
        assert [reply["KV_SET_RSP"].get("tkn") for reply in replies[16:]] == tokens
        values = [caller.do("KV_GET", tkn=token, keys=["a"])["keys"]["a"] for token in tokens]
        assert values == list(range(16, 31))
    assert sum(engine.lots) == 30
    assert len(engine.lots) <= 5


def test_connections_share_commits_on_disk(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        with client(server.nemesis_url) as caller:
            token = caller.session()
            raws = [Raw(server.nemesis_port) for _ in range(8)]
            message = json.dumps({"KV_SET": {"tkn": token, "keys": {"a": 1}}}).encode()
            for raw in raws:
                raw.send(frame(TEXT, message) * 32)
            for raw in raws:
                for _ in range(32):
                    assert raw.receive() is not None
                raw.__exit__()
        request = urllib.request.Request(f"{server.url}/metrics", headers=server.headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            text = answer.read().decode()
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    commits = next(float(value) for name, value in figures.items() if "commit" in name and name.endswith("_count"))
    assert commits < 256 / 2
    assert any("nemesis" in name and "KV_SET" in name and float(value) == 256 for name, value in figures.items()), text


def test_a_command_of_many_keys_leaves_room_for_others() -> None:
    engine = Counting()
    limits = Limits(batch_keys=100)
    with local(engine=engine, limits=limits) as server, client(server.url) as caller:
        token = caller.session()
        keys = {f"k{number}": number for number in range(1_050)}
        assert caller.do("KV_SET", tkn=token, keys=keys) == {"tkn": token, "keys": dict.fromkeys(keys, 20)}
        assert max(engine.lots) == 100
        assert caller.do("KV_GET", tkn=token, keys=list(keys))["keys"] == keys
        assert caller.do("KV_ADD", tkn=token, keys={**keys, "new": 1})["keys"] == {**dict.fromkeys(keys, 23), "new": 20}
        engine.lots.clear()
        assert caller.do("KV_CLEAR_SET", tkn=token, keys=keys)["cnt"] == 1_051
        assert engine.lots == [101] + [100] * 9 + [50]
        engine.lots.clear()
        most = dict(list(keys.items())[:100])
        assert caller.do("KV_CLEAR_SET", tkn=token, keys=most)["cnt"] == 1_050
        assert engine.lots == [101], "up to the bound, emptying and setting are one write"
        assert caller.do("KV_CLEAR_SET", tkn=token, keys=keys)["cnt"] == 100
        assert caller.do("KV_KEYS", tkn=token)["keys"] == list(keys)
        assert caller.do("KV_RMV", tkn=token, keys=[*keys, "nope"]) == {
            "tkn": token,
            **dict.fromkeys(keys, 24),
            "nope": 22,
        }
        assert caller.do("KV_COUNT", tkn=token)["cnt"] == 0


def test_a_message_full_of_keys(tmp_path: Path) -> None:
    """As many keys as fit into the longest message."""
    with serving(tmp_path) as server, client(server.nemesis_url) as caller, client(server.nemesis_url) as other:
        token, small = caller.session(), other.session()
        keys = {f"{number:x}": 1 for number in range(110_000)}
        message = json.dumps({"KV_SET": {"tkn": token, "keys": keys}}, separators=(",", ":"))
        assert 900_000 < len(message) < 2**20
        caller.send(message)
        slowest = 0.0
        for number in range(50):
            began = time.monotonic()
            assert other.do("KV_SET", tkn=small, keys={"n": number})
            slowest = max(slowest, time.monotonic() - began)
        assert len(caller.receive()["KV_SET_RSP"]["keys"]) == 110_000
        assert caller.do("KV_COUNT", tkn=token)["cnt"] == 110_000
        assert slowest < 5, "others wait for a slice, not for the whole"


# -- failures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failure", [Unavailable("the disk is full"), UnknownOutcome("the commit failed")])
def test_a_write_that_fails_says_so(failure: KvasirError) -> None:
    engine = Counting()
    with local(engine=engine) as server, client(server.url) as caller:
        token = caller.session()
        engine.failure = failure
        refusal = {"st": 1000, "tkn": None, "m": failure.message}
        for command in ("KV_SET", "KV_SETQ", "KV_ADD", "KV_ADDQ", "KV_CLEAR_SET"):
            assert caller.do(command, tkn=token, keys={"a": 1}) == refusal
        assert caller.do("KV_RMV", tkn=token, keys=["a"]) == refusal
        assert caller.do("KV_CLEAR", tkn=token) == refusal
        engine.failure = None
        assert caller.do("KV_SET", tkn=token, keys={"a": 1})["keys"] == {"a": 20}
        assert ("nemesis", "KV_SET", failure.code) in server.observed
        assert ("nemesis", "KV_SET", "ok") in server.observed


def test_a_write_that_takes_no_waiting_and_fails_says_so() -> None:
    class Failing(MemoryEngine):
        def write_nowait(self, writes: Sequence[Write]) -> list[Outcome]:
            raise RuntimeError("a bug")

    with local(engine=Failing()) as server, client(server.url) as caller:
        token = caller.session()
        assert caller.do("KV_GET", tkn=token, keys=["a"])["keys"] == {
            "a": None
        }  # the session is remembered from now on
        assert caller.do("KV_SET", tkn=token, keys={"a": 1}) == {"st": 1000, "tkn": None, "m": ""}
        assert caller.do("KV_GET", tkn=token, keys=["a"])["keys"] == {"a": None}
        assert ("nemesis", "KV_SET", "internal") in server.observed


def test_a_bug_is_a_reply_and_not_the_end() -> None:
    engine = Counting()
    with local(engine=engine) as server, client(server.url) as caller:
        token = caller.session()
        engine.count = None  # type: ignore[assignment,method-assign]
        assert caller.do("KV_COUNT", tkn=token) == {"st": 1000, "tkn": None, "m": ""}
        assert caller.do("KV_SET", tkn=token, keys={"a": 1})["keys"] == {"a": 20}
        assert ("nemesis", "KV_COUNT", "internal") in server.observed
        engine.get = engine.get_nowait = None  # type: ignore[assignment,method-assign]
        assert caller.do("KV_GET", tkn=token, keys=["a"]) == {"st": 1000, "tkn": None, "m": ""}
        engine.write = None  # type: ignore[assignment,method-assign]
        assert caller.do("KV_SET", tkn=token, keys={"a": 1}) == {"st": 1000, "tkn": None, "m": ""}
        assert caller.do("SH_EXISTS", tkns=[token])["tkns"] == {token: True}


def test_beyond_a_limit_nothing_is_written() -> None:
    with local(limits=Limits(key_bytes=50, value_bytes=100)) as server, client(server.url) as caller:
        token = caller.session()
        for keys, words in (({"k" * 49: 1}, "key"), ({"fine": 1, "v": "x" * 99}, "value")):
            refused = caller.do("KV_SET", tkn=token, keys=keys)
            assert (refused["st"], refused["tkn"]) == (42, None)
            assert words in refused["m"]
        assert caller.do("KV_COUNT", tkn=token)["cnt"] == 0
        assert caller.do("KV_SET", tkn=token, keys={"k" * 48: "x" * 98})["keys"] == {"k" * 48: 20}


def test_numbers_that_do_not_fit_a_double_are_not_json() -> None:
    with local() as server, client(server.url) as caller:
        token = caller.session()
        for number in ("1e400", "1" * 400):
            reply = caller.ask(f'{{"KV_SET":{{"tkn":"{token}","keys":{{"a":{number}}}}}}}')
            assert next(iter(reply.values()))["st"] in (3, 13)
        exact = '{"KV_SET":{"tkn":"%s","keys":{"a":[18446744073709551616,-9223372036854775809,1e22,1e-9]}}}'
        assert caller.ask(exact % token)
        caller.send({"KV_GET": {"tkn": token, "keys": ["a"]}})
        assert "[1.8446744073709552e+19,-9.223372036854776e+18,1e+22,1e-09]" in str(caller.connection.recv(timeout=30))


def test_no_more_sessions_in_a_second_than_allowed() -> None:
    clock = ManualClock()
    with (
        local(commands=NemesisLimits(sessions_per_second=3), clock=clock) as server,
        client(server.url) as caller,
        client(server.url) as other,
    ):
        assert [caller.do("SH_NEW", name="a")["st"] for _ in range(4)] == [1, 1, 1, 103]
        assert other.do("SH_NEW", name="a")["st"] == 1
        clock.now += 1_000
        assert caller.do("SH_NEW", name="a")["st"] == 1


def test_a_reply_has_a_bound() -> None:
    with local(commands=NemesisLimits(reply_bytes=10_000)) as server, client(server.url) as caller:
        token = caller.session()
        caller.do("KV_SET", tkn=token, keys={f"{n}": "x" * 990 for n in range(12)})
        asked = [f"{n}" for n in range(12)]
        assert caller.do("KV_GET", tkn=token, keys=asked[:9])["tkn"] == token
        for refused in (
            caller.do("KV_GET", tkn=token, keys=asked),
            caller.do("KV_FIND", tkn=token, path="$", rsp="kv"),
        ):
            assert refused["st"] == 42
            assert "10,000 bytes" in refused["m"]


def test_a_reply_of_just_as_many_bytes_passes() -> None:
    with local(commands=NemesisLimits(reply_bytes=1_000)) as server, client(server.url) as caller:
        token = caller.session()
        caller.do("KV_SET", tkn=token, keys={"half": "x" * 498, "rest": "x" * 498, "more": "x" * 499})
        assert caller.do("KV_GET", tkn=token, keys=["half", "rest"])["keys"].keys() == {"half", "rest"}
        assert caller.do("KV_GET", tkn=token, keys=["half", "more"])["st"] == 42


def test_a_search_has_a_bound_and_delays_no_one() -> None:
    with (
        local(commands=NemesisLimits(path_steps=200_000)) as server,
        client(server.url) as caller,
        client(server.url) as other,
    ):
        token = caller.session()
        caller.do("KV_SET", tkn=token, keys={"big": [[0] * 300 for _ in range(300)]})
        caller.send({"KV_FIND": {"tkn": token, "path": "$..[?(@..[?(@ == $)])]", "rsp": "keys"}})
        slowest = 0.0
        for _ in range(100):
            began = time.monotonic()
            assert other.do("KV_COUNT", tkn=token)["cnt"] == 1
            slowest = max(slowest, time.monotonic() - began)
        refused = caller.receive()["KV_FIND_RSP"]
        assert refused["st"] == 42
        assert "200,000 steps" in refused["m"]
        assert slowest < 1


def test_the_keys_that_a_search_finds_have_a_bound() -> None:
    with local(commands=NemesisLimits(reply_bytes=10_000)) as server, client(server.url) as caller:
        token = caller.session()
        caller.do("KV_SET", tkn=token, keys={f"{number:0100}": 1 for number in range(100)})
        forms: tuple[dict[str, Any], ...] = ({"path": "", ">=": 1}, {"path": "$", "rsp": "keys"})
        for form in forms:
            assert len(caller.do("KV_FIND", tkn=token, **form)["keys"]) == 100
        caller.do("KV_SET", tkn=token, keys={"x": 1})
        for form in forms:
            refused = caller.do("KV_FIND", tkn=token, **form)
            assert (refused["st"], "10,000 bytes" in refused["m"]) == (42, True)
        assert caller.do("KV_FIND", tkn=token, path="", **{"<": 1})["keys"] == []


def test_paths_that_do_not_fit_into_a_reply_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    path = vars(compiler.Node)["path"].fget

    def counted(node: compiler.Node) -> str:
        made.append(node.path_characters)
        return str(path(node))

    monkeypatch.setattr(compiler.Node, "path", property(counted))
    with local(commands=NemesisLimits(reply_bytes=20_000)) as server, client(server.url) as caller:
        token = caller.session()
        caller.do("KV_SET", tkn=token, keys={"many": {"n" * 990: [0] * 1_000}, "few": {"n" * 990: [0] * 19}})
        assert caller.do("KV_FIND", tkn=token, path="$.*.*", rsp="paths", keys=["many"])["st"] == 42
        assert sum(made) <= 20_000
        assert len(caller.do("KV_FIND", tkn=token, path="$.*.*", rsp="paths", keys=["few"])["paths"]) == 19
        assert caller.do("KV_FIND", tkn=token, path="$.*.*", rsp="paths", keys=["few", "many"])["st"] == 42
        assert caller.do("KV_FIND", tkn=token, path="$.*.*", rsp="keys")["keys"] == ["many", "few"]
    made.clear()
    with local(commands=NemesisLimits(path_steps=20_000)) as server, client(server.url) as caller:
        token = caller.session()
        caller.do("KV_SET", tkn=token, keys={"many": {"n" * 100_000: [0] * 1_000}})
        refused = caller.do("KV_FIND", tkn=token, path="$.*.*", rsp="paths")
        assert (refused["st"], "20,000 steps" in refused["m"]) == (42, True)
        assert sum(made) <= 2 * 20_000 * 64


def test_a_value_that_would_be_too_large_is_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand times 500 KB would be 500 MB, and a search may end at 500,000 places."""
    encoded: list[str] = []
    monkeypatch.setattr(update, "_rewritten", lambda _context, name, *_: encoded.append(name))
    with local() as server, client(server.url) as caller:
        token = caller.session()
        caller.do("KV_SET", tkn=token, keys={"a": [0] * 1_000, "few": [0] * 3})
        for key, path in (("a", "$[*]"), ("a", "$..*"), ("few", "$[*]")):
            refused = caller.do("KV_UPDATE", tkn=token, key=key, path=path, value="x" * 500_000)
            assert (refused["st"], "at most 1,048,576" in refused["m"]) == (42, True)
        assert not encoded
        assert caller.do("KV_GET", tkn=token, keys=["few"])["keys"] == {"few": [0] * 3}


def test_the_size_of_a_value_counts_what_is_replaced_within_what_is_replaced_once() -> None:
    text = "x" * 498
    with local(limits=Limits(value_bytes=1_010, body_bytes=65_536)) as server, client(server.url) as caller:
        token = caller.session()
        for value, st in (([0, 0], 1), ([0, 0, 0], 42), ([[0, [0, 0]], 0], 1)):
            caller.do("KV_SET", tkn=token, keys={"a": value})
            assert caller.do("KV_UPDATE", tkn=token, key="a", path="$..*", value=text)["st"] == st
        assert caller.do("KV_GET", tkn=token, keys=["a"])["keys"] == {"a": [text, text]}


def test_a_path_of_too_many_steps_says_so() -> None:
    with local() as server, client(server.url) as caller:
        token = caller.session()
        caller.do("KV_SET", tkn=token, keys={"a": {"a": 1}})
        path = "$" + ".a" * 3_000
        for refused in (
            caller.do("KV_FIND", tkn=token, path=path, rsp="keys"),
            caller.do("KV_UPDATE", tkn=token, key="a", path=path, value=1),
        ):
            assert (refused["st"], "the path is too long or nested too deeply" in refused["m"]) == (42, True)


def test_a_path_whose_regular_expressions_are_too_large_says_so() -> None:
    with local() as server, client(server.url) as caller:
        token = caller.session()
        caller.do("KV_SET", tkn=token, keys={"a": ["x"]})
        path = "$[?(" + " || ".join(rf"@ =~ /\pL{{30}}{number}/" for number in range(300)) + ")]"
        refused = caller.do("KV_FIND", tkn=token, path=path, rsp="keys")
        assert refused.keys() == {"tkn", "st", "m"}
        assert (refused["st"], "20,000 instructions" in refused["m"]) == (4, True)
        assert caller.do("KV_FIND", tkn=token, path="$[", rsp="keys") == {"tkn": token, "st": 4}
        refused = caller.ask({"KV_UPDATE": {"tkn": token, "key": "a", "path": path, "value": 1}})["ERR"]
        assert (refused["st"], "20,000 instructions" in refused["m"]) == (1000, True)
        assert caller.ask({"KV_UPDATE": {"tkn": token, "key": "a", "path": "$[", "value": 1}}) == {
            "ERR": {"st": 1000, "m": ""}
        }


# -- expiry -------------------------------------------------------------------------------------------


def test_expiry_is_exact() -> None:
    clock = ManualClock()
    with local(clock=clock) as server, client(server.url) as caller:
        ends = caller.session("a", expiry={"duration": 10, "deleteSession": True})
        cleared = caller.session("b", expiry={"duration": 10, "deleteSession": False})
        for token in (ends, cleared):
            caller.do("KV_SET", tkn=token, keys={"a": 1})
        clock.now += 9_999
        for token in (ends, cleared):
            assert caller.do("KV_GET", tkn=token, keys=["a"])["keys"] == {"a": 1}
        info = caller.do("SH_INFO", tkn=ends)["expiry"]
        assert info == {
            "expires": True,
            "duration": 10,
            "time": START // 1000 + 10,
            "remaining": 0,
            "deleteSession": True,
        }
        clock.now += 1
        assert caller.do("KV_GET", tkn=ends, keys=["a"]) == {"st": 100, "tkn": None, "m": ends}
        assert caller.do("KV_GET", tkn=cleared, keys=["a"])["keys"] == {"a": None}
        info = caller.do("SH_INFO", tkn=cleared)["expiry"]
        assert info == {
            "expires": True,
            "duration": 10,
            "time": START // 1000 + 20,
            "remaining": 10,
            "deleteSession": False,
        }


def test_expiry_of_zero_is_never_and_one_too_long_is_refused() -> None:
    with local() as server, client(server.url) as caller:
        token = caller.session("a", expiry={"duration": 0, "deleteSession": True})
        never = {"expires": False, "duration": 0, "time": 0, "remaining": 0, "deleteSession": False}
        assert caller.do("SH_INFO", tkn=token)["expiry"] == never
        assert caller.session("b", expiry={"duration": 10**11, "deleteSession": True})
        refused = caller.do("SH_NEW", name="c", expiry={"duration": 10**11 + 1, "deleteSession": True})
        assert refused == {"st": 13, "tkn": None, "m": "expiry"}


def test_tokens_are_random_also_for_shared_names() -> None:
    def shared() -> str:
        with local() as server, client(server.url) as caller:
            token = caller.session("same name", shared=True)
            assert caller.do("SH_NEW", name="same name", shared=True)["tkn"] == token
            assert caller.do("SH_OPEN", name="same name") == {"tkn": token, "st": 1}
            return token

    tokens = {shared() for _ in range(3)}
    assert len(tokens) == 3
    assert all(token.isdecimal() and int(token) < 2**64 for token in tokens)


def test_everything_survives_kill_9(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        with client(server.nemesis_url) as caller:
            kept = caller.session("kept", shared=True)
            ends = caller.session("ends", expiry={"duration": 600, "deleteSession": True})
            caller.do("KV_SET", tkn=kept, keys={"a": 1, "b": {"c": [1, 2]}})
            caller.do("KV_SET", tkn=ends, keys={"a": 2})
            time_before = caller.do("SH_INFO", tkn=ends)["expiry"]["time"]
        server.kill()
    with serving(tmp_path) as server, client(server.nemesis_url) as caller:
        assert caller.do("SH_OPEN", name="kept") == {"tkn": kept, "st": 1}
        assert caller.do("KV_GET", tkn=kept, keys=["a", "b"])["keys"] == {"a": 1, "b": {"c": [1, 2]}}
        info = caller.do("SH_INFO", tkn=ends)
        assert (info["keyCnt"], info["expiry"]["time"]) == (1, time_before)
        assert caller.do("SH_INFO_ALL") == {"totalSessions": 2, "totalKeys": 3}


@pytest.mark.one_server("makes 600 sessions before they end: on a cluster each takes a transaction of all nodes")
def test_many_sessions_that_end_together_delay_no_one(tmp_path: Path) -> None:
    with serving(tmp_path, "--durability", "relaxed") as server, client(server.nemesis_url) as caller:
        mine = caller.session()
        caller.do("KV_SET", tkn=mine, keys={"a": 1})
        ends = int(time.time()) + 6
        for _ in range(600):
            expiry = {"duration": max(1, round(ends - time.time())), "deleteSession": True}
            caller.send({"SH_NEW": {"name": "e", "expiry": expiry}})
        tokens = [caller.receive()["SH_NEW_RSP"]["tkn"] for _ in range(600)]
        for token in tokens:
            caller.send({"KV_SET": {"tkn": token, "keys": {"a": 1}}})
        assert all(caller.receive()["KV_SET_RSP"]["keys"] == {"a": 20} for _ in tokens)
        assert caller.do("SH_INFO_ALL") == {"totalSessions": 601, "totalKeys": 601}
        slowest, ended = 0.0, False
        while not ended:
            began = time.monotonic()
            assert caller.do("KV_GET", tkn=mine, keys=["a"])["keys"] == {"a": 1}
            slowest = max(slowest, time.monotonic() - began)
            ended = caller.do("SH_INFO_ALL") == {"totalSessions": 1, "totalKeys": 1}
        assert slowest < 1


# -- the same keys over HTTP ----------------------------------------------------------------------------------


def http(server: Server, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {**server.headers, "Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}{path}", data, headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def test_a_session_is_read_and_written_over_http_by_its_ulid(tmp_path: Path) -> None:
    with serving(tmp_path) as server, client(server.nemesis_url) as caller:
        token = caller.session("web")
        caller.do("KV_SET", tkn=token, keys={"cart": {"items": 3}})
        (listed,) = Commands(server).json("session", "list")
        assert http(server, "GET", f"/store/{listed['id']}/kv/cart")["value"] == {"items": 3}
        http(server, "PUT", f"/store/{listed['id']}/kv/cart", {"value": {"items": 4}})
        assert caller.do("KV_GET", tkn=token, keys=["cart"])["keys"] == {"cart": {"items": 4}}
        caller.do("SH_END", tkn=token)
        with pytest.raises(urllib.error.HTTPError) as gone:
            http(server, "GET", f"/store/{listed['id']}/kv/cart")
        gone.value.close()
        assert gone.value.code == 404


# -- who may connect ------------------------------------------------------------------------------------------


def test_a_listener_for_other_machines_needs_a_choice_of_login(tmp_path: Path) -> None:
    data = str(tmp_path / "d")
    refused = run("serve", "--data-dir", data, "--http", "off", "--nemesis", "0.0.0.0:19870", status=2)
    assert "--nemesis-auth key" in refused.stderr
    with (
        serving(tmp_path, "--nemesis", "0.0.0.0:19871", "--nemesis-auth", "none"),
        client("ws://127.0.0.1:19871") as caller,
    ):
        assert caller.session()


def test_with_keys_a_connection_needs_one(tmp_path: Path) -> None:
    with serving(tmp_path, "--nemesis-auth", "key") as server:
        url = server.nemesis_url
        with pytest.raises(InvalidStatus) as refused, client(url):
            pass
        assert refused.value.response.status_code == 401
        for options in ({"additional_headers": server.headers}, {}):
            with client(url if options else f"{url}/?key={server.key}", **options) as caller:
                assert caller.session()
        with pytest.raises(ConnectionClosed) as closed, client(f"{url}/?key=wrong") as caller:
            caller.session()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008


def test_a_revoked_key_ends_its_connection(tmp_path: Path) -> None:
    with serving(tmp_path, "--nemesis-auth", "key") as server:
        made = Commands(server).json("key", "create", "--role", "developer", "--name", "app")
        secret = made.get("key") or made.get("secret")
        headers = {"Authorization": f"Bearer {secret}"}
        with client(server.nemesis_url, additional_headers=headers) as caller:
            token = caller.session()
            Commands(server).text("key", "revoke", made["id"])
            with pytest.raises(ConnectionClosed) as closed:
                caller.do("KV_COUNT", tkn=token)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008


def test_a_viewer_may_only_read(tmp_path: Path) -> None:
    with serving(tmp_path, "--nemesis-auth", "key") as server:
        made = Commands(server).json("key", "create", "--role", "viewer", "--name", "look")
        viewer = {"Authorization": f"Bearer {made.get('key') or made.get('secret')}"}
        with (
            client(server.nemesis_url, additional_headers=server.headers) as owner,
            client(server.nemesis_url, additional_headers=viewer) as caller,
        ):
            token = owner.session()
            owner.do("KV_SET", tkn=token, keys={"a": 1})
            assert caller.do("KV_GET", tkn=token, keys=["a"])["keys"] == {"a": 1}
            for refused in (
                caller.do("KV_SET", tkn=token, keys={"a": 2}),
                caller.do("SH_NEW", name="x"),
                caller.do("SH_END", tkn=token),
            ):
                assert (refused["st"], refused["tkn"]) == (14, None)
            assert owner.do("KV_GET", tkn=token, keys=["a"])["keys"] == {"a": 1}


# -- saves ----------------------------------------------------------------------------------------------------


def save(caller: Client, name: str, **parameters: Any) -> list[dict[str, Any]]:
    caller.send({"SH_SAVE": {"name": name, **parameters}})
    first = caller.receive()["SH_SAVE_RSP"]
    return [first, caller.receive()["SH_SAVE_RSP"]] if first["st"] == 120 else [first]


def test_a_save_holds_what_was_there(tmp_path: Path) -> None:
    clock = ManualClock()
    with local(saves=SaveDirectory(tmp_path, ORGANISATION), clock=clock) as server, client(server.url) as caller:
        tokens = [
            caller.session("plain"),
            caller.session("shared", shared=True),
            caller.session("ends", expiry={"duration": 60, "deleteSession": True}),
            caller.session("cleared", expiry={"duration": 60, "deleteSession": False}),
        ]
        keys = {f"k{number}": {"n": number, 'é"\\': None} for number in range(300)}
        for token in tokens[:3]:
            caller.do("KV_SET", tkn=token, keys=keys)
        assert [reply["st"] for reply in save(caller, "all")] == [120, 121]
        assert [reply["st"] for reply in save(caller, "some", tkns=[tokens[1], "nope"])] == [120, 121]
        clock.now += 30_000
        caller.do("SH_END_ALL")
        assert caller.do("SH_LOAD", name="some") == {"name": "some", "st": 141, "sessions": 1, "keys": 300}
        assert caller.do("SH_LOAD", name="all") == {"name": "all", "st": 141, "sessions": 3, "keys": 600}
        assert caller.do("SH_OPEN", name="shared")["tkn"] == tokens[1]
        for token in tokens[:3]:
            assert caller.do("KV_GET", tkn=token, keys=list(keys))["keys"] == keys
        expiries = [caller.do("SH_INFO", tkn=token)["expiry"] for token in tokens]
        assert [expiry["remaining"] for expiry in expiries] == [0, 0, 60, 60]
        assert [expiry["deleteSession"] for expiry in expiries] == [False, False, True, False]


def test_saves_stay_in_their_directory(tmp_path: Path) -> None:
    inside = tmp_path / "saves"
    with local(saves=SaveDirectory(inside, ORGANISATION)) as server, client(server.url) as caller:
        for name in ("../x", "a/b", "..", ".", "", "/etc/x", "a\\b", "x" * 101, ".hidden", "nul\0", "a\nb", "é"):
            assert save(caller, name) == [{"name": name, "st": 122}]
            assert caller.do("SH_LOAD", name=name) == {"st": 142, "name": name}
        assert [path.name for path in tmp_path.iterdir()] == []
        assert save(caller, "fine-1.a_b")[-1]["st"] == 121
        assert [path.name for path in inside.iterdir()] == ["fine-1.a_b"]


def test_without_a_directory_saving_is_disabled() -> None:
    with local() as server, client(server.url) as caller:
        assert save(caller, "x") == [{"st": 14, "m": ""}]
        assert caller.do("SH_LOAD", name="x") == {"st": 142, "name": "x"}


def test_a_save_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("in the way")
    with local(saves=SaveDirectory(tmp_path, ORGANISATION)) as server, client(server.url) as caller:
        caller.session()
        assert [reply["st"] for reply in save(caller, "x")] == [122]


@pytest.mark.parametrize("damage", ["not json\n", "[\n{}\n]\n", '[\n{"sh":{"tkn":"1"},"keys":5}\n]\n', '[{"keys":{}}]'])
def test_a_damaged_save_is_refused(tmp_path: Path, damage: str) -> None:
    with local(saves=SaveDirectory(tmp_path, ORGANISATION)) as server, client(server.url) as caller:
        caller.session()
        save(caller, "x")
        (file,) = (path for path in tmp_path.rglob("data/0/*"))
        file.write_text(damage)
        assert caller.do("SH_LOAD", name="x") == {"st": 142, "name": "x"}
        (description,) = tmp_path.rglob("md.json")
        description.write_text('{"status":0}')
        assert caller.do("SH_LOAD", name="x") == {"st": 142, "name": "x"}


def test_saves_that_nemesisdb_wrote_are_read(tmp_path: Path) -> None:
    """Version 0.3.4 has tokens as strings and no keys for empty sessions; 0.5 has tokens as numbers."""
    record = {"tkn": "123", "shared": False, "expiry": {"duration": 0, "deleteSession": False}}
    for name, place, records in (
        ("s1", "data/0/0", [{"sh": {**record, "tkn": "5"}}, {"sh": record, "keys": {"a": 1, "b": [1]}}]),
        ("v05", "data/0", [{"sh": {**record, "tkn": 456, "shared": True}, "keys": {"c": 3}}]),
    ):
        for stamp in ("100", "99"):
            file = tmp_path / name / stamp / place
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps(records if stamp == "100" else []))
            description = tmp_path / name / stamp / "md" / "md.json"
            description.parent.mkdir()
            description.write_text('{"name":"x","status":1,"pools":1,"start":1,"complete":2}')
    with local(saves=SaveDirectory(tmp_path, ORGANISATION)) as server, client(server.url) as caller:
        assert caller.do("SH_LOAD", name="s1") == {"name": "s1", "st": 141, "sessions": 2, "keys": 2}
        assert caller.do("SH_LOAD", name="v05") == {"name": "v05", "st": 141, "sessions": 1, "keys": 1}
        assert caller.do("KV_GET", tkn="123", keys=["a", "b"])["keys"] == {"a": 1, "b": [1]}
        assert caller.do("KV_GET", tkn="456", keys=["c"])["keys"] == {"c": 3}
        wait_until(lambda: caller.do("SH_INFO", tkn="5")["keyCnt"] == 0, "the empty session is there")


@pytest.mark.parametrize(("duration", "loaded"), [(2**64 - 1, True), (10**17, True), (-1, False)])
def test_a_save_with_an_impossible_duration(tmp_path: Path, duration: int, loaded: bool) -> None:
    with local(saves=SaveDirectory(tmp_path, ORGANISATION)) as server, client(server.url) as caller:
        token = caller.session(expiry={"duration": 77, "deleteSession": True})
        save(caller, "x")
        caller.do("SH_END", tkn=token)
        (file,) = tmp_path.rglob("data/0/0")
        file.write_text(file.read_text().replace('"duration":77', f'"duration":{duration}'))
        assert caller.do("SH_LOAD", name="x")["st"] == (141 if loaded else 142)
        assert caller.do("SH_EXISTS", tkns=[token])["tkns"] == {token: loaded}


def test_a_load_continues_with_a_session_that_is_partly_loaded(tmp_path: Path) -> None:
    """Until it is whole, no client finds it; the server is killed in between."""
    keys = {f"k{number}": number for number in range(48_000)}
    with serving(tmp_path) as server, client(server.nemesis_url) as caller:
        token = caller.session("of all", shared=True)
        for at in range(0, len(keys), 3_000):
            caller.do("KV_SET", tkn=token, keys=dict(list(keys.items())[at : at + 3_000]))
        assert save(caller, "x")[-1]["st"] == 121
        caller.do("SH_END", tkn=token)
        caller.send({"SH_LOAD": {"name": "x"}})
        with httpx.Client(base_url=f"{server.url}/v1/", headers=server.headers, trust_env=False) as kv:

            def begun() -> bool:
                spaces = kv.get("spaces", params={"kind": "session"}).json()["spaces"]
                return bool(spaces) and kv.get(f"spaces/{spaces[0]['id']}/count").json()["count"] > 0

            wait_until(begun, "some of it is there again")
        server.kill()
    with serving(tmp_path) as server, client(server.nemesis_url) as caller:
        assert caller.do("SH_LOAD", name="x") == {"name": "x", "st": 141, "sessions": 1, "keys": len(keys)}
        assert caller.do("KV_COUNT", tkn=token)["cnt"] == len(keys)
        assert caller.do("SH_OPEN", name="of all")["tkn"] == token
        # Now it is complete, and left as it is.
        caller.do("KV_RMV", tkn=token, keys=["k1"])
        assert caller.do("SH_LOAD", name="x") == {"name": "x", "st": 141, "sessions": 0, "keys": 0}


def test_a_load_that_ended_right_after_it_made_a_session_is_no_complete_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the server had been killed there: nothing but the session itself is in the database."""
    with local(saves=SaveDirectory(tmp_path, ORGANISATION)) as server, client(server.url) as caller:
        token = caller.session()
        caller.do("KV_SET", tkn=token, keys={"k": 1})
        save(caller, "x")
        caller.do("SH_END", tkn=token)
        begun, end = threading.Event(), threading.Event()

        async def stuck(*_: Any) -> int:
            begun.set()
            await asyncio.to_thread(end.wait, 30)
            return 0

        with client(server.url) as other:
            with monkeypatch.context() as patched:
                patched.setattr(saves, "fill", stuck)
                other.send({"SH_LOAD": {"name": "x"}})
                assert begun.wait(10)
            assert caller.do("SH_EXISTS", tkns=[token])["tkns"] == {token: False}
            assert save(caller, "meanwhile")[-1]["st"] == 121
            assert caller.do("SH_LOAD", name="x") == {"name": "x", "st": 141, "sessions": 1, "keys": 1}
            end.set()
        assert caller.do("KV_GET", tkn=token, keys=["k"])["keys"] == {"k": 1}
        caller.do("SH_END", tkn=token)
        assert caller.do("SH_LOAD", name="meanwhile")["sessions"] == 0, "a session that was not whole was saved"


def test_an_update_keeps_the_expiry_that_another_api_set(tmp_path: Path) -> None:
    with serving(tmp_path) as server, client(server.nemesis_url) as caller:
        token = caller.session()
        space = Commands(server).json("session", "list")[0]["id"]
        with Api(server, space) as api:
            api.put("a", {"n": [1]}, expireIn=600_000, metadata={"m": 1})
            before = api.get("a").json()
            caller.do("KV_UPDATE", tkn=token, key="a", **{"/n": [2]})
            caller.do("KV_UPDATE", tkn=token, key="a", path="$.n", value=[3])
            caller.do("KV_APPEND", tkn=token, a={"o": 1})
            after = api.get("a").json()
    assert after["value"] == {"n": [3], "o": 1}
    assert [after[name] for name in ("expiresAt", "metadata")] == [before[name] for name in ("expiresAt", "metadata")]


def test_a_key_for_a_prefix_reads_what_it_may_and_no_more(tmp_path: Path) -> None:
    """Reads that arrive together are one read; a key that one of them must not see does not fail the others."""
    with serving(tmp_path, "--nemesis-auth", "key") as server:
        options = ("--role", "developer", "--name", "part", "--prefix", '["mine"]')
        made = Commands(server).json("key", "create", *options)
        with client(server.nemesis_url, additional_headers=server.headers) as owner:
            token = owner.session()
            owner.do("KV_SET", tkn=token, keys={"mine": 1, "other": 2})
        headers = f"Authorization: Bearer {made.get('key') or made.get('secret')}\r\n"
        with Raw(server.nemesis_port, headers) as raw:
            asked = [
                json.dumps({"KV_GET": {"tkn": token, "keys": [key]}}).encode() for key in ("mine", "other", "mine")
            ]
            raw.send(*[frame(TEXT, message) for message in asked])
            got = [json.loads(reply[1])["KV_GET_RSP"] for reply in (raw.receive() for _ in asked) if reply]
    assert [reply.get("keys") for reply in got] == [{"mine": 1}, None, {"mine": 1}]
    assert got[1]["st"] == 14
