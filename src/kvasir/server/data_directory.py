"""Keeps what is in the data directory private to its owner."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from kvasir.config.loading import FILE
from kvasir.config.table import DATABASE, Config
from kvasir.control.audit import CHOICE

log = logging.getLogger("kvasir")

#: The directory of saves in a data directory.
SAVES = "saves"

#: The secret with which the log of slow requests names keys.
LOG_SECRET = "log.secret"  # noqa: S105  # the name of a file

#: How the names of the database's files end.
SUFFIXES = ("", "-wal", "-shm", "-writer", "-cells")


def keep_private(config: Config) -> None:
    """Take away the permissions of other users. What was created by hand or restored from a backup may have some."""
    paths = [config.data_dir / SAVES, config.data_dir]
    if config.database is not None:
        paths += [config.database.with_name(config.database.name + suffix) for suffix in SUFFIXES]
    for path in paths:
        try:
            found = path.stat()
        except OSError:  # it does not exist yet, or using it will say what is wrong
            continue
        if not found.st_mode & 0o077:
            continue
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


def _is_ours(path: Path) -> bool:
    """Whether this may be in a directory that is for Kvasir alone, unlike /tmp or a home directory."""
    return path.name.startswith(DATABASE) or path.name in (SAVES, FILE, CHOICE, LOG_SECRET, "lost+found")
