"""Requests that go to the node that has their space: what a cluster does, played by one server under several names."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from kvasir.engines.postgres import PostgresEngine, cluster, encoding, read_batcher, routing, shards
from kvasir.engines.postgres.address import Host
from kvasir.errors import Unavailable
from kvasir.model import Commit, Write
from tests.support.lab import Schema, commit, k, one, put, there
from tests.support.postgres import shared_server
from tests.support.postgres_stories import Sent, run_story, several
from tests.support.serving import free_ports

pytestmark = pytest.mark.one_server("takes one server for the nodes of a cluster")

A, B = k("a"), k("b")

#: In the place of that of a cluster, which reads shards
KVASIR_GET = f"""
    create function kvasir_get(bigint[], bigint, bytea[]) returns table (
        key bytea, value bytea, versionstamp bigint, sequence bigint, created_at bigint, expires_at bigint,
        refresh bigint, metadata bytea, space bigint
    ) language sql as $$ {read_batcher.GET_SPACES} $$"""


def reaches(answer: bool) -> str:
    """Has the node of the URL say whether it reaches others."""
    return f"""
        create or replace function citus_check_connection_to_node(text, integer) returns boolean
        language sql as $$ select {answer} $$"""


@pytest.fixture
def schema() -> Iterator[Schema]:
    """An empty schema of the server that all tests share."""
    schema = Schema()
    yield schema
    schema.drop()


def identifier() -> int:
    return int(shared_server().query("select system_identifier from pg_control_system()")[0][0])


async def way(engine: PostgresEngine, port: int, identifier: int, **parameters: str) -> Any:
    """A way to a node, which need not answer."""
    way = routing._Way(
        ("127.0.0.1", port), identifier, {**engine._parameters, **parameters}, max_connections=3, durable=False
    )
    if port == shared_server().port:
        await way.open()
    else:
        await way._make_pool()
    return way


def lead(engine: PostgresEngine, ways: dict[int, Any], spaces: list[int]) -> None:
    """Have the spaces be on these nodes in turn."""
    engine._pool.spread = True
    engine._pool._ways = ways
    engine._pool._nodes = dict(enumerate([*ways] * len(spaces)))
    engine._pool._shards = {space: number for number, space in enumerate(spaces)}


async def at_rest(engine: PostgresEngine) -> None:
    """Behave as on one server again."""
    ways, engine._pool._ways = engine._pool._ways, {}
    engine._pool.spread = False
    for way in ways.values():
        await way.close()


def test_requests_go_to_the_node_of_their_space_and_share_calls_there(
    schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = identifier()

    async def story(engine: PostgresEngine) -> None:
        spaces = await several(engine, 20)
        most = engine.gauges().connections_most
        await engine._pool.write(KVASIR_GET)
        ways = {n: await way(engine, shared_server().port, known) for n in (1, 2)}
        lead(engine, ways, spaces)
        by_node = [Sent(way, monkeypatch) for way in ways.values()]
        rest = Sent(engine._pool, monkeypatch)
        outcomes = await asyncio.gather(*(engine.write([Write(space, (put(A),))]) for space in spaces))
        assert all(isinstance(outcome, Commit) for (outcome,) in outcomes)
        assert [sent.statements for sent in by_node] == [[encoding.CALL_SET_SPACES]] * 2
        assert None not in [entry for (entry,) in await asyncio.gather(*(engine.get(space, [A]) for space in spaces))]
        assert [sent.statements[1:] for sent in by_node] == [[shards.CALL_GET]] * 2
        assert not {encoding.CALL_SET, encoding.CALL_WRITE, read_batcher.GET} & set(rest.statements)
        assert engine.gauges().connections_most == most + 3 + 3
        await at_rest(engine)

    run_story(schema, story)


def test_reads_that_come_while_a_node_is_asked_share_the_next_statement(
    schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = identifier()

    async def story(engine: PostgresEngine) -> None:
        spaces = await several(engine, 3)
        await engine._pool.write(KVASIR_GET.replace("$$", "$$ select pg_sleep(0.3);", 1))
        node = await way(engine, shared_server().port, known)
        lead(engine, {1: node}, spaces)
        sent = Sent(node, monkeypatch)
        reads = []
        for space in spaces:
            reads.append(asyncio.ensure_future(engine.get(space, [A])))
            for _ in range(3):  # until it is sent, if it is
                await asyncio.sleep(0)
        assert await asyncio.gather(*reads) == [[None]] * 3
        assert sent.statements.count(shards.CALL_GET) == 2
        await at_rest(engine)

    run_story(schema, story)


def test_reads_find_another_way_where_a_node_has_no_such_shard(schema: Schema) -> None:
    known = identifier()
    types = ["bytea"] * 2 + ["bigint"] * 5 + ["bytea", "bigint"]
    nothing = f"{KVASIR_GET.partition('$$')[0]} $$ select {', '.join(f'null::{type}' for type in types)} $$"

    async def story(engine: PostgresEngine) -> None:
        spaces = await several(engine, 3)
        for space in spaces:
            await commit(engine, space, put(A))
        lead(engine, {1: await way(engine, shared_server().port, known)}, spaces)
        for _ in range(2):  # without such a function, and with one that finds the shard gone
            found = await asyncio.gather(*(engine.get(space, [A, B]) for space in spaces))
            assert all(entry is not None and other is None for entry, other in found)
            await engine._pool.write(nothing.replace("create function", "create or replace function"))
        await at_rest(engine)

    run_story(schema, story)


@pytest.mark.parametrize("is_reached", [True, False])
def test_a_node_that_refuses_is_written_to_by_way_of_another_that_reaches_it(
    schema: Schema, monkeypatch: pytest.MonkeyPatch, *, is_reached: bool
) -> None:
    (closed,) = free_ports(1)

    async def story(engine: PostgresEngine) -> None:
        spaces = await several(engine, 3)
        await engine._pool.write(reaches(is_reached))
        lead(engine, {1: await way(engine, closed, 0)}, spaces)
        sent = Sent(engine._pool, monkeypatch)
        for space in spaces:
            if is_reached:
                await commit(engine, space, put(A))
                await there(engine, space, A)
            else:
                with pytest.raises(Unavailable, match=f"127.0.0.1:{closed} .*nothing was written"):
                    await commit(engine, space, put(A))
                assert await one(engine, space, A) is None
        assert (encoding.CALL_SET in sent.statements) is is_reached
        assert sent.statements.count(cluster.REACHES) == 1, "it is asked anew each time"
        await at_rest(engine)

    run_story(schema, story)


def test_another_server_at_the_address_of_a_node_is_not_spoken_to(
    schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = identifier()

    async def story(engine: PostgresEngine) -> None:
        (space,) = await several(engine, 1)
        await engine._pool.write(reaches(True))
        stranger = await way(engine, shared_server().port, known + 1)
        with pytest.raises(routing.NotReached):
            await stranger.fetch("select 1")
        lead(engine, {1: stranger}, [space])
        sent = Sent(engine._pool, monkeypatch)
        await commit(engine, space, put(A))
        assert encoding.CALL_SET in sent.statements
        await at_rest(engine)

    run_story(schema, story)


def test_an_engine_that_closes_leaves_no_way_open(schema: Schema, monkeypatch: pytest.MonkeyPatch) -> None:
    known = identifier()

    async def story(engine: PostgresEngine) -> None:
        begun: asyncio.Future[routing._Way] = asyncio.get_running_loop().create_future()

        async def never(way: routing._Way, *_: object) -> None:
            begun.set_result(way)
            await asyncio.Event().wait()

        monkeypatch.setattr(routing._Way, "fetch", never)
        task = asyncio.create_task(engine._pool._open(1, ("127.0.0.1", shared_server().port), known))
        way = await begun
        assert way._pool is not None
        task.cancel()
        await asyncio.wait([task])
        assert way._pool is None

    run_story(schema, story)


def test_a_node_that_hangs_is_refused_and_holds_up_no_other(schema: Schema) -> None:
    known = identifier()

    async def story(engine: PostgresEngine) -> None:
        hanging, living = await several(engine, 2)
        with closing(socket.create_server(("127.0.0.1", 0), backlog=64)) as silent:
            port = silent.getsockname()[1]
            ways = {
                1: await way(engine, port, known, connect_timeout="1"),
                2: await way(engine, shared_server().port, known),
            }
            lead(engine, ways, [hanging, living])
            reading = asyncio.create_task(engine.get(hanging, [A]))
            for n in range(5):
                await commit(engine, living, put(A, b"%d" % n))
                assert await one(engine, living, A) is not None
            with pytest.raises(Unavailable, match=f"127.0.0.1:{port} .* does not answer; nothing was written"):
                await reading
            with pytest.raises(Unavailable, match="nothing was written"):
                await commit(engine, hanging, put(A))
            await at_rest(engine)
            assert await one(engine, hanging, A) is None

    run_story(schema, story)


def test_what_waits_for_a_node_that_hangs_is_ended(schema: Schema, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "HANG_SECONDS", 0.0)
    known = identifier()

    async def story(engine: PostgresEngine) -> None:
        (space,) = await several(engine, 1)
        node = await way(engine, shared_server().port, known, connect_timeout="1")
        lead(engine, {1: node}, [space])
        waiting = asyncio.create_task(node.fetch("select pg_sleep(60)"))
        while not node._used:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await node.probe()
        assert not waiting.done(), "it takes connections, so it works on the answer"
        with closing(socket.create_server(("127.0.0.1", 0), backlog=64)) as silent:
            hosts, node._hosts = node._hosts, [Host("127.0.0.1", silent.getsockname()[1])]
            await node.probe()
            with pytest.raises(Unavailable):
                await waiting
            with pytest.raises(Unavailable, match="does not answer"):
                await engine.get(space, [A])
            node._hosts = hosts
            await node.probe()
        await commit(engine, space, put(A))
        await at_rest(engine)

    run_story(schema, story)
