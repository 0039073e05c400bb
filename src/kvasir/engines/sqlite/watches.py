"""Watches of one process: sees in shared memory that there was a commit, and in the log what it changed.

For the event loop only. While nobody watches, nothing is logged and nothing here runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import apsw

from kvasir.engine import Clock
from kvasir.engines.sqlite import changelog
from kvasir.engines.sqlite.seqlocks import LOGGED
from kvasir.engines.sqlite.writer import Writer
from kvasir.engines.watching import Watcher, Watchers
from kvasir.errors import Unavailable
from kvasir.limits import Limits
from kvasir.model import KeyRange

#: How often it looks for commits of other processes.
POLL_SECONDS = 0.02
#: Commits of this process show at once, but not more often than this.
PAUSE_SECONDS = 0.004
#: How often it says that somebody watches, and looks whether something was not logged.
RENEW_SECONDS = 5.0
#: How long changes are logged once nobody says so any more: a watch that begins again soon needs them.
LEASE_SECONDS = 60.0


class Watches:
    """See `Engine.watch`. `writer`: of this process."""

    def __init__(self, connection: apsw.Connection, clock: Clock, limits: Limits, writer: Writer) -> None:
        self._connection = connection
        self._seqlocks = writer.seqlocks
        self._clock = clock
        self._writer = writer
        self._watchers = Watchers(limits)
        #: All up to this number has been told.
        self._position = 0
        self._seen = 0
        self._renewed = 0.0
        self._looked = 0.0
        self._poked = False
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._beginning = asyncio.Lock()

    async def watch(self, space: int, ranges: Sequence[KeyRange], since: int | None) -> Watcher:
        """See `Engine.watch`."""
        async with self._beginning:
            if self._timer is None:
                await self._begin()
        self._look()
        if since is None or since == self._position:
            return self._watchers.add(space, ranges, self._position)
        watcher = self._watchers.add(space, ranges, since)
        news = changelog.read(self._connection, since, self._watchers, self._clock(), until=self._position)
        if news.upto is None:
            watcher.miss(self._position)
        else:
            self._watchers.tell(news.changes, news.entries, news.upto, only=watcher)
        return watcher

    async def _begin(self) -> None:
        if self._seqlocks.watch(LEASE_SECONDS):
            # Once this is done, every writer has seen what was written to shared memory before.
            await self._writer.run(lambda _: None)
        self._renewed = time.monotonic()
        self._seen = self._seqlocks.counters[LOGGED]
        self._position = changelog.last_number(self._connection)
        self._timer = self._loop.call_later(POLL_SECONDS, self._poll)
        self._writer.on_resolved = self._resolved

    def _resolved(self, logged: tuple[changelog.Row, int] | None) -> None:
        """This process has committed something. What concerns nobody, nobody has to read."""
        if logged is not None:
            row, count = logged
            if row.since == self._position and not self._watchers.concerned(row.changes):
                self._position, self._seen = row.upto, count
            if row.upto <= self._position:
                return
        if self._timer is not None and not self._poked:
            self._poked = True
            self._timer.cancel()
            self._timer = self._loop.call_later(self._looked + PAUSE_SECONDS - time.monotonic(), self._poll)

    def _poll(self) -> None:
        self._poked = False
        if not self._watchers:
            self._timer = None
            self._writer.on_resolved = None
            return
        self._timer = self._loop.call_later(POLL_SECONDS, self._poll)
        now = time.monotonic()
        if now - self._renewed >= RENEW_SECONDS:
            self._renewed = now
            self._seqlocks.watch(LEASE_SECONDS)
        elif self._seqlocks.counters[LOGGED] == self._seen:
            return
        self._look()

    def _look(self) -> None:
        """Tell what has been committed since."""
        self._looked = time.monotonic()
        while True:
            seen = self._seqlocks.counters[LOGGED]
            try:
                news = changelog.read(self._connection, self._position, self._watchers, self._clock())
            except apsw.Error as error:
                self._watchers.end(Unavailable(f"the changes cannot be read ({error}); watch again"))
                return
            self._seen = seen
            if news.upto is None:
                for watcher in self._watchers.all():
                    watcher.miss(news.last)
                self._position = news.last
                return
            self._watchers.tell(news.changes, news.entries, news.upto)
            self._position = news.upto
            if news.upto >= news.last:
                return

    def __len__(self) -> int:
        return len(self._watchers)

    def close(self) -> None:
        """End every watch."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._watchers.end(Unavailable("the server is stopping; watch again"))
