"""Hundreds of requests made from the OpenAPI document, good and bad ones: the server does as the document says."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.neighbour import beside
from tests.support.raw_http import Wire
from tests.support.serving import KVASIR, environment, serving

#: The time budget of the whole run, so that it ends in time on a slow machine, too.
SECONDS = 25

#: Schemathesis decodes what looks percent-encoded in a key it has drawn ("%2F" into "/", "%FF" into U+FFFD), after it
#: has held the key against the document's pattern, so what it sends may be a key that the document rules out. And the
#: path of the key `batch` is another operation's, whose body is told from that of a key.
HOOKS = """
import urllib.parse

import schemathesis


@schemathesis.hook
def filter_path_parameters(context, path_parameters):
    key = urllib.parse.unquote(str((path_parameters or {}).get("key", "key")))
    return key != "batch" and "\\ufffd" not in key and "" not in key.split("/")
"""


def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as server, beside(server):
        with Wire(server.port) as wire:
            store = wire.ask("POST", f"/o/{server.organisation}/store", b'{"name":"fuzz"}').json()["id"]
        # A store and an organisation that are there, so that requests reach what lies behind them.
        (tmp_path / "hooks.py").write_text(HOOKS)
        (tmp_path / "schemathesis.toml").write_text(
            f'hooks = "hooks.py"\n[parameters]\n"path.store" = "{store}"\n'
            f'"path.organisation_id" = "{server.organisation}"\n'
            # What is refused by one of the API's own statuses is refused; not all of them are in its list.
            '[checks]\nnegative_data_rejection.expected-statuses = ["4xx"]\n'
            # No schema can say that a cursor must have come from this very store.
            '[[operations]]\ninclude-name = "POST /store/{store}/kv/list"\n'
            "checks.positive_data_acceptance.enabled = false\n"
            # It may ask for an answer within a millisecond, and a busy machine then says that there was none.
            '[[operations]]\ninclude-name = "POST /store/{store}/kv/batch"\n'
            'checks.not_a_server_error.expected-statuses = ["2xx", "4xx", "504"]\n'
        )
        command: list[str | Path] = [
            KVASIR.with_name("schemathesis"),
            "run",
            f"{server.url}/openapi.json",
            "--url",
            server.url,
        ]
        command += ["--header", f"Authorization: Bearer {server.key}", "--continue-on-failure"]
        # It asks the same each time, so that what fails is the change and not the draw.
        command += ["--max-examples", "15", "--max-time", str(SECONDS), "--generation-deterministic"]
        command += ["--no-color", "--warnings", "off"]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=250
        )
        assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
        assert "Selected: 17/17" in done.stdout, done.stdout
