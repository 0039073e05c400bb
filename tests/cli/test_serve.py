"""`kvasir serve`: its help, its mistakes, and what the first start shows, once."""

from __future__ import annotations

import ast
import asyncio
import gc
import importlib
import json
import os
import re
import resource
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

import kvasir.cli
from kvasir.config.table import SETTINGS, Config
from kvasir.errors import Unavailable
from kvasir.listeners.websocket import WebSocketListener
from kvasir.metrics import Metrics
from kvasir.server.data_directory import refuse_other_files
from kvasir.server.run import operations_of
from kvasir.server.worker import Worker
from tests.support.cli import run
from tests.support.http_client import client
from tests.support.organisations import ORGANISATION
from tests.support.serving import KEY, KVASIR, Server, environment, free_ports, serving

#: A curl for machines without one.
SHIMS = Path(__file__).parent.parent / "shims"
NO_ADMIN_KEY = {"KVASIR_ADMIN_KEY": "", "KVASIR_ORGANISATION_ID": ""}


def status_with(server: Server, key: str) -> int:
    address = f"{server.url}/o/{server.organisation}/store"
    return client.get(address, headers={"Authorization": f"Bearer {key}"}).status_code


def files_in(directory: Path) -> list[Path]:
    """The files of a data directory; there is none where PostgreSQL keeps everything."""
    return list(directory.iterdir()) if directory.exists() else []


def test_help_explains_every_setting() -> None:
    shown = " ".join(run("serve", "--help", COLUMNS="300").stdout.split())
    for setting in SETTINGS:
        assert setting.option in shown
        assert " ".join(setting.help.replace("`", "").split())[:60] in shown.replace("`", "")


def test_the_first_start_shows_the_key_once_and_a_line_to_paste(tmp_path: Path) -> None:
    with serving(tmp_path, env=NO_ADMIN_KEY) as server:
        log = server.log
        (key,) = set(re.findall(r"kv_[\w-]{43}", log))
        (organisation,) = re.findall(r"organisation +([0-9A-Z]{26})", log)
        server.organisation = organisation
        assert status_with(server, key) == 200
        (line,) = [line.strip() for line in log.splitlines() if line.strip().startswith("curl ")]
        pasted = subprocess.run(
            ["sh", "-c", line.replace("curl ", "curl --silent --show-error --noproxy '*' ", 1)],
            env=environment(PATH=f"{KVASIR.parent}:{environment()['PATH']}:{SHIMS}"),
            capture_output=True,
            text=True,
            check=True,
        )
        assert '"committed":true' in pasted.stdout
        address = shlex.split(line)[-1]
        got = client.get(address, headers={"Authorization": f"Bearer {key}"})
        assert got.json()["value"] == "hello"
        assert server.stop() == 0
    (tmp_path / "server.log").unlink()
    with serving(tmp_path, env=NO_ADMIN_KEY) as server:
        server.organisation = organisation
        assert status_with(server, key) == 200
        assert server.stop() == 0
        assert "kv_" not in server.log
        assert "curl" not in server.log
    for file in files_in(tmp_path / "data"):
        assert key.encode() not in file.read_bytes()
        assert key.removeprefix("kv_").encode() not in file.read_bytes()


def test_a_chosen_admin_key_is_never_shown(tmp_path: Path) -> None:
    for _ in range(2):
        with serving(tmp_path, "--access-log", "--log-level", "debug") as server:
            assert server.organisation == ORGANISATION
            assert status_with(server, KEY) == 200
            assert server.stop() == 0
            assert KEY not in server.log
            assert "$KVASIR_ADMIN_KEY" in server.log
    for file in files_in(tmp_path / "data"):
        assert KEY.encode() not in file.read_bytes()


def test_a_changed_admin_key_replaces_the_former_one_at_the_next_start(tmp_path: Path) -> None:
    other = "another-admin-key-0123456789-0123456789"
    with serving(tmp_path) as server:
        server.stop()
    with serving(tmp_path, env={"KVASIR_ADMIN_KEY": other}) as server:
        assert status_with(server, KEY) == 401
        assert status_with(server, other) == 200


def test_what_is_kept_is_for_its_owner_only(tmp_path: Path) -> None:
    with serving(tmp_path, "--engine", f"sqlite:{tmp_path}/elsewhere.db") as server:
        files = list(tmp_path.glob("elsewhere.db*"))
        assert len(files) >= 3
        assert not server.data_dir.exists(), "nothing is in it"
        assert [file.name for file in files if file.stat().st_mode & 0o077] == []


def open_to_others(directory: Path) -> list[str]:
    """What of a directory and all that is in it other users could use."""
    return [str(path) for path in [directory, *directory.rglob("*")] if path.stat().st_mode & 0o077]


def save(server: Server) -> None:
    with connect(server.nemesis_url) as caller:
        for message in ('{"SH_NEW":{"name":"a"}}', '{"SH_SAVE":{"name":"b"}}'):
            caller.send(message)
            caller.recv(30)
        assert json.loads(caller.recv(30))["SH_SAVE_RSP"]["st"] == 121


@pytest.mark.only_sqlite(reason="about the database's files")
def test_what_is_made_by_hand_or_restored_becomes_its_owners_only(tmp_path: Path) -> None:
    data, former = tmp_path / "data", os.umask(0o022)
    try:
        data.mkdir()
        with serving(tmp_path) as server:
            save(server)
            assert open_to_others(data) == []
            assert f"{data} was accessible to other users" in server.log
            assert server.stop() == 0
        (data / "kvasir.db").write_bytes((data / "kvasir.db").read_bytes())
        for path, mode in ((data, 0o750), (data / "kvasir.db", 0o644), (data / "saves", 0o755)):
            path.chmod(mode)
        with serving(tmp_path) as server:
            assert open_to_others(data) == []
            assert all(f"{path} was accessible" in server.log for path in (data / "kvasir.db", data / "saves"))
    finally:
        os.umask(former)


def test_a_data_directory_that_holds_other_things_keeps_its_rights(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    (data / "of somebody else").touch()
    with serving(tmp_path) as server:
        assert "remains so: it contains other files too" in server.log
        assert data.stat().st_mode & 0o777 == 0o755


@pytest.mark.only_sqlite(reason="about the database's files")
@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("directory", "is a directory; name a file"),
        ("text", "is no SQLite database, or is damaged: name another file, or restore a backup"),
        ("pipe", "is neither a file nor a directory; name a file"),
    ],
)
def test_what_is_no_database_is_refused_and_left_as_it_is(tmp_path: Path, kind: str, told: str) -> None:
    place = tmp_path / "place" / "other"
    place.parent.mkdir()
    if kind == "directory":
        place.mkdir()
    elif kind == "text":
        place.write_text("of somebody else")
    else:
        os.mkfifo(place)
    beside = set(place.parent.iterdir())
    for path in beside:
        path.chmod(0o755)
    refused = run("serve", f"--engine=sqlite:{place}", f"--data-dir={tmp_path}/data", "--http=127.0.0.1:0", status=1)
    assert refused.stderr.splitlines()[-1] == f"kvasir: {place} {told}"
    assert set(place.parent.iterdir()) == beside
    assert {path.stat().st_mode & 0o777 for path in beside} == {0o755}


def test_a_database_whose_head_is_torn_is_opened_if_it_has_a_log(tmp_path: Path) -> None:
    file = tmp_path / "kvasir.db"
    file.write_bytes(b"torn by a power failure")
    with pytest.raises(Unavailable, match="no SQLite database"):
        refuse_other_files(file)
    (tmp_path / "kvasir.db-wal").write_bytes(b"pages")
    refuse_other_files(file)


def test_saves_elsewhere_are_their_owners_only(tmp_path: Path) -> None:
    former = os.umask(0o022)
    try:
        with serving(tmp_path, "--nemesis-save-dir", str(tmp_path / "far" / "away")) as server:
            save(server)
        assert open_to_others(tmp_path / "far") == []
    finally:
        os.umask(former)


@pytest.mark.parametrize(
    ("most", "options", "warned"),
    [
        (10_199, ("--no-nemesis", "--limit-connections", "10100"), True),
        (10_200, ("--no-nemesis", "--limit-connections", "10100"), False),
        (10_200, ("--no-nemesis", "--limit-connections", "10100", "--https", "127.0.0.1:0"), False),
        (10_200, ("--limit-connections", "1"), True),
        (10_725, ("--limit-connections", "1", "--nemesis-connections", "10000"), True),
        (10_726, ("--limit-connections", "1", "--nemesis-connections", "10000"), False),
    ],
)
@pytest.mark.only_sqlite(reason="connections to PostgreSQL count too")
def test_fewer_files_than_connections_are_warned_of(
    tmp_path: Path, most: int, options: tuple[str, ...], warned: bool
) -> None:
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    program = tmp_path / "kvasir"
    program.write_text(f'#!/bin/sh\nulimit -n {most}\nexec {KVASIR} "$@"\n')
    program.chmod(0o700)
    assert former[1] == resource.RLIM_INFINITY or former[1] >= most
    if "--https" in options:  # which has no connections of its own
        run("dev-cert", str(tmp_path))
        https = f"127.0.0.1:{free_ports(1)[0]}"
        options = (*options[:-1], https, "--tls-cert", "cert.pem", "--tls-key", "key.pem")
    with serving(tmp_path, *options, program=[str(program)]) as server:
        assert (f"allows a process {most} open files" in server.log) is warned


def test_several_workers_make_one_organisation_and_show_one_key(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "3", env=NO_ADMIN_KEY) as server:
        assert len(re.findall(r"kv_[\w-]{43}", server.log)) == 2  # in the list, and in the line to paste
        assert server.stop() == 0


def test_the_memory_engine_has_a_first_start_too(tmp_path: Path) -> None:
    with serving(tmp_path, "--engine", "memory:") as server:
        assert status_with(server, KEY) == 200
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (("--workers", "0"), 2, "--workers"),
        (("--prot", "1"), 2, "--prot"),
        (("--config", "none.toml"), 2, "none.toml"),
        (("--no-http", "--no-https", "--no-nemesis"), 2, "nothing would be served"),
        (("--nemesis", "0.0.0.0:1987"), 2, "--nemesis-auth"),
        (("--data-dir", "a-file"), 1, "a-file"),
    ],
)
def test_mistakes_end_it_with_a_word_of_help(
    tmp_path: Path, arguments: tuple[str, ...], status: int, word: str
) -> None:
    (tmp_path / "a-file").touch()
    http, nemesis = (f"127.0.0.1:{port}" for port in free_ports(2))
    done = run("serve", "--http", http, "--nemesis", nemesis, *arguments, status=status, cwd=tmp_path)
    assert word in done.stderr


def test_a_broken_key_ends_it_before_there_are_workers(tmp_path: Path) -> None:
    run("dev-cert", str(tmp_path))
    (tmp_path / "junk.pem").write_text("junk")
    http, https = (f"127.0.0.1:{port}" for port in free_ports(2))
    tls = ("--https", https, "--tls-cert", "cert.pem", "--tls-key", "junk.pem")
    done = run("serve", "--http", http, "--no-nemesis", "--workers", "2", *tls, status=2, cwd=tmp_path)
    assert "tls_key" in done.stderr
    assert "junk.pem" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_organisation_that_contradicts_the_data(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.stop()
    http, nemesis = (f"127.0.0.1:{port}" for port in free_ports(2))
    arguments = ("serve", *server.database_options, "--http", http, "--nemesis", nemesis)
    done = run(*arguments, status=1, KVASIR_ORGANISATION_ID="01JZX0W7M2Q4T8V6B3N5C9D1EG")
    assert ORGANISATION in done.stderr


def test_an_address_in_use(server: Server, tmp_path: Path) -> None:
    arguments = ("serve", "--data-dir", str(tmp_path), "--http", f"127.0.0.1:{server.port}", "--no-nemesis")
    assert str(server.port) in run(*arguments, status=1).stderr


@pytest.mark.parametrize("system", ["win32", "cygwin", "freebsd14"])
def test_other_systems_are_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], system: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["kvasir", "--version"])
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(SystemExit) as ended:
        kvasir.cli.main()
    assert ended.value.code == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"kvasir: runs on Linux and macOS, not on this system ({system})\n"


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_the_systems_it_runs_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], system: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["kvasir", "--version"])
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(SystemExit) as ended:
        kvasir.cli.main()
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"kvasir {kvasir.__version__}\n"


def test_other_systems_get_as_far_as_that_sentence() -> None:
    """What is imported before it is said is there on every system."""
    code = "import sys, kvasir.cli; print([name for name in sys.modules if name.startswith('kvasir')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = ast.literal_eval(done.stdout)
    assert "kvasir.cli" in loaded
    for name in loaded:
        names = vars(importlib.import_module(name))
        assert not {"fcntl", "resource", "uvloop", "mmap"} & set(names), name


def test_the_limits_of_the_nemesis_api_are_settings(tmp_path: Path) -> None:
    options = ("--nemesis-connections", "1", "--nemesis-sessions-per-second", "1")
    with serving(tmp_path, *options) as server, connect(server.nemesis_url) as caller:
        for name in "abcd":  # sent within at most two seconds of the clock, each of which allows one
            caller.send(f'{{"SH_NEW":{{"name":"{name}"}}}}')
        made = [json.loads(caller.recv(30))["SH_NEW_RSP"]["st"] for _ in "abcd"]
        assert {1, 103} == set(made)
        with pytest.raises(InvalidStatus, match="503"):
            connect(server.nemesis_url)


def test_readyz_is_answered_only_when_all_listeners_are_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port, nemesis_port = free_ports(2)
    config = Config(data_dir=tmp_path, http=f"127.0.0.1:{port}", nemesis=f"127.0.0.1:{nemesis_port}")
    supervisor, ready = os.pipe()
    served, start = [], WebSocketListener.start

    async def slow_start(self: WebSocketListener, *listening: socket.socket, **more: Any) -> None:
        await asyncio.sleep(0.1)  # time enough for a listener that was started before
        with socket.socket() as probe:
            served.append(probe.connect_ex(("127.0.0.1", port)) == 0)
        await start(self, *listening, **more)

    def is_ready() -> bool:
        os.close(ready)
        return True

    monkeypatch.setattr(WebSocketListener, "start", slow_start)
    server = Worker(config, Metrics(operations_of(config), 1))
    threshold = gc.get_threshold()
    try:
        status = asyncio.run(server.serve(announce=True, parent=supervisor, on_ready=is_ready))
    finally:
        os.close(supervisor)
        gc.unfreeze()
        gc.set_threshold(*threshold)
    assert (status, served) == (0, [False])


def test_no_variable_of_ours_reaches_the_server() -> None:
    assert not [name for name in environment() if name.startswith("KVASIR_")]
