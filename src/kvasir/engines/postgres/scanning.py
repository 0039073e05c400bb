"""Scans: pages in key order within one transaction that sees one instant, for a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from msgspec.structs import replace

from kvasir.engines.paging import SCAN_BYTES, SCAN_ENTRIES, snapshot_ended
from kvasir.engines.postgres import failures
from kvasir.engines.postgres.listing import in_key_order
from kvasir.engines.postgres.pool import Pool
from kvasir.errors import KvasirError
from kvasir.limits import Limits, refused
from kvasir.model import Entry, KeyRange, Query

NOW = "select coalesce($1::bigint, kvasir_time())"


class Scans:
    """The open scans of one process."""

    def __init__(self, pool: Pool, now: Callable[[], int | None], limits: Limits) -> None:
        self._pool = pool
        self._now = now
        self._limits = limits
        self._open: set[_Scan] = set()

    async def scan(self, space: int, key_range: KeyRange | None) -> AsyncGenerator[list[Entry], None]:
        """See `Engine.scan`. Each has a connection outside the pool: nobody else waits for it."""
        if len(self._open) >= self._limits.snapshots:
            refused("snapshots")
            raise snapshot_ended("too many are open in this process")
        scan = _Scan()
        self._open.add(scan)
        seconds = self._limits.snapshot_seconds
        timer = asyncio.get_running_loop().call_later(
            seconds, scan.end, f"it was held for more than {seconds:g} seconds"
        )
        query = Query(range=key_range, order="key", limit=SCAN_ENTRIES, max_bytes=SCAN_BYTES)
        try:
            async with self._pool.dedicated() as connection:
                scan.connection = connection
                async with self._pool.snapshot(connection):
                    now = await connection.fetchval(NOW, self._now())
                    while True:
                        page = await in_key_order(self._pool, connection, space, query, now)
                        if page.entries:
                            yield page.entries
                        if not page.more:
                            return
                        query = replace(query, after=page.entries[-1].key)
        except Exception as error:
            raise scan.failure(error) from None
        finally:
            timer.cancel()
            self._open.discard(scan)

    def close(self) -> None:
        """End them all."""
        for scan in list(self._open):
            scan.end("the server is stopping")


class _Scan:
    """One connection, until it is taken away."""

    def __init__(self) -> None:
        self.connection: Any = None
        self._ended: str | None = None

    def failure(self, error: Exception) -> KvasirError:
        """What the reader is told of an error."""
        return failures.failed_reading(error) if self._ended is None else snapshot_ended(self._ended)

    def end(self, why: str) -> None:
        """Let go of the snapshot."""
        self._ended = self._ended or why
        if self.connection is not None:
            self.connection.terminate()
