"""One database on a real cluster: what holds on every node, and while one of them is away."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from kvasir.engines.postgres import PostgresEngine, routing
from kvasir.errors import Unavailable, UnknownOutcome
from kvasir.model import SYSTEM_SPACE, Check, Commit, Space, Write
from tests.support.cluster import Cluster
from tests.support.lab import commit, k, new_space, one, put, there
from tests.support.postgres import postgres_engine

A, B = k("a"), k("b")
_numbers = iter(range(1, 1_000_000))


@asynccontextmanager
async def opened(*urls: str) -> AsyncIterator[list[PostgresEngine]]:
    """An engine on each URL."""
    engines = [postgres_engine(url, durable=False, connections=10) for url in urls]
    for engine in engines:
        await engine.open()
    try:
        yield engines
    finally:
        for engine in engines:
            await engine.close()


async def space_on(cluster: Cluster, engine: PostgresEngine, group: int, *, other: bool = False) -> Space:
    """A fresh space on this node, or on another."""
    while True:
        space = await new_space(engine, next(_numbers))
        if (await cluster.group_of(space.number) == group) is not other:
            return space


async def led(engine: PostgresEngine, space: int, group: int | None = None) -> int:
    """The node that requests about a space go to, once there is one, or once it is this one."""
    async with asyncio.timeout(60):
        while (node := engine._pool.node_of(space)) is None or group not in (None, node):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return node


def test_every_node_is_a_door(cluster: Cluster) -> None:
    async def story() -> None:
        async with opened(cluster.url, *(cluster.door(group) for _, _, group in cluster.nodes[1:])) as engines:
            for n, engine in enumerate(engines):
                space = await new_space(engine, next(_numbers))
                done = await commit(engine, space.number, put(A, b"%d" % n), put(B))
                for other in engines:
                    assert (await there(other, space.number, A)).versionstamp == done.versionstamp
                    assert await other.get_space(space.id) == space
                assert await engines[n - 1].end_space(space.id)
                assert [await other.get_space(space.id) for other in engines] == [None] * len(engines)
            assert await engines[-1].check() == []

    asyncio.run(story())


def test_a_door_finds_the_coordinator_to_make_the_tables(cluster: Cluster) -> None:
    name = f"{cluster.name[:40]}_{uuid.uuid4().hex[:8]}"
    cluster.server.new_database(name)
    fresh = Cluster(cluster.server, name)

    async def story() -> None:
        async with opened(fresh.door(fresh.nodes[-1][2])) as (engine,):
            space = await new_space(engine)
            await commit(engine, space.number, put(A))
            assert await engine.check() == []

    asyncio.run(story())


def test_increments_and_comparisons_are_exact_through_different_doors(cluster: Cluster) -> None:
    async def story() -> None:
        async with opened(*(cluster.door(group) for _, _, group in cluster.nodes)) as engines:
            space = (await new_space(engines[0], next(_numbers))).number
            await commit(engines[0], space, put(A, b"0"))

            async def add(engine: PostgresEngine) -> None:
                added = 0
                while added < 50:
                    entry = await there(engine, space, A)
                    write = Write(space, (put(A, b"%d" % (int(entry.value) + 1)),), (Check(A, entry.versionstamp),))
                    (outcome,) = await engine.write([write])
                    added += isinstance(outcome, Commit)

            await asyncio.gather(*(add(engine) for engine in engines * 2))
            assert (await there(engines[0], space, A)).value == b"%d" % (50 * 2 * len(engines))

    asyncio.run(story())


def test_a_revocation_is_acknowledged_when_it_holds_on_every_node(cluster: Cluster) -> None:
    """The second phase of the commit is held up on one node; a server that is connected there must not lag behind."""
    late = cluster.nodes[-1][2]

    async def story() -> None:
        async with opened(cluster.url, cluster.door(late)) as (first, second):
            await commit(first, SYSTEM_SPACE, put(A))
            before = await second.epoch()
            async with cluster.way_to(late) as way:
                way.held = b"COMMIT PREPARED"
                revoking = asyncio.create_task(commit(first, SYSTEM_SPACE, put(A, b"revoked")))
                await asyncio.wait_for(way.holds.wait(), 30)
                assert (await there(second, SYSTEM_SPACE, A)).value == b"1", "it is not held up"
                assert not revoking.done()
                way.released.set()
                way.held = None
                await revoking
                assert (await there(second, SYSTEM_SPACE, A)).value == b"revoked"
                assert await second.epoch() > before

    asyncio.run(story())


def test_a_revocation_that_a_node_has_not_confirmed_is_unknown(cluster: Cluster) -> None:
    late = cluster.nodes[-1][2]

    async def story() -> None:
        async with opened(cluster.url, cluster.door(late)) as (first, second):
            await commit(first, SYSTEM_SPACE, put(A))
            async with cluster.way_to(late) as way:
                way.held, way.cuts = b"COMMIT PREPARED", True
                with pytest.raises(UnknownOutcome, match="not all nodes"):
                    await commit(first, SYSTEM_SPACE, put(A, b"revoked"))
            await cluster.ask("select recover_prepared_transactions()")
            await commit(first, SYSTEM_SPACE, put(A, b"again"))
            assert (await there(second, SYSTEM_SPACE, A)).value == b"again"

    asyncio.run(story())


def test_while_a_node_is_away_the_spaces_of_the_others_serve(cluster: Cluster) -> None:
    away = cluster.nodes[-1][2]

    async def story() -> None:
        # The engine must know the way from the first, for it goes to the node itself, too.
        async with cluster.way_to(away) as way, opened(cluster.url) as (engine,):
            here = await space_on(cluster, engine, away, other=True)
            gone = await space_on(cluster, engine, away)
            await commit(engine, here.number, put(A))
            await commit(engine, gone.number, put(A))
            await commit(engine, SYSTEM_SPACE, put(A))
            for space in (here, gone):
                await led(engine, space.number)
            await way.cut()
            node = f"127.0.0.1:{way.port}"
            for n in range(20):
                await commit(engine, here.number, put(B, b"%d" % n))
                assert (await there(engine, here.number, B)).value == b"%d" % n
                assert await engine.epoch()
                assert await one(engine, SYSTEM_SPACE, A) is not None
                assert await engine.get_space(gone.id) == gone
            with pytest.raises(Unavailable, match=node):
                await engine.get(gone.number, [A])
            with pytest.raises(Unavailable, match=f"{node}.*nothing was written"):
                await commit(engine, gone.number, put(A, b"2"))
            epoch = await engine.epoch()
            with pytest.raises(Unavailable, match=f"{node}.*nothing was written"):
                await commit(engine, SYSTEM_SPACE, put(A, b"revoked"))
            with pytest.raises(Unavailable, match=f"{node}.*nothing was written"):
                await engine.end_space(here.id)
            with pytest.raises(Unavailable, match=f"{node}.*nothing was written"):
                await new_space(engine, next(_numbers))
            assert await engine.epoch() == epoch
            assert await engine.get_space(here.id) == here
            assert (await there(engine, SYSTEM_SPACE, A)).value == b"1"
            found = await engine.status()
            assert found.away == [node]
            assert found.shards["kvasir_head"] == found.shards["kvasir_entry"]
            async with opened(cluster.url) as (another,):
                assert await one(another, here.number, A) is not None
            await way.mend()
            assert (await there(engine, gone.number, A)).value == b"1"
            await commit(engine, gone.number, put(A, b"2"))
            assert await engine.end_space(gone.id)
            assert await engine.check() == []

    asyncio.run(story())


def test_no_write_to_a_node_that_is_away_is_unknown(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions on the node of the URL have spoken to it, too, and would not always say that it refuses connections."""
    away = cluster.nodes[-1][2]

    async def story() -> None:
        async with cluster.way_to(away) as way, opened(cluster.url) as (engine,):
            spaces = [(await space_on(cluster, engine, away)).number for _ in range(5)]
            with monkeypatch.context() as patched:
                patched.setattr(routing.RoutedPool, "node_of", lambda *_: None)
                await asyncio.gather(*(commit(engine, space, put(A)) for space in spaces))
            for space in spaces:
                await led(engine, space)
                await commit(engine, space, put(A))
            await way.cut()
            for attempt in range(60):
                told = await asyncio.gather(
                    *(commit(engine, space, put(A, b"2")) for space in spaces), return_exceptions=True
                )
                # The end of a direct connection may not have been noticed yet when the first ones are sent.
                assert attempt == 0 or all(isinstance(each, Unavailable) for each in told), told
            await way.mend()
            for space in spaces:
                assert await one(engine, space, A) is not None

    asyncio.run(story())


def test_a_node_that_hangs_holds_up_its_own_spaces_alone(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing, "HANG_SECONDS", 0.5)
    hangs = cluster.nodes[-1][2]

    async def story() -> None:
        async with cluster.way_to(hangs) as way, opened(f"{cluster.url}&connect_timeout=2") as (engine,):
            here = (await space_on(cluster, engine, hangs, other=True)).number
            there_ = (await space_on(cluster, engine, hangs)).number
            for space in (here, there_):
                await led(engine, space)
                await commit(engine, space, put(A))
                assert await one(engine, space, A) is not None
            way.held = b""
            reading = asyncio.create_task(engine.get(there_, [A]))
            writing = asyncio.create_task(commit(engine, there_, put(A, b"2")))
            for n in range(20):
                await commit(engine, here, put(B, b"%d" % n))
                assert (await there(engine, here, B)).value == b"%d" % n
            with pytest.raises(Unavailable):
                await reading
            with pytest.raises((Unavailable, UnknownOutcome)):
                await writing
            with pytest.raises(Unavailable, match=f"127.0.0.1:{way.port} .* does not answer"):
                await engine.get(there_, [A])
            await commit(engine, here, put(B, b"99"))
            await way.mend()
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(Unavailable):
                        await commit(engine, there_, put(B))
                        break
                    await asyncio.sleep(0.05)
            assert await engine.check() == []

    asyncio.run(story())


def test_a_database_in_use_is_spread_without_loss(cluster: Cluster) -> None:
    name = f"{cluster.name[:40]}_{uuid.uuid4().hex[:8]}"
    cluster.server.new_database(name)
    used = Cluster(cluster.server, name)

    async def story() -> None:
        # As if the extension came later: the tables are made without it.
        connection = await asyncpg.connect(used.url)
        await connection.execute("drop extension citus cascade")
        await connection.close()
        async with opened(used.url) as (engine,):
            spaces = [await new_space(engine, n) for n in range(1, 9)]
            stamps = {
                space.number: (await commit(engine, space.number, put(A), put(B, ttl=1 << 40))).versionstamp
                for space in spaces
            }
            stamps[SYSTEM_SPACE] = (await commit(engine, SYSTEM_SPACE, put(A))).versionstamp
            epoch = await engine.epoch()
        connection = await asyncpg.connect(used.url)
        await connection.execute("create extension citus")
        for host, port, group in used.nodes:
            join = "citus_add_node" if group else "citus_set_coordinator_host"
            await connection.execute(f"select {join}('{host}', {port})")
        await connection.close()
        async with opened(used.url, used.door(used.nodes[1][2])) as (engine, door):
            assert await engine.check() == []
            assert await engine.epoch() >= epoch
            for number, stamp in stamps.items():
                assert (await there(door, number, A)).versionstamp == stamp
            assert (await engine.count_spaces("store")) == (8, 16)
            for space in spaces:
                await commit(door, space.number, put(A, b"2"))
                assert (await there(engine, space.number, A)).value == b"2"
            assert (await used.ask("select count(*) from only kvasir_entry"))[0][0] == 16
            assert await engine.check() == []
        async with opened(used.url) as (engine,):
            assert await engine.check() == []

    asyncio.run(story())


def test_a_shard_moves_while_its_spaces_are_written(cluster: Cluster) -> None:
    async def story() -> None:
        async with opened(cluster.url, cluster.door(cluster.nodes[1][2])) as engines:
            spaces = [(await new_space(engines[0], next(_numbers))).number for _ in range(8)]
            done = False
            written = dict.fromkeys(spaces, 0)

            async def write(engine: PostgresEngine, space: int) -> None:
                while not done:
                    await commit(engine, space, put(k(str(written[space]))))
                    written[space] += 1

            tasks = [asyncio.create_task(write(engines[n % 2], space)) for n, space in enumerate(spaces)]
            rows = await cluster.ask(
                "select shardid, nodename, nodeport from pg_dist_shard join pg_dist_placement using (shardid)"
                " join pg_dist_node using (groupid) where logicalrelid = 'kvasir_entry'::regclass and groupid <> 0"
            )
            shard, host, port = rows[0]
            others = [node for node in cluster.nodes[1:] if node[1] != port]
            await cluster.ask(
                "select citus_move_shard_placement($1, $2, $3, $4, $5, 'block_writes')",
                shard,
                host,
                port,
                *others[0][:2],
            )
            done = True
            await asyncio.gather(*tasks)
            for space in spaces:
                assert await engines[0].count(space) == written[space] > 0
            assert await engines[0].check() == []

    asyncio.run(story())


def test_requests_go_to_the_node_of_the_space_wherever_that_is(cluster: Cluster) -> None:
    async def story() -> None:
        async with opened(cluster.url) as (engine,):
            spaces = [(await new_space(engine, next(_numbers))).number for _ in range(8)]
            for space in spaces:
                group = await led(engine, space)
                assert group == await cluster.group_of(space)
                for _, _, other in cluster.nodes:
                    ((here,),) = await cluster.ask("select kvasir_here($1)", space, group=other)
                    assert (here is not None) is (other == group)
            done = await asyncio.gather(*(engine.write([Write(space, (put(A),))]) for space in spaces))
            assert all(isinstance(outcome, Commit) for (outcome,) in done)
            # A move that this process has not heard of, and one that it has
            space = spaces[0]
            group = await led(engine, space)
            there_ = next(node for node in cluster.nodes[1:] if node[2] != group)
            here_ = next(node for node in cluster.nodes if node[2] == group)
            await cluster.ask(
                "select citus_move_shard_placement(get_shard_id_for_distribution_column('kvasir_head', $1::bigint),"
                " $2, $3, $4, $5, 'block_writes')",
                space, *here_[:2], *there_[:2],
            )  # fmt: skip
            await commit(engine, space, put(A, b"2"), put(B))
            await asyncio.gather(*(engine.write([Write(space, (put(k("c")),))]) for space in spaces))
            assert (await there(engine, space, A)).value == b"2"
            assert await led(engine, space, there_[2]) == await cluster.group_of(space)
            await asyncio.gather(*(engine.write([Write(space, (put(k("d")),))]) for space in spaces))
            assert await engine.count(space) == 4
            assert await engine.check() == []

    asyncio.run(story())


def test_a_shard_whose_writes_are_held_up_holds_up_no_other(cluster: Cluster) -> None:
    """As a move of it does, which may take long."""

    async def story() -> None:
        async with opened(cluster.url) as (engine,):
            spaces = [(await new_space(engine, next(_numbers))).number for _ in range(24)]
            groups = [await led(engine, space) for space in spaces]
            shard = "select get_shard_id_for_distribution_column('kvasir_head', $1::bigint)"
            shards = [(await cluster.ask(shard, space))[0][0] for space in spaces]
            host, port, _ = next(node for node in cluster.nodes if node[2] == groups[0])
            connection = await asyncpg.connect(cluster.url, host=host, port=port)
            async with connection.transaction():
                await connection.execute(f"select lock_shard_metadata(7, array[{shards[0]}])")
                tasks = [asyncio.create_task(engine.write([Write(space, (put(A),))])) for space in spaces]
                free = [task for task, number in zip(tasks, shards, strict=True) if number != shards[0]]
                for (outcome,) in await asyncio.wait_for(asyncio.gather(*free), 60):
                    assert isinstance(outcome, Commit)
                assert not tasks[0].done()
            for (outcome,) in await asyncio.gather(*tasks):
                assert isinstance(outcome, Commit)
            await connection.close()
            assert await engine.check() == []

    asyncio.run(story())


def test_no_connection_filters_the_catalog(cluster: Cluster) -> None:
    """Citus would do it row by row, for every look at types; with many tables that takes minutes."""

    async def story() -> None:
        async with opened(cluster.url) as (engine,):
            for dedicated in (engine._pool.dedicated, engine._pool.coordinator):
                async with dedicated() as connection:
                    assert await connection.fetchval("show citus.override_table_visibility") == "off"
            ((pooled,),) = await engine._pool.fetch("show citus.override_table_visibility")
            assert pooled == "off"

    asyncio.run(story())
