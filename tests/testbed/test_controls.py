"""The controls and the line that tells where they are: who may use them, what they show, and that nothing outlives."""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from kvasir.config.table import SETTINGS
from kvasir.testing import Server
from kvasir.testing.controls import ControlFailed
from kvasir.testing.server import KVASIR
from tests.support.serving import PATIENCE_SECONDS, environment, serving, wait_until
from tests.support.testbed import KINDS, Versori, opened

LINE = {"http", "https", "nemesis", "control", "organisation", "key", "stores", "voximplant", "ca", "pid"}


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_line_has_what_the_page_says(kvasir_server: Server) -> None:
    facts = kvasir_server.facts
    assert set(facts) == LINE
    assert set(facts["voximplant"]) == {"application_id", "application_name", "credentials"}
    assert set(facts["control"]) == {"url", "token"}
    assert list(facts["stores"]) == ["default"]
    assert Path(facts["ca"]).read_text().startswith("-----BEGIN CERTIFICATE-----")
    assert httpx.get(f"{facts['http']}/healthz").json()["mode"] == "dev"
    with httpx.Client(verify=ssl.create_default_context(cafile=facts["ca"])) as client:
        assert client.get(f"{facts['https'].replace('127.0.0.1', 'localhost')}/healthz").status_code == 200


def test_the_controls_take_their_own_token_alone(kvasir_server: Server) -> None:
    url = kvasir_server.facts["control"]["url"]
    for headers in ({}, {"Authorization": f"Bearer {kvasir_server.key}"}):
        assert httpx.post(f"{url}/reset", headers=headers).status_code == 401
    token = kvasir_server.facts["control"]["token"]
    assert httpx.get(f"{url}/", headers={"Authorization": f"Bearer {token}"}).json()["mode"] == "dev"
    assert httpx.get(f"{kvasir_server.url}/_kvasir/clock").status_code == 404, "they are on an address of their own"


@pytest.mark.parametrize("api", KINDS)
def test_the_journal_tells_what_was_asked(kvasir_server: Server, api: str) -> None:
    with opened(kvasir_server, api) as door:
        door.set("v")
        door.get()
        found = door.space.requests()
        facts = [(each["api"], each["operation"], each["keys"], each["outcome"]) for each in found]
        assert facts == [(api, door.set_operation, [["k"]], "ok"), (api, door.get_operation, [["k"]], "ok")]
        assert door.space.requests(operation=door.get_operation) == found[1:]
        assert door.space.requests(after=found[0]["number"]) == found[1:]


def test_the_journal_knows_keys_that_are_in_a_body(kvasir_server: Server) -> None:
    headers = {"Authorization": f"Bearer {kvasir_server.key}"}
    with opened(kvasir_server, "native") as door:
        address = f"{kvasir_server.url}/v1/spaces/{door.space.id}"
        httpx.post(f"{address}/get", json={"keys": [["a"], ["b", "c"]]}, headers=headers)
        mutations = [{"type": "delete", "key": ["d"]}]
        httpx.post(f"{address}/atomic", json={"mutations": mutations}, headers=headers)
        httpx.get(f"{address}/entry", params={"key": '["e/f"]'}, headers=headers)
        assert [each["keys"] for each in door.space.requests()] == [[["a"], ["b", "c"]], [["d"]], [["e/f"]]]


@pytest.mark.parametrize(
    ("method", "control", "query", "words"),
    [
        ("GET", "requests", {"api": "bogus"}, "api must be one of: versori, "),
        ("GET", "requests", {"operation": "SetKx"}, r"operation must be one .* such as SetKV"),
        ("GET", "requests", {"api": "native", "operation": "SetKV"}, "operation must be one of: "),
        ("GET", "requests", {"space": "01JZ"}, "space must be a ULID"),
        ("DELETE", "requests", {"space": "01JZ"}, "space must be a ULID"),
        ("DELETE", "faults", {"space": "01JZ"}, "space must be a ULID"),
    ],
)
def test_what_matches_nothing_is_refused_by_name(
    kvasir_server: Server, method: str, control: str, query: dict[str, str], words: str
) -> None:
    with pytest.raises(ControlFailed, match=words):
        kvasir_server.controls.call(method, control, **query)


def test_the_journal_finds_a_space_in_any_case(kvasir_server: Server) -> None:
    with opened(kvasir_server, "versori") as door:
        door.set(1)
        assert kvasir_server.controls.call("GET", "requests", space=door.space.id.lower()) == door.space.requests()


def test_a_reset_goes_back_to_the_seed_and_keys_stay_good(tmp_path: Path) -> None:
    seed = tmp_path / "seed.jsonl"
    seed.write_text("".join(json.dumps({"key": f"k{n}", "value": n}) + "\n" for n in range(1_000)))
    server = Server(["--seed", str(seed)])
    try:
        store = server.facts["stores"]["default"]
        address, headers = f"{server.url}/store/{store}/kv", {"Authorization": f"Bearer {server.key}"}
        httpx.delete(f"{address}/k1", headers=headers)
        httpx.put(f"{address}/new", json={"value": 1}, headers=headers)
        server.clock.advance("1d")
        server.faults.add("unavailable", operation="CountKV")
        own = server.space()
        server.reset()
        assert httpx.post(f"{address}/count", json={}, headers=headers).json()["count"] == 1_000
        assert httpx.get(f"{address}/k1", headers=headers).json()["value"] == 1
        assert httpx.get(f"{server.url}/store/{own.id}/kv/k", headers=headers).status_code == 404
        assert abs(server.clock.now_ms() - time.time() * 1000) < 60_000
        assert [each["operation"] for each in server.requests()][:1] == ["CountKV"]
    finally:
        server.stop()
    assert not is_alive(server.pid)


@pytest.mark.parametrize(("options", "status"), [([], 400), (["--lenient"], 200)])
def test_what_a_service_would_ignore_is_refused_unless_lenient(options: list[str], status: int) -> None:
    server = Server(options)
    try:
        address = f"{server.url}/store/{server.facts['stores']['default']}/kv/k"
        body = {"value": 1, "expireIn": 200}
        answer = httpx.put(address, json=body, headers={"Authorization": f"Bearer {server.key}"})
        assert answer.status_code == status
        assert "options.expireIn" in (answer.headers.get("Kvasir-Warning") or answer.json()["message"])
    finally:
        server.stop()


def test_snapshots_nest(kvasir_server: Server) -> None:
    with opened(kvasir_server, "versori") as door:
        door.set("outer")
        outer = door.space.snapshot()
        door.set("inner")
        inner = door.space.snapshot()
        door.set("lost")
        door.space.restore(inner)
        assert door.get() == "inner"
        door.space.restore(outer)
        assert door.get() == "outer"


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "end of input", "kill -9 of the parent"])
def test_it_ends_when_it_should(how: str) -> None:
    parent = (
        "import subprocess, sys; p = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE);"
        "print(p.stdout.readline().decode(), end='', flush=True); p.wait()"
    )
    command = [*KVASIR, "dev", "--until-stdin-closes"]
    if how == "kill -9 of the parent":
        command = [sys.executable, "-c", parent, *command]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        facts: dict[str, Any] = json.loads(process.stdout.readline())
        if how == "end of input":
            process.stdin.close()
        elif how == "kill -9 of the parent":
            process.kill()
        else:
            process.send_signal(signal.Signals[how])
        wait_until(lambda: process.poll() is not None and not is_alive(facts["pid"]), "it has ended")
    if not how.startswith("kill"):
        assert process.returncode == 0


def test_it_runs_in_the_background_of_a_shell() -> None:
    script = f"{sys.executable} -c 'from kvasir.cli import main; main()' dev </dev/null & echo $!; wait"
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    with process.stdout:
        pid = int(process.stdout.readline())
        facts = json.loads(process.stdout.readline())
        assert httpx.get(f"{facts['http']}/readyz").status_code == 200
        os.kill(pid, signal.SIGTERM)
        process.wait(PATIENCE_SECONDS)


def test_with_nobody_to_close_its_input_it_says_what_it_needs() -> None:
    done = subprocess.run(
        [*KVASIR, "dev", "--until-stdin-closes"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "needs a pipe" in done.stderr


def test_without_the_api_of_nemesisdb_nothing_of_it_is_loaded() -> None:
    """It is a third of what a test bed would import, which has to be ready soon."""
    code = "import sys, kvasir.testbed.server; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {
        "kvasir.dialects.nemesis.app",
        "kvasir.listeners.websocket",
        "kvasir.testbed.nemesis",
        "picows",
        "jsonpath",
    }
    assert not heavy & set(done.stdout.split())


def test_a_live_serve_has_none_of_it(tmp_path: Path) -> None:
    """Each interpreter of the server tells what it imports, while all APIs are asked for something."""
    variables = {"KVASIR_MODE": "dev", "KVASIR_DEV": "true", "PYTHONVERBOSE": "1"}
    (tmp_path / "kvasir.toml").write_text("")
    with serving(tmp_path, "--workers", "2", env=variables) as server:
        assert "mode" not in httpx.get(f"{server.url}/healthz").json()
        assert httpx.get(f"{server.url}/_kvasir/clock", headers=server.headers).status_code == 404
        address = f"{server.url}/store/{server.store}/kv/k"
        assert httpx.put(address, json={"value": 1}, headers=server.headers).is_success
        address = f"{server.url}/v1/spaces/{server.store}/entries/k"
        assert httpx.get(address, headers=server.headers).text == "1"
        assert "error" in httpx.post(f"{server.url}/platform_api/GetKeyValueItem").json()
        with connect(f"{server.nemesis_url}/session") as connection:
            connection.send('{"SH_NEW": {"name": "s"}}')
            assert "tkn" in str(connection.recv())
        assert server.stop() == 0
    loaded = set(re.findall(r"import '([\w.]+)' #", server.log))
    assert {"kvasir.cli.serve", "kvasir.server.worker", "kvasir.dialects.nemesis.app"} <= loaded
    assert not [name for name in loaded if name.startswith(("kvasir.testbed", "kvasir.testing", "kvasir.cli.dev"))]


@pytest.mark.parametrize("given", ["option", "file"])
@pytest.mark.parametrize("name", ["dev", "mode", "testbed"])
def test_no_setting_makes_a_test_bed_of_serve(tmp_path: Path, name: str, given: str) -> None:
    """An unknown variable has no effect, as the test above shows."""
    assert name not in {setting.name for setting in SETTINGS}
    (tmp_path / "kvasir.toml").write_text(f"{name} = true\n" if given == "file" else "")
    done = subprocess.run(
        [*KVASIR, "serve", *([f"--{name}"] if given == "option" else [])],
        env=environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert name in done.stderr


def test_in_a_container_the_controls_stay_on_loopback() -> None:
    server = Server(["--in-container", "--nemesis"])
    try:
        assert server.facts["http"].startswith("http://127.0.0.1:")
        assert server.facts["control"]["url"].startswith("http://127.0.0.1:")
        listening = _listening(server.pid)
        ports = {name: int(server.facts[name].rsplit(":", 1)[1]) for name in ("http", "nemesis")}
        control = int(server.facts["control"]["url"].split(":")[2].split("/")[0])
        assert listening[control] == "127.0.0.1"
        assert {listening[port] for port in ports.values()} == {"0.0.0.0"}
        door = Versori(server, server.space())
        door.set(1)
        door.close()
    finally:
        server.stop()


def _listening(pid: int) -> dict[int, str]:
    """The addresses that a process listens on, by port: /proc/net/tcp in the process's own words."""
    inodes = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()}
    found = {}
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
            address, port = fields[1].split(":")
            found[int(port, 16)] = ".".join(str(byte) for byte in bytes.fromhex(address)[::-1])
    return found


@pytest.mark.parametrize("lenient", [False, True])
def test_what_the_services_would_ignore_is_refused_unless_it_is_lenient(lenient: bool) -> None:
    server = Server(["--lenient"] if lenient else [])
    try:
        with opened(server, "voximplant") as door:
            address = f"{server.url}/platform_api/SetKeyValueItem"
            form = {"application_id": door.space.facts["application_id"], "key": "k", "value": "v", "tll": "60"}
            answer = httpx.post(address, data=form, headers={"Authorization": f"Bearer {door.token}"}).json()
            assert ("result" in answer) == lenient
            assert lenient or "ttl" in json.dumps(answer)
        with opened(server, "versori") as door:
            address = f"{server.url}/store/{door.space.id}/kv/k"
            answer = httpx.put(
                address, json={"value": 1, "expireIn": 200}, headers={"Authorization": f"Bearer {server.key}"}
            )
            assert answer.is_success == lenient
            assert lenient or "options" in answer.text
    finally:
        server.stop()
