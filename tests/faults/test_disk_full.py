"""No room for another byte: a clear answer, nothing acknowledged lost, and service as soon as there is room."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from kvasir.dialects.nemesis.statuses import Status
from tests.support import serving as servers
from tests.support.cli import run
from tests.support.nemesis import client as nemesis
from tests.support.postgres import PostgresServer
from tests.support.raw_http import Answer, Client
from tests.support.serving import Server, free_ports, serving
from tests.support.voximplant_live import Live

#: Which no database can compress
VALUE = random.Random(7).randbytes(10_000).hex()


def fill(client: Client, start: int) -> tuple[int, Answer]:
    """Write until the server refuses; how many writes it acknowledged, and the refusal."""
    for n in range(start, start + 10_000):
        answer = client.put(f"fill/{n}", [n, VALUE])
        if answer.status != 200:
            return n, answer
    raise AssertionError("the disk never filled")


class Story:
    """What users of each API see on a full disk, and afterwards."""

    def __init__(self, server: Server, folder: Path, reason: str) -> None:
        """`reason`: what they are told; "the disk is full"."""
        self.server = server
        self.reason = reason
        self._voximplant = Live(server, folder, https_port=0)

    def told(self, full: Callable[[], None], room: Callable[[], None]) -> None:
        """The whole story, twice, so that the second time meets what the first one left."""
        start = 0
        with Client(self.server, self.server.store) as client, nemesis(self.server.nemesis_url) as session:
            token = session.session()
            for _ in range(2):
                full()
                end, refusal = fill(client, start)
                self._refused(refusal)
                # Reading goes on, and everything that was acknowledged is there.
                keys = [("fill", str(n)) for n in range(end)]
                assert client.values(keys) == {("fill", str(n)): [n, VALUE] for n in range(end)}
                assert self.server.is_ready()
                self._refused(client.put("more", [VALUE] * 20))
                self._refused(client.batch_set({("half", str(n)): VALUE for n in range(200)}))
                assert client.count("half") == 0
                error = self._set_item(VALUE[:2_000])["error"]
                assert error["code"] == 162, error
                assert self.reason in error["msg"]
                reply = session.do("KV_SET", tkn=token, keys={"more": [VALUE] * 20})
                assert reply["st"] == Status.UNKNOWN
                assert reply["m"].startswith(self.reason)
                room()
                assert client.put("again", 1).status == 200, "the first write after there is room goes through"
                assert self._set_item("again")["result"]
                assert session.do("KV_SET", tkn=token, keys={"again": 1})["keys"] == {"again": Status.KEY_SET}
                session.do("KV_RMV", tkn=token, keys=["again"])
                assert client.values(keys) == {("fill", str(n)): [n, VALUE] for n in range(end)}
                assert self.server.is_ready()
                start = end
        assert "ERROR" not in self.server.log
        assert self.server.stop() == 0
        run("check", *self.server.database_options)

    def _refused(self, answer: Answer) -> None:
        body = answer.json()
        assert (answer.status, body["code"]) == (503, "unavailable"), answer
        assert body["message"].startswith(f"{self.reason}; nothing was written"), body
        assert "retry-after" in answer.headers

    def _set_item(self, value: str) -> dict[str, Any]:
        """What the Voximplant API answers to SetKeyValueItem, until the disk is so full that even a small one fails."""
        headers = {"Authorization": f"Bearer {self._voximplant.token()}"}
        for n in range(1_000):
            body = urlencode({"application_id": 1, "key": f"k{n}", "value": value}).encode()
            request = urllib.request.Request(f"{self.server.url}/platform_api/SetKeyValueItem", body, headers)
            with urllib.request.urlopen(request) as answer:
                result: dict[str, Any] = json.load(answer)
            if "error" in result or value == "again":
                break
        return result


only_root = pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root may mount a small disk")


@contextmanager
def small_disk(folder: Path, megabytes: int = 8) -> Iterator[Path]:
    """A file system of its own."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small disk; the limit of the file size is tried all the same")
    try:
        yield folder
    finally:
        # Lazily: a database may still have files open there.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Ballast:
    """A file that takes what room there is on a disk."""

    def __init__(self, disk: Path) -> None:
        self._disk = disk
        self._file = disk / "ballast"

    def add(self) -> None:
        state = os.statvfs(self._disk)
        self._file.write_bytes(bytes(max(0, state.f_bavail * state.f_frsize - 500_000)))

    def remove(self) -> None:
        self._file.unlink()


class OneDatabase:
    """See `tests.support.serving.databases`."""

    def __init__(self, url: str) -> None:
        self._url = url

    def url(self, data_dir: Path) -> str:
        return self._url


@only_root
def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, serving(tmp_path, "--data-dir", str(disk / "data")) as server:
        ballast = Ballast(disk)
        story = Story(server, tmp_path, "the disk is full")
        story.told(ballast.add, ballast.remove)
        assert server.log.count("the disk is full: writes are refused until there is room") in (1, 2)
        assert server.log.count("there is room again") in (1, 2)


@only_root
def test_a_start_on_a_full_disk_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        (port,) = free_ports(1)
        for free in (0, 8, 40, 100, 200):
            (disk / "ballast").write_bytes(bytes((1_024 - free) << 10))
            address = f"--http=127.0.0.1:{port}"
            refused = run("serve", "--data-dir", str(disk / "data"), address, "--nemesis=off", status=1)
            assert refused.stderr.splitlines()[-1].startswith("kvasir: the d"), refused.stderr
            shutil.rmtree(disk / "data", ignore_errors=True)


@only_root
def test_a_full_disk_under_the_tables_of_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If its write-ahead log finds no room, PostgreSQL itself stops, which is a failover like any other."""
    with PostgresServer() as postgres, small_disk(postgres.folder / "small", 32) as disk:
        monkeypatch.setattr(servers, "databases", OneDatabase(postgres.new_database("small", disk)))
        with serving(tmp_path) as server:
            ballast = Ballast(disk)
            story = Story(server, tmp_path, "the database's disk is full: make room")
            story.told(ballast.add, ballast.remove)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the system cannot limit another process's files")
def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        story = Story(server, tmp_path, "the database has reached the largest size that the system allows for a file")

        def full() -> None:
            largest = max(file.stat().st_size for file in server.data_dir.iterdir())
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (largest + 500_000, resource.RLIM_INFINITY))

        def room() -> None:
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

        story.told(full, room)
