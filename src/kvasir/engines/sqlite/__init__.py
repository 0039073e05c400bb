"""The SQLite engine: one file in WAL mode, any number of processes on it.

Small reads run on the event loop, which they hold for microseconds; everything that may take longer runs in reader
threads with connections of their own. Neither ever waits for the writer (see `writer`).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import apsw

from kvasir.engine import Clock, Outcome
from kvasir.engines.numbering import check_room, wall_clock
from kvasir.engines.sqlite import connection as connections
from kvasir.engines.sqlite import reading
from kvasir.engines.sqlite.cells import EPOCH
from kvasir.engines.sqlite.checking import check
from kvasir.engines.sqlite.recent import RecentEntries
from kvasir.engines.sqlite.writer import Writer
from kvasir.errors import TooLarge, Unavailable
from kvasir.limits import Limits
from kvasir.model import Alias, Entry, KeyRange, Page, Query, Space, Stats, Write, WriterStats

T = TypeVar("T")

#: Threads for reads that may take longer than a moment.
READERS = 2

#: More keys than this are read in a thread.
KEYS_ON_THE_LOOP = 256
#: And so are values that are longer together.
BYTES_ON_THE_LOOP = 1 << 20

STATS_SECONDS = 10.0


class SqliteEngine:
    """See `kvasir.engine.Engine`. `path` is the database file; its folder must exist."""

    write_nowait = None  # a commit waits for the disk

    def __init__(
        self, path: Path, *, clock: Clock = wall_clock, durable: bool = True, limits: Limits | None = None
    ) -> None:
        limits = limits or Limits()
        # As SQLite does with links: what processes share beside the file must be the same by whatever path they came.
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
        )
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="kvasir-reader")
        self._of_thread = threading.local()
        self._opened: list[apsw.Connection] = []
        self._stats: tuple[float, Stats] | None = None
        self._seen = -1
        self._epoch = -1
        self._numbers: memoryview[int]
        self._recent: RecentEntries
        self._here: apsw.Connection
        self._cursor: apsw.Cursor

    async def open(self) -> None:
        try:
            self._writes.start()
        except apsw.Error as error:
            raise Unavailable(f"the database {self._path} cannot be opened: {error}") from None
        self._here = self._new_connection()
        self._cursor = self._here.cursor()
        self._numbers = self._writes.cells.numbers
        self._recent = RecentEntries(self._writes.cells)

    async def close(self) -> None:
        await self._writes.close()
        self._readers.shutdown()
        for connection in self._opened:
            connection.close()
        self._opened.clear()

    # -- entries ------------------------------------------------------------------------------------------

    async def get(self, space: int, keys: Sequence[bytes], max_bytes: int | None = None) -> list[Entry | None]:
        return await self._in_thread(lambda connection: reading.get(connection, space, keys, self.clock(), max_bytes))

    def get_nowait(self, space: int, keys: Sequence[bytes]) -> list[Entry | None] | None:
        if len(keys) == 1:
            return [self._get_one(space, keys[0])]
        return self._get_some(space, keys) if len(keys) <= KEYS_ON_THE_LOOP else None

    def write(self, writes: Sequence[Write]) -> Awaitable[list[Outcome]]:
        return self._writes.submit(writes)  # a coroutine around it would cost every write

    async def page(self, space: int, query: Query) -> Page:
        page = reading.quick_page(self._here, space, query, self.clock(), BYTES_ON_THE_LOOP)
        if page is not None:
            return page
        return await self._in_thread(lambda connection: reading.page(connection, space, query, self.clock()))

    async def count(self, space: int, range: KeyRange | None = None) -> int:
        return await self._in_thread(lambda connection: reading.count(connection, space, range, self.clock()))

    async def load(self, space: int, entries: Sequence[Entry]) -> None:
        check_room(entries)
        await self._writes.run(lambda transaction: transaction.load(space, entries))

    # -- spaces -------------------------------------------------------------------------------------------

    async def create_space(self, space: Space, aliases: Sequence[Alias]) -> Space:
        return await self._writes.run(lambda transaction: transaction.create_space(space, aliases))

    async def resolve(self, alias: Alias) -> Space | None:
        return reading.resolve(self._here, alias, self.clock())

    async def get_space(self, id: str) -> Space | None:
        return reading.space_by_id(self._here, id, self.clock())

    async def aliases(self, id: str) -> list[Alias]:
        return reading.aliases(self._here, id, self.clock())

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
            lambda connection: reading.spaces(connection, organisation, kind, after, limit, self.clock())
        )

    async def count_spaces(self, kind: str, organisation: str | None = None) -> tuple[int, int]:
        return await self._in_thread(
            lambda connection: reading.count_spaces(connection, kind, organisation, self.clock())
        )

    # -- the whole ----------------------------------------------------------------------------------------

    async def epoch(self) -> int:
        return self.epoch_nowait()

    def epoch_nowait(self) -> int:
        seen = self._numbers[EPOCH]
        if seen != self._seen:
            self._epoch = reading.epoch(self._cursor)
            # An odd number says that a commit is under way: what was read now is true, but not for long.
            self._seen = seen if not seen & 1 else -1
        return self._epoch

    async def sweep(self) -> int:
        swept = await self._writes.run(self._writes.sweep)
        self.writer.swept += swept
        return swept

    async def check(self) -> list[str]:
        return await self._in_thread(check)

    async def stats(self) -> Stats:
        if self._stats is None or time.monotonic() - self._stats[0] > STATS_SECONDS:
            self._stats = time.monotonic(), await self._in_thread(self._measure)
        return self._stats[1]

    def _get_one(self, space: int, key: bytes) -> Entry | None:
        now = self.clock()
        entry = self._recent.get(space, key, now)
        if entry is None:
            before = self._recent.before_reading(space, key)
            entry = reading.get_one(self._cursor, space, key, now)
            if entry is not None:
                self._recent.keep(space, entry, before)
        return entry

    def _get_some(self, space: int, keys: Sequence[bytes]) -> list[Entry | None] | None:
        now = self.clock()
        entries = self._recent.get_all(space, keys, now)
        if entries is None:
            before = [self._recent.before_reading(space, key) for key in keys]
            try:
                entries = reading.get(self._here, space, keys, now, BYTES_ON_THE_LOOP)
            except TooLarge:
                return None
            for entry, state in zip(entries, before, strict=True):
                if entry is not None:
                    self._recent.keep(space, entry, state)
        return entries

    # -- inside -------------------------------------------------------------------------------------------

    def _measure(self, connection: apsw.Connection) -> Stats:
        spaces, entries = reading.totals(connection)
        files = [self._path, self._path.with_name(self._path.name + "-wal")]
        return Stats(spaces, entries, sum(file.stat().st_size for file in files if file.exists()))

    def _new_connection(self) -> apsw.Connection:
        connection = connections.for_reading(self._path)
        self._opened.append(connection)
        return connection

    async def _in_thread(self, read: Callable[[apsw.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._with_connection, read)

    def _with_connection(self, read: Callable[[apsw.Connection], T]) -> T:
        connection: Any = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = self._of_thread.connection = self._new_connection()
        return read(connection)
