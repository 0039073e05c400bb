"""Copies a whole database file into another one while others read and write it, and puts such a copy in its place.

SQLite's online backup begins anew whenever somebody else writes, so one snapshot is held until it is done. The price:
meanwhile the write-ahead log is not cut back and grows by all that is written. How much writers are slowed down is
bounded by the pace, and by syncing as we go: a sync of much at once would make their commits wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw

from kvasir.engines.numbering import wall_clock
from kvasir.engines.sqlite import checking, failures, reading
from kvasir.engines.sqlite import connection as connections
from kvasir.engines.sqlite.schema import MIGRATIONS, migrate
from kvasir.engines.sqlite.seqlocks import WritersLock
from kvasir.errors import Invalid, Unavailable

#: Copied at a time; between two steps others run, and the caller may leave.
STEP_BYTES = 1 << 18
#: Copied between two syncs. More at once makes commits wait longer for the disk.
SYNC_BYTES = 1 << 20

#: Steps of SQLite's machine, a tenth of a microsecond each, between two rests of a check.
CHECK_STEPS = 20_000

#: SQLite's pages in memory while they are copied, in KiB.
CACHE_KIBIBYTES = 4_096

#: The byte of the file `-shm` on which everyone who has the database open holds a shared lock ("deadman switch").
OPEN_LOCK_BYTE = 128

#: What only the file fails with that is written, never the one that is read.
NOT_WRITTEN = {apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_TRUNCATE}


def snapshot(database: Path) -> apsw.Connection:
    """The last committed state of a database that this process has open, for as long as the connection lives."""
    connection = connections.for_reading(database)
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # which takes it
    return connection


async def copy_closed(database: Path, target: Path, progress: Callable[[int, int], None]) -> None:
    """Copy a database that nobody has open, perhaps on a read-only medium, into an empty file; upgrade the copy.

    The copy is not synced.

    Raises `Invalid` if it is no whole database of Kvasir, `Unavailable` if it is a newer one or the copy finds no room.
    """
    with _blaming(database), contextlib.closing(_open_closed(database)) as source:
        if not source.pragma("user_version") or _is_short(database, source):
            raise Invalid(f"{database} is not a database of Kvasir, or was cut short: choose another backup")
        await copy(source, target, None, progress)
    upgrade(target, database)


def upgrade(copied: Path, database: Path) -> None:
    """Bring the copy of a database to the schema of this version. It is not synced.

    Raises `Invalid` if it is damaged, `Unavailable` if it is of a newer version or finds no room.
    """
    with _blaming(database), _exclusive(copied) as connection:
        migrate(connection)


@contextlib.contextmanager
def _blaming(database: Path) -> Iterator[None]:
    """Where SQLite fails, the database that is copied is what is wrong. Raises `Invalid`."""
    try:
        yield
    except apsw.Error as error:
        raise Invalid(f"{database} is damaged or was cut short ({error}): choose another backup") from None


async def copy(
    source: apsw.Connection, target: Path, bytes_a_second: float | None, progress: Callable[[int, int], None]
) -> None:
    """Copy a snapshot into an empty file, which is not synced.

    `bytes_a_second` bounds the pace (None: none); `progress` gets the bytes of each step and of the whole.
    Raises `Unavailable` if there is no room for it.
    """
    page_bytes = int(source.pragma("page_size"))
    descriptor = os.open(target, os.O_RDWR)
    try:
        with _exclusive(target) as copied:
            copied.pragma("synchronous", "off")
            copied.pragma("cache_size", -CACHE_KIBIBYTES)
            with copied.backup("main", source, "main") as steps:
                unsynced = 0
                while not steps.done:
                    began, before = time.monotonic(), steps.remaining
                    steps.step(STEP_BYTES // page_bytes)
                    done = STEP_BYTES if not before else (before - steps.remaining) * page_bytes
                    unsynced += done
                    if unsynced >= SYNC_BYTES:
                        os.fdatasync(descriptor)
                        unsynced = 0
                    progress(done, steps.page_count * page_bytes)
                    due = began + done / bytes_a_second if bytes_a_second else 0.0
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
            # One file, which can be read where nothing can be written; the server that uses it changes it back.
            copied.pragma("journal_mode", "delete")
    finally:
        os.close(descriptor)


async def examine(database: Path, *, gently: bool) -> tuple[list[str], int, int]:
    """(faults, spaces, entries) of a copy that nobody uses yet; see `checking.check`.

    `gently`: it rests half of the time.
    """
    with contextlib.closing(connections.for_reading(database)) as connection:
        if gently:
            connection.set_progress_handler(_rests(), CHECK_STEPS)
        examining = asyncio.ensure_future(asyncio.to_thread(_examine, connection))
        try:
            return await asyncio.shield(examining)
        except asyncio.CancelledError:
            connection.interrupt()
            await asyncio.wait([examining])
            raise


def _rests() -> Callable[[], bool]:
    """To be called again and again: sleeps for as long as there was work since the last time."""
    began = time.monotonic()

    def rest() -> bool:
        nonlocal began
        time.sleep(time.monotonic() - began)
        began = time.monotonic()
        return False

    return rest


def _examine(connection: apsw.Connection) -> tuple[list[str], int, int]:
    try:
        version = connection.pragma("user_version")
        if version != len(MIGRATIONS):
            return [f"it has schema version {version} instead of {len(MIGRATIONS)}"], 0, 0
        spaces, entries, _ = reading.totals(connection, wall_clock())
        return checking.check(connection), spaces, entries
    except apsw.Error as error:
        return [f"SQLite cannot read it: {error}"], 0, 0


def put_in_place(copied: Path, database: Path) -> None:
    """Make a synced copy the database, instead of the one that may be there.

    The copy comes with one rename. No log of the old database may be there then: SQLite would add it to the copy.
    Raises `Unavailable`, and changes nothing, if any program has the old one open; OSError.
    """
    lock = WritersLock(database)  # so that no server opens it meanwhile
    try:
        with lock:
            _fold(database)
            for suffix in ("-journal", "-wal", "-shm", "-cells"):
                database.with_name(database.name + suffix).unlink(missing_ok=True)
            copied.replace(database)
    finally:
        lock.close()


def _fold(database: Path) -> None:
    """Bring what is in the log into the file, so that an interruption leaves the old database whole."""
    if not database.exists():
        return
    if _is_open(database):
        raise _in_use(database)
    try:
        with contextlib.closing(apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
            connection.pragma("journal_mode", "delete")
    except apsw.BusyError:
        raise _in_use(database) from None
    except apsw.Error:
        pass  # it is damaged, which may be why another one takes its place


def _is_open(database: Path) -> bool:
    """Whether another process has a database open, which may be too damaged to be opened by this one."""
    try:
        shared = os.open(f"{database}-shm", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.lockf(shared, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, OPEN_LOCK_BYTE)
    except BlockingIOError:
        return True
    finally:
        os.close(shared)
    return False


def _in_use(database: Path) -> Unavailable:
    return Unavailable(
        f"another program has {database} open; nothing was changed: stop every server and command that uses it first"
    )


@contextlib.contextmanager
def _exclusive(database: Path) -> Iterator[apsw.Connection]:
    """A file that nobody else opens, which needs no shared memory beside it.

    Raises `Unavailable` if what is done with it fails because it cannot be written.
    """
    with contextlib.closing(apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
        connection.pragma("locking_mode", "exclusive")
        connection.pragma("journal_mode", "off")
        try:
            yield connection
        except apsw.Error as error:
            reason = _why_not_written(error, connection)
            if reason is None:
                raise
            raise Unavailable(f"{reason} ({database.parent}); nothing was changed, make room and try again") from None


def _why_not_written(error: apsw.Error, copied: apsw.Connection) -> str | None:
    """Why a copy could not be written; None: something else failed, such as reading what is copied."""
    if reason := failures.no_room(error, copied):
        return reason
    if getattr(error, "extendedresult", 0) in NOT_WRITTEN:
        return f"the disk cannot be written: {os.strerror(copied.system_errno)}"
    return None


def _open_closed(database: Path) -> apsw.Connection:
    """For reading; without locks and files beside it if it is alone."""
    uri = f"{database.absolute().as_uri()}?mode=ro{'&immutable=1' if _is_alone(database) else ''}"
    return apsw.Connection(uri, flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI)


def _is_alone(database: Path) -> bool:
    """Whether a database consists of one file."""
    beside = [database.with_name(database.name + suffix) for suffix in ("-wal", "-journal")]
    return not any(file.exists() and file.stat().st_size for file in beside)


def _is_short(database: Path, connection: apsw.Connection) -> bool:
    """Whether its file ends too early. SQLite itself takes a part of the last page for the whole."""
    bytes = int(connection.pragma("page_count")) * int(connection.pragma("page_size"))
    return _is_alone(database) and database.stat().st_size < bytes
