"""The base of all commands: their three classes, and the context of their handlers. No sockets, no order of replies."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Protocol

from msgspec import Struct

from kvasir.access.authenticator import Authenticator
from kvasir.beside.thread import in_thread
from kvasir.control.sessions import TOKEN_ALIAS, by_token
from kvasir.dialects.nemesis.frames import Shape
from kvasir.dialects.nemesis.turn import LargeReplies
from kvasir.engine import Outcome
from kvasir.errors import TooLarge
from kvasir.keys import pack
from kvasir.limits import NemesisLimits
from kvasir.model import Entry, Mutation, Principal, Space, Write
from kvasir.store.store import Store
from kvasir.store.turns import Turns
from kvasir.timing import Watcher


class Saves(Protocol):
    """Where saves are kept: one directory per organisation. See `kvasir.server.save_directory`."""

    def is_name(self, name: str) -> bool:
        """Whether a save may have this name."""
        ...

    async def prepare(self, owner: str, name: str) -> None:
        """Create the directory of a save. Raises OSError."""

    async def save(self, owner: str, name: str, records: AsyncIterator[bytes], started: int) -> None:
        """Write all records, each the text of a JSON object, or none of them. Raises OSError."""
        ...

    async def load(self, owner: str, name: str) -> AsyncIterator[bytes] | None:
        """The records of the latest complete save of this name; None if there is none.

        Iterating raises OSError, and ValueError for a file that is not a save.
        """
        ...


#: Requests at a time, of all connections, that are slow to parse: in memory each takes some ten times its size.
HEAVY_REQUESTS = 4
#: Searches among them that go on at a time after they are parsed: each has its parameters in memory, but takes nothing
#: that other requests need.
HEAVY_SEARCHES = 8

#: Values of more bytes are looked into beside the event loop.
INLINE_BYTES = 16_384

#: Entries, None for a key that has none, -> how they are changed.
Change = Callable[[list[Entry | None]], Sequence[Mutation]]

#: (dialect, operation, outcome, seconds, how many): counts commands.
Observe = Callable[[str, str, str, float, int], None]


class HeavyPlaces:
    """Taken by requests that are large to hold and slow to parse. See `conversation.requests.held`."""

    def __init__(self) -> None:
        self.requests = asyncio.Semaphore(HEAVY_REQUESTS)
        self.searches = asyncio.Semaphore(HEAVY_SEARCHES)


@dataclasses.dataclass(frozen=True)
class Shared:
    """What all conversations of a server share."""

    store: Store
    #: Who every caller is taken to be, or what identifies them by their access keys.
    caller: Principal | Authenticator
    limits: NemesisLimits
    #: Of a connection whose path names none: "session" or "0.9"
    default_profile: str
    saves: Saves | None
    #: Runs work that would block the event loop.
    threads: Executor
    observe: Observe
    #: Whether commands with members that they do not know are refused
    strict: bool = False
    #: Who wants to know how long commands take
    watcher: Watcher | None = None
    heavy: HeavyPlaces = dataclasses.field(default_factory=HeavyPlaces)
    #: Counts what takes long to send
    large: LargeReplies = dataclasses.field(default_factory=LargeReplies)
    #: Taken by commands that change large values
    turns: Turns = dataclasses.field(default_factory=Turns)


class CommandContext:
    """The caller of a command, and what the command works with."""

    __slots__ = (
        *("_may_end", "_second", "_sessions", "_turns"),
        *("limits", "principal", "saves", "send", "store", "threads"),
    )

    def __init__(
        self,
        shared: Shared,
        principal: Principal,
        send: Callable[[bytes], None],
        may_end: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """`may_end` is told whether the command ends if the client leaves, and ends it if that has happened."""
        self.store = shared.store
        #: Changes when the caller is authenticated again.
        self.principal = principal
        self.limits = shared.limits
        self.saves = shared.saves
        self.threads = shared.threads
        #: Sends a frame ahead of the one that the handler returns.
        self.send = send
        self._may_end = may_end
        self._turns = shared.turns
        self._second = 0
        self._sessions = 0

    def may_create_session(self) -> bool:
        """Whether this connection may create another session within this second; if so, counts it."""
        second = self.store.clock() // 1000
        if second != self._second:
            self._second, self._sessions = second, 0
        self._sessions += 1
        return self._sessions <= self.limits.sessions_per_second

    async def session(self, token: str) -> Space:
        """The session with this token. Raises `NotFound`."""
        return await self.store.resolve(self.principal, by_token(token))

    async def session_of(self, body: dict[str, Any]) -> Space:
        """The session whose token is among a command's parameters. Raises `NotFound`."""
        return await self.session(body["tkn"])

    def session_of_nowait(self, body: dict[str, Any]) -> Space | None:
        """The same if it is cached; otherwise None."""
        # `by_token` spelled out, since this runs for every command on keys.
        return self.store.resolve_nowait(self.principal, (TOKEN_ALIAS, "", body["tkn"]))

    async def get(self, space: Space, names: Sequence[str]) -> list[Entry | None]:
        """The entries of these keys; one snapshot if they fit into one batch of the store. Raises `TooLarge`."""
        if len(names) <= self.store.limits.batch_keys:
            return await self.store.get(self.principal, space, [pack((name,)) for name in names])
        found: list[Entry | None] = []
        budget = self.limits.reply_bytes
        for chunk in chunks(names, self.store.limits.batch_keys):
            entries = await self.store.get(self.principal, space, [pack((name,)) for name in chunk])
            budget -= sum(len(entry.value) for entry in entries if entry is not None)
            if budget < 0:
                raise self.reply_too_long()
            found += entries
        return found

    def reply_too_long(self) -> TooLarge:
        """The failure of a command whose reply would exceed its bound."""
        return TooLarge(f"the reply would exceed {self.limits.reply_bytes:,} bytes; ask for fewer keys at a time")

    async def write(self, space: Space, writes: Sequence[Write]) -> list[Outcome]:
        """Write in batches, so that even a huge command lets other writers in. Raises the first failure.

        It ends between two of them if the client leaves.
        """
        outcomes: list[Outcome] = []
        for batch in batches(writes, self.store.limits.batch_keys):
            with self.preparing():
                pass
            outcomes += raise_failure(await self.store.write_many(self.principal, space, batch))
        return outcomes

    async def change(self, space: Space, keys: Sequence[bytes], change: Change) -> None:
        """What `Store.update_many` does; large values are changed beside the event loop, and written if still same."""
        entries = await self.store.get(self.principal, space, keys, extend=False)
        if sum([len(entry.value) for entry in entries if entry is not None]) <= INLINE_BYTES:
            await self.store.update_many(self.principal, space, keys, change)
            return
        async with self.alone(space, keys):
            mutations: Sequence[Mutation] | None = None
            while mutations is None or (mutations and not await self.put_if_unchanged(space, keys, entries, mutations)):
                entries = await self.store.get(self.principal, space, keys, extend=False)
                with self.preparing():
                    mutations = await in_thread(partial(change, entries))

    @contextlib.asynccontextmanager
    async def alone(self, space: Space, keys: Sequence[bytes]) -> AsyncIterator[None]:
        """While it lasts, no other command looks into these keys to change them: of many at once, all but one would
        have to begin anew."""
        async with contextlib.AsyncExitStack() as stack:
            with self.preparing():
                await stack.enter_async_context(self._turns.taken(space.number, keys))
            yield

    @contextlib.contextmanager
    def preparing(self) -> Iterator[None]:
        """While it lasts, nothing is being written: if the client leaves, the command ends."""
        self._may_end(True)
        try:
            yield
        finally:
            self._may_end(False)

    async def put_if_unchanged(
        self, space: Space, keys: Sequence[bytes], seen: Sequence[Entry | None], new: Sequence[Mutation]
    ) -> bool:
        """Write unless an entry has changed since. What was computed takes too long to run within `Store.update`."""
        stamps = [entry and entry.versionstamp for entry in seen]

        def change(entries: list[Entry | None]) -> Sequence[Mutation]:
            return new if [entry and entry.versionstamp for entry in entries] == stamps else ()

        _, commit = await self.store.update_many(self.principal, space, keys, change)
        return commit is not None


class BaseCommand(Struct, frozen=True):
    """A row of a profile's table: a command's name and the parameters it takes."""

    name: str
    shape: Shape


class ReadCommand(BaseCommand, frozen=True):
    """Reads the keys that its parameter `keys` names. Reads that arrive together share a call to the store."""

    #: (parameters, names, their entries) -> the reply
    render: Callable[[dict[str, Any], list[str], list[Entry | None]], bytes]


class WriteCommand(BaseCommand, frozen=True):
    """Only writes. Writes that arrive together share a call to the store."""

    #: (number of the space, most mutations of one write, parameters) -> what to write
    make_writes: Callable[[int, int, dict[str, Any]], list[Write]]
    #: (parameters, outcomes without failures) -> the reply; None if there is none
    render: Callable[[dict[str, Any], Sequence[Outcome]], bytes | None]


class OtherCommand(BaseCommand, frozen=True):
    """Runs by itself, after all writes before it are committed."""

    #: (context, parameters) -> the reply; None if there is none
    run: Callable[[CommandContext, dict[str, Any]], Awaitable[bytes | None]]


Command = ReadCommand | WriteCommand | OtherCommand


def raise_failure(outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
    """The outcomes, unless one of them is a failure, which is raised."""
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
    return outcomes


def chunks(items: Sequence[Any], size: int) -> Iterator[Any]:
    """The items, `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def batches(writes: Sequence[Write], max_mutations: int) -> Iterator[list[Write]]:
    """The writes in batches of at most `max_mutations`; a single larger write is a batch by itself."""
    batch: list[Write] = []
    weight = 0
    for write in writes:
        if batch and weight + len(write.mutations) > max_mutations:
            yield batch
            batch, weight = [], 0
        batch.append(write)
        weight += len(write.mutations)
    if batch:
        yield batch
