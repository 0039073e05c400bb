"""The log of slow requests: which requests have a line, what is in it, and what never is."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
import pytest

from kvasir.model import Space
from kvasir.server.slow_log import LINES_A_SECOND, SlowLog, settle
from kvasir.timing import PHASES, Finished, Timed
from tests.support import nemesis
from tests.support.cli import Commands
from tests.support.faults import disk
from tests.support.http_client import client
from tests.support.raw_http import Wire, request
from tests.support.serving import KEY, Server, serving, wait_until
from tests.support.voximplant import private_key

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01"}

#: In everything that no line may hold
MARKER = "planted"
#: What a sync takes on the disk of the server while it is slow, and from when on a request is slow
SYNC_SECONDS, SLOW_MS = 0.4, 300


@dataclass
class Slow:
    """A server whose disk can be slow, and its log of slow requests."""

    server: Server
    disk: Path
    service_token: str

    @contextlib.contextmanager
    def syncs(self) -> Iterator[None]:
        """Each commit takes `SYNC_SECONDS` at least meanwhile."""
        (self.disk / disk.SLOW_TO_SYNC).write_text(str(SYNC_SECONDS))
        try:
            yield
        finally:
            (self.disk / disk.SLOW_TO_SYNC).unlink()

    def lines(self) -> list[dict[str, Any]]:
        # Without the last piece: a line that is being written is none yet.
        whole = self.server.log.split("\n")[:-1]
        found = [json.loads(line) for line in whole if line.startswith("{")]
        return [line for line in found if line["logger"] == "kvasir.slow"]

    def line(self, **members: object) -> dict[str, Any]:
        """The line with these members, once it is there; never two."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.lines() if members.items() <= line.items()]

        wait_until(lambda: bool(found()), f"there is a line of {members}")
        (line,) = found()
        return line

    def has_waiting_write(self) -> bool:
        return "\nkvasir_writes_waiting 1\n" in client.get(f"{self.server.url}/metrics").text

    def put(self, key: str, **headers: str) -> dict[str, Any]:
        """The line of a slow PUT to /v1."""
        url = f"{self.server.url}/v1/spaces/{self.server.store}/entries/{key}"
        answer = client.put(url, content=f'"{MARKER}-value"', headers=self.server.headers | headers)
        assert answer.status_code in (200, 201), answer.text
        return self.line(request=answer.headers["x-request-id"])


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slow]:
    folder = tmp_path_factory.mktemp("slow")
    options = ["--slow-ms", str(SLOW_MS), "--log-format", "json", "--nemesis-auth", "key"]
    with serving(folder, *options, env=disk.environment_of(folder)) as server:
        command = Commands(server)
        command("application", "create", "--name", "myapp", "--id", "1")
        account = json.loads(command("service-account", "create", "--role", "Developer").stdout)
        now = int(time.time())
        claims = {"iss": str(account["account_id"]), "iat": now - 5, "exp": now + 3_595}
        key = private_key(account["private_key"])
        token = jwt.encode(claims, key, "RS256", headers={"kid": account["key_id"]})
        yield Slow(server, folder, token)


def check_commit(line: dict[str, Any], api: str, operation: str) -> None:
    """Whether this is the line of a write that was slow because its commit was."""
    assert (line["api"], line["operation"], line["outcome"], line["level"]) == (api, operation, "ok", "warning")
    phases = line["phases"]
    assert tuple(phases) == PHASES
    assert phases["commit"] >= SYNC_SECONDS * 1000
    assert line["milliseconds"] >= sum(phases.values()) - 0.1, "they do not overlap"
    assert re.fullmatch("[0-9a-f]{16}", line["key_hash"])
    assert line["space"]
    assert line["message"].startswith(f"{line['request']} {api} {operation} ")


@pytest.mark.only_sqlite("the disk of the test is below SQLite")
def test_a_slow_commit_has_a_line_in_every_api_with_its_phases_and_the_trace(slow: Slow) -> None:
    server, url = slow.server, f"{slow.server.url}/store/{slow.server.store}/kv/{MARKER}-key/of-a-kind"
    form = {"application_id": "1", "key": f"{MARKER}-key", "value": f"{MARKER}-value"}
    token = {"Authorization": f"Bearer {slow.service_token}"}
    with nemesis.client(server.nemesis_url, additional_headers=server.headers | TRACEPARENT) as session:
        tkn = session.session(f"{MARKER}-session")
        with slow.syncs():
            first, again = (slow.put(f"{MARKER}-key", **TRACEPARENT) for _ in range(2))
            for line in (first, again):
                check_commit(line, "native", "SetEntry")
                assert (line["trace_id"], line["parent_span_id"]) == (TRACE, SPAN)
                assert (line["method"], line["space"], line["keys"]) == ("PUT", server.store, 1)
            assert (first["status"], again["status"]) == (201, 200)

            answer = client.put(url, json={"value": f"{MARKER}-value"}, headers=server.headers)
            line = slow.line(request=answer.headers["x-request-id"])
            check_commit(line, "versori", "SetKV")
            assert (line["status"], "trace_id" in line) == (200, False)

            for _ in range(2):  # the first checks a signature; the second needs no coroutine
                answer = client.post(f"{server.url}/platform_api/SetKeyValueItem", data=form, headers=token)
                assert "error" not in answer.json()
                check_commit(slow.line(request=answer.headers["x-request-id"]), "voximplant", "SetKeyValueItem")

            session.do("KV_SET", tkn=tkn, keys={f"{MARKER}-key": f"{MARKER}-value"})
            line = slow.line(operation="KV_SET")
            check_commit(line, "nemesis", "KV_SET")
            assert (line["trace_id"], line["parent_span_id"], line["keys"]) == (TRACE, SPAN, 1)
            assert {"status", "method"}.isdisjoint(line)
    secrets = [MARKER, KEY, slow.service_token, slow.service_token.split(".")[2], tkn]
    assert [secret for secret in secrets if secret in server.log] == []


@pytest.mark.only_sqlite("the disk of the test is below SQLite")
def test_the_same_key_of_a_space_has_the_same_hash_whatever_is_done_with_it(slow: Slow) -> None:
    other = client.post(f"{slow.server.url}/v1/spaces", json={"name": "other"}, headers=slow.server.headers).json()
    with slow.syncs():
        first, again, another = slow.put("one"), slow.put("one"), slow.put("two")
        assert first["key_hash"] == again["key_hash"] != another["key_hash"]
        versori = client.put(
            f"{slow.server.url}/store/{slow.server.store}/kv/one", json={"value": 1}, headers=slow.server.headers
        )
        assert slow.line(request=versori.headers["x-request-id"])["key_hash"] == first["key_hash"]
        elsewhere = client.put(
            f"{slow.server.url}/v1/spaces/{other['id']}/entries/one", content="1", headers=slow.server.headers
        )
        assert slow.line(request=elsewhere.headers["x-request-id"])["key_hash"] != first["key_hash"]
        body = {"mutations": [{"type": "set", "key": [key], "value": 1} for key in ("one", "two")]}
        many = client.post(
            f"{slow.server.url}/v1/spaces/{slow.server.store}/atomic", json=body, headers=slow.server.headers
        )
        assert many.status_code == 200, many.text
        line = slow.line(request=many.headers["x-request-id"])
        assert (line["key_hash"], line["keys"]) == (first["key_hash"], 2)
    assert first["key_hash"] == SlowLog(1, settle(slow.server.data_dir)).hash(space(slow.server.store), b"\x02one\x00")


@pytest.mark.only_sqlite("the disk of the test is below SQLite")
def test_commands_that_are_carried_out_together_have_their_own_keys(slow: Slow) -> None:
    with nemesis.client(slow.server.nemesis_url, additional_headers=slow.server.headers) as session:
        tkn = session.session("together")
        before = len(slow.lines())
        with slow.syncs():
            for name in ("one", "two"):
                session.send({"KV_SET": {"tkn": tkn, "keys": {name: 1, f"{name} more": 1}}})
            for _ in range(2):
                session.receive()
        wait_until(lambda: len(slow.lines()) >= before + 2, "both have a line")
        first, second = slow.lines()[before:]
    hashes = SlowLog(1, settle(slow.server.data_dir))
    for line, key in ((first, b"\x02one\x00"), (second, b"\x02two\x00")):
        check_commit(line, "nemesis", "KV_SET")
        assert (line["key_hash"], line["keys"]) == (hashes.hash(space(line["space"]), key), 2)


@pytest.mark.only_sqlite("another process has its file's lock")
def test_waiting_for_other_writers_and_for_the_body_is_told_as_such(slow: Slow) -> None:
    lock = os.open(f"{slow.server.data_dir / 'kvasir.db'}-writer", os.O_RDWR)
    with Wire(slow.server.port) as wire:
        path = f"/v1/spaces/{slow.server.store}/entries/{MARKER}-waits"
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            wire.send(request("PUT", path, b"1"))
            wait_until(slow.has_waiting_write, "the write waits")
            time.sleep(SYNC_SECONDS)
        finally:
            os.close(lock)
        line = slow.line(request=wire.answer().headers["x-request-id"])
        assert line["phases"]["wait"] >= SYNC_SECONDS * 1000

        wire.send(request("PUT", path, b"1", more="Expect: 100-continue\r\n")[:-1])
        assert wire.answer().status == 100
        time.sleep(SYNC_SECONDS)
        wire.send(b"1")
        line = slow.line(request=wire.answer().headers["x-request-id"])
        assert line["phases"]["body"] >= SYNC_SECONDS * 1000
    assert MARKER not in slow.server.log


def test_what_is_quick_has_no_line(tmp_path: Path) -> None:
    with serving(tmp_path, "--slow-ms", "3_600_000") as server:
        url = f"{server.url}/v1/spaces/{server.store}/entries/quick"
        for method in ("PUT", "GET", "DELETE"):
            client.request(method, url, content=b"1" if method == "PUT" else b"", headers=server.headers)
        with nemesis.client(server.nemesis_url) as session:
            session.do("KV_SET", tkn=session.session(), keys={"quick": 1})
        assert server.stop() == 0
        assert "kvasir.slow" not in server.log
        secret = server.data_dir / "log.secret"
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def space(id: str) -> Space:
    return Space(id, 1, "organisation", "store", "name", 0)


def finished(seconds: float, **members: Any) -> Finished:
    facts = {"id": "id", "api": "native", "operation": "GetEntry", "outcome": "ok", "method": "GET", "status": 200}
    timed = Timed()
    timed.space, timed.key, timed.keys = space("01JZX0W7M2Q4T8V6B3N5C9D1EF"), b"\x02one\x00", 3
    timed.spent("read", 10.25, 10.5)
    timed.spent("read", 10.5, 10.625)
    values: dict[str, Any] = facts | {"began": 10.0, "ended": 10.0 + seconds, "timed": timed, "header": lambda _: None}
    return Finished(**(values | members))


def test_a_line_is_there_from_the_bound_on(caplog: pytest.LogCaptureFixture) -> None:
    tell = SlowLog(1.0, b"x" * 32)
    with caplog.at_level(logging.WARNING, "kvasir.slow"):
        tell(finished(0.999))
        assert caplog.messages == []
        tell(finished(1.0))
    (record,) = caplog.records
    assert vars(record)["fields"]["phases"] == {
        "auth": 0.0, "body": 0.0, "read": 375.0, "wait": 0.0, "commit": 0.0, "render": 375.0
    }  # fmt: skip
    assert re.fullmatch(
        r"id native GetEntry 200 took 1000\.0 ms: auth 0\.0, body 0\.0, read 375\.0, wait 0\.0, commit 0\.0, "
        r"render 375\.0, space 01JZX0W7M2Q4T8V6B3N5C9D1EF, key [0-9a-f]{16} of 3",
        record.getMessage(),
    )


def test_a_storm_of_slow_requests_is_not_made_worse_by_its_lines(caplog: pytest.LogCaptureFixture) -> None:
    tell = SlowLog(1.0, b"x" * 32)
    with caplog.at_level(logging.WARNING, "kvasir.slow"):
        for _ in range(LINES_A_SECOND + 2):
            tell(finished(2.0))
        assert len(caplog.messages) == LINES_A_SECOND
        tell(finished(3.0))
    assert caplog.messages[LINES_A_SECOND] == "2 more requests were slow, too many for a line each"
    assert len(caplog.messages) == LINES_A_SECOND + 2


def spoilt(path: Path) -> None:
    path.write_bytes(b"too short")


def unreadable(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("spoil", [spoilt, unreadable])
def test_the_secret_stays_that_of_the_data_directory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    assert settle(tmp_path / "a") == settle(tmp_path / "a") != settle(tmp_path / "b")
    assert [each.name for each in (tmp_path / "a").iterdir()] == ["log.secret"]
    assert caplog.messages == []
    (tmp_path / "c").mkdir()
    spoil(tmp_path / "c" / "log.secret")
    assert len(settle(tmp_path / "c")) == 32, "the server serves all the same"
    assert "hold for this process alone" in caplog.messages[0]
