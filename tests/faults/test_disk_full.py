"""No room for another byte: a clear answer, nothing acknowledged lost, and service as soon as there is room."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.cli import run
from tests.support.raw_http import Answer, Client
from tests.support.serving import Server, serving, wait_until

VALUE = "x" * 20_000


def fill(client: Client, start: int) -> tuple[int, Answer]:
    """Write until the server refuses; how many writes it acknowledged, and the refusal."""
    for n in range(start, start + 10_000):
        answer = client.put(f"fill/{n}", [n, VALUE])
        if answer.status != 200:
            return n, answer
    raise AssertionError("the disk never filled")


def survive(server: Server, full: Callable[[], None], room: Callable[[], None]) -> None:
    """The whole story, twice, so that the second time meets what the first one left."""
    start = 0
    with Client(server, server.store) as client:
        for _ in range(2):
            full()
            end, refusal = fill(client, start)
            assert refusal.status in (500, 503), refusal
            body = refusal.json()
            assert body["code"] in ("unavailable", "unknown_outcome"), body
            assert body["message"]
            # Reading goes on, and everything that was acknowledged is there.
            keys = [("fill", str(n)) for n in range(end)]
            assert client.values(keys) == {("fill", str(n)): [n, VALUE] for n in range(end)}
            assert client.put("more", [VALUE] * 20).status in (500, 503)
            assert client.batch_set({("half", str(n)): VALUE for n in range(200)}).status in (500, 503)
            assert client.count("half") == 0
            room()

            def writes_again() -> bool:
                return client.put("again", 1).status == 200

            wait_until(writes_again, "the server writes again")
            assert client.values(keys) == {("fill", str(n)): [n, VALUE] for n in range(end)}
            wait_until(server.is_ready, "the server says that it is ready")
            start = end
    assert server.stop() == 0
    run("check", "--data-dir", str(server.data_dir))


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small disk; the limit of the file size is tried all the same")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root may mount a small disk")
def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk, serving(tmp_path, "--data-dir", str(disk / "data")) as server:
        server.data_dir = disk / "data"
        ballast = disk / "ballast"

        def full() -> None:
            disk_state = os.statvfs(disk)
            ballast.write_bytes(bytes(max(0, disk_state.f_bavail * disk_state.f_frsize - 500_000)))

        survive(server, full, ballast.unlink)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="the system cannot limit another process's files")
def test_a_file_that_may_not_grow(tmp_path: Path) -> None:
    with serving(tmp_path) as server:

        def full() -> None:
            largest = max(file.stat().st_size for file in server.data_dir.iterdir())
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (largest + 500_000, resource.RLIM_INFINITY))

        def room() -> None:
            resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

        survive(server, full, room)
