"""The data plane: the only way from dialects to an engine. Limits, permissions, and a cache that is never stale.

A request calls `refresh` once (authentication does it), opens its space, then reads or writes. What `refresh` leaves
in the cache was true at that moment for every process, which the engine's epoch proves. Trying to do something without
waiting, and waiting only if that fails, is done here or by callers of the methods that end in `_nowait`; never below.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from functools import partial

import msgspec
from ulid import ULID

from kvasir.engine import Clock, Engine, Outcome, Waiter, Watch
from kvasir.errors import Forbidden, KvasirError, NotFound
from kvasir.keys import under
from kvasir.limits import Limits
from kvasir.model import (
    Alias,
    Check,
    Children,
    Commit,
    Conflict,
    DeleteRange,
    Entry,
    Joined,
    KeyRange,
    Mutation,
    Page,
    Present,
    Principal,
    Query,
    Set,
    Space,
    Write,
)
from kvasir.store.clearing import clamp_expiry, next_clear, was_cleared_since
from kvasir.store.permissions import MANAGERS, READERS, WRITERS, confine, forbidden, only, require
from kvasir.store.reading import Reader
from kvasir.store.space_cache import SpaceCache
from kvasir.store.turns import Turns, compare_and_set
from kvasir.store.watch_guard import WatchGuard


class Store:
    """Spaces and entries, as a dialect sees them. Every method may raise any `KvasirError`."""

    def __init__(self, engine: Engine, limits: Limits, clock: Clock) -> None:
        self.limits = limits
        self.clock = clock
        self._engine = engine
        self._write_nowait = engine.write_nowait
        self._reader = Reader(engine, self.now, limits)
        #: Whether `write_many_nowait` always returns None.
        self.writes_wait = engine.write_nowait is None
        self._spaces = SpaceCache(self.now)
        self._guard = WatchGuard(self, engine)
        self._turns = Turns()

    def now(self, space: Space) -> int:  # noqa: ARG002  # only in a test bed do spaces differ
        """The time in a space, in Unix milliseconds."""
        return self.clock()

    async def refresh(self) -> int:
        """Forget whatever another process may have changed. Returns the epoch that the cache is now true for."""
        epoch = self.refresh_nowait()
        return self._spaces.move_to(await self._engine.epoch()) if epoch is None else epoch

    def refresh_nowait(self) -> int | None:
        """Like `refresh`, if that takes no waiting; otherwise None, and nothing is forgotten."""
        epoch = self._engine.epoch_nowait()
        return epoch if epoch is None or epoch == self._spaces.epoch else self._spaces.move_to(epoch)

    # -- spaces -------------------------------------------------------------------------------------------

    async def open(self, principal: Principal, id: str) -> Space:
        """The living space with this ULID, if the principal may know of it.

        Raises `NotFound` with the code "store_not_found" if there is none, and just so for a space of another
        organisation or outside the credential's scope: nobody learns that it exists.
        """
        space = self._spaces.peek(id)
        if space is None or (space.expires_at is not None and self._spaces.is_expired(space)):
            space = await self._spaces.fetch(id, self._engine.get_space(id))
        return self._known_to(principal, space)

    async def resolve(self, principal: Principal, alias: Alias) -> Space:
        """The living space under an alias, on the same terms as `open`."""
        space = self._spaces.peek(alias)
        if space is None or (space.expires_at is not None and self._spaces.is_expired(space)):
            space = await self._spaces.fetch(alias, self._engine.resolve(alias))
        return self._known_to(principal, space)

    def resolve_nowait(self, principal: Principal, name: Alias | str) -> Space | None:
        """What `resolve`, or `open` of a ULID, finds if it is cached and no scope has to be examined; else None."""
        space = self._spaces.peek(name)
        if space is None or principal.spaces is not None or space.organisation != principal.organisation:
            return None
        return None if space.expires_at is not None and self._spaces.is_expired(space) else space

    async def create(self, principal: Principal, space: Space, aliases: Sequence[Alias]) -> Space:
        """Create a space, with `number` and `created_at` filled in, and `id` unless it is given; or get the one that
        already has an alias."""
        require(principal, WRITERS if space.kind == "session" else MANAGERS)
        if principal.spaces is not None:
            raise Forbidden("this access key is limited to certain stores, so it cannot create one")
        if principal.keys is not None and space.kind != "session":
            raise Forbidden("this access key is limited to a key prefix, so it cannot create a store")
        created = msgspec.structs.replace(space, id=space.id or self.new_id(), created_at=self.clock())
        return await self._engine.create_space(created, aliases)

    def new_id(self) -> str:
        """The ULID of a space to come. Who gives it to `create` can tell whether that has created the space."""
        return str(ULID.from_timestamp(self.clock() / 1000))

    async def list_spaces(
        self, principal: Principal, kind: str | None, *, after: str = "", limit: int | None = None
    ) -> list[Space]:
        """The spaces of one kind, or of every kind, that the principal may know of, in ascending order of ULIDs."""
        require(principal, READERS)
        owner = principal.organisation
        if principal.spaces is None:
            return await self._engine.list_spaces(organisation=owner, kind=kind, after=after, limit=limit)
        found: list[Space] = []
        for id in sorted(id for id in principal.spaces if id > after):
            space = await self._engine.get_space(id)
            if space is not None and space.organisation == owner and kind in (None, space.kind):
                found.append(space)
        return found[:limit]

    async def count_spaces(self, principal: Principal, kind: str) -> tuple[int, int]:
        """(spaces, entries in them) of one kind that the principal may know of."""
        require(principal, READERS)
        confine(principal, None)
        if principal.spaces is None:
            return await self._engine.count_spaces(kind, principal.organisation)
        spaces = await self.list_spaces(principal, kind)
        return len(spaces), sum([await self._engine.count(space.number) for space in spaces])

    async def end(self, principal: Principal, space: Space) -> bool:
        """End a space and all its keys. False: it was already gone."""
        require(principal, WRITERS if space.kind == "session" else MANAGERS)
        confine(principal, None)
        return await self._engine.end_space(self._known_to(principal, space).id)

    async def aliases(self, principal: Principal, space: Space) -> list[Alias]:
        """The aliases of a space, sorted."""
        require(principal, READERS)
        return await self._engine.aliases(self._known_to(principal, space).id)

    async def alter(
        self, principal: Principal, space: Space, name: str, *, add: Sequence[Alias], remove: Sequence[Alias]
    ) -> Space:
        """Rename a space and change its aliases in one commit.

        Returns it as it is then, or the space that already has one of the added aliases, even if the principal may not
        know of it, so do not show it; nothing has changed then. Raises `NotFound` if it is gone.
        """
        require(principal, WRITERS if space.kind == "session" else MANAGERS)
        confine(principal, None)
        id = self._known_to(principal, space).id
        altered = await self._engine.alter_space(id, name=name, add=add, remove=remove)
        return altered if altered is not None and altered.id != id else self._known_to(principal, altered)

    def _known_to(self, principal: Principal, space: Space | None) -> Space:
        if (
            space is None
            or space.organisation != principal.organisation
            or (principal.spaces is not None and space.id not in principal.spaces)
            or (space.expires_at is not None and self._spaces.is_expired(space))
        ):
            raise NotFound("there is no such store, or it is not yours", code="store_not_found")
        return space

    # -- reading ------------------------------------------------------------------------------------------

    async def get(
        self, principal: Principal, space: Space, keys: Sequence[bytes], *, extend: bool = True, max_bytes: int = 2**62
    ) -> list[Entry | None]:
        """The entries of packed keys in one snapshot. Raises `TooLarge`, also for more than `max_bytes` of values.

        Reading extends the life of entries that were set with `refresh`; without `extend` it does not, as in a listing.
        """
        if principal.role not in READERS:
            raise forbidden(principal, READERS)
        if principal.keys is not None:
            for key in keys:
                confine(principal, only(key))
        entries = self._engine.get_nowait(space.number, keys)
        if entries is None:
            return await self._reader.get(space, keys, extend=extend, max_bytes=max_bytes)
        if len(keys) > self._reader.light_keys:
            self._reader.check_size(entries, max_bytes)
        return await self._reader.extended(space, keys, entries) if extend else entries

    def get_nowait(self, principal: Principal, space: Space, keys: Sequence[bytes]) -> list[Entry | None] | None:
        """What `get` gives, if that takes no waiting and the principal may read every key; None says nothing."""
        if principal.keys is not None or principal.role not in READERS:
            return None
        entries = self._engine.get_nowait(space.number, keys)
        if entries is not None:
            for entry in entries:
                if entry is not None and entry.slides:
                    return None  # its new expiry must be durable first
        return entries

    async def page(self, principal: Principal, space: Space, query: Query) -> Page:
        """A page of one snapshot; see `Query`."""
        require(principal, READERS)
        confine(principal, query.range)
        if query.max_bytes is None:
            query = msgspec.structs.replace(query, max_bytes=self.limits.page_bytes)
        return await self._engine.page(space.number, query)

    async def children(
        self,
        principal: Principal,
        space: Space,
        prefix: bytes,
        *,
        after: bytes | None = None,
        limit: int | None = None,
    ) -> Children:
        """The next parts below a packed prefix, b"" for the first parts; see `Engine.children`."""
        require(principal, READERS)
        confine(principal, under(prefix) if prefix else None)
        return await self._engine.children(space.number, prefix, after=after, limit=limit)

    def scan(
        self, principal: Principal, space: Space, range: KeyRange | None = None, joined: bool = False
    ) -> AsyncGenerator[list[Entry] | Joined, None]:
        """Entries of one snapshot in key order, in batches; see `Engine.scan`."""
        require(principal, READERS)
        confine(principal, range)
        return self._engine.scan(space.number, range, joined)

    async def watch(
        self,
        principal: Principal,
        space: Space,
        ranges: Sequence[KeyRange],
        *,
        since: int | None = None,
        recheck: Callable[[], Awaitable[Principal]] | None = None,
    ) -> Watch:
        """Watch the keys in these ranges; see `Engine.watch`. To be closed.

        Ends with an error within a second of the space's end. `recheck` authenticates the caller again, and is called
        whenever its credential may have expired or been revoked; what it raises ends the watch.
        """
        require(principal, READERS)
        for each in ranges:
            confine(principal, each)
        return await self._guard.watch(principal, space, ranges, since, recheck)

    async def count(self, principal: Principal, space: Space, range: KeyRange | None = None) -> int:
        """How many entries `page` would give for this range."""
        require(principal, READERS)
        confine(principal, range)
        return await self._engine.count(space.number, range)

    # -- writing ------------------------------------------------------------------------------------------

    async def write(
        self, principal: Principal, space: Space, *mutations: Mutation, when: Sequence[Check | Present] = ()
    ) -> Commit | Conflict:
        """Apply mutations at one instant if all conditions hold; durable before it returns."""
        if principal.role not in WRITERS:
            raise forbidden(principal, WRITERS)
        began = 0 if space.clear_every is None else self.now(space)
        admitted = self._admit(principal, space, Write(space.number, mutations, tuple(when)))
        outcome = (await self._engine.write((admitted,)))[0]
        if isinstance(outcome, KvasirError):
            raise outcome
        if began and isinstance(outcome, Commit) and was_cleared_since(space, began, self.now(space)):
            again = await self.write(principal, space, *mutations, when=when)
            return again if isinstance(again, Commit) else outcome
        return outcome

    async def write_many(self, principal: Principal, space: Space, writes: Sequence[Write]) -> list[Outcome]:
        """Apply independent writes to one space in order, with one durable commit; one outcome each.

        If `space` is not cleared from time to time (`clear_every`), they may be to others that are not, either, and
        were opened like it.
        """
        if principal.role not in WRITERS:
            raise forbidden(principal, WRITERS)
        began = 0 if space.clear_every is None else self.now(space)
        admitted, refused = self._admit_all(principal, space, writes)
        outcomes = await self._engine.write(admitted) if admitted else []
        if began and was_cleared_since(space, began, self.now(space)):
            later = await self._engine.write(self._admit_all(principal, space, writes)[0])
            outcomes = [
                first if isinstance(first, Commit) and isinstance(again, Conflict) else again
                for first, again in zip(outcomes, later, strict=True)
            ]
        return _merged(outcomes, refused)

    def submit(self, principal: Principal, space: Space, writes: Sequence[Write], waiter: Waiter) -> bool:
        """Begin what `write_many` does, without a coroutine; `waiter` gets the outcomes. False: nothing was done.

        Nor was it if this raises, because one of the writes is not allowed or the queue is full.
        """
        if principal.role not in WRITERS or space.clear_every is not None:
            return False
        self._engine.submit([self._admit(principal, space, write) for write in writes], waiter)
        return True

    def write_many_nowait(self, principal: Principal, space: Space, writes: Sequence[Write]) -> list[Outcome] | None:
        """What `write_many` gives, if the engine writes without waiting; None: it does not, and nothing was written."""
        if self._write_nowait is None:
            return None
        require(principal, WRITERS)
        admitted, refused = self._admit_all(principal, space, writes)
        return _merged(self._write_nowait(admitted) if admitted else [], refused)

    def _admit_all(
        self, principal: Principal, space: Space, writes: Sequence[Write]
    ) -> tuple[list[Write], dict[int, KvasirError]]:
        """The writes that are allowed, and why each of the others is not, by its index."""
        admitted: list[Write] = []
        refused: dict[int, KvasirError] = {}
        for index, write in enumerate(writes):
            try:
                admitted.append(self._admit(principal, space, write))
            except KvasirError as refusal:
                refused[index] = refusal
        return admitted, refused

    def _admit(self, principal: Principal, space: Space, write: Write) -> Write:
        limits = self.limits
        if principal.keys is not None:
            for condition in write.conditions:
                confine(principal, only(condition.key))
        for index, mutation in enumerate(write.mutations):
            if mutation.__class__ is Set:
                limits.check_key(mutation.key, index)
                limits.check_value(mutation.value, index)
                if mutation.metadata is not None:
                    limits.check_metadata(mutation.metadata, index)
            elif not isinstance(mutation, DeleteRange):
                limits.check_key(mutation.key, index)
            elif mutation.range is not None:
                limits.check_key(mutation.range.start, index)
            if principal.keys is not None:
                confine(principal, mutation.range if isinstance(mutation, DeleteRange) else only(mutation.key))
        if space.clear_every is not None:
            now = self.now(space)
            clear_at = next_clear(space, now)
            clamped = tuple(clamp_expiry(mutation, clear_at, now) for mutation in write.mutations)
            return msgspec.structs.replace(write, mutations=clamped)
        return write

    async def update(
        self, principal: Principal, space: Space, key: bytes, change: Callable[[Entry | None], Mutation | None]
    ) -> tuple[Entry | None, Commit | None]:
        """Read, compute and write one key as one atomic step; `change` returns None to leave it as it is."""

        def change_all(entries: list[Entry | None]) -> Sequence[Mutation]:
            mutation = change(entries[0])
            return () if mutation is None else (mutation,)

        entries, commit = await self.update_many(principal, space, (key,), change_all)
        return entries[0], commit

    async def update_many(
        self,
        principal: Principal,
        space: Space,
        keys: Sequence[bytes],
        change: Callable[[list[Entry | None]], Sequence[Mutation]],
    ) -> tuple[list[Entry | None], Commit | None]:
        """Read, compute and write several different keys as one atomic step, by compare-and-set.

        `change` gets the living entries, None for a key that has none, and returns the mutations, none to leave things
        as they are; what it raises passes through. Returns the entries it last got and the commit. Callers in one
        process take turns, so that they do not make each other fail.
        """
        require(principal, WRITERS)
        for key in keys:
            confine(principal, only(key))
        async with self._turns.taken(space.number, keys):
            return await compare_and_set(self._engine, space, keys, change, partial(self.write, principal, space))


def _merged(outcomes: list[Outcome], refused: dict[int, KvasirError]) -> list[Outcome]:
    for index, refusal in refused.items():  # in ascending order, so each gets its own index
        outcomes.insert(index, refusal)
    return outcomes
