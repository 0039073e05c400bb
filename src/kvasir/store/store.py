"""The data plane: the only way from dialects to an engine. Limits, rights and caches that are never stale.

A request calls `refresh` once (authentication does it), opens its space, then reads or writes. What `refresh` leaves
in the caches was true at that moment in every process: the engine's epoch says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar
from weakref import WeakValueDictionary

import msgspec
from ulid import ULID

from kvasir.engine import Clock, Engine, Outcome
from kvasir.errors import Forbidden, KvasirError, NotFound, Unavailable, response_too_long
from kvasir.limits import Limits
from kvasir.model import (
    Alias,
    Check,
    Commit,
    Conflict,
    DeleteRange,
    Entry,
    KeyRange,
    Mutation,
    Page,
    Present,
    Principal,
    Query,
    Set,
    Space,
    Touch,
    Write,
)
from kvasir.store.clearing import ended, ending, period_end
from kvasir.store.permissions import MANAGERS, READERS, WRITERS, confine, only, require

#: Spaces remembered by one process before it starts over; each is a few hundred bytes.
CACHED_SPACES = 10_000

#: Rounds of read, compute, compare-and-set before a contended `update` gives up.
UPDATE_ROUNDS = 100

T = TypeVar("T")


class Store:
    """Spaces and entries, as a dialect sees them. Every method may raise any `KvasirError`."""

    def __init__(self, engine: Engine, limits: Limits, clock: Clock) -> None:
        self.limits = limits
        self.clock = clock
        self._engine = engine
        self._write_nowait = engine.write_nowait
        #: Values of this many keys cannot pass the bound on an answer, so nobody weighs them.
        self._light_keys = max(1, limits.batch_answer_bytes // limits.value_bytes)
        #: Whether `write_many_nowait` always says None.
        self.writes_wait = engine.write_nowait is None
        self._epoch = -1
        self._spaces: dict[str | Alias, Space] = {}
        self._updating: WeakValueDictionary[tuple[int, bytes], asyncio.Lock] = WeakValueDictionary()

    async def refresh(self) -> int:
        """Forget whatever another process may have changed. Returns the epoch the caches now stand for."""
        epoch = self.refresh_nowait()
        return self._refreshed_to(await self._engine.epoch()) if epoch is None else epoch

    def refresh_nowait(self) -> int | None:
        """The same, if it takes no waiting; else None."""
        epoch = self._engine.epoch_nowait()
        return epoch if epoch is None or epoch == self._epoch else self._refreshed_to(epoch)

    def _refreshed_to(self, epoch: int) -> int:
        if epoch != self._epoch:
            self._spaces.clear()
            self._epoch = epoch
        return epoch

    # -- spaces -------------------------------------------------------------------------------------------

    async def open(self, principal: Principal, id: str) -> Space:
        """The living space with this ULID that the principal may know of.

        Raises `NotFound` with the code "store_not_found" for one that is not there, and likewise for one of another
        organisation or outside the credential's scope: nobody learns that it exists.
        """
        space = self._spaces.get(id)
        if space is None or self._expired(space):
            space = await self._remembered(id, lambda: self._engine.get_space(id))
        return self._known_to(principal, space)

    async def resolve(self, principal: Principal, alias: Alias) -> Space:
        """The living space under an alias, on the same terms as `open`."""
        return self._known_to(principal, await self._remembered(alias, lambda: self._engine.resolve(alias)))

    def cached(self, principal: Principal, alias: Alias) -> Space | None:
        """What `resolve` would find, if it is remembered; None says nothing. Saves a caller in a hurry the waiting."""
        space = self._spaces.get(alias)
        if space is None or principal.spaces is not None or space.organisation != principal.organisation:
            return None
        return None if space.expires_at is not None and self._expired(space) else space

    async def create(self, principal: Principal, space: Space, aliases: Sequence[Alias]) -> Space:
        """Create a space (`number`, `id` and `created_at` are filled in), or get the one that has an alias already."""
        require(principal, WRITERS if space.kind == "session" else MANAGERS)
        if principal.spaces is not None:
            raise Forbidden("this access key is limited to certain stores and cannot create one")
        now = self.clock()
        return await self._engine.create_space(
            msgspec.structs.replace(space, id=str(ULID.from_timestamp(now / 1000)), created_at=now), aliases
        )

    async def list_spaces(
        self, principal: Principal, kind: str, *, after: str = "", limit: int | None = None
    ) -> list[Space]:
        """The spaces of one kind that the principal may know of, by ascending ULID."""
        require(principal, READERS)
        owner = principal.organisation
        if principal.spaces is None:
            return await self._engine.list_spaces(organisation=owner, kind=kind, after=after, limit=limit)
        found: list[Space] = []
        for id in sorted(id for id in principal.spaces if id > after):
            space = await self._engine.get_space(id)
            if space is not None and (space.kind, space.organisation) == (kind, owner):
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
        """End a space with all its keys. False: somebody else just did."""
        require(principal, WRITERS if space.kind == "session" else MANAGERS)
        confine(principal, None)
        return await self._engine.end_space(self._known_to(principal, space).id)

    async def aliases(self, principal: Principal, space: Space) -> list[Alias]:
        """The aliases of a space, sorted."""
        require(principal, READERS)
        return await self._engine.aliases(self._known_to(principal, space).id)

    async def _remembered(self, name: str | Alias, find: Callable[[], Awaitable[Space | None]]) -> Space | None:
        space = self._spaces.get(name)
        # The alias of an expired space may lead to a successor; expiry moves no epoch.
        if space is not None and not self._expired(space):
            return space
        epoch = self._epoch
        space = await find()
        # What was found before the caches were last cleared may be what they were cleared for.
        if space is not None and epoch == self._epoch:
            if len(self._spaces) >= CACHED_SPACES:
                self._spaces.clear()
            self._spaces[name] = space
        return space

    def _expired(self, space: Space) -> bool:
        return space.expires_at is not None and space.expires_at <= self.clock()

    def _known_to(self, principal: Principal, space: Space | None) -> Space:
        if (
            space is None
            or space.organisation != principal.organisation
            or (principal.spaces is not None and space.id not in principal.spaces)
            or self._expired(space)
        ):
            raise NotFound("there is no such store, or it is not yours", code="store_not_found")
        return space

    # -- reading ------------------------------------------------------------------------------------------

    async def get(
        self, principal: Principal, space: Space, keys: Sequence[bytes], *, extend: bool = True
    ) -> list[Entry | None]:
        """The entries of packed keys in one snapshot; reading extends the life of those set so. Raises `TooLarge`.

        Without `extend` it is the look of a listing, which extends nothing.
        """
        require(principal, READERS)
        if principal.keys is not None:
            for key in keys:
                confine(principal, only(key))
        entries = self._engine.get_nowait(space.number, keys) if len(keys) <= self._light_keys else None
        if entries is None:
            entries = await self._get(space, keys)
        for entry in entries:
            if entry is not None and entry.refresh is not None and extend:
                return await self._refreshed(space, keys, entries)
        return entries

    def get_nowait(self, principal: Principal, space: Space, keys: Sequence[bytes]) -> list[Entry | None] | None:
        """What `get` gives, if it takes no waiting and is the principal's good right; None says nothing."""
        if principal.keys is not None or principal.role not in READERS:
            return None
        entries = self._engine.get_nowait(space.number, keys)
        if entries is not None:
            for entry in entries:
                if entry is not None and entry.refresh is not None:
                    return None  # its new life must be durable first
        return entries

    async def _get(self, space: Space, keys: Sequence[bytes]) -> list[Entry | None]:
        """The entries of keys that cannot be read without waiting, within the bound on a response."""
        if len(keys) <= self._light_keys:
            return await self._engine.get(space.number, keys)
        max_bytes = self.limits.batch_answer_bytes
        entries = await self._engine.get(space.number, keys, max_bytes)
        # The engine counts each key once, but a caller who asks for it twice gets it twice.
        if sum([len(entry.value) for entry in entries if entry is not None]) > max_bytes:
            raise response_too_long(max_bytes)
        return entries

    async def _refreshed(self, space: Space, keys: Sequence[bytes], entries: list[Entry | None]) -> list[Entry | None]:
        """Extend the entries that want it; durable before the answer, since the answer promises the new expiry."""
        for _ in range(UPDATE_ROUNDS):
            now = self.clock()
            end = period_end(space, now)
            due = {entry.key: entry for entry in entries if entry is not None and entry.refresh is not None}
            expiries = {key: now + (entry.refresh or 0) for key, entry in due.items()}
            if end is not None:
                expiries = {key: min(expiry, end) for key, expiry in expiries.items()}
            outcomes = await self._engine.write(
                [
                    Write(
                        space.number,
                        (Touch(key, expiries[key], extend=True),),
                        (Check(key, entry.versionstamp),),
                    )
                    for key, entry in due.items()
                ]
            )
            for outcome in outcomes:
                if isinstance(outcome, KvasirError):
                    raise outcome
            if all(isinstance(outcome, Commit) for outcome in outcomes):
                return [
                    msgspec.structs.replace(entry, expires_at=max(expiries[entry.key], entry.expires_at or 0))
                    if entry is not None and entry.key in expiries
                    else entry
                    for entry in entries
                ]
            # One was replaced, removed or expired since: the answer is what is there now, all of it at one moment.
            entries = await self._engine.get(space.number, keys, self.limits.batch_answer_bytes)
            if not any(entry is not None and entry.refresh is not None for entry in entries):
                return entries
        raise Unavailable("the entry changes faster than its life can be extended; try again")

    async def page(self, principal: Principal, space: Space, query: Query) -> Page:
        """A page of one snapshot; see `Query`."""
        require(principal, READERS)
        confine(principal, query.range)
        return await self._engine.page(space.number, query)

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
        require(principal, WRITERS)
        began = 0 if space.clear_every is None else self.clock()
        admitted = self._admit(principal, space, Write(space.number, mutations, tuple(when)))
        outcome = (await self._engine.write((admitted,)))[0]
        if isinstance(outcome, KvasirError):
            raise outcome
        if began and isinstance(outcome, Commit) and ended(space, began, self.clock()):
            again = await self.write(principal, space, *mutations, when=when)
            return again if isinstance(again, Commit) else outcome
        return outcome

    async def write_many(self, principal: Principal, space: Space, writes: Sequence[Write]) -> list[Outcome]:
        """Apply independent writes of one space in order with one durable commit; one outcome each."""
        require(principal, WRITERS)
        began = 0 if space.clear_every is None else self.clock()
        admitted, refused = self._admit_all(principal, space, writes)
        outcomes = await self._engine.write(admitted) if admitted else []
        if began and ended(space, began, self.clock()):
            later = await self._engine.write(self._admit_all(principal, space, writes)[0])
            outcomes = [
                first if isinstance(first, Commit) and isinstance(again, Conflict) else again
                for first, again in zip(outcomes, later, strict=True)
            ]
        return _in_place(outcomes, refused)

    def write_many_nowait(self, principal: Principal, space: Space, writes: Sequence[Write]) -> list[Outcome] | None:
        """What `write_many` gives, if writes take no waiting here; None says nothing, and nothing was done."""
        if self._write_nowait is None:
            return None
        require(principal, WRITERS)
        admitted, refused = self._admit_all(principal, space, writes)
        return _in_place(self._write_nowait(admitted) if admitted else [], refused)

    def _admit_all(
        self, principal: Principal, space: Space, writes: Sequence[Write]
    ) -> tuple[list[Write], dict[int, KvasirError]]:
        """What may be written, and the refusals of the others by their place."""
        admitted: list[Write] = []
        refused: dict[int, KvasirError] = {}
        for place, write in enumerate(writes):
            try:
                admitted.append(self._admit(principal, space, write))
            except KvasirError as refusal:
                refused[place] = refusal
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
            now = self.clock()
            end = period_end(space, now)
            return msgspec.structs.replace(write, mutations=tuple(ending(m, end, now) for m in write.mutations))
        return write

    async def update(
        self, principal: Principal, space: Space, key: bytes, change: Callable[[Entry | None], Mutation | None]
    ) -> tuple[Entry | None, Commit | None]:
        """Read, compute and write one key as one atomic step; `change` returns None to leave things as they are."""

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
        """Read, compute and write several keys (each once) as one atomic step, by compare-and-set.

        `change` gets the living entries or None and returns the mutations, none to leave things as they are; what it
        raises comes through. Returns the entries it last saw and the commit. Callers of one process take turns, so
        that they do not make each other fail.
        """
        require(principal, WRITERS)
        for key in keys:
            confine(principal, only(key))
        async with contextlib.AsyncExitStack() as turns:
            for key in sorted(keys):  # in one order, so that nobody waits for somebody who waits
                # Gone as soon as the last caller that waits for this key has let go of it.
                await turns.enter_async_context(self._updating.setdefault((space.number, key), asyncio.Lock()))
            for _ in range(UPDATE_ROUNDS):
                entries = self._engine.get_nowait(space.number, keys)
                if entries is None:
                    entries = await self._engine.get(space.number, keys)
                mutations = change(entries)
                if not mutations:
                    return entries, None
                pairs = zip(keys, entries, strict=True)
                checks = [Check(key, entry.versionstamp if entry else None) for key, entry in pairs]
                outcome = await self.write(principal, space, *mutations, when=checks)
                if isinstance(outcome, Commit):
                    return entries, outcome
        raise Unavailable("too many writers change this key at once; try again")


def _in_place(outcomes: list[Outcome], refused: dict[int, KvasirError]) -> list[Outcome]:
    for place, refusal in refused.items():  # in ascending order, so each finds its place
        outcomes.insert(place, refusal)
    return outcomes
