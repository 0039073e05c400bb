"""`kvasir console`: whose rights a link has, and how it gets into a browser unseen."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.cli import run
from tests.support.serving import Server, free_ports, serving

#: Does in a browser's place what it has to be looked at: says its arguments, and keeps the file.
BROWSER = """#!/bin/sh
printf '%s\\n' "$@" > {0}/arguments
for argument in "$@"; do cp -p "${{argument#file://}}" {0}/opened.html; done
"""


def exchanged(server: Server, link: str) -> Any:
    """The access key that a link gives."""
    base, _, code = link.strip().partition("/console/#code=")
    assert base == server.url
    answer = httpx.post(f"{server.url}/v1/console/exchange", json={"code": code}, trust_env=False)
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, Any]:
    """A home without contexts."""
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), "NO_PROXY": "*", "no_proxy": "*"}


def test_the_data_directory_signs_in_its_owner(server: Server, variables: dict[str, Any]) -> None:
    done = run("console", "--print", "--url", server.url, *server.database_options, **variables)
    assert "60 seconds" in done.stderr
    assert exchanged(server, done.stdout)["role"] == "owner"
    variables |= server.database_variables | {"KVASIR_HTTP": server.url.removeprefix("http://")}
    assert exchanged(server, run("console", "--print", **variables).stdout)["role"] == "owner"


def test_an_access_key_signs_in_with_its_own_rights(server: Server, variables: dict[str, Any]) -> None:
    made = {"name": "reader", "role": "viewer", "prefix": ["a"]}
    key = httpx.post(f"{server.url}/v1/keys", json=made, headers=server.headers, trust_env=False).json()["key"]
    asked = run("console", "--print", KVASIR_URL=server.url, KVASIR_KEY=key, **variables)
    got = exchanged(server, asked.stdout)
    assert (got["role"], got["prefix"]) == ("viewer", ["a"])
    run("context", "add", "here", "--url", server.url, "--key", key, **variables)
    assert exchanged(server, run("console", "--print", **variables).stdout)["role"] == "viewer"
    # The database, if it is named, comes first.
    local = run("console", "--print", "--url", server.url, *server.database_options, **variables)
    assert exchanged(server, local.stdout)["role"] == "owner"
    both = run("console", "--key", key, *server.database_options, status=2, **variables)
    assert "--data-dir" in both.stderr
    unknown = run("console", "--print", KVASIR_URL=server.url, KVASIR_KEY="k" * 40, status=6, **variables)
    assert "unknown or revoked" in unknown.stderr


def test_a_browser_is_opened_by_way_of_a_file_that_only_the_user_can_read(
    server: Server, variables: dict[str, Any], tmp_path: Path
) -> None:
    browser = tmp_path / "browser"
    browser.write_text(BROWSER.format(tmp_path))
    browser.chmod(0o755)
    variables["BROWSER"] = f"{browser} %s"
    done = run("console", "--url", server.url, *server.database_options, **variables)
    (file,) = (tmp_path / "config" / "kvasir").glob("console-*.html")
    assert (tmp_path / "arguments").read_text() == f"{file.as_uri()}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    link = (tmp_path / "opened.html").read_text().partition('<a href="')[2].partition('"')[0]
    assert link not in done.stdout + done.stderr
    assert exchanged(server, link)["role"] == "owner"


def test_without_a_browser_nothing_is_left_and_the_way_out_is_named(
    server: Server, variables: dict[str, Any], tmp_path: Path
) -> None:
    variables |= {"PATH": "/nowhere", "BROWSER": "/bin/false %s"}
    done = run("console", "--url", server.url, *server.database_options, status=1, **variables)
    assert "--print" in done.stderr
    assert not list((tmp_path / "config" / "kvasir").iterdir())


def test_a_server_that_is_not_there_or_has_no_console_is_told(
    server: Server, variables: dict[str, Any], tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    nobody = run("console", "--url", f"http://127.0.0.1:{port}", *server.database_options, status=1, **variables)
    assert "no server answers" in nobody.stderr
    with serving(tmp_path, "--console", "off") as off:
        local = run("console", "--url", off.url, *off.database_options, status=1, **variables)
        assert "--console on" in local.stderr
        remote = run("console", "--print", KVASIR_URL=off.url, KVASIR_KEY=off.key, status=4, **variables)
        assert "--console on" in remote.stderr
    nothing = run("console", "--url", server.url, "--data-dir", str(tmp_path / "none"), status=1, **variables)
    assert "KVASIR_KEY" in nothing.stderr
