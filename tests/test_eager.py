"""Work that starts without a task: whatever befalls the task for the rest of it, the work learns of it."""

from __future__ import annotations

import asyncio

import pytest

from kvasir.dialects.eager import start


class Work:
    """Says what becomes of it; waits for `go`, by a turn of the loop first."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.go = asyncio.Event()

    async def run(self) -> None:
        try:
            self.said.append("begun")
            await asyncio.sleep(0)
            await self.go.wait()
            self.said.append("done")
        except asyncio.CancelledError:
            self.said.append("cancelled")
            raise


async def until(task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(60):
        await asyncio.wait([task])


def test_what_never_waits_needs_no_task() -> None:
    async def story() -> None:
        async def work() -> None:
            pass

        assert start(work(), asyncio.get_running_loop()) is None

    asyncio.run(story())


def test_what_waits_goes_on_in_a_task() -> None:
    async def story() -> None:
        work = Work()
        task = start(work.run(), asyncio.get_running_loop())
        assert work.said == ["begun"]
        assert task is not None
        work.go.set()
        await until(task)
        assert work.said == ["begun", "done"]

    asyncio.run(story())


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_work_learns_that_its_task_is_cancelled_however_early(turns: int) -> None:
    async def story() -> None:
        work = Work()
        task = start(work.run(), asyncio.get_running_loop())
        assert task is not None
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await until(task)
        assert task.cancelled()
        assert work.said == ["begun", "cancelled"]

    asyncio.run(story())
