"""The store of a server whose requests are watched: it notes what each is about and how long it reads and waits."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from kvasir.engine import Clock, Engine, Outcome, Waiter
from kvasir.limits import Limits
from kvasir.model import (
    Alias,
    Check,
    Children,
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
    Space,
    Write,
)
from kvasir.store.store import Store
from kvasir.store.turns import Turns
from kvasir.timing import COMMIT, READ, WAIT, current

#: What is over sooner, without any waiting, is not worth the note.
MOMENT_SECONDS = 0.0005


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    """What is done inside is reading, but for the writes among it."""
    timed, began = current.get(), time.perf_counter()
    written = 0.0 if timed is None else timed.seconds(WAIT, COMMIT)
    try:
        yield
    finally:
        if timed is not None:
            timed.spent(READ, began, time.perf_counter(), less=timed.seconds(WAIT, COMMIT) - written)


def _about(space: Space | None, key: bytes | None = None, keys: int = 0) -> None:
    timed = current.get()
    if timed is not None and space is not None:
        timed.space = space
        if keys:
            timed.key, timed.keys = key, keys


def _about_writes(space: Space, mutations: Sequence[Mutation]) -> None:
    keys = [mutation.key for mutation in mutations if not isinstance(mutation, DeleteRange)]
    _about(space, keys[0] if keys else None, len(keys))


class _Turns(Turns):
    @contextlib.asynccontextmanager
    async def taken(self, space: int, keys: Sequence[bytes]) -> AsyncIterator[None]:
        began = time.perf_counter()
        async with super().taken(space, keys):
            if (timed := current.get()) is not None:
                timed.spent(WAIT, began, time.perf_counter())
            yield


class TimedStore(Store):
    """A `Store` that tells the current request what it did."""

    def __init__(self, engine: Engine, limits: Limits, clock: Clock) -> None:
        super().__init__(engine, limits, clock)
        self._turns = _Turns()

    # -- spaces -------------------------------------------------------------------------------------------

    async def open(self, principal: Principal, id: str) -> Space:
        with _reading():
            space = await super().open(principal, id)
        _about(space)
        return space

    async def resolve(self, principal: Principal, alias: Alias) -> Space:
        with _reading():
            space = await super().resolve(principal, alias)
        _about(space)
        return space

    async def list_spaces(
        self, principal: Principal, kind: str | None, *, after: str = "", limit: int | None = None
    ) -> list[Space]:
        with _reading():
            return await super().list_spaces(principal, kind, after=after, limit=limit)

    async def count_spaces(self, principal: Principal, kind: str) -> tuple[int, int]:
        with _reading():
            return await super().count_spaces(principal, kind)

    # -- reading ------------------------------------------------------------------------------------------

    async def get(
        self, principal: Principal, space: Space, keys: Sequence[bytes], *, extend: bool = True, max_bytes: int = 2**62
    ) -> list[Entry | None]:
        _about(space, keys[0] if keys else None, len(keys))
        with _reading():
            return await super().get(principal, space, keys, extend=extend, max_bytes=max_bytes)

    def get_nowait(self, principal: Principal, space: Space, keys: Sequence[bytes]) -> list[Entry | None] | None:
        began = time.perf_counter()
        found = Store.get_nowait(self, principal, space, keys)  # to look for it by `super` costs more
        timed = current.get()
        if timed is not None and keys:
            timed.space, timed.key, timed.keys = space, keys[0], len(keys)
            if (ended := time.perf_counter()) - began > MOMENT_SECONDS:
                timed.spent(READ, began, ended)
        return found

    async def page(self, principal: Principal, space: Space, query: Query) -> Page:
        _about(space)
        with _reading():
            return await super().page(principal, space, query)

    async def children(
        self,
        principal: Principal,
        space: Space,
        prefix: bytes,
        *,
        after: bytes | None = None,
        limit: int | None = None,
    ) -> Children:
        _about(space)
        with _reading():
            return await super().children(principal, space, prefix, after=after, limit=limit)

    async def count(self, principal: Principal, space: Space, range: KeyRange | None = None) -> int:
        _about(space)
        with _reading():
            return await super().count(principal, space, range)

    # -- writing ------------------------------------------------------------------------------------------

    async def write(
        self, principal: Principal, space: Space, *mutations: Mutation, when: Sequence[Check | Present] = ()
    ) -> Commit | Conflict:
        _about_writes(space, mutations)
        return await super().write(principal, space, *mutations, when=when)

    async def write_many(self, principal: Principal, space: Space, writes: Sequence[Write]) -> list[Outcome]:
        _about_writes(space, [mutation for write in writes for mutation in write.mutations])
        return await super().write_many(principal, space, writes)

    def submit(self, principal: Principal, space: Space, writes: Sequence[Write], waiter: Waiter) -> bool:
        _about_writes(space, [mutation for write in writes for mutation in write.mutations])
        return super().submit(principal, space, writes, waiter)

    def write_many_nowait(self, principal: Principal, space: Space, writes: Sequence[Write]) -> list[Outcome] | None:
        _about_writes(space, [mutation for write in writes for mutation in write.mutations])
        return super().write_many_nowait(principal, space, writes)

    async def update_many(
        self,
        principal: Principal,
        space: Space,
        keys: Sequence[bytes],
        change: Callable[[list[Entry | None]], Sequence[Mutation]],
    ) -> tuple[list[Entry | None], Commit | None]:
        _about(space, keys[0] if keys else None, len(keys))
        return await super().update_many(principal, space, keys, change)
