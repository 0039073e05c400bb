"""What is in a data directory, and that it is its owner's only."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from kvasir.config.loading import FILE
from kvasir.config.table import DATABASE, Config

log = logging.getLogger("kvasir")

#: What is in a data directory, and how the names of the database's files end.
SAVES = "saves"

FILES = ("", "-wal", "-shm", "-writer", "-cells")


def keep_private(config: Config) -> None:
    """Take away what other users may do with what is kept. Made by hand or restored, it has the rights of a umask."""
    kept = [config.data_dir / SAVES, config.data_dir]
    if config.database is not None:
        kept += [config.database.with_name(config.database.name + ending) for ending in FILES]
    for path in kept:
        try:
            found = path.stat()
        except OSError:  # not there yet; whether it can be used is found out when it is
            continue
        if not found.st_mode & 0o077:
            continue
        try:
            if found.st_uid != os.geteuid():
                raise PermissionError("it belongs to another user")
            if path == config.data_dir and not all(map(_is_kept, path.iterdir())):
                raise PermissionError("it holds other things too; give Kvasir a directory of its own")
            path.chmod(stat.S_IMODE(found.st_mode) & ~0o077)
        except OSError as error:
            log.warning("%s is open to other users of this machine, and stays so: %s", path, error)
        else:
            log.warning("%s was open to other users of this machine; their rights were taken away", path)


def _is_kept(path: Path) -> bool:
    """Whether a data directory with this in it may still be Kvasir's alone: /tmp and home directories are not."""
    return path.name.startswith(DATABASE) or path.name in (SAVES, FILE, "lost+found")
