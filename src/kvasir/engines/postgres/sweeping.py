"""Reclaims what is dead, in small steps with pauses. Servers on one database share this work: one at a time does it."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from kvasir.engines.postgres import failures
from kvasir.engines.postgres.link import Link
from kvasir.errors import KvasirError
from kvasir.model import WriterStats

SWEEP = "select kvasir_sweep($1, $2, $3)"

#: Entries in one step, which is one transaction of a few milliseconds.
ROWS = 200
#: Between two looks that find nothing.
EVERY_SECONDS = 1.0
#: Between two steps that find something: the database rests this many times as long as the step took.
REST = 5.0


class Sweeper:
    """The background task of one process."""

    def __init__(self, link: Link, now: Callable[[], int | None], stats: WriterStats) -> None:
        self._link = link
        self._now = now
        self._stats = stats
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; needs an open link."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End it, after the step under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def step(self, *, wait: bool) -> int:
        """See `Engine.sweep`. `wait`: for the step of another process, instead of leaving the work to it."""
        rows: list[Any] = await self._link.write(SWEEP, self._now(), ROWS, wait)
        swept = int(rows[0][0])
        self._stats.swept += swept
        return swept

    async def _run(self) -> None:
        while True:
            began = time.monotonic()
            try:
                swept = await self.step(wait=False)
            except KvasirError as error:
                failures.log.debug("the sweep waits: %s", error.message)
                swept = 0
            took = time.monotonic() - began
            # Not all processes at the same moment.
            await asyncio.sleep(took * REST if swept else EVERY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311
