"""Scans: a read transaction each, whose snapshot lasts for as long as it is open, within bounds.

If it is asked to, SQLite joins many entries in one step, without the interpreter and beside the event loop; what it
cannot join is read entry by entry.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, TypeVar

import apsw

from kvasir.engine import Clock
from kvasir.engines.paging import SCAN_BYTES, snapshot_ended
from kvasir.engines.sqlite import connection as connections
from kvasir.engines.sqlite.listing import bounds
from kvasir.engines.sqlite.reading import ALIVE, ENTRY
from kvasir.limits import Limits, refused
from kvasir.model import Entry, Joined, KeyRange

T = TypeVar("T")

#: While scans are open: how long a thread waits for the interpreter's lock, behind each statement, while the event loop
#: is busy with what was read before. It is a quarter of the time of a scan with the interval that writes are best with.
SWITCH_SECONDS = 0.00002

#: How often the bounds are looked at.
CHECK_SECONDS = 0.5

#: Entries that are joined, and bytes of a text that may be among them.
JOINED, JOINED_BYTES = 1_000, 1_024

#: Rather fewer, so that they have about so many bytes: what is made of them fits into the caches of a processor, and
#: into blocks of memory that are used again. Of the first ones nobody knows how many bytes they have.
TEXT_BYTES = 128 << 10
FIRST = 250

#: Of pages
CACHE_KIBIBYTES = 512

#: So many batches are read together, and none more once they have so many bytes: to hand some over takes 0.2 ms.
TOGETHER, TOGETHER_BYTES = 24, 2 * SCAN_BYTES

FROM = "FROM entry INDEXED BY entry_key WHERE space = :space AND key >= :start"

SCAN = f"SELECT {ENTRY} {FROM} AND key < :end AND {ALIVE} ORDER BY key LIMIT :limit"

#: Entries as `Joined` has them, with the key that the next ones begin at, and whether any value or metadata is too
#: long; that is left out of its column, so that such a batch is of no use. To join columns costs less than to join the
#: fields of each row, and to look for the end beforehand less than a LIMIT around the rows.
BATCH = f"""
    WITH bound AS MATERIALIZED (
        SELECT ifnull((SELECT key {FROM} AND key < :end ORDER BY key LIMIT 1 OFFSET :limit), :end) AS key
    )
    SELECT count(*), (SELECT key FROM bound), max(length(value) > {JOINED_BYTES} OR length(metadata) > {JOINED_BYTES}),
        CAST(group_concat(key, x'7f') AS BLOB),
        CAST(group_concat(iif(length(value) > {JOINED_BYTES}, NULL, value), x'1e') AS BLOB),
        CAST(group_concat(
            iif(expires_at IS NULL AND refresh IS NULL AND metadata IS NULL, created_at,
                iif(length(metadata) > {JOINED_BYTES}, NULL,
                    concat(created_at, ',', expires_at, ',', refresh, ',', metadata))),
            x'ff') AS BLOB),
        CAST(group_concat(versionstamp) AS BLOB)
    {FROM} AND key < (SELECT key FROM bound) AND {ALIVE}"""  # noqa: S608

DEL = b"\x7f"

Run = Callable[[Callable[[], T]], asyncio.Future[T]]


class Scans:
    """The open scans of one process. `run` calls a function in a thread that may wait for the disk."""

    def __init__(self, path: Path, clock: Clock, limits: Limits, run: Run[Any]) -> None:
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._clock = clock
        self._limits = limits
        self._run = run
        self._open: set[_Scan] = set()
        self._usual_switch_seconds = sys.getswitchinterval()

    async def scan(
        self, space: int, key_range: KeyRange | None, joined: bool
    ) -> AsyncGenerator[list[Entry] | Joined, None]:
        """See `Engine.scan`. Some batches are read ahead, and together, since each call of a thread costs its time."""
        if len(self._open) >= self._limits.snapshots:
            refused("snapshots")
            raise snapshot_ended("too many are open in this process")
        scan = _Scan(self._path, space, key_range, joined, self._clock())
        if not self._open:
            self._usual_switch_seconds = sys.getswitchinterval()
            sys.setswitchinterval(SWITCH_SECONDS)
        self._open.add(scan)
        timer = asyncio.ensure_future(self._limit(scan))
        ahead = self._run(scan.batches)
        try:
            while batches := await ahead:
                ahead = self._run(scan.batches)
                # So that the thread begins before whoever takes these is busy with them.
                await asyncio.sleep(0)
                for batch in batches:
                    yield batch
        finally:
            timer.cancel()
            self._open.discard(scan)
            if not self._open:
                sys.setswitchinterval(self._usual_switch_seconds)
            scan.end("it was closed")
            ahead.add_done_callback(_ignore_failure)

    async def _limit(self, scan: _Scan) -> None:
        began, size = time.monotonic(), self._log_bytes()
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if time.monotonic() - began > self._limits.snapshot_seconds:
                scan.end(f"it was held for more than {self._limits.snapshot_seconds:g} seconds")
            elif self._log_bytes() - size > self._limits.snapshot_log_bytes:
                scan.end(f"more than {self._limits.snapshot_log_bytes:,} bytes were written meanwhile")

    def _log_bytes(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    def close(self) -> None:
        """End them all."""
        for scan in list(self._open):
            scan.end("the server is stopping")


class _Scan:
    """A connection of its own with a transaction. `batches` and `end` may be called from different threads."""

    def __init__(self, path: Path, space: int, key_range: KeyRange | None, joined: bool, now: int) -> None:
        start, end = bounds(key_range)
        self._path = path
        self._joined = joined
        #: Whether some of those that were read one by one are too long to be joined.
        self._apart = False
        #: Of the statements; `start` moves behind what has been read.
        self._values: dict[str, Any] = {"space": space, "start": start, "end": end, "now": now, "limit": FIRST}
        self._connection: apsw.Connection | None = None
        self._ended: str | None = None
        self._lock = threading.Lock()

    def batches(self) -> list[list[Entry] | Joined]:
        """The next entries; none at the end."""
        try:
            with self._lock:
                if self._ended is not None:
                    raise snapshot_ended(self._ended)
                if self._connection is None:
                    self._connection = connections.for_reading(self._path)
                    # Every page is read once: to copy it costs less than to have the system map it, and to copy it
                    # to where the processor has just been, still less.
                    self._connection.pragma("mmap_size", 0)
                    self._connection.pragma("cache_size", -CACHE_KIBIBYTES)
                    self._connection.execute("BEGIN")
                found: list[list[Entry] | Joined] = []
                size = 0
                while len(found) < TOGETHER and size < TOGETHER_BYTES and (batch := self._read(self._connection)):
                    found.append(batch)
                    size += _size(batch)
                return found
        finally:
            if self._ended is not None:
                self.end(self._ended)

    def _read(self, connection: apsw.Connection) -> list[Entry] | Joined | None:
        if not self._joined or self._apart:
            return self._entries(connection)
        values = self._values
        while values["start"] < values["end"]:
            if self._ended is not None:
                raise snapshot_ended(self._ended)
            # There is no other row to ask for: each step gives up the interpreter's lock, and has to get it back.
            count, upto, long, keys, *others = next(connection.execute(BATCH, values))
            if long or (count and keys.count(DEL) != count - 1):
                values["limit"] = FIRST
                return self._entries(connection)
            if count:
                batch = Joined(count, keys, *others)
                size = _size(batch)
                values["limit"] = min(JOINED, TEXT_BYTES * count // size + 1)
                if size > TEXT_BYTES * 4 and count > 1:
                    continue  # too much at a time: as many again as fit, from the same start
                values["start"] = upto
                return batch
            values["start"] = upto
        return None

    def _entries(self, connection: apsw.Connection) -> list[Entry]:
        entries: list[Entry] = []
        size = 0
        row: Any
        cursor = connection.execute(SCAN, self._values)
        for row in cursor:
            entries.append(Entry(*row))
            size += len(row[1])
            if size >= SCAN_BYTES:
                break
        cursor.close(True)
        if entries:
            self._values["start"] = entries[-1].key + b"\x00"
        # To try again to join them would be to read all of this, and more, a second time.
        self._apart = self._joined and any(
            max(len(each.value), len(each.metadata or b"")) > JOINED_BYTES for each in entries
        )
        return entries

    def end(self, why: str) -> None:
        """Let go of the snapshot. While a batch is being read, that lets go of it."""
        self._ended = self._ended or why
        if self._lock.acquire(blocking=False):
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close(True)
            self._lock.release()


def _size(batch: list[Entry] | Joined) -> int:
    """What a batch weighs in bytes; one of entries is not added to others."""
    return len(batch.keys) + len(batch.values) + len(batch.facts) if isinstance(batch, Joined) else TOGETHER_BYTES


def _ignore_failure(reading: asyncio.Future[Any]) -> None:
    """Nobody waits for it any more."""
    if not reading.cancelled():
        reading.exception()
