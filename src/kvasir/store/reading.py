"""Reading keys that takes waiting: within the bound on a response, few large reads at a time, lives extended."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from kvasir.engine import Engine
from kvasir.errors import TooLarge, response_too_long
from kvasir.limits import Limits
from kvasir.model import Entry, Space
from kvasir.store.sliding import extend_lives

#: Reads of several keys whose values have more bytes than this in all are large; so many are under way at a time.
LARGE_BYTES, LARGE_READS = 1 << 20, 2


class Reader:
    """The reads of one process."""

    def __init__(self, engine: Engine, time_in: Callable[[Space], int], limits: Limits) -> None:
        self._engine = engine
        self._time_in = time_in
        self._limits = limits
        #: The values of this many keys cannot exceed the bound on a response, so nobody adds them up.
        self.light_keys = max(1, limits.batch_answer_bytes // limits.value_bytes)
        self._large_reads = asyncio.Semaphore(LARGE_READS)

    async def get(self, space: Space, keys: Sequence[bytes], *, extend: bool, max_bytes: int) -> list[Entry | None]:
        """The entries of keys in one snapshot; those set with `refresh` live on, if `extend`. Raises `TooLarge`."""
        if len(keys) == 1:
            entries = await self._engine.get(space.number, keys)
            return await self.extended(space, keys, entries) if extend else entries
        max_bytes = min(max_bytes, self._limits.batch_answer_bytes)
        small = min(LARGE_BYTES, max_bytes)
        with contextlib.suppress(TooLarge):
            entries = await self._engine.get(space.number, keys, small)
            self.check_size(entries, small)
            return await self.extended(space, keys, entries) if extend else entries
        # Few at a time: each may take as many bytes as a response may have, twice.
        async with self._large_reads:
            entries = await self._engine.get(space.number, keys, max_bytes)
            self.check_size(entries, max_bytes)
            return await self.extended(space, keys, entries) if extend else entries

    async def extended(self, space: Space, keys: Sequence[bytes], entries: list[Entry | None]) -> list[Entry | None]:
        """The entries, whose lives are extended if they were set so."""
        for entry in entries:
            if entry is not None and entry.slides:
                return await extend_lives(self._engine, self._time_in, self._limits, space, keys, entries)
        return entries

    def check_size(self, entries: list[Entry | None], max_bytes: int) -> None:
        """Raise `TooLarge` if the values have more bytes than that, or than a response may have."""
        max_bytes = min(max_bytes, self._limits.batch_answer_bytes)
        # The engine counts each key once, but a caller who asks for it twice gets it twice.
        if sum([len(entry.value) for entry in entries if entry is not None]) > max_bytes:
            raise response_too_long(max_bytes)
