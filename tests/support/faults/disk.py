"""A disk that fails on demand, under every process that is started with `environment_of` it.

SQLite of such a process goes through a layer that looks for a file with the name of a fault whenever the write-ahead
log has been synced, which is when a commit becomes durable and, a moment later, visible.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import apsw

FOLDER = "FAULTY_DISK"

#: To sync the log takes so many seconds more: those that the file has as its text.
SLOW_TO_SYNC = "slow-to-sync"

#: The process is killed as soon as the log is on the disk, before anybody is told of the commit. It happens once.
DIES_AFTER_SYNC = "dies-after-sync"
#: The log can be written but not synced, until the file is gone.
CANNOT_SYNC = "cannot-sync"
#: The same, and what the system says of it is that there is no room, as file systems do that allocate late.
NO_ROOM_TO_SYNC = "no-room-to-sync"
#: A commit record is on the disk, but for want of room the index has no place for it. It happens to the next commit.
NO_ROOM_IN_INDEX = "no-room-in-index"


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
        self._met: set[str] = set()
        super().__init__(_REAL, name, flags)

    def _first(self, fault: str) -> bool:
        """Whether this is the first time, for a fault that leaves its file behind."""
        first = fault not in self._met
        self._met.add(fault)
        return first

    def xSync(self, flags: int) -> None:
        folder = Path(os.environ[FOLDER])
        if self._is_log and (folder / CANNOT_SYNC).exists():
            raise apsw.IOError("planted")
        if self._is_log and (folder / NO_ROOM_TO_SYNC).exists():
            raise _no_room(apsw.SQLITE_IOERR_FSYNC)
        if self._is_log and (folder / SLOW_TO_SYNC).exists():
            time.sleep(float((folder / SLOW_TO_SYNC).read_text()))
        super().xSync(flags)
        if self._is_log and (folder / NO_ROOM_IN_INDEX).exists() and self._first(NO_ROOM_IN_INDEX):
            raise _no_room(apsw.SQLITE_IOERR_SHMSIZE)
        if self._is_log and (folder / DIES_AFTER_SYNC).exists():
            (folder / DIES_AFTER_SYNC).unlink()
            os.kill(os.getpid(), signal.SIGKILL)


class _Disk(apsw.VFS):
    def xOpen(self, name: apsw.URIFilename | str | None, flags: list[int]) -> _File:
        return _File(name, flags)

    def xGetLastError(self) -> tuple[int, str | None]:
        no_room = any((Path(os.environ[FOLDER]) / fault).exists() for fault in (NO_ROOM_TO_SYNC, NO_ROOM_IN_INDEX))
        return (errno.ENOSPC, None) if no_room else super().xGetLastError()


def _no_room(extended: int) -> apsw.IOError:
    error = apsw.IOError("planted")
    vars(error)["extendedresult"] = extended
    return error
