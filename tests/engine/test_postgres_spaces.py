"""Requests of several spaces that share a round trip to PostgreSQL, and the cases in which they must not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from kvasir.engines.postgres import PostgresEngine, encoding, read_batcher
from kvasir.errors import KvasirError, UnknownOutcome
from kvasir.model import Commit, Write
from tests.support.lab import Schema, commit, k, one, put, there
from tests.support.postgres_stories import Sent, holding, queued, run_story, several

A, B = k("a"), k("b")


@pytest.fixture
def schema() -> Iterator[Schema]:
    """An empty schema of the server that all tests share."""
    schema = Schema()
    yield schema
    schema.drop()


@pytest.mark.one_server("on a cluster, spaces of a node do")
def test_many_spaces_share_statements_and_commits(schema: Schema, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(engine: PostgresEngine) -> None:
        spaces = await several(engine, 200)
        sent = Sent(engine._pool, monkeypatch)
        outcomes = await asyncio.gather(*(engine.write([Write(space, (put(A),))]) for space in spaces))
        assert all(isinstance(outcome, Commit) for (outcome,) in outcomes)
        assert sent.statements == [encoding.CALL_SET_SPACES]
        assert engine.writer.groups.counts[8] == 1
        assert None not in [entry for (entry,) in await asyncio.gather(*(engine.get(space, [A]) for space in spaces))]
        assert sent.statements[1:] == [read_batcher.GET_SPACES]
        await asyncio.gather(*(engine.get(space, [A, B]) for space in spaces))
        assert sent.statements[2:] == [read_batcher.GET_SPACES] * 2, "no statement asks for all too many keys"

    run_story(schema, story)


@pytest.mark.one_server("takes one server for a cluster")
def test_on_citus_no_statement_crosses_spaces(schema: Schema, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(engine: PostgresEngine) -> None:
        spaces = await several(engine, 20)
        engine._pool.spread = True
        sent = Sent(engine._pool, monkeypatch)
        outcomes = await asyncio.gather(*(engine.write([Write(space, (put(A),))]) for space in spaces))
        assert all(isinstance(outcome, Commit) for (outcome,) in outcomes)
        assert None not in [entry for (entry,) in await asyncio.gather(*(engine.get(space, [A]) for space in spaces))]
        assert sent.statements == [encoding.CALL_SET] * 20 + [read_batcher.GET] * 20
        engine._pool.spread = False

    run_story(schema, story)


@pytest.mark.one_server("locks of several spaces at once")
def test_a_space_that_is_held_delays_no_other(schema: Schema) -> None:
    async def story(engine: PostgresEngine) -> None:
        spaces = await several(engine, 20)
        held, free = spaces[:2], spaces[2:]
        async with holding(schema, *held) as hold:
            waiting = [queued(engine, space, put(A)) for space in held]
            done = await asyncio.gather(*(queued(engine, space, put(A)) for space in free))
            assert all(isinstance(outcome, Commit) for (outcome,) in done)
            await hold.waiting()
            for n in range(3):  # also what comes later, alone or not
                await commit(engine, free[n], put(B))
                await asyncio.gather(*(queued(engine, space, put(B)) for space in free))
            waiting += [queued(engine, space, put(A, b"2")) for space in held]
            assert [await one(engine, space, A) for space in held] == [None, None]
            assert not any(task.done() for task in waiting)
            await hold.release()
            assert [outcome.counts for (outcome,) in await asyncio.gather(*waiting)] == [(0,), (0,), (1,), (1,)]
        assert [(await there(engine, space, A)).value for space in held] == [b"2", b"2"]

    run_story(schema, story)


@pytest.mark.one_server("locks of several spaces at once")
def test_a_second_call_waits_until_it_is_worth_as_much(schema: Schema, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(engine: PostgresEngine) -> None:
        spaces = await several(engine, 12)
        sent = Sent(engine._pool, monkeypatch)
        async with holding(schema) as hold:
            await hold.connection.execute("lock table kvasir_entry in exclusive mode")
            tasks = [queued(engine, space, put(A)) for space in spaces[:5]]
            await hold.waiting()
            for number, space in enumerate(spaces[5:10], 1):
                assert sent.statements == [encoding.CALL_SET_SPACES]
                tasks.append(queued(engine, space, put(A)))
                await turns()
                assert len(sent.statements) == 1 + number // 5
            tasks.append(queued(engine, spaces[10], put(A)))
            await turns()
            assert len(sent.statements) == 2, "no third one at a time"
            await hold.release()
            await asyncio.gather(*tasks)
        # Nobody waits for a space that waits for its lock, which goes by itself.
        async with holding(schema, spaces[0]) as hold:
            waiting = [queued(engine, spaces[0], put(A)) for _ in range(9)]
            await hold.waiting()
            await commit(engine, spaces[1], put(A))
            await hold.release()
            await asyncio.gather(*waiting)

    run_story(schema, story)


async def turns() -> None:
    """Let the loop do all that can be done now."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_what_one_space_cannot_store_is_no_failure_of_the_others(schema: Schema) -> None:
    async def story(engine: PostgresEngine) -> None:
        spaces = await several(engine, 10)
        too_late = put(B, expires_at=1 << 63)
        tasks = [queued(engine, space, put(A)) for space in spaces]
        failing = queued(engine, spaces[4], too_late)
        neighbour = queued(engine, spaces[4], put(k("c")))
        for (outcome,) in await asyncio.gather(*tasks, neighbour):
            assert isinstance(outcome, Commit)
        with pytest.raises(KvasirError, match="nothing of it was written"):
            await failing
        assert [await engine.count(space) for space in spaces] == [1] * 4 + [2] + [1] * 5

    run_story(schema, story)


@pytest.mark.one_server("sessions of this server")
def test_a_connection_that_breaks_leaves_the_outcome_of_all_unknown(schema: Schema) -> None:
    async def story(engine: PostgresEngine) -> None:
        spaces = await several(engine, 10)
        # Whoever inserts waits for this lock, past the locks of the spaces.
        async with holding(schema) as hold:
            await hold.connection.execute("lock table kvasir_entry in exclusive mode")
            tasks = [queued(engine, space, put(A)) for space in spaces]
            (pid,) = await hold.waiting()
            await schema.ask("select pg_terminate_backend($1)", pid)
            for task in tasks:
                with pytest.raises(UnknownOutcome):
                    await task
        assert engine.writer.queue_depth == 0
        await commit(engine, spaces[0], put(A))

    run_story(schema, story)


def test_the_sweep_waits_for_no_writer_that_waits_for_it(schema: Schema) -> None:
    """A writer may hold the head of an ended space while it waits for an entry that the sweep has deleted."""

    async def story(engine: PostgresEngine) -> None:
        dead, living = await several(engine, 2)
        await commit(engine, dead, put(A))
        await commit(engine, living, put(A, ttl=1))
        assert await engine.end_space("01HF0000000000000000000000")
        async with holding(schema, dead):
            assert await engine.sweep() >= 0
            assert await schema.ask("select from kvasir_head where space = $1", dead)
        while await engine.sweep():
            pass
        assert not await schema.ask("select from kvasir_head where space = $1", dead)

    run_story(schema, story)
