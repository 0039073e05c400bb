"""The audit file: who did what, by whatever server or command; never a secret; and what happens on a full disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kvasir.control.audit import Audit
from kvasir.errors import Forbidden, UnknownOutcome
from kvasir.model import Principal
from tests.support.cli import Commands
from tests.support.http_client import client
from tests.support.serving import KEY, Server, serving

#: Where every write fails with "No space left on device".
FULL = "/dev/full"

OPERATOR = Principal("01J", "owner", "somebody")


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def told(file: Path) -> list[tuple[str, str, str]]:
    """What the file says of each act: its name, who did it, and how it went."""
    found = lines(file)
    begun = {line["id"]: line for line in found if line["event"] == "begun"}
    ended = [line for line in found if line["event"] != "begun"]
    assert sorted(line["id"] for line in ended) == sorted(begun)
    return [(line["act"], line["by"], line["event"]) for line in ended]


def key_by_http(server: Server, role: str = "developer", credential: str = KEY) -> Any:
    return client.post(
        f"{server.url}/v1/keys",
        json={"name": "a-name-of-a-key", "role": role},
        headers={"Authorization": f"Bearer {credential}"},
    )


def _exchange(server: Server, code: str) -> Any:
    return client.post(f"{server.url}/v1/console/exchange", json={"code": code})


def test_servers_and_commands_write_the_same_file_and_never_a_secret(tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    with serving(tmp_path, "--workers", "2", "--audit", str(file)) as server:
        commands = Commands(server)
        made = key_by_http(server).json()
        assert key_by_http(server, credential=made["key"]).status_code == 403
        assert key_by_http(server, credential="kv_unknown").status_code == 401
        store = client.post(
            f"{server.url}/v1/spaces", json={"kind": "store", "name": "a-name"}, headers=server.headers
        ).json()
        versori = client.post(
            f"{server.url}/o/{server.organisation}/store", json={"name": "another"}, headers=server.headers
        )
        assert versori.status_code == 200
        link = client.post(f"{server.url}/v1/console/links", headers=server.headers).json()["code"]
        local = commands("console", "--print", "--url", server.url).stdout.strip().partition("=")[2]
        exchanged = [_exchange(server, code) for code in (link, local, link, "A" * 43)]
        by_command = commands("key", "create", "--name", "x", "--role", "viewer")
        token = commands("store", "share", "a-name", "--session", "shared").stdout.strip()
        commands("store", "unshare", store["name"], "--session", "shared")
        commands("key", "revoke", made["id"])
        commands("store", "delete", store["id"], "--yes")
        server.stop()
        commands("key", "revoke", "nothing", status=1)
        another = commands("key", "create", "--name", "y", "--role", "viewer", "--json").stdout
        commands("dump", str(tmp_path / "dump"))
        commands("backup", str(tmp_path / "backup"))
    by_server, by_person = "admin", "command line"
    assert told(file) == [
        ("key.create", by_server, "done"),
        ("key.create", made["id"], "refused"),
        ("space.create", by_server, "done"),
        ("space.create", by_server, "done"),
        ("console-link.create", by_server, "done"),
        ("console-link.create", by_person, "done"),
        ("console-link.exchange", f"a link of {by_server}", "done"),
        ("console-link.exchange", f"a link of {by_person}", "done"),
        ("key.create", by_person, "done"),
        ("space.share", by_person, "done"),
        ("space.unshare", by_person, "done"),
        ("key.revoke", by_person, "done"),
        ("space.end", by_person, "done"),
        ("key.revoke", by_person, "refused"),
        ("key.create", by_person, "done"),
        ("database.dump", by_person, "done"),
        ("database.backup", by_person, "done"),
    ]
    found = lines(file)
    assert [line["subject"] for line in found[:2]] == ["", made["id"]]
    assert {line["subject"] for line in found if line["act"] == "console-link.create"} == {""}
    assert {line["subject"] for line in found if line["act"].endswith("share")} == {store["id"]}
    assert [answer.status_code for answer in exchanged] == [201, 201, 401, 401]
    consoles = [answer.json() for answer in exchanged[:2]]
    given = [line["subject"] for line in found if line["act"] == "console-link.exchange"]
    assert given == [each["id"] for each in consoles for _ in ("begun", "done")]
    assert {line["code"] for line in found if line["event"] == "refused"} == {"forbidden", "not_found"}
    assert all("user" in line for line in found if line["by"] == by_person)
    text = file.read_text(encoding="utf-8")
    secrets = (
        made["key"],
        by_command.stdout.strip(),
        json.loads(another)["key"],
        token,
        KEY,
        "kv_unknown",
        "a-name",
        link,
        local,
        *(each["key"] for each in consoles),
    )
    assert [secret for secret in secrets if secret in text] == []
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_choice_holds_until_another_is_made(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for options, file in (
        (["--audit", str(first)], first),
        ([], first),
        (["--audit", str(second)], second),
        (["--audit", "off"], None),
        ([], None),
    ):
        before = {each: len(lines(each)) if each.exists() else 0 for each in (first, second)}
        with serving(tmp_path, *options) as server:
            assert key_by_http(server).status_code == 201
        grown = [each for each in (first, second) if each.exists() and len(lines(each)) > before[each]]
        assert grown == ([] if file is None else [file])


@pytest.mark.skipif(not Path(FULL).exists(), reason="there is no /dev/full")
def test_on_a_full_disk_acts_are_refused_and_data_flows(tmp_path: Path) -> None:
    with serving(tmp_path, "--audit", FULL) as server:
        before = Commands(server)("key", "list").stdout
        answer = key_by_http(server)
        assert answer.status_code == 503
        assert "the audit file cannot be written (No space left on device), so nothing was done" in answer.text
        refused = Commands(server)("key", "create", "--name", "x", "--role", "viewer", status=1)
        assert "--audit-full allow" in refused.stderr
        assert Commands(server)("key", "list").stdout == before
        entry = f"{server.url}/v1/spaces/{server.store}/entries/a"
        assert client.put(entry, content=b"1", headers=server.headers).status_code == 201
        assert client.get(entry, headers=server.headers).status_code == 200


@pytest.mark.skipif(not Path(FULL).exists(), reason="there is no /dev/full")
def test_on_a_full_disk_acts_may_be_allowed_and_are_counted(tmp_path: Path) -> None:
    with serving(tmp_path, "--audit", FULL, "--audit-full", "allow") as server:
        made = key_by_http(server)
        assert made.status_code == 201
        assert "kvasir_audit_unrecorded_total 2\n" in client.get(f"{server.url}/metrics").text
        assert "begun of key.create is not in the audit file: No space left on device" in server.log
        assert made.json()["key"] not in server.log
        entry = f"{server.url}/v1/spaces/{server.store}/entries/a"
        assert client.put(entry, content=b"1", headers=server.headers).status_code == 201


def test_a_file_that_cannot_be_opened_keeps_the_server_from_starting(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match=r"the audit file .* cannot be opened"),
        serving(tmp_path, "--audit", str(tmp_path / "no" / "folder")),
    ):
        pass


def test_every_end_of_an_act_has_its_event(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit", refuses=True)

    async def act(error: BaseException | None) -> None:
        async with audit.act(OPERATOR, "key.create"):
            if error is not None:
                raise error

    for error, event in (
        (None, "done"),
        (Forbidden("no"), "refused"),
        (UnknownOutcome("who knows"), "unknown"),
        (ZeroDivisionError(), "failed"),
        (asyncio.CancelledError(), "abandoned"),
    ):
        with contextlib.nullcontext() if error is None else pytest.raises(type(error)):
            asyncio.run(act(error))
        assert told(tmp_path / "audit")[-1][2] == event


def test_a_line_is_whole_or_not_there(tmp_path: Path) -> None:
    """With room for a part of it, too; in a process of its own, whose files may have no more than so many bytes."""
    file = tmp_path / "audit"
    file.write_bytes(b"x" * 900 + b"\n")
    code = f"""
import asyncio, resource
from pathlib import Path
from kvasir.control.audit import Audit
from kvasir.errors import Unavailable
from tests.operate.test_audit import OPERATOR
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))
async def act():
    async with Audit(Path({str(file)!r}), refuses=True).act(OPERATOR, "key.create"):
        raise AssertionError("it was done")
try:
    asyncio.run(act())
except Unavailable as error:
    print(error.message)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "File too large" in done.stdout
    assert file.stat().st_size == 901
