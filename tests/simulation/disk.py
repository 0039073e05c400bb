"""A virtual disk under SQLite: it fails and tears on demand, and a power failure makes it forget what was not synced.

Each file has two contents: what the running processes see, as through the page cache of an operating system, and what
is on the platter. A sync copies the one to the other; a power failure leaves some of the pages or sectors that were not
synced, in any selection. Names are made and removed in order and reach the platter with the next sync of a log, as
SQLite sees to on a real disk. Locks and the shared index of the log are those of the real VFS, on empty files.
"""

from __future__ import annotations

from random import Random
from typing import Any, Protocol

import apsw

PAGE = 4_096
SECTOR = 512

#: What SQLite may build on: a torn write harms no neighbour. The real VFS says so, too.
CHARACTERISTICS = apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE

_REAL = apsw.vfs_names()[0]


class Owner(Protocol):
    """The process that opened a file."""

    dead: bool

    def step(self, what: str) -> None:
        """It is about to do this. Raises what a fault makes of it."""


class Inode:
    """The contents of one file."""

    def __init__(self, platter: bytes = b"") -> None:
        self.seen = bytearray(platter)
        self.platter = bytearray(platter)
        #: Numbers of pages that were written and not synced since
        self._dirty: set[int] = set()
        #: Pages that a failed sync has given up: seen, but never to be written unless they are changed again
        self._given_up: set[int] = set()
        self._cut_to: int | None = None

    def write(self, data: bytes, offset: int) -> None:
        if offset > len(self.seen):
            self.seen.extend(bytes(offset - len(self.seen)))
        self.seen[offset : offset + len(data)] = data
        pages = range(offset // PAGE, (offset + len(data) - 1) // PAGE + 1)
        self._dirty.update(pages)
        self._given_up.difference_update(pages)

    def truncate(self, size: int) -> None:
        if size < len(self.seen):
            del self.seen[size:]
            self._cut_to = size if self._cut_to is None else min(self._cut_to, size)
        else:
            self.seen.extend(bytes(size - len(self.seen)))

    def sync(self) -> None:
        """All that is seen is on the platter, but for what an earlier sync has given up."""
        kept = {number: self._on_platter(number) for number in self._given_up}
        self.platter[:] = self.seen
        for number, page in kept.items():
            self.platter[number * PAGE : number * PAGE + len(page)] = page
        self._dirty.clear()
        self._cut_to = None

    def _on_platter(self, number: int) -> bytes:
        start = number * PAGE
        length = min(PAGE, max(0, len(self.seen) - start))
        return bytes(self.platter[start : start + length]).ljust(length, b"\0")

    def sync_badly(self, chance: Random, *, give_up: bool) -> None:
        """Some pages are written. With `give_up` the others are never tried again, as Linux treats a failed sync."""
        self.write_back(chance)
        if give_up:
            self._given_up |= self._dirty
            self._dirty.clear()

    def write_back(self, chance: Random) -> None:
        """The kernel writes some pages by itself."""
        for number in sorted(self._dirty):
            if chance.random() < 0.5:
                self._keep(number * PAGE, PAGE)
                self._dirty.discard(number)

    def lose_power(self, chance: Random) -> None:
        """What is left on the platter is all that is seen from now on."""
        if self._cut_to is not None and chance.random() < 0.5:
            del self.platter[self._cut_to :]
        unit = chance.choice((0, PAGE, PAGE, SECTOR, SECTOR))
        if unit:
            odds = chance.choice((0.1, 0.5, 0.9, 1.0))
            for number in sorted(self._dirty):
                for start in range(number * PAGE, (number + 1) * PAGE, unit):
                    if chance.random() < odds:
                        self._keep(start, unit)
        self.__init__(bytes(self.platter))  # type: ignore[misc]  # a new life

    def _keep(self, start: int, length: int) -> None:
        kept = self.seen[start : start + length]
        if kept:
            self.platter.extend(bytes(max(0, start - len(self.platter))))
            self.platter[start : start + len(kept)] = kept


class Disk:
    """Files by name, as processes see them and as they would be found after a power failure."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.names = {name: Inode(content) for name, content in files.items()}
        self._on_platter = dict(self.names)
        #: Changes of names that are not on the platter yet, in order; None: removed.
        self._pending: list[tuple[str, Inode | None]] = []

    def make(self, name: str) -> Inode:
        """The file of this name, made if there is none."""
        inode = self.names.get(name)
        if inode is None:
            inode = self.names[name] = Inode()
            self._pending.append((name, inode))
        return inode

    def remove(self, name: str) -> None:
        if self.names.pop(name, None):
            self._pending.append((name, None))

    def sync_names(self) -> None:
        """All changes of names so far are on the platter."""
        self._apply(len(self._pending))

    def lose_power(self, chance: Random) -> None:
        """Keep what was synced and, of the rest, whatever chance lets pass. Nobody may have a file open."""
        self._apply(chance.randint(0, len(self._pending)))
        self._pending.clear()
        self.names = dict(self._on_platter)
        for name in sorted(self.names):
            self.names[name].lose_power(chance)

    def write_back(self, chance: Random) -> None:
        """The kernel writes some pages by itself."""
        for name in sorted(self.names):
            self.names[name].write_back(chance)

    def _apply(self, changes: int) -> None:
        for name, inode in self._pending[:changes]:
            if inode is None:
                self._on_platter.pop(name, None)
            else:
                self._on_platter[name] = inode
        del self._pending[:changes]


class _Content:
    """The parts of a file of SQLite's that have to do with its content. Of a dead process nothing reaches it."""

    _name: str
    _disk: Disk
    _inode: Inode
    _owner: Owner
    _is_log: bool

    def _begin(self, disk: Disk, owner: Owner, name: str) -> None:
        self._name = name
        self._disk = disk
        self._owner = owner
        self._inode = disk.make(name)
        #: Whether a sync of it also syncs the names of its folder: a journal or write-ahead log
        self._is_log = name.endswith(("-wal", "-journal"))

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(self._inode.seen[offset : offset + amount])

    def xFileSize(self) -> int:
        return len(self._inode.seen)

    def xWrite(self, data: Any, offset: int) -> None:
        if self._owner.dead:
            return
        try:
            self._owner.step(f"write {self._name}")
        except BaseException as fault:
            self._inode.write(bytes(data)[: _part(fault, len(data))], offset)
            raise
        self._inode.write(data, offset)

    def xTruncate(self, newsize: int) -> None:
        if not self._owner.dead:
            self._owner.step(f"truncate {self._name}")
            self._inode.truncate(newsize)

    def xSync(self, flags: int) -> None:
        if self._owner.dead:
            return
        try:
            self._owner.step(f"sync {self._name}")
        except BaseException as fault:
            if sync_badly := getattr(fault, "sync_badly", None):
                sync_badly(self._inode)
            raise
        self._inode.sync()
        if self._is_log:
            self._disk.sync_names()


def _part(fault: BaseException, length: int) -> int:
    """How much of a write still happens when this fault strikes."""
    return int(getattr(fault, "part", 0.0) * length)


class _Plain(_Content):
    """A journal or a write-ahead log."""

    def __init__(self, disk: Disk, owner: Owner, name: str) -> None:
        self._begin(disk, owner, name)

    def xClose(self) -> None:
        pass

    def xSectorSize(self) -> int:
        return PAGE

    def xDeviceCharacteristics(self) -> int:
        return CHARACTERISTICS

    def xFileControl(self, op: int, ptr: int) -> bool:
        return False


class _Database(_Content, apsw.VFSFile):
    """The database file. The empty file beneath it has the locks and, beside it, the shared index of the log."""

    def __init__(self, disk: Disk, owner: Owner, name: str, given: Any, flags: list[int]) -> None:
        apsw.VFSFile.__init__(self, _REAL, given, flags)
        self._begin(disk, owner, name)


def _last(path: str) -> str:
    """The name of a file in its folder."""
    return path.rpartition("/")[2]


class VirtualFileSystem(apsw.VFS):
    """SQLite's view of the disk of the machine that runs at the moment; the default for new connections once made."""

    NAME = "kvasir-simulation"

    def __init__(self) -> None:
        self.disk: Disk
        #: The process that runs, which is the one that opens files
        self.owner: Owner
        super().__init__(self.NAME, _REAL)

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        if name is None:
            return apsw.VFSFile(_REAL, name, flags)
        short = _last(name.filename() if isinstance(name, apsw.URIFilename) else name)
        if flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            return _Database(self.disk, self.owner, short, name, flags)
        if short not in self.disk.names and not flags[0] & apsw.SQLITE_OPEN_CREATE:
            raise apsw.CantOpenError(f"there is no {short}")
        flags[1] = flags[0]
        return _Plain(self.disk, self.owner, short)

    def xAccess(self, pathname: str, flags: int) -> bool:
        return _last(pathname) in self.disk.names

    def xDelete(self, filename: str, syncdir: bool) -> None:
        if self.owner.dead:
            return
        self.owner.step(f"remove {_last(filename)}")
        self.disk.remove(_last(filename))
        if syncdir:
            self.disk.sync_names()

    def xRandomness(self, numbytes: int) -> bytes:
        return bytes(numbytes)  # nothing of the simulation's depends on it; nothing of it shall vary
