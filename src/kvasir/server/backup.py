"""Backups of a data directory: where their files go, and that they are whole, private and on disk.

A backup is one file, the database; or a directory with the database, the saves of NemesisDB clients, and a list with
the checksums of all, which comes last. What is cut short never gets its name; what is cut short on a later journey does
not restore. Neither does a directory in which anything has changed. A file has no place for a checksum, so damage to it
is only found where it breaks the structure of the database or the JSON of a value.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec
from apsw import Connection
from msgspec import Struct

from kvasir.config.table import DATABASE, Config
from kvasir.engines.sqlite import backup as sqlite
from kvasir.engines.sqlite.failures import NO_ROOM
from kvasir.errors import Conflicting, Invalid, NotFound, Unavailable
from kvasir.server import whole_file
from kvasir.server.data_directory import SAVES

#: In a backup that is a directory.
LIST = "backup.json"

Progress = Callable[[int, int], None]


class Backup(Struct, frozen=True):
    """What a backup holds."""

    spaces: int
    entries: int
    bytes: int
    #: Files of saves; None: the backup is a file, which has no place for them
    save_files: int | None


class _List(Struct, frozen=True):
    """The file `LIST`."""

    #: Length in bytes by path, relative to the directory of saves
    saves: dict[str, int]
    #: SHA-256 of the database and the saves by path, relative to the backup; earlier versions of Kvasir wrote none
    sha256: dict[str, str] = {}

    def agrees(self, path: str, sha256: str) -> bool:
        """Whether this is the checksum of a file, as far as it is known."""
        return not self.sha256 or self.sha256.get(path) == sha256


class _Save(NamedTuple):
    """A file that was copied."""

    bytes: int
    sha256: str


def snapshot(config: Config) -> Connection:
    """The state of a SQLite database that this process has open, for `make`; the caller closes it."""
    return sqlite.snapshot(_database(config))


async def make(
    config: Config,
    snapshot: Connection,
    target: Path,
    bytes_a_second: float | None,
    progress: Progress,
    *,
    directory: bool,
    overwrite: bool,
) -> Backup:
    """Back up a state of a database, and the saves beside it, at a pace that servers bear (None: as fast as it goes).

    Raises `Conflicting` if there is something at `target` that may not be overwritten, `Unavailable` if the database is
    damaged; OSError.
    """
    database = _database(config)
    if target.resolve() in (database, database.parent):
        raise Invalid("a backup cannot take the place of the database itself: choose another place")
    _refuse_existing(target, directory=directory, overwrite=overwrite)
    if directory and target.exists() and any(target.iterdir()):
        _read_list(target)  # nobody shall lose another directory by this
    gently = bytes_a_second is not None
    with whole_file.part_of(target, directory=directory) as part:
        with _room(target.parent):
            copied = part / DATABASE if directory else part
            copied.touch(0o600)
            await sqlite.copy(snapshot, copied, bytes_a_second, progress)
            unsound = "the copy of the database is not sound, and neither may be the database"
            done = await _examined(copied, unsound, gently=gently)
            if directory:
                saves = _copy_saves(saves_directory(config), part / SAVES)
                _write_list(part, await _checksum(copied, gently=gently), saves)
                done = msgspec.structs.replace(done, save_files=len(saves))
        _refuse_existing(target, directory=directory, overwrite=overwrite)
        _take_place(part, target)
    return done


async def restore(config: Config, source: Path, progress: Progress, *, overwrite: bool) -> Backup:
    """Make a backup the database of a data directory, which is created if it is missing.

    Raises `NotFound`, `Invalid` and `Unavailable` for what is no whole and sound backup, `Conflicting` if there is a
    database and may not be overwritten, `Unavailable` if a program has it open; OSError. Then nothing has changed.
    """
    database, saves = _database(config), saves_directory(config)
    if not source.exists():
        raise NotFound(f"there is no backup at {source}")
    listed = _read_list(source) if source.is_dir() else None
    _refuse_existing(database, directory=False, overwrite=overwrite)
    if listed and listed.saves:
        _refuse_existing(saves, directory=True, overwrite=overwrite)
    with ExitStack() as parts:
        for folder in (database.parent, saves.parent):
            parts.enter_context(_made(folder))
        part = parts.enter_context(whole_file.part_of(database))
        with _room(database.parent):
            if listed and listed.sha256:
                await _copy_listed(source, part, listed, progress)
            else:
                await sqlite.copy_closed(source / DATABASE if listed else source, part, progress)
            done = await _examined(part, "the backup is not sound", gently=False)
            if listed and listed.saves:
                saved = parts.enter_context(whole_file.part_of(saves, directory=True))
                _compare(_copy_saves(source / SAVES, saved), listed, source)
        sqlite.put_in_place(part, database)
        if listed and listed.saves:
            _take_place(saved, saves)
        whole_file.sync(database.parent)
    return msgspec.structs.replace(done, save_files=None if listed is None else len(listed.saves))


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """A directory, made with its parents where they are missing; if that was in vain, they are not there afterwards."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for each in missing:
            with contextlib.suppress(OSError):  # somebody else has put something in it meanwhile
                each.rmdir()
        raise


@contextlib.contextmanager
def _room(place: Path) -> Iterator[None]:
    """Raises `Unavailable` for what fails for want of room, before anything was changed."""
    try:
        yield
    except OSError as error:
        reason = NO_ROOM.get(error.errno or 0)
        if reason is None:
            raise
        raise Unavailable(f"{reason} ({place}); nothing was changed, make room and try again") from None


def saves_directory(config: Config) -> Path:
    """Where SH_SAVE writes."""
    return config.nemesis_save_dir or config.data_dir / SAVES


def _database(config: Config) -> Path:
    if config.database is None:
        raise Invalid("only a SQLite database has files to back up or restore")
    return config.database.resolve()


def _refuse_existing(place: Path, *, directory: bool, overwrite: bool) -> None:
    """Raise `Conflicting` unless a place is free, or may be used again and holds the same kind of thing."""
    if not place.exists() or (directory and place.is_dir() and not any(place.iterdir())):
        return
    if not overwrite:
        raise Conflicting(
            f"{place} is there already, and nothing was changed: choose another place, or add --overwrite"
        )
    if directory != place.is_dir():
        raise Conflicting(f"{place} is a {'file' if directory else 'directory'}: choose another place")


def _take_place(part: Path, place: Path) -> None:
    """Rename what is whole and synced to where a file, a directory or nothing is."""
    if place.is_dir():
        old = place.with_name(f"{place.name}.old")
        if old.exists():  # an earlier overwriting was interrupted
            shutil.rmtree(old)
        place.rename(old)
        part.rename(place)
        shutil.rmtree(old)
    else:
        part.rename(place)
    whole_file.sync(place.parent)


async def _examined(copied: Path, unsound: str, *, gently: bool) -> Backup:
    """What a copy of a database holds, after a sync. Raises `Unavailable` with its faults."""
    faults, spaces, entries = await sqlite.examine(copied, gently=gently)
    if faults:
        raise Unavailable(f"{unsound}; nothing was changed:\n" + "\n".join(faults))
    whole_file.sync(copied)
    return Backup(spaces, entries, copied.stat().st_size, None)


async def _checksum(file: Path, *, gently: bool) -> str:
    """The SHA-256 of a file. `gently`: it rests half of the time."""
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        began = time.monotonic()
        while piece := opened.read(whole_file.PIECE_BYTES):
            digest.update(piece)
            await asyncio.sleep(time.monotonic() - began if gently else 0.0)
            began = time.monotonic()
    return digest.hexdigest()


async def _copy_listed(source: Path, part: Path, listed: _List, progress: Progress) -> None:
    """Copy the database of a directory byte by byte, so that the checksum is of what is restored, and upgrade the copy.

    Raises `Invalid` if it has another one, `Unavailable` if it is of a newer version or the copy finds no room.
    """
    digest = hashlib.sha256()
    try:
        whole = (source / DATABASE).stat().st_size
        for done in whole_file.copying(source / DATABASE, part, digest):
            progress(done, whole)
            await asyncio.sleep(0)
    except FileNotFoundError:
        raise Invalid(f"{source} has no {DATABASE}: it was cut short, choose another backup") from None
    if not listed.agrees(DATABASE, digest.hexdigest()):
        raise Invalid(
            f"{source / DATABASE} does not have the checksum that {LIST} gives: it is damaged or was changed, so choose"
            " another backup; what a program has changed on purpose can be restored by the name of that file"
        )
    sqlite.upgrade(part, source / DATABASE)


def _compare(saves: dict[str, _Save], listed: _List, source: Path) -> None:
    """Raises `Invalid` if these are not the saves that the list of a backup has."""
    same = {path: save.bytes for path, save in saves.items()} == listed.saves
    if not same or not all(listed.agrees(f"{SAVES}/{path}", save.sha256) for path, save in saves.items()):
        raise Invalid(
            f"the saves in {source} are not those that it lists: it was cut short or changed, choose another backup"
        )


def _write_list(part: Path, database: str, saves: dict[str, _Save]) -> None:
    """Write the list of a backup that is whole but for it, with the checksum of its database, and sync both."""
    sha256 = {DATABASE: database} | {f"{SAVES}/{path}": save.sha256 for path, save in saves.items()}
    listed = _List({path: save.bytes for path, save in saves.items()}, sha256)
    (part / LIST).touch(0o600)
    (part / LIST).write_bytes(msgspec.json.format(msgspec.json.encode(listed)))
    whole_file.sync(part / LIST)
    whole_file.sync(part)


def _read_list(source: Path) -> _List:
    try:
        return msgspec.json.decode((source / LIST).read_bytes(), type=_List)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        raise Invalid(
            f"{source} has no {LIST}, or not a whole one: it was cut short, or `kvasir backup` has not made it;"
            f" a database alone can be restored from its file {DATABASE}"
        ) from None


def _copy_saves(source: Path, target: Path) -> dict[str, _Save]:
    """Copy all complete saves, which never change, into a directory that is made; sync it. They come by path."""
    target.mkdir(mode=0o700, exist_ok=True)
    listed: dict[str, _Save] = {}
    folders = {target}
    for file in _files(source) if source.is_dir() else ():
        copied = target / file.relative_to(source)
        for folder in reversed([folder for folder in copied.parents if folder.is_relative_to(target)]):
            folder.mkdir(mode=0o700, exist_ok=True)
            folders.add(folder)
        copied.touch(0o600)
        digest = hashlib.sha256()
        length = sum(whole_file.copying(file, copied, digest))
        whole_file.sync(copied)
        listed[str(file.relative_to(source))] = _Save(length, digest.hexdigest())
    for folder in folders:
        whole_file.sync(folder)
    return listed


def _files(directory: Path) -> Iterator[Path]:
    """The files in a directory, but for those in parts that are being written."""
    for child in sorted(directory.iterdir()):
        if child.name.startswith("."):
            continue
        if child.is_dir():
            yield from _files(child)
        elif child.is_file():
            yield child
