"""Writes that wait for a durable engine: callers that leave, neighbours that fail, a full queue, the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kvasir.engine import Engine, Outcome
from kvasir.errors import KvasirError, Unavailable
from kvasir.keys import prefix_range
from kvasir.limits import Limits
from kvasir.model import Commit, Delete, DeleteRange, Mutation, Write
from tests.support.lab import Lab, commit, k, new_space, one, put, there

A, B, C = k("a"), k("b"), k("c")


def queued(engine: Engine, space: int, *mutations: Mutation) -> asyncio.Task[Any]:
    async def written() -> list[Outcome]:
        return await engine.write([Write(space, mutations)])

    return asyncio.create_task(written())


def test_callers_that_leave_take_nobody_with_them(durable_lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        async with durable_lab.writers_held(space):
            tasks = [queued(engine, space, put(k(str(n)))) for n in range(20)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.sleep(0)
            assert engine.writer.queue_depth == 20
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
        assert all(isinstance(outcome, list) and isinstance(outcome[0], Commit) for outcome in outcomes[1::2])
        # What was accepted has happened, whoever was there to hear it; and the writer is alive.
        await commit(engine, space, put(A))
        assert await engine.count(space) == 21
        assert engine.writer.queue_depth == 0

    durable_lab.run(story)


def test_a_write_that_fails_in_its_group_changes_nothing_and_its_neighbours_stand(durable_lab: Lab) -> None:
    too_late = put(B, ttl=(1 << 63) - 1)  # would expire beyond what a database can hold

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(A, b'"old"'), put(k("many", "1")), put(k("many", "2")))
        before = await there(engine, space, A)
        fatal = (put(C), put(A, b'"new"'), DeleteRange(prefix_range(["many"])), too_late, put(k("d")))
        groups = sum(engine.writer.groups.counts)
        async with durable_lab.writers_held(space):
            neighbours = [queued(engine, space, put(k("before", str(n))), put(k("too", str(n)))) for n in range(3)]
            failing = [queued(engine, space, *fatal), queued(engine, space, too_late)]
            failing.append(queued(engine, space, Delete(A), too_late))
            neighbours += [queued(engine, space, put(k("after", str(n)))) for n in range(3)]
            await asyncio.sleep(0)
        for neighbour in neighbours:
            (outcome,) = await neighbour
            assert isinstance(outcome, Commit)
        for failure in await asyncio.gather(*failing, return_exceptions=True):
            # Raised, since all that this call wrote has failed, or given as the outcome.
            error = failure[0] if isinstance(failure, list) else failure
            assert isinstance(error, KvasirError)
            assert "nothing of it was written" in error.message
        # The writes of a group that fails on the server are tried again one by one.
        shared = sum(engine.writer.groups.counts) <= groups + 2 or engine.writer.failures > len(failing)
        assert shared, "they were no group"
        assert await there(engine, space, A) == before
        assert await engine.get(space, [B, C, k("d")]) == [None] * 3
        assert await engine.count(space, prefix_range(["many"])) == 2
        assert await engine.count(space) == 1 + 2 + 6 + 3

    durable_lab.run(story)


@pytest.mark.parametrize(
    ("limits", "value"),
    [(Limits(queue_writes=6), b"1"), (Limits(queue_bytes=60_000), b'"' + b"x" * 10_000 + b'"')],
    ids=["writes", "bytes"],
)
def test_a_full_queue_refuses_at_once_and_loses_nothing_it_accepted(
    durable_lab: Lab, limits: Limits, value: bytes
) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        accepted = []
        async with durable_lab.writers_held(space):
            for n in range(20):
                task = queued(engine, space, put(k(str(n)), value))
                await asyncio.sleep(0)
                if task.done():
                    with pytest.raises(Unavailable, match="nothing was written"):
                        await task
                else:
                    accepted.append(task)
            # The writer is still held: those who were refused did not wait for it, and readers do not either.
            assert len(accepted) == (6 if len(value) == 1 else 5)
            assert await engine.count(space) == 0
            assert await one(engine, space, A) is None
        for task in accepted:
            assert isinstance((await task)[0], Commit)
        assert await engine.count(space) == len(accepted)
        await commit(engine, space, put(A))

    durable_lab.limits = limits
    durable_lab.run(story)


def test_one_request_larger_than_the_queue_is_served_when_nothing_waits(durable_lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        outcomes = await engine.write([Write(space, (put(k(str(n))),)) for n in range(50)])
        assert all(isinstance(outcome, Commit) for outcome in outcomes)

    durable_lab.limits = Limits(queue_writes=10)
    durable_lab.run(story)


def test_closing_finishes_what_was_accepted_and_accepts_no_more(durable_lab: Lab) -> None:
    async def close_while_writing() -> int:
        engine = durable_lab.engine()
        await engine.open()
        space = (await new_space(engine)).number
        async with durable_lab.writers_held(space):
            tasks = [queued(engine, space, put(k(str(n)))) for n in range(10)]
            await asyncio.sleep(0)
            closing = asyncio.create_task(engine.close())
            await asyncio.sleep(0)
            with pytest.raises(Unavailable, match="stopping"):
                await engine.write([Write(space, (put(A),))])
        await closing
        for task in tasks:
            assert isinstance((await task)[0], Commit)
        return space

    space = asyncio.run(close_while_writing())

    async def afterwards(engine: Engine) -> None:
        assert await engine.count(space) == 10

    durable_lab.run(afterwards)
