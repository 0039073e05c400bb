"""Callers in one process that update the same keys take turns, so that they do not make each other fail."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from weakref import WeakValueDictionary

from kvasir.engine import Engine
from kvasir.errors import Unavailable
from kvasir.model import Check, Commit, Conflict, Entry, Mutation, Space

#: Rounds of read, compute, compare-and-set before a contended update gives up.
UPDATE_ROUNDS = 100


class Turns:
    """A lock for each key that is being updated."""

    def __init__(self) -> None:
        # A lock vanishes once the last caller that waits for its key has released it.
        self._locks: WeakValueDictionary[tuple[int, bytes], asyncio.Lock] = WeakValueDictionary()

    @contextlib.asynccontextmanager
    async def taken(self, space: int, keys: Sequence[bytes]) -> AsyncIterator[None]:
        """While it lasts, it is nobody else's turn with these keys."""
        async with contextlib.AsyncExitStack() as turns:
            for key in sorted(keys):  # everyone in the same order: no deadlock
                await turns.enter_async_context(self._locks.setdefault((space, key), asyncio.Lock()))
            yield


async def compare_and_set(
    engine: Engine,
    space: Space,
    keys: Sequence[bytes],
    change: Callable[[list[Entry | None]], Sequence[Mutation]],
    write: Callable[..., Awaitable[Commit | Conflict]],
) -> tuple[list[Entry | None], Commit | None]:
    """See `Store.update_many`. `write` takes mutations, and conditions as `when`. Raises `Unavailable`."""
    for _ in range(UPDATE_ROUNDS):
        entries = engine.get_nowait(space.number, keys)
        if entries is None:
            entries = await engine.get(space.number, keys)
        mutations = change(entries)
        if not mutations:
            return entries, None
        pairs = zip(keys, entries, strict=True)
        checks = [Check(key, entry.versionstamp if entry else None) for key, entry in pairs]
        outcome = await write(*mutations, when=checks)
        if isinstance(outcome, Commit):
            return entries, outcome
    raise Unavailable("too many writers change this key at the same time; try again")
