"""Connections to the database file, each for one thread and one purpose."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

#: Bytes of the file that are read through the page cache of the operating system instead of a private copy.
MAPPED_BYTES = 64 << 30

#: How long a statement waits for a lock that a program other than Kvasir holds (Kvasir's writers queue elsewhere).
BUSY_MILLISECONDS = 5_000

#: A write-ahead log that has grown beyond this is cut back to it when it restarts. Below that it keeps its length,
#: since writing over a file is cheaper than making it longer.
LOG_BYTES = 32 << 20


#: Bytes of the log that are read and written again at a time. SQLite writes at most 128 KiB at once.
LOG_CHUNK = 1 << 16

#: After so long a filter pauses for so long.
WORK_SECONDS, PAUSE_SECONDS = 0.002, 0.0001


class Filter:
    """The function `metadata_contains` of one connection: whether metadata contains what the listing asks for.

    SQLite lets go of the interpreter's lock between two calls, which wakes who waits for it; but the next call takes it
    before that has woken up, again and again, and the wait never lasts long enough for the interpreter to see to it.
    """

    def __init__(self) -> None:
        self.contains: Callable[[bytes | None], bool] = bool
        #: Whether the caller has left.
        self.is_left: Callable[[], bool] = bool
        self._since = 0.0

    def __call__(self, *metadata: Any) -> bool:
        if self.is_left():
            raise apsw.InterruptError
        if time.perf_counter() - self._since > WORK_SECONDS:
            time.sleep(PAUSE_SECONDS)
            self._since = time.perf_counter()
        return self.contains(metadata[0])


class ReadConnection(apsw.Connection):
    """A connection for reading, with the function that listings filter by."""

    def __init__(self, path: str, *, flags: int) -> None:
        super().__init__(path, flags=flags)
        self.filter = Filter()


def for_reading(path: Path) -> ReadConnection:
    """A connection that never takes a write lock. The file must exist."""
    connection = ReadConnection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(BUSY_MILLISECONDS)
    connection.pragma("query_only", True)
    plan_once(connection)
    connection.pragma("mmap_size", MAPPED_BYTES)
    connection.create_scalar_function("metadata_contains", connection.filter, 1)
    return connection


def plan_once(connection: apsw.Connection) -> None:
    """Have statements planned when they are prepared, whatever the values bound to them are.

    Otherwise SQLite prepares many of those with a limit anew each time: for other values, another plan may be better.
    """
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)


def for_writing(path: Path, *, durable: bool) -> apsw.Connection:
    """The connection of the one writer; creates the file."""
    connection = _open(path, apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    try:
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "full" if durable else "normal")
        # On macOS, fsync alone leaves data in the drive's own cache. Elsewhere this means nothing.
        connection.pragma("fullfsync", durable)
        connection.pragma("checkpoint_fullfsync", True)
        connection.pragma("wal_autocheckpoint", 0)
        connection.pragma("journal_size_limit", LOG_BYTES)
        connection.pragma("cache_size", -16_384)
    except BaseException:
        connection.close(True)
        raise
    return connection


def sync_log(path: Path) -> None:
    """Bring to the disk what a writer that died has left in the write-ahead log, before anybody reads it.

    A sync is not enough: what an earlier one has failed to write can still be read, but counts as written. So the log
    is written over itself. Needs the writers' lock. Raises what APSW does.
    """
    try:
        log = apsw.VFSFile("", f"{path}-wal", [apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_READWRITE, 0])
    except apsw.CantOpenError:
        return  # there is none
    try:
        for start in range(0, log.xFileSize(), LOG_CHUNK):
            log.xWrite(log.xRead(min(LOG_CHUNK, log.xFileSize() - start), start), start)
        log.xSync(apsw.SQLITE_SYNC_FULL)
    finally:
        log.xClose()


def _open(path: Path, flags: int) -> apsw.Connection:
    connection = apsw.Connection(str(path), flags=flags)
    connection.set_busy_timeout(BUSY_MILLISECONDS)
    plan_once(connection)
    return connection
