"""Reclaims what has expired or ended, in small steps with pauses. Of all servers on a database one sweeps at a time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from kvasir.engines.postgres import failures
from kvasir.engines.postgres.pool import Pool
from kvasir.errors import KvasirError
from kvasir.model import WriterStats

SWEEP = "select kvasir_sweep($1, $2, $3)"

#: Entries per step, which is one transaction of a few milliseconds.
ROWS = 200
#: The pause after a step that found nothing.
IDLE_SECONDS = 1.0
#: The pause after a step that found something, as a multiple of the time it took.
REST = 5.0


class Sweeper:
    """The background task of one process."""

    def __init__(self, pool: Pool, now: Callable[[], int | None], stats: WriterStats) -> None:
        self._pool = pool
        self._now = now
        self._stats = stats
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the pool must be open."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End it, after the step that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def step(self, *, wait: bool) -> int:
        """See `Engine.sweep`. `wait` for another process that is sweeping, instead of leaving the work to it."""
        rows: list[Any] = await self._pool.write(SWEEP, self._now(), ROWS, wait)
        swept = int(rows[0][0])
        self._stats.swept += swept
        return swept

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                swept = await self.step(wait=False)
            except KvasirError as error:
                failures.log.debug("the sweep was put off: %s", error.message)
                swept = 0
            took = time.monotonic() - began
            # Random, so that processes do not all sweep at the same moment.
            await asyncio.sleep(took * REST if swept else IDLE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311
