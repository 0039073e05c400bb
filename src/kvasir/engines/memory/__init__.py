"""The memory engine: plain dictionaries, no durability. It defines what is correct; the others must agree with it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Sequence

import msgspec

from kvasir import jsontext
from kvasir.engine import Clock, Outcome, Waiter
from kvasir.engines.integers import incremented
from kvasir.engines.memory import views
from kvasir.engines.numbering import check_room, next_sequence, wall_clock
from kvasir.engines.paging import size_of, within_bytes
from kvasir.engines.watching import DELETE, EXPIRY, RANGE, SET, Logged, Watcher, Watchers
from kvasir.errors import KvasirError, response_too_long, space_gone
from kvasir.keys import millisecond_of
from kvasir.limits import Limits
from kvasir.model import (
    SYSTEM_SPACE,
    Alias,
    Children,
    Commit,
    Conflict,
    Delete,
    DeleteRange,
    Entry,
    Gauges,
    Increment,
    KeyRange,
    Mutation,
    Page,
    Query,
    Set,
    Space,
    Stats,
    Write,
    WriterStats,
)

#: Changes that a watch which begins again can be told, since the first watch began.
LOGGED = 10_000


class MemoryEngine:
    """See `kvasir.engine.Engine`."""

    def __init__(self, clock: Clock = wall_clock, limits: Limits | None = None) -> None:
        self.writer = WriterStats()
        self.clock = clock
        self._spaces: dict[str, Space] = {}
        self._aliases: dict[Alias, str] = {}
        self._entries = {SYSTEM_SPACE: views.Entries()}
        self._numbers: dict[int, str] = {}
        self._last = 0
        self._epoch = 0
        #: The latest `created_at` given
        self._latest = 0
        self._watchers = Watchers(limits or Limits())
        #: None until somebody has watched
        self._log: deque[Logged] | None = None
        #: All that was committed after this is in the log.
        self._log_from = 0
        #: What the present write has done
        self._done: list[Logged] = []

    async def open(self) -> None: ...
    async def close(self) -> None: ...

    # -- entries ------------------------------------------------------------------------------------------

    async def get(self, space: int, keys: Sequence[bytes], max_bytes: int | None = None) -> list[Entry | None]:
        entries = MemoryEngine.get_nowait(self, space, keys)  # also where a subclass says to wait
        if max_bytes is not None and sum(len(entry.value) for entry in set(entries) if entry) > max_bytes:
            raise response_too_long(max_bytes)
        return entries

    def get_nowait(self, space: int, keys: Sequence[bytes]) -> list[Entry | None]:
        now = self.now(space)
        entries = self._entries[space] if self._alive(space) else {}
        return [views.living(entries, key, now) for key in keys]

    async def write(self, writes: Sequence[Write]) -> list[Outcome]:
        return self._write_all(writes)

    def submit(self, writes: Sequence[Write], waiter: Waiter) -> None:
        waiter.set_result(self._write_all(writes))

    def write_nowait(self, writes: Sequence[Write]) -> list[Outcome]:
        return self._write_all(writes)

    def _write_all(self, writes: Sequence[Write]) -> list[Outcome]:
        self.writer.groups.observe(len(writes))
        outcomes = self._stamped(writes)
        if self._done:
            self._tell()
        return outcomes

    def _stamped(self, writes: Sequence[Write]) -> list[Outcome]:
        stamp = self._next(SYSTEM_SPACE, self.clock())
        return [self._write(write, stamp) for write in writes]

    def _write(self, write: Write, stamp: int) -> Outcome:
        now = self.now(write.space)
        if not self._alive(write.space):
            return space_gone()
        entries = self._entries[write.space]
        if unmet := views.all_unmet(entries, write, now):
            return Conflict(tuple(unmet))
        # Only an increment can be refused, when mutations before it have already been carried out.
        undoable = len(write.mutations) > 1 and any(each.__class__ is Increment for each in write.mutations)
        before, done = entries.copy() if undoable else entries, len(self._done)
        try:
            counts = tuple([self._mutate(write.space, entries, each, stamp, now) for each in write.mutations])
        except KvasirError as refusal:
            self._entries[write.space] = before
            del self._done[done:]
            return refusal
        if write.space == SYSTEM_SPACE:
            self._epoch += 1
        return Commit(stamp, counts)

    def _mutate(self, space: int, entries: views.Entries, mutation: Mutation, stamp: int, now: int) -> int:
        if isinstance(mutation, Set):
            old = views.living(entries, mutation.key, now)
            if old is None:
                entries.reorder()
            entries[mutation.key] = self._new_entry(space, mutation, old, stamp, now)
            if self._log is not None:
                self._did(SET, space, stamp, mutation.key)
            return 1 if old else 0
        if isinstance(mutation, DeleteRange):
            doomed = [key for key in entries if views.in_range(key, mutation.range)]
            count = sum(1 for key in doomed if views.living(entries, key, now))
            for key in doomed:
                del entries[key]
            if count:
                start, end = views.bounds(mutation.range)
                self._did(RANGE, space, stamp, start, end)
            return count
        old = views.living(entries, mutation.key, now)
        if isinstance(mutation, Increment):
            total = incremented(old.value if old else None, mutation.delta, mutation.initial)
            counted = Set(mutation.key, b"%d" % total, None, None, mutation.expires_at, False, True, True)
            self._mutate(space, entries, counted, stamp, now)
            return total
        if isinstance(mutation, Delete):
            entries.discard(mutation.key)
            if old:
                self._did(DELETE, space, stamp, mutation.key)
        elif old and not (mutation.extend and views.not_later(mutation.expires_at, old.expires_at)):
            entries[mutation.key] = msgspec.structs.replace(old, expires_at=mutation.expires_at)
            self._did(EXPIRY, space, stamp, mutation.key)
        return 1 if old else 0

    def _did(self, kind: int, space: int, stamp: int, key: bytes, end: bytes | None = None) -> None:
        if self._log is not None:
            self._done.append((kind, space, stamp, key, end))

    def _new_entry(self, space: int, mutation: Set, old: Entry | None, stamp: int, now: int) -> Entry:
        """The entry a Set leaves behind."""
        if old:
            sequence, created_at = old.sequence, old.created_at
        else:
            created_at, sequence = self._created_at(space, now), self._next(space, now)
        expires_at = mutation.expires_at if mutation.ttl is None else now + mutation.ttl
        refresh = expires_at - now if mutation.refresh and expires_at is not None else None
        if old and mutation.keep_expiry:
            expires_at, refresh = old.expires_at, old.refresh
        metadata = old.metadata if old and mutation.keep_metadata else mutation.metadata
        return Entry(mutation.key, mutation.value, stamp, sequence, created_at, expires_at, refresh, metadata)

    async def page(self, space: int, query: Query) -> Page:
        position, newest = views.position_of(query), query.order == "newest"
        contains = None if query.metadata is None else jsontext.containing(query.metadata)
        found = [
            entry
            async for entry in views.in_steps(self._visible(space))
            if views.in_range(entry.key, query.range)
            and views.is_created_within(entry, query)
            and views.beyond(position(entry), query.after, newest=newest)
            and views.beyond(query.before, position(entry), newest=newest)
            and (contains is None or contains(entry.metadata))
        ]
        # A page that ends before a position is found by walking back from there.
        backwards = query.before is not None
        found = sorted(found, key=position, reverse=newest != backwards)[query.skip :]
        page = [views.listed(entry, query) for entry in found[: query.limit]]
        entries = within_bytes(page, query.max_bytes, size_of)
        return Page(entries[::-1] if backwards else entries, len(entries) < len(found))

    async def count(self, space: int, range: KeyRange | None = None) -> int:
        return len([1 async for entry in views.in_steps(self._visible(space)) if views.in_range(entry.key, range)])

    async def children(
        self, space: int, prefix: bytes, *, after: bytes | None = None, limit: int | None = None
    ) -> Children:
        entries = self._entries[space] if self._alive(space) else views.Entries()
        return views.children_among(entries, prefix, after, limit, self.now(space))

    def scan(self, space: int, range: KeyRange | None = None, _: bool = False, /) -> AsyncGenerator[list[Entry], None]:
        return views.scanned(lambda: self._visible(space), range)

    async def watch(self, space: int, ranges: Sequence[KeyRange], since: int | None = None) -> Watcher:
        if self._log is None:
            self._log, self._log_from = deque(), self.last(space)
        if since is None:
            return self._watchers.add(space, ranges, self.last(space))
        if not self._log_from <= since <= self.last(space):
            return self._watchers.add(space, ranges, self.last(space), resync=True)
        watcher = self._watchers.add(space, ranges, since)
        replayed = [logged for logged in self._log if logged[2] > since]
        self._watchers.tell(replayed, self._entries_of(replayed), self.last(space), only=watcher)
        return watcher

    def _tell(self) -> None:
        """Log what was done, and tell those who watch it."""
        done, self._done = self._done, []
        if self._log is None:
            return
        self._log += done
        while len(self._log) > LOGGED:
            self._log_from = self._log.popleft()[2]
        self._watchers.tell(done, self._entries_of(done), self._last)

    def _entries_of(self, logged: Sequence[Logged]) -> dict[tuple[int, bytes], Entry]:
        wanted = [(space, key) for space, keys in self._watchers.wanted(logged).items() for key in keys]
        return {
            (space, key): entry
            for space, key in wanted
            if self._alive(space) and (entry := views.living(self._entries[space], key, self.now(space)))
        }

    async def load(self, space: int, entries: Sequence[Entry]) -> None:
        check_room(entries)
        now = self.now(space)
        if not self._alive(space):
            raise space_gone()
        existing = self._entries[space]
        existing.reorder()
        last = max((entry.sequence for entry in existing.values()), default=0)
        for entry in entries:
            old = views.living(existing, entry.key, now)
            if old is None:
                last = max(entry.sequence, last + 1)
            sequence = old.sequence if old else last
            existing[entry.key] = msgspec.structs.replace(entry, sequence=sequence)
            self._last = max(self._last, sequence, entry.versionstamp)
            self._latest = max(self._latest, entry.created_at)
        # Loaded entries keep their versionstamps; the load has one of its own.
        stamp = self._next(space, now)
        self._done += [(SET, space, stamp, entry.key, None) for entry in entries]
        self._tell()
        if space == SYSTEM_SPACE:
            self._epoch += 1

    # -- spaces -------------------------------------------------------------------------------------------

    async def create_space(self, space: Space, aliases: Sequence[Alias]) -> Space:
        for alias in aliases:
            if taken := self._resolve(alias):
                return taken
        created = msgspec.structs.replace(space, number=self._next(SYSTEM_SPACE, self.clock()))
        self._spaces[created.id] = created
        self._numbers[created.number] = created.id
        self._entries[created.number] = views.Entries()
        self._aliases.update(dict.fromkeys(aliases, created.id))
        return created

    async def resolve(self, alias: Alias) -> Space | None:
        return self._resolve(alias)

    async def get_space(self, id: str) -> Space | None:
        return self._space(id)

    async def aliases(self, id: str) -> list[Alias]:
        if self._space(id) is None:
            return []
        return sorted(alias for alias, leads_to in self._aliases.items() if leads_to == id)

    async def alter_space(
        self, id: str, *, name: str | None = None, add: Sequence[Alias] = (), remove: Sequence[Alias] = ()
    ) -> Space | None:
        space = self._space(id)
        if space is None:
            return None
        for alias in add:
            if (taken := self._resolve(alias)) and taken.id != id:
                return taken
        for alias in remove:
            if self._aliases.get(alias) == id:
                del self._aliases[alias]
        self._aliases.update(dict.fromkeys(add, id))
        if name is not None:
            space = self._spaces[id] = msgspec.structs.replace(space, name=name)
        self._epoch += 1
        return space

    async def end_space(self, id: str) -> bool:
        space = self._space(id)
        if space is None:
            return False
        self._forget(space)
        self._epoch += 1
        return True

    async def list_spaces(
        self, *, organisation: str | None = None, kind: str | None = None, after: str = "", limit: int | None = None
    ) -> list[Space]:
        found = [
            space
            for id, space in sorted(self._spaces.items())
            if id > after
            and self._space(id)
            and organisation in (None, space.organisation)
            and kind in (None, space.kind)
        ]
        return found[:limit]

    async def count_spaces(self, kind: str, organisation: str | None = None) -> tuple[int, int]:
        spaces = await self.list_spaces(organisation=organisation, kind=kind)
        return len(spaces), sum(len(self._visible(space.number)) for space in spaces)

    # -- the whole ----------------------------------------------------------------------------------------

    async def epoch(self) -> int:
        return self._epoch

    def epoch_nowait(self) -> int:
        return self._epoch

    async def sweep(self) -> int:
        swept = 0
        for space in list(self._spaces.values()):
            if self._space(space.id) is None:
                swept += 1 + len(self._entries[space.number])
                self._forget(space)
        for number, entries in self._entries.items():
            swept += views.remove_expired(entries, self.now(number))
        self.writer.swept += swept
        return swept

    async def check(self) -> list[str]:
        return []

    def gauges(self) -> Gauges:
        return Gauges(len(self._watchers))

    async def milliseconds_ahead(self) -> int:
        return max(0, max(millisecond_of(self._last), self._latest) - self.clock())

    async def stats(self) -> Stats:
        entries, expired = sum(map(len, self._entries.values())), views.count_expired(self._entries, self.now)
        return Stats(len(self._spaces), entries, 0, expired)

    # -- inside -------------------------------------------------------------------------------------------

    def _next(self, space: int, now: int) -> int:  # noqa: ARG002  # of one series for all spaces
        self._last = next_sequence(self._last, now)
        return self._last

    def now(self, space: int) -> int:  # noqa: ARG002  # only in a test bed do spaces differ
        return self.clock()

    def last(self, space: int) -> int:  # noqa: ARG002  # of one series for all spaces
        return self._last

    def _created_at(self, space: int, now: int) -> int:  # noqa: ARG002
        # Creation times follow creation order, whatever the clock does; expiry obeys the clock alone.
        self._latest = max(self._latest, now)
        return self._latest

    def _space(self, id: str) -> Space | None:
        space = self._spaces.get(id)
        if space is None or space.expires_at is None:
            return space
        return None if views.expired(space.expires_at, self.now(space.number)) else space

    def _resolve(self, alias: Alias) -> Space | None:
        return self._space(self._aliases.get(alias, ""))

    def _alive(self, number: int) -> bool:
        space = self._spaces.get(self._numbers.get(number, ""))
        if space is None or space.expires_at is None:
            return space is not None or number == SYSTEM_SPACE
        return not views.expired(space.expires_at, self.now(number))

    def _visible(self, number: int) -> list[Entry]:
        now = self.now(number)
        entries = self._entries[number].values() if self._alive(number) else ()
        return [entry for entry in entries if not views.expired(entry.expires_at, now)]

    def _forget(self, space: Space) -> None:
        del self._spaces[space.id], self._numbers[space.number], self._entries[space.number]
        self._aliases = {alias: id for alias, id in self._aliases.items() if id != space.id}
