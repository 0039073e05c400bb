"""`kvasir serve --ready-file`, and port 0, which only that file and the log can tell the number of."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.support.http_client import client
from tests.support.organisations import ORGANISATION
from tests.support.serving import KEY, KVASIR, PATIENCE_SECONDS, database_options, environment, wait_until

FREE = ("--http", "127.0.0.1:0", "--nemesis", "127.0.0.1:0")


@contextlib.contextmanager
def ready(directory: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any], Path]]:
    """A server, what its file says, and the file."""
    path = directory / "ready.json"
    with (directory / "log").open("ab") as log:
        process = subprocess.Popen(
            [KVASIR, "serve", *database_options(directory / "data"), *FREE, "--ready-file", path, *options],
            env=environment(KVASIR_ADMIN_KEY=KEY, KVASIR_ORGANISATION_ID=ORGANISATION),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(lambda: path.exists() or process.poll() is not None, "the file is there")
        yield process, json.loads(path.read_text()), path
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_file_says_where_a_server_on_free_ports_is_and_nothing_secret(tmp_path: Path, workers: str) -> None:
    with ready(tmp_path, "--workers", workers) as (process, facts, path):
        assert set(facts) == {"http", "nemesis", "organisation", "pid"}
        assert facts["organisation"] == ORGANISATION
        assert facts["pid"] == process.pid
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert list(tmp_path.glob(".ready.json.*")) == []
        assert client.get(f"{facts['http']}/readyz").status_code == 200
        with connect(f"{facts['nemesis']}/session") as nemesis:
            nemesis.send('{"SH_INFO":{}}')
            assert "SH_INFO_RSP" in str(nemesis.recv())
        assert f"listening on {facts['http']}, {facts['nemesis']}" in (tmp_path / "log").read_text()
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0
        assert not path.exists()


def test_a_file_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    answer = subprocess.run(
        [KVASIR, "serve", *database_options(tmp_path / "data"), *FREE, "--ready-file", tmp_path / "none" / "file"],
        env=environment(KVASIR_ADMIN_KEY=KEY),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert answer.returncode == 1
    assert "the ready file" in answer.stderr
    assert "Traceback" not in answer.stderr
