"""`kvasir status`: the screen as a person sees it in a terminal, and the figures for scripts."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pyte
import pytest

from kvasir.cli.status.asking import Look, parsed
from kvasir.cli.status.figures import figures
from kvasir.cli.status.screen import lines
from tests.support import postgres
from tests.support.cli import run
from tests.support.http_client import client
from tests.support.serving import KVASIR, PATIENCE_SECONDS, Server, environment, serving

COLUMNS, ROWS = 80, 24


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("status")) as server:
        yield server


def put(server: Server, key: str) -> None:
    url = f"{server.url}/v1/spaces/{server.store}/entries/{key}"
    assert client.put(url, content=b"1", headers=server.headers).status_code in (200, 201)


class Terminal:
    """A terminal of 80 by 24 in which a command runs."""

    def __init__(self, *arguments: str, **variables: str) -> None:
        self._screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self._master, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        self.process = subprocess.Popen(
            [str(KVASIR), *arguments],
            stdin=follower, stdout=follower, stderr=follower,
            env=environment(TERM="xterm", **variables),
            start_new_session=True,
        )  # fmt: skip
        os.close(follower)
        #: All that it has written
        self.written = b""

    def read(self) -> str:
        """The screen after what has been written meanwhile."""
        while select.select([self._master], [], [], 0.05)[0]:
            try:
                read = os.read(self._master, 65_536)
            except OSError:  # the command has ended
                break
            self.written += read
            self._stream.feed(read)
        return "\n".join(line.rstrip() for line in self._screen.display)

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(PATIENCE_SECONDS)
        os.close(self._master)


def test_the_screen_is_readable_in_a_terminal_of_80_by_24(server: Server) -> None:
    terminal = Terminal("status", "--watch", "--interval", "0.5", "--url", server.url)
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        shown = ""
        number = 0
        while "commits/s, " not in shown:
            assert time.monotonic() < deadline, shown
            put(server, f"k{number}")
            number += 1
            shown = terminal.read()
        rows = shown.splitlines()
        assert rows[0].startswith("kvasir 0.")
        assert ": ready, up " in rows[0]
        assert rows[0].endswith(" UTC")
        assert server.url in rows[1]
        assert server.nemesis_url in rows[1]
        for word in ("API  ", "native  ", "database  ", "writes  ", "commit  ", "queue  ", "connections ", "disk  "):
            assert any(row.startswith(word) for row in rows), f"{word!r} is not in\n{shown}"
        assert "…" not in shown, f"something does not fit:\n{shown}"
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.process.wait(PATIENCE_SECONDS) == 0
        terminal.read()
        assert terminal.written.endswith(b"\x1b[?25h\x1b[?1049l"), "the terminal is as it was"
    finally:
        terminal.close()


def test_figures_for_scripts(server: Server) -> None:
    put(server, "a")
    told = json.loads(run("status", "--json", "--url", server.url).stdout)
    assert told["ready"] is True
    assert told["url"] == server.url
    assert told["addresses"] == {"http": [server.url], "nemesis": [server.nemesis_url]}
    assert told["database"]["entries"] > 0
    assert told["warnings"] == []
    assert {"name": "native"}.items() <= next(each for each in told["apis"] if each["name"] == "native").items()


def test_the_settings_say_where_the_server_is(server: Server, tmp_path: Path) -> None:
    shown = run("status", KVASIR_HTTP=f"127.0.0.1:{server.port}").stdout
    assert "ready" in shown
    ready = tmp_path / "ready"
    ready.write_text(json.dumps({"http": server.url}), encoding="utf-8")
    assert "ready" in run("status", KVASIR_READY_FILE=str(ready), KVASIR_HTTP="127.0.0.1:0").stdout
    assert "give --url" in run("status", KVASIR_HTTP="127.0.0.1:0", status=2).stderr
    assert "start it by `kvasir serve`" in run("status", KVASIR_HTTP="127.0.0.1:1", status=1).stderr
    assert "from 0.1 to 3600" in run("status", "--interval", "0", status=2).stderr


def look(at: float, text: str, reason: str | None = None) -> Look:
    return Look("http://a", at, parsed(BUILD + text), reason, [])


BUILD = 'kvasir_build_info{version="1",engine="sqlite",durability="full"} 1\n'

WELL = """
kvasir_requests_total{dialect="versori",operation="GetKV",outcome="ok"} 100
kvasir_writes_waiting 1
kvasir_writes_waiting_limit 100
kvasir_disk_free_bytes 50
kvasir_disk_bytes 100
process_open_fds{worker="0"} 10
process_max_fds{worker="0"} 100
"""

WRONG = r"""
kvasir_requests_total{dialect="versori",operation="GetKV",outcome="ok"} 150
kvasir_requests_total{dialect="versori",operation="SetKV",outcome="unavailable"} 50
kvasir_request_seconds_bucket{dialect="versori",operation="GetKV",le="0.5"} 100
kvasir_request_seconds_bucket{dialect="versori",operation="GetKV",le="+Inf"} 100
kvasir_commit_seconds_bucket{le="0.5"} 0
kvasir_commit_seconds_bucket{le="1.0"} 10
kvasir_commit_seconds_bucket{le="+Inf"} 10
kvasir_event_loop_lag_seconds_bucket{le="0.1"} 0
kvasir_event_loop_lag_seconds_bucket{le="0.25"} 10
kvasir_event_loop_lag_seconds_bucket{le="+Inf"} 10
kvasir_failed_commits_total 2
kvasir_writes_waiting 80
kvasir_writes_waiting_limit 100
kvasir_disk_free_bytes 5
kvasir_disk_bytes 100
kvasir_postgres_connections{state="used"} 10
kvasir_postgres_connections_limit 10
kvasir_refusals_total{bound="queue_writes"} 50
process_open_fds{worker="0"} 90
process_max_fds{worker="0"} 100
"""


def test_warnings_say_what_to_do_and_fit_the_screen() -> None:
    well = look(0, WELL)
    assert figures(well, look(10, WELL), []).warnings == []
    found = figures(well, look(10, WRONG, "a commit failed"), [("db:5432", "unreachable: no answer")])
    told = [f"{each.what}: {each.do}" for each in found.warnings]
    for words in (
        "not ready: a commit failed", "2 commits have failed", "50 of 100 requests failed", "80 of at most 100 writes",
        "only 5% of the disk", "commits take 1.0 s", "the event loop is", "connections to PostgreSQL are in use",
        "worker 0 has 90 of 100 files", "db:5432 is unreachable",
    ):  # fmt: skip
        assert any(words in each for each in told), f"{words!r} is not among {told}"
    (api,) = found.apis
    assert (api.requests_per_second, api.failures_per_second) == (10.0, 5.0)
    assert found.clients.refusals == {"queue_writes": 50}
    shown = lines(found, COLUMNS, ROWS - 1)
    assert len(shown) <= ROWS - 1
    assert max(map(len, shown)) <= COLUMNS
    assert shown[-1].startswith("! and ")


def test_a_name_in_the_answer_cannot_move_the_cursor() -> None:
    text = 'kvasir_listener_info{listener="http",url="http://\x1b[2J"} 1\n'
    shown = lines(figures(look(0, text), look(1, text), []), COLUMNS, ROWS)
    assert "\x1b" not in "".join(shown)


def test_the_hosts_of_postgresql_are_told(tmp_path: Path) -> None:
    url = postgres.shared_server().new_database("status")
    with serving(tmp_path, "--engine", url) as server:
        told = json.loads(run("status", "--json", "--url", server.url, KVASIR_ENGINE=url).stdout)
        assert list(told["postgres"]["nodes"].values()) == ["primary"]
        assert told["postgres"]["limit"] == 10
