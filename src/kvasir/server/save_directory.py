"""The directory of saves: `<directory>/<name>/<nanoseconds>/md/md.json` and `data/0/<n>`, the layout of NemesisDB.

Organisations other than the first have directories of their own in it, `_<ULID>`, which is the name of no save.

A save appears as a whole, synced, or not at all, and only its owner can read it. Knows no session and no key: a record
is a JSON object text. All file work is done in threads.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

#: What a save may be called: nothing that could lead out of the directory, on any system.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")

#: Bytes after which the next data file begins, as NemesisDB did.
_FILE_BYTES = 10 * 2**20
#: Largest data file in one line, as NemesisDB wrote them, that is read (whole).
_FOREIGN_BYTES = 2**30
#: A save in the making to which nothing was added for so long was left by a server that was killed.
_STALE_SECONDS = 900
#: Bytes of records read ahead.
_READ_BYTES = 2**20


class Snapshots:
    """One directory of saves; made when the first save is."""

    def __init__(self, directory: Path, first: str) -> None:
        """`first`: the organisation whose saves are in the directory itself."""
        self._directory = directory
        self._first = first
        self._saving = asyncio.Lock()

    def is_name(self, name: str) -> bool:
        """Whether a save may have this name."""
        return _NAME.fullmatch(name) is not None

    async def prepare(self, owner: str, name: str) -> None:
        """Make the directory of a save. Raises OSError."""
        await asyncio.to_thread(_make, self._of(owner) / name)

    async def save(self, owner: str, name: str, records: AsyncIterator[bytes], started: int) -> None:
        """Write all records, or nothing; one save at a time. `started` is in Unix ms. Raises OSError."""
        async with self._saving:
            working, final = await asyncio.to_thread(_begin, self._of(owner) / name)
            try:
                writer = await asyncio.to_thread(_Writer, working)
                async for record in records:
                    await asyncio.to_thread(writer.add, record)
                await asyncio.to_thread(writer.finish, final, {"name": name, "start": started})
            except BaseException:
                await asyncio.to_thread(shutil.rmtree, working, ignore_errors=True)
                raise

    async def load(self, owner: str, name: str) -> AsyncIterator[bytes] | None:
        """The records of the newest complete save; None: there is none. Reading on raises OSError or ValueError."""
        if not self.is_name(name):
            return None
        newest = await asyncio.to_thread(_newest, self._of(owner) / name)
        return None if newest is None else _records(newest)

    def _of(self, owner: str) -> Path:
        return self._directory if owner == self._first else self._directory / f"_{owner}"


def _begin(saves: Path) -> tuple[Path, Path]:
    """Make the directory a save is written into; also the one it then becomes, whose stamp is above all others.

    So the newest save is the last one, also when the clock was set back. What killed servers have left goes.
    """
    _make(saves)
    for part in saves.glob(".*.part"):
        if _is_stale(part):
            shutil.rmtree(part, ignore_errors=True)
    stamps = [int(path.name) for path in saves.iterdir() if path.name.isdecimal()]
    for stamp in itertools.count(max([time.time_ns(), *(stamp + 1 for stamp in stamps)])):
        working, final = saves / f".{stamp}.part", saves / str(stamp)
        try:
            working.mkdir(mode=0o700)
        except FileExistsError:  # another process saves at this moment
            continue
        if not final.exists():
            return working, final
        working.rmdir()  # it has just finished
    raise AssertionError("stamps do not end")


def _is_stale(part: Path) -> bool:
    """Whether nothing was written there for long; other processes, on other machines too, may be saving just now."""
    try:
        touched = [path.lstat().st_mtime for path in (part, *part.rglob("*"))]
    except OSError:  # it became a save meanwhile
        return False
    return time.time() - max(touched) > _STALE_SECONDS


class _Writer:
    """A save in the making: one record a line, in files that are JSON arrays."""

    def __init__(self, working: Path) -> None:
        self._working = working
        self._data = working / "data" / "0"
        _make(self._data)
        self._files = 0
        self._file: BinaryIO | None = None

    def add(self, record: bytes) -> None:
        if self._file is None:
            self._file = _new(self._data / str(self._files))
            self._file.write(b"[\n" + record)
            self._files += 1
        else:
            self._file.write(b",\n" + record)
        if self._file.tell() >= _FILE_BYTES:
            self._end_file()

    def _end_file(self) -> None:
        if self._file is not None:
            self._file.write(b"\n]\n")
            _sync(self._file)
            self._file = None

    def finish(self, final: Path, facts: dict[str, Any]) -> None:
        self._end_file()
        _make(self._working / "md")
        facts |= {"status": 1, "pools": 1, "complete": time.time_ns() // 1_000_000}
        file = _new(self._working / "md" / "md.json")
        file.write(json.dumps(facts).encode())
        _sync(file)
        for directory in (self._data, self._working / "md", self._working):
            _sync_directory(directory)
        self._working.rename(final)
        _sync_directory(final.parent)


def _make(directory: Path) -> None:
    """Make a directory, and those above it that are missing, for its owner only: tokens and values are kept in it."""
    if not directory.is_dir():
        _make(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)


def _new(path: Path) -> BinaryIO:
    """A file for its owner only, to be written."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _sync(file: BinaryIO) -> None:
    with file:
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
    """The records, about a megabyte at a time (a record may be longer)."""
    files = [path for path in (save / "data").rglob("*") if path.is_file() and path.name.isdigit()]
    for path in sorted(files, key=lambda path: (path.parent, int(path.name))):
        with path.open("rb") as file:
            if file.readline(3) != b"[\n":
                yield _foreign(path)
                continue
            while lines := file.readlines(_READ_BYTES):
                records = [line.rstrip(b",\n") for line in lines]
                yield [record for record in records if record != b"]"]


def _foreign(path: Path) -> list[bytes]:
    """The records of a file that NemesisDB wrote: an array in one line, or in its last version one object."""
    if path.stat().st_size > _FOREIGN_BYTES:
        raise ValueError(f"{path.name}: larger than {_FOREIGN_BYTES:,} bytes")
    text = path.read_bytes()
    if text.lstrip().startswith(b"{"):
        return [text]
    return [bytes(record) for record in msgspec.json.decode(text, type=list[msgspec.Raw])]
