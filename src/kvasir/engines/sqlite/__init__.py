"""The SQLite engine: one file in WAL mode, any number of processes on it.

Small reads run on the event loop and take microseconds; whatever may take longer runs in reader threads, each with its
own connection. Neither ever waits for the writer (see `writer`).
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import apsw

from kvasir.engine import Clock, Outcome, Waiter, Watch
from kvasir.engines.numbering import check_room, wall_clock
from kvasir.engines.sqlite import connection as connections
from kvasir.engines.sqlite import listing, reading, spaces, tree
from kvasir.engines.sqlite.checking import check
from kvasir.engines.sqlite.entry_cache import EntryCache
from kvasir.engines.sqlite.scanning import Scans
from kvasir.engines.sqlite.seqlocks import EPOCH
from kvasir.engines.sqlite.watches import Watches
from kvasir.engines.sqlite.writer import Writer, commit
from kvasir.errors import TooLarge, Unavailable
from kvasir.limits import Limits
from kvasir.model import (
    Alias,
    Children,
    Entry,
    Gauges,
    Joined,
    KeyRange,
    Page,
    Query,
    Space,
    Stats,
    Write,
    WriterStats,
)

T = TypeVar("T")

#: Threads for reads that may take long.
READERS = 2

#: More keys than this, or values with more bytes than this in all, are read in a thread.
MAX_NOWAIT_KEYS = 256
MAX_NOWAIT_BYTES = 1 << 20

#: Steps of SQLite's machine, a tenth of a microsecond each, after which it asks whether the caller has left.
INTERRUPTIBLE_STEPS = 20_000

STATS_SECONDS = 10.0


class SqliteEngine:
    """See `kvasir.engine.Engine`. `path` is the database file; its folder must exist.

    `commit` is a seam: tests plant the failure of a commit there.
    """

    write_nowait = None  # a commit waits for the disk

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock = wall_clock,
        durable: bool = True,
        limits: Limits | None = None,
        commit: Callable[[apsw.Connection], None] = commit,
    ) -> None:
        self._limits = limits = limits or Limits()
        # As SQLite does with links: the files that processes share beside the database must be the same by any path.
        path = path.resolve()
        self.writer = WriterStats()
        self._path = path
        self.clock = clock
        self._writes = Writer(
            path,
            clock,
            self.writer,
            durable=durable,
            queue_writes=limits.queue_writes,
            queue_bytes=limits.queue_bytes,
            commit=commit,
        )
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="kvasir-reader")
        self._reader_local = threading.local()
        #: Held until the event loop has taken what was read: else threads read on while it is busy, and fill memory.
        self._reading: asyncio.Semaphore
        self._read_connections: list[apsw.Connection] = []
        self._scans = Scans(path, clock, limits, self._in_executor)
        self._watches: Watches
        self._stats: tuple[float, Stats] | None = None
        self._epoch = -1
        #: The seqlock counter of the epoch when it was read; -1: read it again
        self._epoch_counter = -1
        self._counters: memoryview[int]
        self._cache: EntryCache
        #: For reads on the event loop
        self._connection: connections.ReadConnection
        self._cursor: apsw.Cursor

    async def open(self) -> None:
        try:
            self._writes.start()
        except (apsw.Error, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise Unavailable(f"the database {self._path} cannot be opened: {why}") from None
        self._reading = asyncio.Semaphore(READERS)
        self._connection = self._new_connection()
        self._cursor = self._connection.cursor()
        self._counters = self._writes.seqlocks.counters
        self._cache = EntryCache(self._writes.seqlocks)
        self._watches = Watches(self._new_connection(), self.clock, self._limits, self._writes)

    async def close(self) -> None:
        self._watches.close()
        self._scans.close()
        await self._writes.close()
        self._readers.shutdown()
        for connection in self._read_connections:
            connection.close()
        self._read_connections.clear()

    # -- entries ------------------------------------------------------------------------------------------

    async def get(self, space: int, keys: Sequence[bytes], max_bytes: int | None = None) -> list[Entry | None]:
        return await self._in_thread(lambda connection: reading.get(connection, space, keys, self.clock(), max_bytes))

    def get_nowait(self, space: int, keys: Sequence[bytes]) -> list[Entry | None] | None:
        if len(keys) == 1:
            return [self._get_one(space, keys[0])]
        return self._get_many(space, keys) if len(keys) <= MAX_NOWAIT_KEYS else None

    def write(self, writes: Sequence[Write]) -> Awaitable[list[Outcome]]:
        return self._writes.write(writes)  # a coroutine around it would cost every write

    def submit(self, writes: Sequence[Write], waiter: Waiter) -> None:
        self._writes.submit(writes, waiter)

    async def page(self, space: int, query: Query) -> Page:
        page = listing.page_nowait(self._connection, space, query, self.clock(), MAX_NOWAIT_BYTES)
        if page is not None:
            return page
        return await self._in_thread(lambda connection: listing.page(connection, space, query, self.clock()))

    async def count(self, space: int, range: KeyRange | None = None) -> int:
        return await self._in_thread(lambda connection: listing.count(connection, space, range, self.clock()))

    async def children(
        self, space: int, prefix: bytes, *, after: bytes | None = None, limit: int | None = None
    ) -> Children:
        return await self._in_thread(
            lambda connection: tree.children(connection, space, prefix, after, limit, self.clock())
        )

    async def scan(
        self, space: int, range: KeyRange | None = None, joined: bool = False, /
    ) -> AsyncGenerator[list[Entry] | Joined, None]:
        async with aclosing(self._scans.scan(space, range, joined)) as batches:
            async for batch in batches:
                yield batch

    async def watch(self, space: int, ranges: Sequence[KeyRange], since: int | None = None) -> Watch:
        return await self._watches.watch(space, ranges, since)

    async def load(self, space: int, entries: Sequence[Entry]) -> None:
        check_room(entries)
        await self._writes.run(lambda transaction: transaction.load(space, entries))

    # -- spaces -------------------------------------------------------------------------------------------

    async def create_space(self, space: Space, aliases: Sequence[Alias]) -> Space:
        return await self._writes.run(lambda transaction: transaction.create_space(space, aliases))

    async def resolve(self, alias: Alias) -> Space | None:
        return spaces.resolve(self._connection, alias, self.clock())

    async def get_space(self, id: str) -> Space | None:
        return spaces.by_id(self._connection, id, self.clock())

    async def aliases(self, id: str) -> list[Alias]:
        return spaces.aliases(self._connection, id, self.clock())

    async def alter_space(
        self, id: str, *, name: str | None = None, add: Sequence[Alias] = (), remove: Sequence[Alias] = ()
    ) -> Space | None:
        return await self._writes.run(lambda transaction: transaction.alter_space(id, name, add, remove))

    async def end_space(self, id: str) -> bool:
        return await self._writes.run(lambda transaction: transaction.end_space(id))

    async def list_spaces(
        self, *, organisation: str | None = None, kind: str | None = None, after: str = "", limit: int | None = None
    ) -> list[Space]:
        return await self._in_thread(
            lambda connection: spaces.list_spaces(connection, organisation, kind, after, limit, self.clock())
        )

    async def count_spaces(self, kind: str, organisation: str | None = None) -> tuple[int, int]:
        return await self._in_thread(
            lambda connection: spaces.count_spaces(connection, kind, organisation, self.clock())
        )

    # -- the whole ----------------------------------------------------------------------------------------

    async def epoch(self) -> int:
        return self.epoch_nowait()

    def epoch_nowait(self) -> int:
        counter = self._counters[EPOCH]
        if counter != self._epoch_counter:
            self._epoch = reading.epoch(self._cursor)
            # An odd counter means that a commit is under way: what was read now is true, but not for long.
            self._epoch_counter = counter if not counter & 1 else -1
        return self._epoch

    async def sweep(self) -> int:
        swept = await self._writes.run(self._writes.sweep)
        self.writer.swept += swept
        return swept

    async def check(self) -> list[str]:
        return await self._in_thread(check)

    async def milliseconds_ahead(self) -> int:
        return max(0, reading.latest(self._connection) - self.clock())

    async def stats(self) -> Stats:
        if self._stats is None or time.monotonic() - self._stats[0] > STATS_SECONDS:
            self._stats = time.monotonic(), await self._in_thread(self._measure)
        return self._stats[1]

    def gauges(self) -> Gauges:
        return Gauges(len(self._watches))

    # -- inside -------------------------------------------------------------------------------------------

    def _get_one(self, space: int, key: bytes) -> Entry | None:
        entry = self._cache.get(space, key, self.clock)
        if entry is not None:
            self.writer.cache_hits += 1
        else:
            self.writer.cache_misses += 1
            version = self._cache.version_before_read(space, key)
            entry = reading.get_one(self._cursor, space, key, self.clock())
            if entry is not None:
                self._cache.put(space, entry, version)
        return entry

    def _get_many(self, space: int, keys: Sequence[bytes]) -> list[Entry | None] | None:
        now = self.clock()
        entries = self._cache.get_all(space, keys, now)
        if entries is not None:
            self.writer.cache_hits += len(keys)
        else:
            self.writer.cache_misses += len(keys)
            versions = [self._cache.version_before_read(space, key) for key in keys]
            try:
                entries = reading.get(self._connection, space, keys, now, MAX_NOWAIT_BYTES)
            except TooLarge:
                return None
            for entry, version in zip(entries, versions, strict=True):
                if entry is not None:
                    self._cache.put(space, entry, version)
        return entries

    def _measure(self, connection: apsw.Connection) -> Stats:
        spaces, entries, expired = reading.totals(connection, self.clock())
        files = [self._path, self._path.with_name(self._path.name + "-wal")]
        size, log = [file.stat().st_size if file.exists() else 0 for file in files]
        disk = shutil.disk_usage(self._path.parent)
        return Stats(spaces, entries, size + log, expired, disk.free, disk.total, log)

    def _new_connection(self) -> connections.ReadConnection:
        connection = connections.for_reading(self._path)
        self._read_connections.append(connection)
        return connection

    async def _in_thread(self, read: Callable[[connections.ReadConnection], T]) -> T:
        """What `read` returns. If the caller is cancelled, it is interrupted, or does not even begin."""
        is_left = False
        async with self._reading:
            reading = self._in_executor(lambda: self._with_connection(read, lambda: is_left))
            try:
                return await reading
            except asyncio.CancelledError:
                is_left = True
                reading.add_done_callback(_ignore_failure)
                raise
            finally:
                del reading  # with a failure it would be a cycle, which keeps whatever its callers hold

    def _in_executor(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._readers, work)

    def _with_connection(self, read: Callable[[connections.ReadConnection], T], is_left: Callable[[], bool]) -> T:
        connection: Any = getattr(self._reader_local, "connection", None)
        if connection is None:
            connection = self._reader_local.connection = self._new_connection()
        connection.set_progress_handler(is_left, INTERRUPTIBLE_STEPS)
        connection.filter.is_left = is_left
        try:
            return read(connection)
        finally:
            connection.set_progress_handler(None)


def _ignore_failure(reading: asyncio.Future[Any]) -> None:
    """Nobody waits for it any more."""
    if not reading.cancelled():
        reading.exception()
