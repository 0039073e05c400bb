"""Watches of one process: asks what the last numbers of the watched spaces are, and the log what has changed.

One question for all spaces, some twenty times a second and after each commit of this process that somebody here has to
be told. Nothing is kept in a session, so it works behind any pooler. While nobody watches, nothing is logged and
nothing is asked.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

from kvasir.engines.commit_queue import Job
from kvasir.engines.postgres import changelog, failures
from kvasir.engines.postgres.pool import Pool
from kvasir.engines.postgres.read_batcher import ReadBatcher
from kvasir.engines.postgres.writing import Writer
from kvasir.engines.watching import TOLD_BYTES, Logged, Watcher, Watchers
from kvasir.errors import KvasirError, TooLarge, Unavailable, space_gone
from kvasir.limits import Limits
from kvasir.model import Commit, DeleteRange, Entry, KeyRange

#: How often it looks for commits of other processes.
POLL_SECONDS = 0.05
#: Commits of this process show at once, but not more often than this.
PAUSE_SECONDS = 0.02
#: How often it says that a space is watched.
RENEW_SECONDS = 15.0
#: A watch that begins again further back than this is told that it missed something.
REPLAY_ROWS, REPLAY_BYTES = 2_000, 4 << 20
#: So many commits of this process are remembered as nobody's; of earlier ones, what they changed is read like others'.
PASSED = 1_000


class Watches:
    """See `Engine.watch`. `writer`: of this process."""

    def __init__(
        self, pool: Pool, now: Callable[[], int | None], limits: Limits, writer: Writer, reads: ReadBatcher
    ) -> None:
        self._pool = pool
        self._now = now
        self._writer = writer
        self._reads = reads
        self._watchers = Watchers(limits)
        #: By space, up to where all has been told
        self._positions: dict[int, int] = {}
        #: By space, a versionstamp of each later commit of this process that nobody has to be told
        self._passed: defaultdict[int, deque[int]] = defaultdict(lambda: deque(maxlen=PASSED))
        self._renewed: dict[int, float] = {}
        self._beginning = asyncio.Lock()
        self._looking = asyncio.Lock()
        self._poked: asyncio.Event
        self._task: asyncio.Task[None] | None = None

    async def watch(self, space: int, ranges: Sequence[KeyRange], since: int | None) -> Watcher:
        """See `Engine.watch`."""
        async with self._beginning:
            if space not in self._positions:
                self._positions[space] = await self._begin(space)
            async with self._looking:
                watcher = await self._added(space, ranges, since)
            if self._task is None:
                self._poked = asyncio.Event()
                self._writer.on_resolved = self._resolved
                self._task = asyncio.create_task(self._run())
        return watcher

    async def _begin(self, space: int) -> int:
        """Have a space's writes logged; its last number before."""
        ((last,),) = await self._pool.write_of(changelog.WATCH, space, self._now())
        if last is None:
            raise space_gone()
        self._renewed[space] = time.monotonic()
        return int(last)

    def _resolved(self, space: int, group: list[Job]) -> None:
        """This process has committed something. What concerns nobody, nobody has to read."""
        if space not in self._positions:
            return
        watching = self._watchers.watching
        for job in group:
            for write in job.writes:
                for mutation in write.mutations:
                    if isinstance(mutation, DeleteRange) or watching(space, mutation.key):
                        self._poked.set()
                        return
        # The last, since an earlier one may have been overwritten in the same transaction, and not be in the log.
        for job in reversed(group):
            for outcome in reversed(job.result or ()):
                if isinstance(outcome, Commit):
                    self._passed[space].append(outcome.versionstamp)
                    return

    async def _added(self, space: int, ranges: Sequence[KeyRange], since: int | None) -> Watcher:
        # What nobody had to be told may be something for this one.
        self._passed.pop(space, None)
        if since is None or since == self._positions[space]:
            return self._watchers.add(space, ranges, self._positions[space])
        watcher = self._watchers.add(space, ranges, since)
        try:
            await self._tell(space)
            await self._replay(watcher, space, since)
        except BaseException:
            watcher.close()
            raise
        return watcher

    async def _replay(self, watcher: Watcher, space: int, since: int) -> None:
        """Tell a watch what the others have been told since."""
        position, until, room = since, self._positions[space], REPLAY_BYTES
        changes: list[Logged] = []
        for _ in range(REPLAY_ROWS // changelog.ROWS):
            news = await changelog.read(self._pool, self._watchers, space, position, room)
            room -= news.bytes
            if news.upto is None or room < 0:
                break
            changes += [change for change in news.changes if change[2] <= until]
            position = news.upto
            if position >= until:
                entries = await self._entries(changes)
                if entries is not None:
                    self._watchers.tell(changes, entries, until, only=watcher)
                    return
                break
        watcher.miss(until)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        has_committed = False
        while self._watchers:
            began = time.monotonic()
            self._poked.clear()
            try:
                await self._renew()
                await self._look(has_committed=has_committed)
            except KvasirError as error:
                failures.log.debug("watches have to wait: %s", error.message)
            except Exception as error:  # a bug here must not leave those who watch in silence
                failures.log.exception("changes could not be told")
                self._watchers.end(KvasirError(f"the server failed to tell changes: {type(error).__name__}"))
            await asyncio.sleep(max(0.0, PAUSE_SECONDS - (time.monotonic() - began)) if self._poked.is_set() else 0)
            timer = loop.call_later(POLL_SECONDS, self._poked.set)
            await self._poked.wait()
            has_committed = loop.time() < timer.when()
            timer.cancel()
        self._task = None
        self._writer.on_resolved = None
        self._positions.clear()
        self._passed.clear()
        self._renewed.clear()

    async def _renew(self) -> None:
        now = time.monotonic()
        for space in self._watchers.spaces:
            if now - self._renewed.get(space, 0.0) >= RENEW_SECONDS:
                await self._pool.write_of(changelog.WATCH, space, self._now())
                self._renewed[space] = now

    async def _look(self, *, has_committed: bool) -> None:
        """Tell what has been committed since."""
        async with self._looking:
            watched = self._watchers.spaces
            for space in self._positions.keys() - set(watched):
                del self._positions[space]
                self._passed.pop(space, None)
                self._renewed.pop(space, None)
            if has_committed and len(watched) == 1:
                await self._tell(watched[0])  # probably there: its log has its last number, too
                return
            found = await changelog.last(self._pool, watched)
            for space in watched:
                if space not in found:
                    self._fail(space)
                elif found[space] != self._positions.get(space):
                    await self._tell(space)

    def _fail(self, space: int) -> None:
        for watcher in self._watchers.of(space):
            watcher.fail(space_gone())

    async def _tell(self, space: int) -> None:
        while space in self._positions:
            position = self._positions[space]
            passed = self._passed[space]
            news = await changelog.read(self._pool, self._watchers, space, position, changelog.READ_BYTES, passed)
            if news.last is None:
                self._fail(space)
                return
            entries = None if news.upto is None else await self._entries(news.changes)
            if news.upto is None or entries is None:
                self._positions[space] = news.last
                for watcher in self._watchers.of(space):
                    watcher.miss(news.last)
                return
            self._watchers.tell(news.changes, entries, news.upto)
            self._positions[space] = news.upto
            while passed and passed[0] <= news.upto:
                passed.popleft()
            if news.upto == news.last:
                return

    async def _entries(self, changes: Sequence[Logged]) -> dict[tuple[int, bytes], Entry] | None:
        """The living entries of the watched keys among these; None if their values are too large."""
        entries: dict[tuple[int, bytes], Entry] = {}
        try:
            for space, keys in self._watchers.wanted(changes).items():
                for entry in await self._reads.get(space, list(keys), TOLD_BYTES):
                    if entry is not None:
                        entries[space, entry.key] = entry
        except TooLarge:
            return None
        return entries

    def __len__(self) -> int:
        return len(self._watchers)

    async def close(self) -> None:
        """End every watch."""
        self._watchers.end(Unavailable("the server is stopping; watch again"))
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
