"""The files of saves, laid out as NemesisDB does: `<directory>/<name>/<nanoseconds>/md/md.json` and `data/0/<n>`.

The saves of organisations other than the first are in `<directory>/_<ULID>`, which is not a valid name of a save.

A save appears complete and synced to disk or not at all, and only the user that runs the server can read it. To this
module, a record is the text of a JSON object: it knows no sessions and no keys. All file operations run in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from kvasir.server import whole_file

T = TypeVar("T")

#: The names that a save may have; none of them leads out of the directory.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

#: Size at which a data file is full and the next one begins, as with NemesisDB.
_FILE_BYTES = 10 * 2**20
#: Largest data file of NemesisDB's own that is read. It is a single line, so it is read whole.
_NEMESISDB_FILE_BYTES = 2**30
#: An unfinished save that has not grown for this long was left behind by a server that was killed.
_STALE_SECONDS = 900
#: Bytes of records read at a time.
_READ_BYTES = 2**20


class SaveDirectory:
    """The saves of all organisations. The directory is created with the first save."""

    def __init__(self, directory: Path, first_organisation: str) -> None:
        """The saves of the first organisation are in the directory itself."""
        self._directory = directory
        self._first_organisation = first_organisation
        self._saving = asyncio.Lock()

    def is_name(self, name: str) -> bool:
        """Whether a save may have this name."""
        return _NAME.fullmatch(name) is not None

    async def prepare(self, owner: str, name: str) -> None:
        """Create the directory of a save. Raises OSError."""
        await asyncio.to_thread(_make_private, self._of(owner) / name)

    async def save(self, owner: str, name: str, records: AsyncIterator[bytes], started: int) -> None:
        """Write all records or nothing, one save at a time. `started` is in Unix ms. Raises OSError."""
        async with self._saving:
            working, final = await asyncio.to_thread(_begin, self._of(owner) / name)
            try:
                writer = await _to_the_end(_Writer, working)
                async for record in records:
                    await _to_the_end(writer.add, record)
                await _to_the_end(writer.finish, final, {"name": name, "start": started})
            except BaseException:  # also of whoever asked and has left; if it was finished by then, it stays
                await asyncio.to_thread(shutil.rmtree, working, ignore_errors=True)
                raise

    async def load(self, owner: str, name: str) -> AsyncIterator[bytes] | None:
        """The records of the newest complete save, or None. Iterating raises OSError and ValueError."""
        if not self.is_name(name):
            return None
        newest = await asyncio.to_thread(_newest, self._of(owner) / name)
        return None if newest is None else _records(newest)

    def _of(self, owner: str) -> Path:
        return self._directory if owner == self._first_organisation else self._directory / f"_{owner}"


async def _to_the_end(work: Callable[..., T], *arguments: Any) -> T:
    """Have this done in a thread. Whoever is cancelled meanwhile learns of it once the thread is done with its files:
    removed while they were written and renamed, they would be a save with holes that passes for a whole one."""
    done = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        while not done.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([done])
        raise


def _begin(saves: Path) -> tuple[Path, Path]:
    """Create a directory to write a save into. Also returns the path to which it will be renamed.

    The number in that path is larger than in all others, so that the newest save is the last one written even if the
    clock was set back. What killed servers have left behind is removed.
    """
    _make_private(saves)
    for part in saves.glob(".*.part"):
        if _is_stale(part):
            shutil.rmtree(part, ignore_errors=True)
    stamps = [int(path.name) for path in saves.iterdir() if path.name.isdecimal()]
    for stamp in itertools.count(max([time.time_ns(), *(stamp + 1 for stamp in stamps)])):
        working, final = saves / f".{stamp}.part", saves / str(stamp)
        try:
            working.mkdir(mode=0o700)
        except FileExistsError:  # another process is saving right now
            continue
        if not final.exists():
            return working, final
        working.rmdir()  # the other process has just finished
    raise AssertionError("stamps do not end")


def _is_stale(part: Path) -> bool:
    """Whether nothing has been written there for a long time. Other processes, or other machines, may be saving now."""
    try:
        touched = [path.lstat().st_mtime for path in (part, *part.rglob("*"))]
    except OSError:  # the save has been finished and renamed
        return False
    return time.time() - max(touched) > _STALE_SECONDS


class _Writer:
    """An unfinished save: files that are JSON arrays, with one record on each line."""

    def __init__(self, working: Path) -> None:
        self._working = working
        self._data = working / "data" / "0"
        _make_private(self._data)
        self._files = 0
        self._file: BinaryIO | None = None

    def add(self, record: bytes) -> None:
        if self._file is None:
            self._file = _create_private(self._data / str(self._files))
            self._file.write(b"[\n" + record)
            self._files += 1
        else:
            self._file.write(b",\n" + record)
        if self._file.tell() >= _FILE_BYTES:
            self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.write(b"\n]\n")
            _sync(self._file)
            self._file = None

    def finish(self, final: Path, facts: dict[str, Any]) -> None:
        self._close_file()
        _make_private(self._working / "md")
        facts |= {"status": 1, "pools": 1, "complete": time.time_ns() // 1_000_000}
        file = _create_private(self._working / "md" / "md.json")
        file.write(json.dumps(facts).encode())
        _sync(file)
        for directory in (self._data, self._working / "md", self._working):
            whole_file.sync(directory)
        self._working.rename(final)
        whole_file.sync(final.parent)


def _make_private(directory: Path) -> None:
    """Create a directory and its missing parents for their owner only: they will contain tokens and values."""
    if not directory.is_dir():
        _make_private(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)


def _create_private(path: Path) -> BinaryIO:
    """A new file, open for writing, for its owner only."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _sync(file: BinaryIO) -> None:
    with file:
        file.flush()
        os.fsync(file.fileno())


def _newest(saves: Path) -> Path | None:
    if not saves.is_dir():
        return None
    stamped = sorted((int(path.name), path) for path in saves.iterdir() if path.name.isdecimal())
    return next((path for _, path in reversed(stamped) if _is_complete(path)), None)


def _is_complete(save: Path) -> bool:
    try:
        return bool(json.loads((save / "md" / "md.json").read_bytes()).get("status") == 1)
    except (OSError, ValueError, AttributeError):
        return False


async def _records(save: Path) -> AsyncIterator[bytes]:
    batches = _batches(save)
    while (batch := await asyncio.to_thread(next, batches, None)) is not None:
        for record in batch:
            yield record


def _batches(save: Path) -> Iterator[list[bytes]]:
    """The records, about a megabyte at a time; a single record may be longer."""
    files = [path for path in (save / "data").rglob("*") if path.is_file() and path.name.isdigit()]
    for path in sorted(files, key=lambda path: (path.parent, int(path.name))):
        with path.open("rb") as file:
            if file.readline(3) != b"[\n":
                yield _nemesisdb_records(path)
                continue
            while lines := file.readlines(_READ_BYTES):
                records = [line.rstrip(b",\n") for line in lines]
                yield [record for record in records if record != b"]"]


def _nemesisdb_records(path: Path) -> list[bytes]:
    """The records of a file written by NemesisDB: an array on one line or, from its last version, a single object."""
    if path.stat().st_size > _NEMESISDB_FILE_BYTES:
        raise ValueError(f"{path.name} is larger than {_NEMESISDB_FILE_BYTES:,} bytes")
    text = path.read_bytes()
    if text.lstrip().startswith(b"{"):
        return [text]
    return [bytes(record) for record in msgspec.json.decode(text, type=list[msgspec.Raw])]
