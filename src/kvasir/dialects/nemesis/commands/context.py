"""What a command's handler is given: the caller, the store, and the limits. No sockets, no order of replies."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol

from msgspec import Struct

from kvasir.access.authenticator import Auth
from kvasir.control.sessions import by_token
from kvasir.dialects.nemesis.frames import Shape
from kvasir.engine import Outcome
from kvasir.errors import TooLarge
from kvasir.keys import pack
from kvasir.limits import NemesisLimits
from kvasir.model import Entry, Principal, Space, Write
from kvasir.store.store import Store


class Saves(Protocol):
    """Where saves are kept: a directory for each organisation. See `kvasir.server.save_directory`."""

    def is_name(self, name: str) -> bool:
        """Whether a save may have this name."""
        ...

    async def prepare(self, owner: str, name: str) -> None:
        """Make the directory of a save. Raises OSError."""

    async def save(self, owner: str, name: str, records: AsyncIterator[bytes], started: int) -> None:
        """Write all records, each a JSON object text, or nothing. Raises OSError."""
        ...

    async def load(self, owner: str, name: str) -> AsyncIterator[bytes] | None:
        """The records of the newest complete save of that name; None: there is none.

        Reading on raises OSError, and ValueError for what is no save.
        """
        ...


#: (dialect, operation, outcome, seconds, how many): counts commands.
Observe = Callable[[str, str, str, float, int], None]


@dataclasses.dataclass(frozen=True)
class Shared:
    """What all conversations of a server have in common."""

    store: Store
    #: Who everybody is taken for, or what knows them by their access key.
    caller: Principal | Auth
    limits: NemesisLimits
    #: Of a connection whose path names none: "session" or "0.9"
    default_profile: str
    saves: Saves | None
    #: For what would keep the loop busy.
    threads: Executor
    observe: Observe


class Talk:
    """One caller's view of the store."""

    __slots__ = ("_made", "_second", "limits", "principal", "saves", "say", "store", "threads")

    def __init__(
        self,
        store: Store,
        principal: Principal,
        limits: NemesisLimits,
        saves: Saves | None,
        threads: Executor,
        say: Callable[[bytes], None],
    ) -> None:
        self.store = store
        self.principal = principal
        self.limits = limits
        self.saves = saves
        #: For what would keep the loop busy.
        self.threads = threads
        #: Sends a frame ahead of the handler's own answer.
        self.say = say
        self._second = 0
        self._made = 0

    def may_create(self) -> bool:
        """Whether this caller may create one more session in this second; counts it if so."""
        second = self.store.clock() // 1000
        if second != self._second:
            self._second, self._made = second, 0
        self._made += 1
        return self._made <= self.limits.sessions_per_second

    async def space(self, token: str) -> Space:
        """The session with this token. Raises `NotFound`."""
        return await self.store.resolve(self.principal, by_token(token))

    def cached(self, token: str) -> Space | None:
        """The session with this token, if nobody need be asked for it."""
        return self.store.cached(self.principal, by_token(token))

    async def get(self, space: Space, names: Sequence[str]) -> list[Entry | None]:
        """The entries of these keys: one snapshot, up to the store's bound on a batch."""
        if len(names) <= self.store.limits.batch_keys:
            return await self.store.get(self.principal, space, [pack((name,)) for name in names])
        found: list[Entry | None] = []
        budget = self.limits.reply_bytes
        for some in sliced(names, self.store.limits.batch_keys):
            entries = await self.store.get(self.principal, space, [pack((name,)) for name in some])
            budget -= sum(len(entry.value) for entry in entries if entry is not None)
            if budget < 0:
                raise self.too_much()
            found += entries
        return found

    def too_much(self) -> TooLarge:
        """The failure of a reply that would pass its bound."""
        return TooLarge(f"the reply would pass {self.limits.reply_bytes:,} bytes; ask for fewer keys at a time")

    async def write_slices(self, space: Space, writes: Sequence[Write]) -> list[Outcome]:
        """Carry out writes lot by lot, so that even a huge command leaves room for other writers."""
        outcomes: list[Outcome] = []
        for lot in weighed(writes, self.store.limits.batch_keys):
            outcomes += raised(await self.store.write_many(self.principal, space, lot))
        return outcomes


Handler = Callable[[Any, dict[str, Any]], Awaitable[bytes | None]]


class Command(Struct, frozen=True):
    """One row of a profile's table: what a command takes and who handles it.

    Either `run`; or `writes` and `told` for one that only writes; or `shown` for one that only reads the keys that its
    parameter `keys` names. Of the latter two sorts, those that arrive together are carried out together.
    """

    name: str
    shape: Shape
    run: Handler | None = None
    #: (number of the space, batch bound, parameters) -> what to write
    writes: Callable[[int, int, dict[str, Any]], list[Write]] | None = None
    #: (parameters, outcomes without failures) -> the frame that tells how it went; None: nothing is said
    told: Callable[[dict[str, Any], Sequence[Outcome]], bytes | None] | None = None
    #: (parameters, names, their entries) -> the frame that shows them
    shown: Callable[[dict[str, Any], list[str], list[Entry | None]], bytes] | None = None


def raised(outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    """The outcomes, unless one is a failure, which is raised."""
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return outcomes


def sliced(items: Sequence[Any], size: int) -> Iterator[Any]:
    """The items, `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def weighed(writes: Sequence[Write], most: int) -> Iterator[list[Write]]:
    """The writes in lots of at most `most` mutations (a single heavier write is a lot of its own)."""
    lot: list[Write] = []
    weight = 0
    for write in writes:
        if lot and weight + len(write.mutations) > most:
            yield lot
            lot, weight = [], 0
        lot.append(write)
        weight += len(write.mutations)
    if lot:
        yield lot
