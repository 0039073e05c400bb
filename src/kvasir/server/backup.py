"""Backups of a data directory: where their files go, and that they are whole, private and on disk.

A backup is one file, the database; or a directory with the database, the saves of NemesisDB clients, and a list of the
latter, which comes last. What is cut short never gets its name; what is cut short on a later journey does not restore.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
from apsw import Connection
from msgspec import Struct

from kvasir.config.table import DATABASE, Config
from kvasir.engines.sqlite import backup as sqlite
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
    with whole_file.part_of(target, directory=directory) as part:
        copied = part / DATABASE if directory else part
        copied.touch(0o600)
        await sqlite.copy(snapshot, copied, bytes_a_second, progress)
        done = await _examined(
            copied,
            "the copy of the database is not sound, and neither may be the database",
            gently=bytes_a_second is not None,
        )
        if directory:
            listed = _copy_saves(saves_directory(config), part / SAVES)
            (part / LIST).touch(0o600)
            (part / LIST).write_bytes(msgspec.json.format(msgspec.json.encode(_List(listed))))
            whole_file.sync(part / LIST)
            whole_file.sync(part)
            done = msgspec.structs.replace(done, save_files=len(listed))
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
    if listed:
        _refuse_existing(saves, directory=True, overwrite=overwrite)
    for folder in (database.parent, saves.parent):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with ExitStack() as parts:
        part = parts.enter_context(whole_file.part_of(database))
        await sqlite.copy_closed(source / DATABASE if source.is_dir() else source, part, progress)
        done = await _examined(part, "the backup is not sound", gently=False)
        if listed:
            saved = parts.enter_context(whole_file.part_of(saves, directory=True))
            if _copy_saves(source / SAVES, saved) != listed:
                raise Invalid(f"the saves in {source} are not those that it lists: it was cut short or changed")
        sqlite.put_in_place(part, database)
        if listed:
            _take_place(saved, saves)
        whole_file.sync(database.parent)
    return msgspec.structs.replace(done, save_files=None if listed is None else len(listed))


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


def _read_list(source: Path) -> dict[str, int]:
    try:
        return msgspec.json.decode((source / LIST).read_bytes(), type=_List).saves
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        raise Invalid(
            f"{source} has no {LIST}, or not a whole one: it was cut short, or `kvasir backup` has not made it;"
            f" a database alone can be restored from its file {DATABASE}"
        ) from None


def _copy_saves(source: Path, target: Path) -> dict[str, int]:
    """Copy all complete saves, which never change, into a directory that is made; sync it. Their lengths by path."""
    target.mkdir(mode=0o700, exist_ok=True)
    listed: dict[str, int] = {}
    folders = {target}
    for file in _files(source) if source.is_dir() else ():
        copied = target / file.relative_to(source)
        for folder in reversed([folder for folder in copied.parents if folder.is_relative_to(target)]):
            folder.mkdir(mode=0o700, exist_ok=True)
            folders.add(folder)
        copied.touch(0o600)
        shutil.copyfile(file, copied)
        whole_file.sync(copied)
        listed[str(file.relative_to(source))] = copied.stat().st_size
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
