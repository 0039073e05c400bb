"""Who watches which keys in this process, and what each has still to be told. On the event loop only; reads nothing.

An engine feeds it what was committed, in commit order. A change costs a few looks into dictionaries, whoever watches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal

from kvasir.errors import KvasirError, Unavailable
from kvasir.limits import Limits, refused
from kvasir.model import Change, Changes, Entry, KeyRange

#: Values that are read at a time to tell of changes: with more, those who watch are told that they missed something.
TOLD_BYTES = 16 << 20

#: What was done to a key or a range.
SET, DELETE, EXPIRY, RANGE = range(4)


#: What a commit did to one key or range: the kind, the space, the versionstamp, the key, and the end of the range that
#: begins with it. A plain tuple, since every write makes one while somebody watches.
Logged = tuple[int, int, int, bytes, bytes | None]


class Watcher:
    """See `kvasir.engine.Watch`."""

    def __init__(
        self,
        ranges: Sequence[KeyRange],
        limits: Limits,
        on_close: Callable[[Watcher], None],
        upto: int,
        *,
        resync: bool,
    ) -> None:
        self.ranges = ranges
        self._limits = limits
        self._on_close = on_close
        #: In the order of their versionstamps, by key or range
        self._pending: dict[bytes | tuple[bytes, bytes], Change] = {}
        self._bytes = 0
        self._upto = upto
        #: What the reader gets before anything that is pending
        self._first: Changes | None = Changes([], upto, resync)
        self._closed = False
        self._failure: KvasirError | None = None
        self._waiter: asyncio.Future[None] | None = None

    # -- what the reader does -----------------------------------------------------------------------------

    def __aiter__(self) -> Watcher:
        return self

    async def __anext__(self) -> Changes:
        while True:
            if self._failure is not None:
                raise self._failure
            if self._closed:
                raise StopAsyncIteration
            if self._first is not None:
                first, self._first = self._first, None
                return first
            if self._pending:
                changes = Changes(list(self._pending.values()), self._upto)
                self._forget()
                return changes
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _forget(self) -> None:
        self._pending.clear()
        self._bytes = 0

    def fail(self, error: KvasirError) -> None:
        self._failure = self._failure or error
        self._end()

    def close(self) -> None:
        self._closed = True
        self._end()

    def _end(self) -> None:
        self._forget()
        self._on_close(self)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- what the engine does -----------------------------------------------------------------------------

    def put(self, change: Change) -> None:
        """Something to tell, which is newer than all before."""
        if change.end is not None:
            self._put_range(change, change.end)
            return
        earlier = self._pending.get(change.key)
        if change.kind == "expiry" and earlier is not None and earlier.kind == "set":
            # It stays in its place: see `fold`.
            self._pending[change.key] = Change("set", earlier.versionstamp, change.key, change.entry)
            return
        self._remove(change.key)
        self._add(change.key, change)

    def _put_range(self, change: Change, end: bytes) -> None:
        for key in [key for key in self._pending if isinstance(key, bytes) and change.key <= key < end]:
            self._remove(key)
        for watched in self.ranges:
            first, last = max(change.key, watched.start), min(end, watched.end)
            if first >= last:
                continue
            if watched.end == watched.start + b"\x00":
                self._add(first, Change("delete", change.versionstamp, first))
            else:
                self._remove((first, last))
                self._add((first, last), Change("delete_range", change.versionstamp, first, None, last))

    def _add(self, key: bytes | tuple[bytes, bytes], change: Change) -> None:
        self._pending[key] = change
        self._bytes += len(change.key) + (len(change.entry.value) if change.entry else 0)

    def _remove(self, key: bytes | tuple[bytes, bytes]) -> Change | None:
        change = self._pending.pop(key, None)
        if change is not None:
            self._bytes -= len(change.key) + (len(change.entry.value) if change.entry else 0)
        return change

    def advance(self, upto: int) -> None:
        """Everything up to here has been put."""
        self._upto = upto
        if len(self._pending) > self._limits.watch_changes or self._bytes > self._limits.watch_bytes:
            refused("watch_changes")
            self.miss(upto)
        elif self._pending:
            self._wake()

    def miss(self, upto: int) -> None:
        """Nobody knows, or can keep, what changed up to here."""
        self._forget()
        self._upto = upto
        self._first = Changes([], upto, resync=True)
        self._wake()


_NOBODY: dict[Watcher, None] = {}


class Watchers:
    """Everyone who watches in this process, by space and key."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._count = 0
        self._keys: dict[tuple[int, bytes], dict[Watcher, None]] = {}
        #: By the key that a range is all under
        self._prefixes: dict[tuple[int, bytes], dict[Watcher, None]] = {}
        #: Of any other range
        self._others: dict[int, dict[Watcher, None]] = {}
        self._spaces: dict[int, dict[Watcher, None]] = {}

    def __len__(self) -> int:
        return self._count

    def of(self, space: int) -> Iterable[Watcher]:
        """All who watch in this space."""
        return list(self._spaces.get(space, ()))

    def all(self) -> list[Watcher]:
        """All who watch."""
        return [watcher for watchers in self._spaces.values() for watcher in watchers]

    @property
    def spaces(self) -> list[int]:
        """Where somebody watches."""
        return list(self._spaces)

    def add(self, space: int, ranges: Sequence[KeyRange], upto: int, *, resync: bool = False) -> Watcher:
        """A new one. Raises `Unavailable` if there are too many."""
        if self._count >= self._limits.watches:
            refused("watches")
            raise Unavailable("too many watches are open in this process; close some, or try another server")
        watcher = Watcher(ranges, self._limits, lambda watcher: self._discard(space, watcher), upto, resync=resync)
        for places, place in self._places(space, watcher):
            places.setdefault(place, {})[watcher] = None
        self._count += 1
        return watcher

    def _places(self, space: int, watcher: Watcher) -> Iterator[tuple[dict[Any, dict[Watcher, None]], Any]]:
        yield self._spaces, space
        for key_range in watcher.ranges:
            if key_range.end == key_range.start + b"\x00":
                yield self._keys, (space, key_range.start)
            elif key_range.end == key_range.start + b"\xff" and key_range.start[-1:] in (b"", b"\x00"):
                yield self._prefixes, (space, key_range.start)
            else:
                yield self._others, space

    def _discard(self, space: int, watcher: Watcher) -> None:
        if watcher not in self._spaces.get(space, ()):
            return
        for places, place in self._places(space, watcher):
            watchers = places.get(place, {})
            watchers.pop(watcher, None)
            if not watchers:
                places.pop(place, None)
        self._count -= 1

    def watching(self, space: int, key: bytes) -> Mapping[Watcher, None]:
        """Those who watch this key."""
        exact = self._keys.get((space, key))
        if not self._prefixes and space not in self._others:
            return exact or _NOBODY
        found = dict(exact or _NOBODY)
        if self._prefixes:
            at = -1
            while True:
                if watchers := self._prefixes.get((space, key[: at + 1])):
                    found |= watchers
                if at + 1 == len(key):
                    break
                # The last byte of a part is the 00 before an 02, or that of the key.
                at = key.find(b"\x00\x02", at + 1)
                if at < 0:
                    at = len(key) - 1
        if space in self._others:
            for watcher in self._others[space]:
                if any(each.start <= key < each.end for each in watcher.ranges):
                    found[watcher] = None
        return found

    # -- telling ------------------------------------------------------------------------------------------

    def concerned(self, logged: Iterable[Logged]) -> bool:
        """Whether anything of what was logged may have to be told."""
        if self._prefixes or self._others:
            return bool(self.concerning(logged, -1))
        keys, spaces = self._keys, self._spaces
        return any((space, key) in keys or (kind == RANGE and space in spaces) for kind, space, _, key, _ in logged)

    def concerning(self, logged: Iterable[Logged], after: int) -> list[Logged]:
        """What may have to be told of what was logged behind a versionstamp."""
        spaces, watching = self._spaces, self.watching
        return [
            each
            for each in logged
            if each[1] in spaces and each[2] > after and (each[0] == RANGE or watching(each[1], each[3]))
        ]

    def wanted(self, logged: Iterable[Logged]) -> dict[int, dict[bytes, None]]:
        """The keys, by space, whose entries `tell` needs."""
        wanted: dict[int, dict[bytes, None]] = {}
        for kind, space, _, key, _ in logged:
            if kind != RANGE and space in self._spaces and self.watching(space, key):
                wanted.setdefault(space, {})[key] = None
        return wanted

    def tell(
        self,
        logged: Iterable[Logged],
        entries: Mapping[tuple[int, bytes], Entry],
        upto: int,
        only: Watcher | None = None,
    ) -> None:
        """Tell what was committed: everything up to `upto`, with the living entries of the keys `wanted` afterwards."""
        told: dict[Watcher, None] = {}
        for (space, key, end), (kind, stamp) in fold(logged).items():
            if space not in self._spaces:
                continue
            if end is not None:
                change = Change("delete_range", stamp, key, None, end)
                watchers: Mapping[Watcher, None] = self._spaces[space]
            else:
                watchers = self.watching(space, key)
                change = change_of(kind, stamp, key, entries.get((space, key)))
            for watcher in watchers if only is None else [each for each in watchers if each is only]:
                watcher.put(change)
                told[watcher] = None
        for watcher in told:
            watcher.advance(upto)

    def end(self, error: KvasirError) -> None:
        """End every watch."""
        for watcher in self.all():
            watcher.fail(error)


def change_of(kind: int, stamp: int, key: bytes, entry: Entry | None) -> Change:
    """What to tell of a key that has this entry now."""
    if entry is None:
        return Change("delete", stamp, key)
    told: Literal["set", "expiry"] = "expiry" if kind == EXPIRY else "set"
    return Change(told, stamp, key, entry)


def fold(logged: Iterable[Logged]) -> dict[tuple[int, bytes, bytes | None], tuple[int, int]]:
    """The last of each key and each range, in order: kind and versionstamp by space, key and end.

    A new life changes neither place nor versionstamp of an earlier set, which tells of the entry with its newest life.
    Told later than its own commit, it would be missed by whoever leaves in between, and is told of the life alone.
    """
    # An engine that makes one of two Sets of a key logs it in the place of the first, as of the last.
    logged = sorted(logged, key=itemgetter(2))
    folded: dict[tuple[int, bytes, bytes | None], tuple[int, int]] = {}
    for kind, space, stamp, key, end in logged:
        if kind == EXPIRY and folded.get((space, key, end), (EXPIRY, 0))[0] != EXPIRY:
            continue
        folded.pop((space, key, end), None)
        folded[space, key, end] = kind, stamp
    return folded
