"""Scans: one statement each, whose snapshot lasts for as long as it is open, within bounds."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import apsw

from kvasir.engine import Clock
from kvasir.engines.paging import SCAN_BYTES, SCAN_ENTRIES, snapshot_ended
from kvasir.engines.sqlite import connection as connections
from kvasir.engines.sqlite.listing import END
from kvasir.engines.sqlite.reading import ALIVE, ENTRY
from kvasir.limits import Limits, refused
from kvasir.model import Entry, KeyRange

T = TypeVar("T")

#: How often the bounds are looked at.
CHECK_SECONDS = 0.5

SCAN = f"""
    SELECT {ENTRY} FROM entry INDEXED BY entry_key
    WHERE space = :space AND key >= :start AND key < :end AND {ALIVE} ORDER BY key"""  # noqa: S608

Run = Callable[[Callable[[], T]], Awaitable[T]]


class Scans:
    """The open scans of one process. `run` calls a function in a thread that may wait for the disk."""

    def __init__(self, path: Path, clock: Clock, limits: Limits, run: Run[Any]) -> None:
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._clock = clock
        self._limits = limits
        self._run = run
        self._open: set[_Scan] = set()

    async def scan(self, space: int, key_range: KeyRange | None) -> AsyncGenerator[list[Entry], None]:
        """See `Engine.scan`."""
        if len(self._open) >= self._limits.snapshots:
            refused("snapshots")
            raise snapshot_ended("too many are open in this process")
        start, end = (b"", END) if key_range is None else (key_range.start, key_range.end)
        scan = _Scan(self._path, {"space": space, "start": start, "end": end, "now": self._clock()})
        self._open.add(scan)
        timer = asyncio.ensure_future(self._limit(scan))
        try:
            while batch := await self._run(scan.batch):
                yield batch
        finally:
            timer.cancel()
            self._open.discard(scan)
            scan.end("it was closed")

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
    """A connection of its own with one statement under way. `batch` and `end` may be called from different threads."""

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self._path = path
        self._values = values
        self._connection: apsw.Connection | None = None
        self._cursor: apsw.Cursor
        self._ended: str | None = None
        self._lock = threading.Lock()

    def batch(self) -> list[Entry]:
        """The next entries; none at the end."""
        with self._lock:
            if self._ended is not None:
                raise snapshot_ended(self._ended)
            if self._connection is None:
                self._connection = connections.for_reading(self._path)
                self._cursor = self._connection.execute(SCAN, self._values)
            entries: list[Entry] = []
            size = 0
            row: Any
            for row in islice(self._cursor, SCAN_ENTRIES):
                entries.append(Entry(*row))
                size += len(row[1])
                if size >= SCAN_BYTES:
                    break
            return entries

    def end(self, why: str) -> None:
        """Let go of the snapshot. While a batch is being read this has to be called again."""
        self._ended = self._ended or why
        if self._lock.acquire(blocking=False):
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close(True)
            self._lock.release()
