"""A disk that fails on demand, under every process that is started with `environment_of` it.

SQLite of such a process goes through a layer that looks for a file with the name of a fault whenever the write-ahead
log has been synced, which is when a commit becomes durable and, a moment later, visible.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import apsw

FOLDER = "FAULTY_DISK"

#: The process is killed as soon as the log is on the disk, before anybody is told of the commit. It happens once.
DIES_AFTER_SYNC = "dies-after-sync"
#: The log can be written but not synced, until the file is gone.
CANNOT_SYNC = "cannot-sync"


def environment_of(folder: Path) -> dict[str, str]:
    """Variables that put a process on this disk; the names of faults are files in the folder."""
    # Python runs a module of this name at its start.
    (folder / "sitecustomize.py").write_text("from tests.support.faults import disk\ndisk.plant()\n", encoding="utf-8")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parents[3]}", FOLDER: str(folder)}


def plant() -> None:
    """Put this process on the disk."""
    _planted.append(_Disk("faulty", _REAL, makedefault=True))


_REAL = apsw.vfs_names()[0]
#: SQLite forgets a layer that Python has forgotten.
_planted: list[apsw.VFS] = []


class _File(apsw.VFSFile):
    def __init__(self, name: apsw.URIFilename | str | None, flags: list[int]) -> None:
        self._is_log = bool(flags[0] & apsw.SQLITE_OPEN_WAL)
        super().__init__(_REAL, name, flags)

    def xSync(self, flags: int) -> None:
        folder = Path(os.environ[FOLDER])
        if self._is_log and (folder / CANNOT_SYNC).exists():
            raise apsw.IOError("planted")
        super().xSync(flags)
        if self._is_log and (folder / DIES_AFTER_SYNC).exists():
            (folder / DIES_AFTER_SYNC).unlink()
            os.kill(os.getpid(), signal.SIGKILL)


class _Disk(apsw.VFS):
    def xOpen(self, name: apsw.URIFilename | str | None, flags: list[int]) -> _File:
        return _File(name, flags)
