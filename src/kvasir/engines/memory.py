"""The memory engine: plain dictionaries, no durability. It defines what is correct; the others must agree with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from kvasir import jsontext
from kvasir.engine import Clock, Outcome, Waiter
from kvasir.engines.numbering import check_room, next_sequence, wall_clock
from kvasir.errors import response_too_long, space_gone
from kvasir.keys import millisecond_of
from kvasir.model import (
    SYSTEM_SPACE,
    Alias,
    Check,
    Commit,
    Condition,
    Conflict,
    Delete,
    DeleteRange,
    Entry,
    KeyRange,
    Mutation,
    Page,
    Query,
    Set,
    Space,
    Stats,
    Touch,
    Write,
    WriterStats,
)


class MemoryEngine:
    """See `kvasir.engine.Engine`."""

    def __init__(self, clock: Clock = wall_clock) -> None:
        self.writer = WriterStats()
        self.clock = clock
        self._spaces: dict[str, Space] = {}
        self._aliases: dict[Alias, str] = {}
        self._entries: dict[int, dict[bytes, Entry]] = {SYSTEM_SPACE: {}}
        self._numbers: dict[int, str] = {}
        self._last = 0
        self._epoch = 0
        #: The latest `created_at` given
        self._latest = 0

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    # -- entries ------------------------------------------------------------------------------------------

    async def get(self, space: int, keys: Sequence[bytes], max_bytes: int | None = None) -> list[Entry | None]:
        entries = self._living_entries(space, keys)
        if max_bytes is not None and sum(len(entry.value) for entry in set(entries) if entry) > max_bytes:
            raise response_too_long(max_bytes)
        return entries

    def get_nowait(self, space: int, keys: Sequence[bytes]) -> list[Entry | None]:
        return self._living_entries(space, keys)

    def _living_entries(self, space: int, keys: Sequence[bytes]) -> list[Entry | None]:
        now = self.clock()
        entries = self._entries[space] if self._alive(space, now) else {}
        return [_living(entries, key, now) for key in keys]

    async def write(self, writes: Sequence[Write]) -> list[Outcome]:
        return self._write_all(writes)

    def submit(self, writes: Sequence[Write], waiter: Waiter) -> None:
        waiter.set_result(self._write_all(writes))

    def write_nowait(self, writes: Sequence[Write]) -> list[Outcome]:
        return self._write_all(writes)

    def _write_all(self, writes: Sequence[Write]) -> list[Outcome]:
        self.writer.committed(len(writes))
        stamp = self._next(self.clock())
        return [self._write(write, stamp) for write in writes]

    def _write(self, write: Write, stamp: int) -> Outcome:
        now = self.clock()
        if not self._alive(write.space, now):
            return space_gone()
        entries = self._entries[write.space]
        for condition in write.conditions:
            if conflict := _unmet(condition, _living(entries, condition.key, now)):
                return conflict
        # No mutation can fail here, so there is nothing to undo.
        counts = tuple([self._mutate(entries, mutation, stamp, now) for mutation in write.mutations])
        if write.space == SYSTEM_SPACE:
            self._epoch += 1
        return Commit(stamp, counts)

    def _mutate(self, entries: dict[bytes, Entry], mutation: Mutation, stamp: int, now: int) -> int:
        if isinstance(mutation, DeleteRange):
            doomed = [key for key in entries if _in_range(key, mutation.range)]
            count = sum(1 for key in doomed if _living(entries, key, now))
            for key in doomed:
                del entries[key]
            return count
        old = _living(entries, mutation.key, now)
        if isinstance(mutation, Delete):
            entries.pop(mutation.key, None)
        elif isinstance(mutation, Touch):
            if old and not (mutation.extend and _not_later(mutation.expires_at, old.expires_at)):
                entries[mutation.key] = msgspec.structs.replace(old, expires_at=mutation.expires_at)
        else:
            if old:
                sequence, created_at = old.sequence, old.created_at
            else:
                # Creation times follow creation order, whatever the clock does; expiry obeys the clock alone.
                self._latest = created_at = max(self._latest, now)
                sequence = self._next(now)
            entries[mutation.key] = _new_entry(mutation, stamp, sequence, created_at, now)
        return 1 if old else 0

    async def page(self, space: int, query: Query) -> Page:
        now = self.clock()
        position = _position_of(query)
        found = [
            entry
            for entry in self._visible(space, now)
            if _in_range(entry.key, query.range)
            and _passes(entry, query)
            and _beyond(position(entry), query.after, newest=query.order == "newest")
            and _beyond(query.before, position(entry), newest=query.order == "newest")
        ]
        # A page that ends before a position is found by walking back from there.
        backwards = query.before is not None
        found.sort(key=position, reverse=(query.order == "newest") != backwards)
        found = found[query.skip :]
        page = found if query.limit is None else found[: query.limit]
        entries = [_listed(entry, query) for entry in page]
        return Page(entries[::-1] if backwards else entries, len(page) < len(found))

    async def count(self, space: int, range: KeyRange | None = None) -> int:
        return sum(1 for entry in self._visible(space, self.clock()) if _in_range(entry.key, range))

    async def load(self, space: int, entries: Sequence[Entry]) -> None:
        check_room(entries)
        now = self.clock()
        if not self._alive(space, now):
            raise space_gone()
        existing = self._entries[space]
        last = max((entry.sequence for entry in existing.values()), default=0)
        for entry in entries:
            old = _living(existing, entry.key, now)
            if old is None:
                last = max(entry.sequence, last + 1)
            sequence = old.sequence if old else last
            existing[entry.key] = msgspec.structs.replace(entry, sequence=sequence)
            self._last = max(self._last, sequence, entry.versionstamp)
            self._latest = max(self._latest, entry.created_at)
        if space == SYSTEM_SPACE:
            self._epoch += 1

    # -- spaces -------------------------------------------------------------------------------------------

    async def create_space(self, space: Space, aliases: Sequence[Alias]) -> Space:
        now = self.clock()
        for alias in aliases:
            if taken := self._resolve(alias, now):
                return taken
        created = msgspec.structs.replace(space, number=self._next(now))
        self._spaces[created.id] = created
        self._numbers[created.number] = created.id
        self._entries[created.number] = {}
        self._aliases.update(dict.fromkeys(aliases, created.id))
        return created

    async def resolve(self, alias: Alias) -> Space | None:
        return self._resolve(alias, self.clock())

    async def get_space(self, id: str) -> Space | None:
        return self._space(id, self.clock())

    async def aliases(self, id: str) -> list[Alias]:
        if self._space(id, self.clock()) is None:
            return []
        return sorted(alias for alias, leads_to in self._aliases.items() if leads_to == id)

    async def alter_space(
        self, id: str, *, name: str | None = None, add: Sequence[Alias] = (), remove: Sequence[Alias] = ()
    ) -> Space | None:
        now = self.clock()
        space = self._space(id, now)
        if space is None:
            return None
        for alias in add:
            taken = self._resolve(alias, now)
            if taken and taken.id != id:
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
        space = self._space(id, self.clock())
        if space is None:
            return False
        self._forget(space)
        self._epoch += 1
        return True

    async def list_spaces(
        self, *, organisation: str | None = None, kind: str | None = None, after: str = "", limit: int | None = None
    ) -> list[Space]:
        now = self.clock()
        found = [
            space
            for id, space in sorted(self._spaces.items())
            if id > after
            and self._space(id, now)
            and organisation in (None, space.organisation)
            and kind in (None, space.kind)
        ]
        return found if limit is None else found[:limit]

    async def count_spaces(self, kind: str, organisation: str | None = None) -> tuple[int, int]:
        now = self.clock()
        spaces = await self.list_spaces(organisation=organisation, kind=kind)
        return len(spaces), sum(len(self._visible(space.number, now)) for space in spaces)

    # -- the whole ----------------------------------------------------------------------------------------

    async def epoch(self) -> int:
        return self._epoch

    def epoch_nowait(self) -> int:
        return self._epoch

    async def sweep(self) -> int:
        now = self.clock()
        swept = 0
        for space in list(self._spaces.values()):
            if self._space(space.id, now) is None:
                swept += 1 + len(self._entries[space.number])
                self._forget(space)
        for entries in self._entries.values():
            for key in [key for key, entry in entries.items() if _expired(entry.expires_at, now)]:
                del entries[key]
                swept += 1
        self.writer.swept += swept
        return swept

    async def check(self) -> list[str]:
        return []

    async def milliseconds_ahead(self) -> int:
        return max(0, max(millisecond_of(self._last), self._latest) - self.clock())

    async def stats(self) -> Stats:
        return Stats(len(self._spaces), sum(map(len, self._entries.values())), 0)

    # -- inside -------------------------------------------------------------------------------------------

    def _next(self, now: int) -> int:
        self._last = next_sequence(self._last, now)
        return self._last

    def _space(self, id: str, now: int) -> Space | None:
        space = self._spaces.get(id)
        return None if space is None or _expired(space.expires_at, now) else space

    def _resolve(self, alias: Alias, now: int) -> Space | None:
        id = self._aliases.get(alias)
        return self._space(id, now) if id else None

    def _alive(self, number: int, now: int) -> bool:
        return number == SYSTEM_SPACE or self._space(self._numbers.get(number, ""), now) is not None

    def _visible(self, number: int, now: int) -> list[Entry]:
        entries = self._entries[number].values() if self._alive(number, now) else ()
        return [entry for entry in entries if not _expired(entry.expires_at, now)]

    def _forget(self, space: Space) -> None:
        del self._spaces[space.id], self._numbers[space.number], self._entries[space.number]
        self._aliases = {alias: id for alias, id in self._aliases.items() if id != space.id}


def _living(entries: dict[bytes, Entry], key: bytes, now: int) -> Entry | None:
    entry = entries.get(key)
    return None if entry is None or _expired(entry.expires_at, now) else entry


def _expired(expires_at: int | None, now: int) -> bool:
    return expires_at is not None and expires_at <= now


def _not_later(new: int | None, old: int | None) -> bool:
    return old is None or (new is not None and new <= old)


def _in_range(key: bytes, range: KeyRange | None) -> bool:
    return range is None or range.start <= key < range.end


def _unmet(condition: Condition, entry: Entry | None) -> Conflict | None:
    actual = entry.versionstamp if entry else None
    met = actual == condition.versionstamp if isinstance(condition, Check) else entry is not None
    return None if met else Conflict(condition.key, actual)


def _new_entry(mutation: Set, stamp: int, sequence: int, created_at: int, now: int) -> Entry:
    """The entry a Set leaves behind."""
    expires_at = mutation.expires_at if mutation.ttl is None else now + mutation.ttl
    refresh = expires_at - now if mutation.refresh and expires_at is not None else None
    return Entry(mutation.key, mutation.value, stamp, sequence, created_at, expires_at, refresh, mutation.metadata)


def _position_of(query: Query) -> Callable[[Entry], Any]:
    """What `after`, `before` and the order of a query compare: sequences or keys."""
    return (lambda entry: entry.key) if query.order == "key" else (lambda entry: entry.sequence)


def _beyond(position: Any, at: Any, *, newest: bool) -> bool:
    if position is None or at is None:
        return True
    return bool(position < at if newest else position > at)


def _passes(entry: Entry, query: Query) -> bool:
    """Whether the entry passes the filters other than the range: by created_at and by metadata."""
    if query.created_from is not None and entry.created_at < query.created_from:
        return False
    if query.created_to is not None and entry.created_at > query.created_to:
        return False
    if query.metadata is None:
        return True
    return jsontext.contains(msgspec.json.decode(entry.metadata or b"{}"), msgspec.json.decode(query.metadata))


def _listed(entry: Entry, query: Query) -> Entry:
    """The entry as the listing gives it."""
    return entry if query.values else msgspec.structs.replace(entry, value=b"")
