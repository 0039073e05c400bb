"""The directory of saves: which one is the newest, and what killed servers leave there."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kvasir.server import whole_file
from kvasir.server.save_directory import SaveDirectory

OWNER = "01JZX0W7M2Q4T8V6B3N5C9D1EF"


async def records(*given: bytes) -> AsyncIterator[bytes]:
    for record in given:
        yield record


async def save(directory: Path, record: bytes) -> None:
    await SaveDirectory(directory, OWNER).save(OWNER, "x", records(record), 1)


async def loaded(directory: Path) -> list[bytes]:
    found = await SaveDirectory(directory, OWNER).load(OWNER, "x")
    assert found is not None
    return [record async for record in found]


def test_the_last_save_is_the_newest_though_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(save(tmp_path, b'{"first":1}'))
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    asyncio.run(save(tmp_path, b'{"second":2}'))
    assert asyncio.run(loaded(tmp_path)) == [b'{"second":2}']


def test_saves_of_one_moment_by_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once() -> None:
        await asyncio.gather(*(save(tmp_path, b'{"n":%d}' % number) for number in range(5)))

    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    asyncio.run(at_once())
    assert len(list((tmp_path / "x").iterdir())) == 5
    assert len(asyncio.run(loaded(tmp_path))) == 1


def part_of_a_killed_save(directory: Path, seconds_ago: float) -> Path:
    part = directory / "x" / f".{int(seconds_ago)}.part"
    (part / "data" / "0").mkdir(parents=True)
    (part / "data" / "0" / "0").write_bytes(b"[\n")
    then = time.time() - seconds_ago
    for path in (part / "data" / "0" / "0", part / "data" / "0", part / "data", part):
        os.utime(path, (then, then))
    return part


def test_what_killed_saves_have_left_goes_with_the_next_one(tmp_path: Path) -> None:
    left, running, growing = (part_of_a_killed_save(tmp_path, seconds) for seconds in (1_000, 800, 2_000))
    os.utime(growing / "data" / "0" / "0")
    asyncio.run(save(tmp_path, b"{}"))
    assert [path.exists() for path in (left, running, growing)] == [False, True, True]
    assert asyncio.run(loaded(tmp_path)) == [b"{}"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_save_whose_client_leaves_as_it_is_finished_is_there_or_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    finishing, go_on, sync = threading.Event(), threading.Event(), whole_file.sync

    def held_up(path: Path) -> None:
        sync(path)
        if path.name.endswith(".part"):
            finishing.set()
            assert go_on.wait(30)
            if fails:
                raise OSError("planted")

    monkeypatch.setattr(whole_file, "sync", held_up)

    async def leave() -> None:
        saving = asyncio.create_task(save(tmp_path, b"{}"))
        await asyncio.to_thread(finishing.wait, 30)
        for _ in range(2):
            saving.cancel()
            await asyncio.wait([saving], timeout=0.2)
        assert list((tmp_path / "x").glob(".*.part/md/md.json")), "nothing is removed while it is written"
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await saving

    asyncio.run(leave())
    assert len(list((tmp_path / "x").iterdir())) == (0 if fails else 1)
    if not fails:
        assert asyncio.run(loaded(tmp_path)) == [b"{}"]
