"""Keeps what is in the data directory private to its owner, and what is not Kvasir's as it is."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

from kvasir.config.loading import FILE
from kvasir.config.table import DATABASE, Config
from kvasir.control.audit import CHOICE
from kvasir.errors import Invalid, Unavailable

log = logging.getLogger("kvasir")

#: The directory of saves in a data directory.
SAVES = "saves"

#: The secret with which the log of slow requests names keys.
LOG_SECRET = "log.secret"  # noqa: S105  # the name of a file

#: How the names of the database's files end.
SUFFIXES = ("", "-wal", "-shm", "-writer", "-cells")

#: How the file of a SQLite database begins.
HEADER = b"SQLite format 3\0"


def keep_private(config: Config) -> None:
    """Take away the permissions of other users. What was created by hand or restored from a backup may have some."""
    for path in (config.data_dir / SAVES, config.data_dir):
        _tighten(path, config, stat.S_ISDIR)
    # Whoever has mistyped the name of the database shall not lock others out of something else.
    if config.database is not None and _may_be_database(config.database):
        for suffix in SUFFIXES:
            _tighten(config.database.with_name(config.database.name + suffix), config, stat.S_ISREG)


def _tighten(path: Path, config: Config, is_kind: Callable[[int], bool]) -> None:
    try:
        found = path.stat()
    except OSError:  # it does not exist yet, or using it will say what is wrong
        return
    if not found.st_mode & 0o077 or not is_kind(found.st_mode):
        return
    try:
        if found.st_uid != os.geteuid():
            raise PermissionError("it belongs to another user")
        if path == config.data_dir and not all(map(_is_ours, path.iterdir())):
            raise PermissionError("it contains other files too; give Kvasir a directory of its own")
        path.chmod(stat.S_IMODE(found.st_mode) & ~0o077)
    except OSError as error:
        log.warning("%s is accessible to other users of this machine and remains so: %s", path, error)
    else:
        log.warning("%s was accessible to other users of this machine; their permissions were removed", path)


def refuse_other_files(database: Path) -> None:
    """Raise if something else is where the database should be, before any file is made beside it.

    `Invalid` for what no database can be, `Unavailable` for a file that may have been one.
    """
    if database.is_dir():
        raise Invalid(f"{database} is a directory; name a file")
    if database.exists() and not database.is_file():
        raise Invalid(f"{database} is neither a file nor a directory; name a file")
    # A power failure may have torn the head of a database; its log has that page once more.
    found = database.resolve()
    if not _may_be_database(found) and not found.with_name(f"{found.name}-wal").exists():
        raise Unavailable(f"{database} is no SQLite database, or is damaged: name another file, or restore a backup")


def _may_be_database(path: Path) -> bool:
    """Whether a path names a SQLite database or an empty file, which becomes one, or nothing yet."""
    try:
        # Not opened before it is known to be a file: with some other things that alone does something.
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            return file.read(len(HEADER)) in (b"", HEADER)
    except OSError:  # it is not there yet, or opening it as a database will say what is wrong
        return True


def _is_ours(path: Path) -> bool:
    """Whether this may be in a directory that is for Kvasir alone, unlike /tmp or a home directory."""
    return path.name.startswith(DATABASE) or path.name in (SAVES, FILE, CHOICE, LOG_SECRET, "lost+found")
