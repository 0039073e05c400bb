"""The memory engine with a clock for each space, and with snapshots to go back to."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from msgspec import Struct

from kvasir.engine import Outcome
from kvasir.engines.memory import LOGGED, MemoryEngine
from kvasir.engines.memory.views import Entries
from kvasir.engines.numbering import next_sequence, wall_clock
from kvasir.engines.watching import Logged, Watcher
from kvasir.model import SYSTEM_SPACE, Alias, KeyRange, Space, Write
from kvasir.testbed.clock import SettableClock


class Snapshot(Struct, frozen=True):
    """What there was, of one space or of all but the system space."""

    #: The number of the only space; None: all
    space: int | None
    entries: dict[int, Entries]
    spaces: dict[str, Space]
    aliases: dict[Alias, str]


class TestBedEngine(MemoryEngine):
    """A `kvasir.engine.Engine`. Access keys and tokens are judged by another clock, the machine's."""

    __test__ = False  # for pytest

    def __init__(self) -> None:
        self.server_clock = SettableClock(wall_clock)
        super().__init__(self.server_clock)
        self._clocks: dict[int, SettableClock] = {}
        #: The last number and creation time given in each space: one that is ahead must not pull the others along.
        self._lasts: dict[int, int] = {}
        self._latests: dict[int, int] = {}
        #: Watches of a space cannot go on from before this, where it went back to a snapshot.
        self._restored: dict[int, int] = {}
        self._log: deque[Logged] = deque()

    def clock_of(self, number: int | None) -> SettableClock:
        """The clock of a space, which shows what the server's shows unless it is set; None: the server's."""
        if number is None:
            return self.server_clock
        clock = self._clocks.get(number)
        if clock is None:
            clock = self._clocks[number] = SettableClock(self.server_clock)
        return clock

    def shown(self, number: int | None) -> list[int]:
        """What all the clocks show that change with the one of a space, or with the server's (None)."""
        return [clock() for clock in (self.clock_of(number), *(self._clocks.values() if number is None else ()))]

    def now(self, number: int) -> int:
        clock = self._clocks.get(number)
        return self.server_clock() if clock is None else clock()

    def last(self, space: int) -> int:
        return self._lasts.get(space, 0)

    def _next(self, space: int, now: int) -> int:
        self._lasts[space] = next_sequence(self.last(space), now)
        return self._lasts[space]

    def _created_at(self, space: int, now: int) -> int:
        self._latests[space] = max(self._latests.get(space, 0), now)
        return self._latests[space]

    def _stamped(self, writes: Sequence[Write]) -> list[Outcome]:
        stamps = {space: self._next(space, self.now(space)) for space in dict.fromkeys(each.space for each in writes)}
        return [self._write(write, stamps[write.space]) for write in writes]

    def _tell(self) -> None:
        done, self._done = self._done, []
        self._log += done
        while len(self._log) > LOGGED:
            self._log_from = max(self._log_from, self._log.popleft()[2])
        for space in dict.fromkeys(logged[1] for logged in done):
            told = [logged for logged in done if logged[1] == space]
            self._watchers.tell(told, self._entries_of(told), self.last(space))

    async def watch(self, space: int, ranges: Sequence[KeyRange], since: int | None = None) -> Watcher:
        if since is not None and since <= self._restored.get(space, -1):
            since = self.last(space) + 1  # an id from the future is told to read again
        return await super().watch(space, ranges, since)

    def living(self, number: int | None = None) -> int:
        """How many entries there are, in one space or in all but the system space."""
        numbers = [each for each in self._entries if each != SYSTEM_SPACE] if number is None else [number]
        return sum(len(self._visible(each)) for each in numbers)

    def clock_was_set(self) -> None:
        """Whatever was cached may have expired."""
        self._epoch += 1

    def reset_clocks(self) -> None:
        """Let all clocks show the machine's time again."""
        self.server_clock.reset()
        self._clocks.clear()
        self.clock_was_set()

    def id_of(self, number: int) -> str:
        """The ULID of a space."""
        return self._numbers[number]

    def snapshot(self, number: int | None = None) -> Snapshot:
        """What there is, of one space or of all. Entries never change, so only tables are copied."""
        if number is not None:
            return Snapshot(number, {number: self._entries[number].copy()}, {}, {})
        entries = {each: table.copy() for each, table in self._entries.items() if each != SYSTEM_SPACE}
        return Snapshot(None, entries, self._spaces.copy(), self._aliases.copy())

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot. No versionstamp is given twice afterwards, and access keys stay as they are."""
        entries = {number: table.copy() for number, table in snapshot.entries.items()}
        if snapshot.space is None:
            self._spaces, self._aliases = snapshot.spaces.copy(), snapshot.aliases.copy()
            self._numbers = {space.number: id for id, space in self._spaces.items()}
            self._entries = {SYSTEM_SPACE: self._entries[SYSTEM_SPACE]} | entries
        elif snapshot.space in self._entries:
            self._entries |= entries
        for space in snapshot.entries:
            self._restored[space] = self.last(space)
            for watcher in self._watchers.of(space):
                watcher.miss(self.last(space))
        self._epoch += 1
