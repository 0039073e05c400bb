"""Restoring PostgreSQL to an instant with its own tools, by what docs/operate/backup.md says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import postgres
from tests.support.cli import run
from tests.support.postgres import PostgresServer
from tests.support.serving import Server, environment, serving, wait_until

#: The test starts PostgreSQL itself.
pytestmark = pytest.mark.only_sqlite

PAGE = (Path(__file__).parents[2] / "docs" / "operate" / "backup.md").read_text(encoding="utf-8")
#: Where the page has its backups.
PLACE = "/var/backups/postgresql"


def settings(name: str, place: Path) -> dict[str, str]:
    """The block of settings of the page that begins with this one."""
    (block,) = re.findall(rf"^```\n({name} = .*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    pairs = re.findall(r"^(\w+) = (?:'(.*)'|(.*))$", block, re.MULTILINE)
    return {name: (quoted or bare).replace(PLACE, str(place)) for name, quoted, bare in pairs}


def entry(server: Server, method: str, key: str, **options: Any) -> httpx.Response:
    url = f"{server.url}/v1/spaces/{server.store}/entries/{key}"
    return httpx.request(method, url, headers=server.headers, trust_env=False, timeout=60, **options)


def put(server: Server, key: str) -> int:
    """The versionstamp of a new entry."""
    return int(entry(server, "PUT", key, content=b"1").raise_for_status().headers["etag"].strip('"'), 16)


def base_backup(server: PostgresServer, place: Path) -> None:
    """Run the commands of the page as the user who runs PostgreSQL."""
    (script,) = re.findall(r"^```sh\n([^`]*pg_basebackup .*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    script = script.replace(PLACE, str(place)).replace("postgresql://kvasir@db.example.org/kvasir", server.url())
    path = f"{postgres._programs()}:{environment()['PATH']}"
    subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=place,
        env=postgres.ENVIRONMENT | {"PATH": path},
        check=True,
        timeout=100,
        stdout=subprocess.DEVNULL,
        **postgres._as_other_user(),
    )


def archive(server: PostgresServer) -> None:
    """Have all that has been written until now archived."""
    (row,) = server.query("select pg_walfile_name(pg_switch_wal()) as file")
    wait_until(
        lambda: (server.query("select last_archived_wal from pg_stat_archiver")[0][0] or "") >= row["file"],
        "the log is archived",
    )


def restored(server: PostgresServer, place: Path, instant: str) -> PostgresServer:
    """A server that begins with the base backup and replays the archive up to an instant. Not yet started."""
    chosen = settings("restore_command", place) | {"recovery_target_time": instant}
    other = PostgresServer.__new__(PostgresServer)
    other._create(server.settings | {"archive_mode": "off"} | chosen)
    shutil.copytree(place / "base", other.data)
    (other.data / "recovery.signal").touch()
    if (user := postgres._other_user()) is not None:
        for path in (other.data, *other.data.rglob("*")):
            shutil.chown(path, user.pw_uid, user.pw_gid)
    return other


def test_any_instant_is_restored(tmp_path: Path) -> None:
    with PostgresServer() as server:
        place = server.folder / "backups"
        place.mkdir()
        (place / "log").mkdir()
        if (user := postgres._other_user()) is not None:
            for path in (place, place / "log"):
                shutil.chown(path, user.pw_uid, user.pw_gid)
        server.stop()
        server.settings |= settings("archive_mode", place)
        server.start()
        with serving(tmp_path, "--engine", server.url()) as kvasir:
            put(kvasir, "before")
            base_backup(server, place)
            put(kvasir, "kept")
            (row,) = server.query("select clock_timestamp()::text as instant")
            last = put(kvasir, "mistake")
            entry(kvasir, "DELETE", "kept").raise_for_status()
            archive(server)
        server.kill()
        shutil.rmtree(server.data)
        with restored(server, place, row["instant"]) as again:
            wait_until(lambda: not again.query("select pg_is_in_recovery()")[0][0], "the log is replayed")
            assert run("check", "--engine", again.url()).stdout.startswith("sound")
            with serving(tmp_path, "--engine", again.url()) as kvasir:
                statuses = [entry(kvasir, "GET", key).status_code for key in ("before", "kept", "mistake")]
                assert statuses == [200, 200, 404]
                # No versionstamp is given twice, not even those of what was undone.
                assert put(kvasir, "mistake") > last
