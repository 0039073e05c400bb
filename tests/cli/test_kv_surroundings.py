"""`kvasir kv` and `kvasir context` where something is missing or broken around them: a message, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.kv import Kv
from tests.support.serving import KVASIR, Server

#: No variable that names a server or an access key
UNNAMED = {"KVASIR_URL": "", "KVASIR_KEY": ""}


def test_an_address_that_is_none(kv: Kv) -> None:
    said = kv.run("add", "w", "--url", "nourl", "--key", "k", group="context", status=2).stderr
    assert said.startswith(b"kvasir: the address of the server must be a URL")
    assert b"access key" in kv.run("add", "w", "--key", "a b", group="context", status=2).stderr


@pytest.mark.parametrize("module", ["typing", "gc", "typer", "kvasir.cli.kv", "kvasir.cli.kv.verbs", "httpx2"])
def test_ctrl_c_while_a_command_is_loaded(kv: Kv, module: str) -> None:
    script = f"""
import sys

class Interrupts:
    def find_spec(self, name, *_):
        if name == {module!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupts())
from kvasir.cli import main
main()
"""
    command = [sys.executable, "-c", script, "kv", "get", "k"]
    done = subprocess.run(command, env=kv.environment(None), capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.parametrize(
    ("name", "value"),
    [("ALL_PROXY", "socks5://127.0.0.1:1080"), ("http_proxy", "ftp://me:secret@127.0.0.1")],
)
def test_proxies_that_cannot_be_used(kv: Kv, name: str, value: str) -> None:
    said = kv.complaint("get", "k", status=2, variables={"NO_PROXY": "", name: value})
    assert said.startswith(f"kvasir: {name} names no proxy that can be used")
    assert "secret" not in said
    kv.complaint("get", "k", status=4, variables={name: value})


#: As for a user whom the system does not know.
HOMELESS = """
import pathlib

def home():
    raise RuntimeError("Could not determine home directory.")

pathlib.Path.home = home
from kvasir.cli import main
main()
"""


def test_without_a_home_there_are_no_contexts(kv: Kv) -> None:
    def homeless(*arguments: str, **variables: str) -> tuple[int, str]:
        environment = kv.environment({"XDG_CONFIG_HOME": ""} | variables)
        command = [sys.executable, "-c", HOMELESS, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, done.stderr

    kv("set", "k", "1")
    assert homeless("kv", "get", "k") == (0, "")
    status, said = homeless("kv", "get", "k", **UNNAMED)
    assert (status, "no access key is given" in said) == (2, True)
    for asked in (("kv", "get", "k", "--context", "c"), ("context", "list"), ("context", "add", "c")):
        status, said = homeless(*asked)
        assert (status, "set HOME or XDG_CONFIG_HOME" in said) == (2, True), said
        assert "Traceback" not in said


def test_a_path_that_is_wrong_is_told_as_it_was_typed(kv: Kv, tmp_path: Path) -> None:
    nowhere, folder = str(tmp_path / "no" / "where"), str(tmp_path)
    for path, said in (
        (nowhere, f"{nowhere}: there is no directory {tmp_path}/no; make it first, or choose another place\n"),
        (folder, f"{folder}: is a directory; name a file\n"),
    ):
        for command in (("set", "k", f"@{path}"), ("import", path), ("export", "--output", path)):
            assert kv.complaint(*command, status=2) == f"kvasir: {said}"
    missing = str(tmp_path / "missing")
    for command in (("set", "k", f"@{missing}"), ("import", missing)):
        assert kv.complaint(*command, status=2) == f"kvasir: {missing}: no such file or directory; check the name\n"
    (tmp_path / "kvasir").write_text("in the way of a directory")
    said = kv.run("add", "c", group="context", status=1).stderr.decode()
    assert said.startswith(f"kvasir: {tmp_path}/kvasir")
    assert "Errno" not in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_output_that_finds_no_room(kv: Kv) -> None:
    for n in range(20):
        kv("set", "x" * 1_000 + str(n), "1")
    room = b": no space left on device; make room and try again\n"
    with Path("/dev/full").open("wb") as full:
        for command in (("list",), ("get", "x" * 1_000 + "1"), ("count",), ("list", "--json"), ("export",)):
            words = [str(KVASIR), "kv", *command]
            done = subprocess.run(words, env=kv.environment(None), stdout=full, stderr=subprocess.PIPE, check=False)
            assert (done.returncode, done.stderr) == (1, b"kvasir: standard output" + room)
    assert kv.complaint("export", "-o", "/dev/full", status=1).encode() == b"kvasir: /dev/full" + room


def test_streams_that_are_closed(kv: Kv, server: Server) -> None:
    def closed(which: str, *arguments: str) -> tuple[int, str, str]:
        command = ["sh", "-c", f'exec "$@" {which}', "sh", str(KVASIR), *arguments]
        done = subprocess.run(
            command, env=kv.environment(None), capture_output=True, text=True, timeout=60, check=False
        )
        return done.returncode, done.stdout, done.stderr

    kv("set", "k", "1")
    assert closed("<&-", "kv", "get", "k") == (0, "1", "")
    assert closed("<&-", "kv", "set", "k")[0] == 2
    assert closed(">&-", "kv", "get", "k") == (0, "", "")
    assert closed(">&-", "kv", "list") == (0, "", "")
    assert closed("2>&-", "kv", "get", "k") == (0, "1", "")
    assert closed("2>&-", "kv", "get", "no") == (4, "", "")
    assert closed("<&- >&- 2>&-", "kv", "get", "no") == (4, "", "")
    assert closed("<&- >&- 2>&-", "context", "list") == (0, "", "")
    assert closed("2>&-", "context", "use", "no")[0] == 4


@pytest.mark.parametrize(
    ("command", "status"), [("kv get no", 4), ("context use no", 4), ("store list --config no", 2)]
)
def test_the_exit_status_stays_where_nobody_reads_the_message(kv: Kv, command: str, status: int) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run([str(KVASIR), *command.split()], env=kv.environment(None), stderr=write, check=False)
    finally:
        os.close(write)
    assert done.returncode == status


def test_what_python_cannot_take_is_refused(kv: Kv) -> None:
    deep = "[" * 5_000 + "]" * 5_000
    for metadata in ('{"n": 1e999}', '{"n": NaN}', '{"t": "\\ud800"}', f'{{"deep": {deep}}}', deep):
        for command in (("set", "k", "1"), ("list",)):
            assert "--metadata" in kv.complaint(*command, "--metadata", metadata, status=2)
    assert "JSON array" in kv.complaint("get", "[" * 5_000, status=2)
    for instant in ("0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00"):
        assert "is no instant" in kv.complaint("list", "--created-from", instant, status=2)


def test_where_output_is_ascii(kv: Kv) -> None:
    kv("set", "grün/🍯", '"€"')
    ascii_only = {"PYTHONIOENCODING": "ascii"}
    assert kv("list", variables=ascii_only) == "gr\\xfcn/\\U0001f36f\n"
    assert "gr\\xfcn" in kv("tree", variables=ascii_only)
    line = kv("list", "--json", "--values", variables=ascii_only)
    assert line.isascii()
    assert (json.loads(line)["key"], json.loads(line)["value"]) == (["grün", "🍯"], "€")
    kv.run("add", "grün", group="context")
    listed = kv.run("list", "--json", group="context", variables=ascii_only).stdout
    assert json.loads(listed)["name"] == "grün"
