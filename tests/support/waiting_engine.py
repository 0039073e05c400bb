"""A memory engine whose writes wait, as on a disk: for tests that hold them up, count them, or have them fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from kvasir.engine import Outcome, Waiter
from kvasir.engines.memory import MemoryEngine
from kvasir.errors import KvasirError
from kvasir.model import Write


class WaitingEngine(MemoryEngine):
    """What a subclass does in `write` happens to every write."""

    write_nowait = None  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self._submitted: set[asyncio.Task[None]] = set()

    def submit(self, writes: Sequence[Write], waiter: Waiter) -> None:
        task = asyncio.get_running_loop().create_task(self._tell_after(self.write(writes), waiter))
        self._submitted.add(task)
        task.add_done_callback(self._submitted.discard)

    async def _tell_after(self, writing: Awaitable[list[Outcome]], waiter: Waiter) -> None:
        try:
            outcomes = await writing
        except KvasirError as error:
            waiter.set_exception(error)
        else:
            waiter.set_result(outcomes)
