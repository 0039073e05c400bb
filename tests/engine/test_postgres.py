"""What only the PostgreSQL engine has: its schema, its use of indexes and its sweep."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pytest

from kvasir.config.database_url import POSTGRES_KEY_BYTES, POSTGRES_NAME_CHARACTERS
from kvasir.control.sessions import NAME_ALIAS, TOKEN_ALIAS
from kvasir.engines.postgres import PostgresEngine, cluster, listing, read_batcher
from kvasir.engines.postgres import schema as tables
from kvasir.errors import Unavailable
from kvasir.keys import millisecond_of, prefix_range
from kvasir.model import Commit, Delete, DeleteRange, Entry, Query, Touch, Write
from tests.support.clock import START, ManualClock
from tests.support.lab import Schema, alias, commit, connected, k, new_space, one, put, there
from tests.support.postgres import postgres_engine


@pytest.fixture
def schema() -> Iterator[Schema]:
    """An empty schema of the server that all tests share."""
    schema = Schema()
    yield schema
    schema.drop()


def run_stories(schema: Schema, *stories: Callable[[PostgresEngine], Awaitable[Any]], clock: Any = None) -> list[Any]:
    """The results of stories about engines on one database, all at the same time."""

    async def run() -> list[Any]:
        engines = [
            postgres_engine(schema.url, clock=clock or ManualClock(), durable=False, connections=4) for _ in stories
        ]
        await asyncio.gather(*(engine.open() for engine in engines))
        try:
            return await asyncio.gather(*(story(engine) for story, engine in zip(stories, engines, strict=True)))
        finally:
            for engine in engines:
                await engine.close()

    return asyncio.run(run())


async def nothing(_: PostgresEngine) -> None:
    pass


# -- the schema -----------------------------------------------------------------------------------------------


@pytest.mark.one_server("the tables of a cluster have triggers of Citus")
def test_every_table_could_be_spread_by_space(schema: Schema) -> None:
    """What Citus cannot distribute must not be there: keys without the space, foreign keys, sequences, triggers."""
    run_stories(schema, nothing)
    keys = schema.query(
        "select c.relname, a.attname from pg_index i join pg_class c on c.oid = i.indrelid"
        " join pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[0]"
        " where i.indisunique and c.relnamespace = current_schema()::regnamespace and c.relname = any($1)",
        list(cluster.DISTRIBUTED),
    )
    assert {row["relname"] for row in keys} == set(cluster.DISTRIBUTED)
    assert {row["attname"] for row in keys} == {"space"}, "a unique index begins with something else"
    here = "current_schema()::regnamespace"
    for what, sql in {
        "foreign keys": f"select conname from pg_constraint where contype = 'f' and connamespace = {here}",
        "sequences": f"select relname from pg_class where relkind = 'S' and relnamespace = {here}",
        "triggers": "select tgname from pg_trigger t join pg_class c on c.oid = t.tgrelid"
        f" where c.relnamespace = {here}",
        "tables that nobody distributes": "select relname from pg_class where relkind = 'r'"
        f" and relnamespace = {here} and relname <> all('{{{','.join(cluster.DISTRIBUTED + cluster.REFERENCE)}}}')",
    }.items():
        assert not schema.query(sql), what


def test_no_statement_of_the_data_plane_crosses_spaces(schema: Schema) -> None:
    """Every statement about a distributed table names the one space it is about."""
    seen = [read_batcher.GET, read_batcher.EPOCH, listing.COUNT, listing.VALUES, listing.SIZE_OF_RANGE]
    for order in ("newest", "oldest", "key"):
        for position in (None, 5, "before"):
            query = Query(
                range=prefix_range(["a"]), order=order, limit=9, created_from=1, created_to=2,
                after=5 if position == 5 else None, before=7 if position == "before" else None,
            )  # fmt: skip
            made = listing._Listing(1, query, None)
            seen += [ask()[0] for ask in (made.in_order, made.sorted, made.walk, made.unlimited)]
    run_stories(schema, nothing)
    bodies = schema.query(
        "select prosrc from pg_proc where pronamespace = current_schema()::regnamespace and proname = any($1)",
        [*cluster.BY_SPACE],
    )
    assert len(bodies) == len(cluster.BY_SPACE)
    seen += [row["prosrc"] for row in bodies]
    for sql in seen:
        for statement in re.split(r";|\bfound as|\bwith (?!ordinality)", sql):
            looks = re.findall(r"(?:from|update)\s+(?:\w+\.)?kvasir_(?:entry|head)", statement)
            named = re.findall(r"space = (?:\$1|p_space|1\b)", statement)
            assert len(named) >= len(looks), statement


@pytest.mark.one_server("counts the system space among the others")
def test_several_hosts_may_make_the_schema_at_once(schema: Schema) -> None:
    run_stories(schema, *[nothing] * 6)
    made = [row["version"] for row in schema.query("select version from kvasir_schema order by 1")]
    assert made == [*range(1, len(tables.MIGRATIONS) + 1)]
    assert schema.query("select count(*) from kvasir_head")[0][0] == 1


@pytest.mark.one_server("locks a table of this server")
def test_a_migration_never_waits_long_for_a_table(schema: Schema, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration that waits for the lock of a busy table blocks everyone who comes after it."""

    async def story(_: PostgresEngine) -> None:
        reader = await connected(schema.url)
        await reader.execute("begin; select count(*) from kvasir_entry")
        changed = (*tables.MIGRATIONS, "alter table @kvasir_entry add column more bigint")
        with monkeypatch.context() as patch:
            patch.setattr(tables, "MIGRATIONS", changed)
            patch.setattr(tables, "LOCK_MILLISECONDS", 100)
            late = postgres_engine(schema.url, durable=False)
            with pytest.raises(Unavailable, match="lock"):
                await late.open()
            await reader.close()
            await late.open()
            await late.close()

    run_stories(schema, story)
    assert schema.query("select max(version) from kvasir_schema")[0][0] == len(tables.MIGRATIONS) + 1


def test_without_a_schema_to_work_in_it_says_so(schema: Schema) -> None:
    engine = postgres_engine(schema.url.replace(schema.name, "nowhere"), durable=False)
    with pytest.raises(Unavailable, match="search_path"):
        asyncio.run(engine.open())


def renamed(schema: Schema, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    schema.server.query(f"alter schema {schema.name} rename to {quoted}")
    schema.name = quoted
    schema.url = schema.server.url(options="-c search_path=" + re.sub(r"([\\ ])", r"\\\1", quoted))


@pytest.mark.parametrize("name", ["it's", "a$$b", "$$"])
def test_a_schema_whose_name_would_end_a_quotation_is_refused(schema: Schema, name: str) -> None:
    renamed(schema, name)
    with pytest.raises(Unavailable, match="choose one without"):
        run_stories(schema, nothing)
    assert schema.query("select count(*) from pg_class where relnamespace = current_schema()::regnamespace")[0][0] == 0


@pytest.mark.one_server("Citus takes no name that needs quotation marks")
@pytest.mark.parametrize("name", ["An @ of ours", "{x}", 'a"b', "a$b$c", "a\\b", "ü;--"])
def test_any_other_name_of_a_schema_will_do(schema: Schema, name: str) -> None:
    async def story(engine: PostgresEngine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(k("a"), ttl=1), put(k("b")))
        await engine.write([Write(space, (put(k("c")),))])
        assert await engine.count(space) == 3
        assert await engine.end_space("01HF0000000000000000000001")
        assert await engine.sweep() > 0
        assert await engine.check() == []

    renamed(schema, f"{name} {schema.name}")
    run_stories(schema, story)


def test_the_longest_names_and_keys_that_the_settings_allow_fit_into_the_indexes(schema: Schema) -> None:
    dice = random.Random(1)
    name = "".join(chr(dice.randrange(0x10000, 0x110000)) for _ in range(POSTGRES_NAME_CHARACTERS))
    key = b"\x02" + bytes(dice.randrange(1, 256) for _ in range(POSTGRES_KEY_BYTES - 2)) + b"\x00"

    async def story(engine: PostgresEngine) -> None:
        for n, kind in enumerate(("store", TOKEN_ALIAS, NAME_ALIAS, "application-name")):
            made = await new_space(engine, n, aliases=[alias(name, kind)])
            assert await engine.resolve(alias(name, kind)) == made
            await commit(engine, made.number, put(key))
            await there(engine, made.number, key)

    run_stories(schema, story)


# -- the use of indexes -----------------------------------------------------------------------------------------


async def looked_at(schema: Schema, engine: PostgresEngine) -> tuple[int, int]:
    """(whole tables, rows) read so far by all connections of the engine."""
    # A connection reports its figures when a transaction ends; this makes all of them report, by using all at once.
    flush = "select pg_stat_force_next_flush(), pg_sleep(0.05)"
    await asyncio.gather(*(engine._pool.fetch(flush) for _ in range(4)))
    rows = await schema.ask(
        "select sum(seq_scan)::bigint, sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint"
        " from pg_stat_user_tables where schemaname = current_schema()"
        " and relname in ('kvasir_entry', 'kvasir_head', 'kvasir_space', 'kvasir_alias')"
    )
    return rows[0][0], rows[0][1]


@pytest.mark.one_server("statistics of this server")
def test_no_request_reads_a_whole_table_nor_more_of_it_when_there_are_many_spaces(schema: Schema) -> None:
    """Plans are made for empty tables that were never analyzed, and must be right for full ones."""
    clock = ManualClock()

    async def requests(engine: PostgresEngine) -> None:
        space = (await new_space(engine, 1, aliases=[alias("mine")])).number
        await commit(engine, space, put(k("a", "1")), put(k("b")), when=[])
        await engine.write([Write(space, (put(k(str(n))),)) for n in range(5)])
        await commit(engine, space, Touch(k("b"), START + 10_000), Delete(k("0")), DeleteRange(prefix_range(["a"])))
        await engine.get(space, [k("b"), k("1"), k("2")])
        await engine.epoch()
        for order in ("newest", "oldest", "key"):
            for key_range in (None, prefix_range(["b"])):
                for metadata in (None, b"{}"):
                    for since in (None, START):
                        query = Query(range=key_range, order=order, limit=5, metadata=metadata, created_from=since)
                        await engine.page(space, query)
        await engine.count(space)
        await engine.get_space("01HF0000000000000000000001")
        await engine.aliases("01HF0000000000000000000001")
        await engine.list_spaces(limit=3)
        await engine.alter_space("01HF0000000000000000000001", name="x")

    async def story(engine: PostgresEngine) -> None:
        await engine._sweeper.stop()
        await requests(engine)
        before = await looked_at(schema, engine)
        await requests(engine)
        few = await looked_at(schema, engine)
        await schema.ask("insert into kvasir_head select (1::bigint << 60) + n, 1, 1 from generate_series(1, 10000) n")
        await schema.ask(
            "insert into kvasir_space select (1::bigint << 60) + n, 'X' || n, '', 'store', '', 0, null, null, '{}'"
            " from generate_series(1, 10000) n"
        )
        await schema.ask(
            "insert into kvasir_entry select (1::bigint << 60) + n % 10000, int4send(n), '1', n, n, n,"
            " case when n % 2 = 0 then 1750000999999 end from generate_series(1, 100000) n"
        )
        filled = await looked_at(schema, engine)
        await requests(engine)
        many = await looked_at(schema, engine)
        assert few[1] > before[1], "nothing was counted"
        assert many[0] - filled[0] == few[0] - before[0] == 0, "a whole table was read"
        assert many[1] - filled[1] <= few[1] - before[1] + 10, "more was read because there was more"

    run_stories(schema, story, clock=clock)


def test_a_new_connection_asks_no_more_about_types(schema: Schema, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    ask = asyncpg.Connection._introspect_types

    async def spy(self: Any, oids: Any, timeout: Any) -> Any:  # noqa: ASYNC109
        asked.append(oids)
        return await ask(self, oids, timeout)

    async def story(engine: PostgresEngine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(k("a")))
        assert await one(engine, space, k("a")) is not None
        monkeypatch.setattr(asyncpg.Connection, "_introspect_types", spy)
        await engine._pool._pool.expire_connections()
        await commit(engine, space, put(k("b")))
        assert await one(engine, space, k("b")) is not None
        assert not asked

    run_stories(schema, story)


# -- time -----------------------------------------------------------------------------------------------------


def test_the_clock_of_the_database_decides(schema: Schema) -> None:
    async def story() -> None:
        engine = postgres_engine(schema.url, durable=False)
        await engine.open()
        space = await new_space(engine)
        ((now,),) = await schema.ask("select kvasir_time()")
        await commit(engine, space.number, put(k("a"), ttl=60_000), put(k("b"), ttl=1))
        entry = await there(engine, space.number, k("a"))
        assert now <= entry.created_at <= now + 10_000
        assert entry.expires_at == entry.created_at + 60_000
        while await one(engine, space.number, k("b")) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        for _ in range(20):
            await engine.epoch()
            here = engine.clock()
            ((there_now,),) = await schema.ask("select kvasir_time()")
            assert there_now - 5_000 < here <= there_now
        await engine.close()

    asyncio.run(story())


def test_a_server_whose_clock_is_wrong_goes_by_the_database(schema: Schema, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvasir.engines.postgres.clock.wall_clock", lambda: 5)
    engine = postgres_engine(schema.url, durable=False)

    async def story() -> None:
        await engine.open()
        here = engine.clock()
        ((now,),) = await schema.ask("select kvasir_time()")
        assert now - 5_000 < here <= now
        await engine.close()

    asyncio.run(story())


def test_no_number_comes_again_in_a_space_whatever_the_clock_does(schema: Schema) -> None:
    clock = ManualClock()

    async def story(engine: PostgresEngine) -> None:
        space = (await new_space(engine)).number
        seen = [space]
        for step in (0, 0, 1, -1_000_000, 0, 5):
            clock.now += step
            done = await commit(engine, space, put(k(str(step), str(len(seen)))))
            (plain, *_) = await engine.write([Write(space, (put(k("x", str(n))),)) for n in range(3)])
            assert isinstance(plain, Commit)
            entry = await there(engine, space, k("x", "2"))
            seen += [done.versionstamp, plain.versionstamp]
            assert entry.versionstamp == seen[-1]
            await commit(engine, space, Delete(k("x", "2")))
        assert seen == sorted(set(seen))

    run_stories(schema, story, clock=clock)


#: A clock that moves whenever it is read.
HASTY = f"""
    create sequence ticks;
    create or replace function kvasir_time() returns bigint language sql volatile as
        'select {START} + nextval(''{{schema}}.ticks'')'"""


@pytest.mark.one_server("a clock in a table of this server")
def test_no_sequence_lags_behind_the_creation_of_its_entry(schema: Schema) -> None:
    """The clock may tick between two reads of it; a listing of what was created since must not miss the first entry."""

    async def story() -> None:
        engine = postgres_engine(schema.url, durable=False)
        await engine.open()
        connection = await connected(schema.url)
        await connection.execute(HASTY.format(schema=schema.name))
        await connection.close()
        space = (await new_space(engine)).number
        for n in range(3):
            await engine.write([Write(space, (put(k("x", f"{n}-{m}")),)) for m in range(3)])
            await commit(engine, space, put(k("y", str(n))), Delete(k("none")))
        await engine.load(space, [Entry(k("late"), b"1", 1, 1, START + 86_400_000)])
        await engine.write([Write(space, (put(k("z")),))])
        await commit(engine, space, put(k("z", "z")), Delete(k("none")))
        entries = (await engine.page(space, Query(order="oldest"))).entries
        assert all(entry.created_at <= millisecond_of(entry.sequence) for entry in entries if entry.key != k("late"))
        created = [entry.created_at for entry in entries]
        assert created == sorted(created)
        assert created[-1] == START + 86_400_000
        sequences = [entry.sequence for entry in entries]
        stamps = [entry.versionstamp for entry in entries]
        assert max(stamps) < (await commit(engine, space, put(k("last")))).versionstamp
        assert max(sequences) < (await there(engine, space, k("last"))).sequence
        assert await engine.check() == []
        await engine.close()

    asyncio.run(story())


# -- the sweep ------------------------------------------------------------------------------------------------


@pytest.mark.one_server("counts the system space among the others")
def test_the_dead_are_reclaimed_in_the_background_by_one_server_at_a_time(
    schema: Schema, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvasir.engines.postgres.sweeping.IDLE_SECONDS", 0.05)
    clock = ManualClock()

    async def story(first: PostgresEngine, second: PostgresEngine) -> None:
        space, gone = await new_space(first, 1), await new_space(first, 2)
        fading = await new_space(first, 3, expires_at=START + 10)
        for number in (space.number, gone.number, fading.number):
            await commit(first, number, *(put(k(str(n)), ttl=10) for n in range(2_000)), put(k("stays")))
        clock.now += 10
        assert await first.end_space(gone.id)

        async def done() -> bool:
            ((entries, heads),) = await schema.ask(
                "select (select count(*) from kvasir_entry), (select count(*) from kvasir_head)"
            )
            return bool((entries, heads) == (1, 2))

        async with asyncio.timeout(30):
            while not await done():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        # Every entry and the expired space once, whichever server it was.
        assert first.writer.swept + second.writer.swept == 3 * 2_000 + 2 + 1
        assert await first.sweep() == 0

    async def both() -> None:
        engines = [postgres_engine(schema.url, clock=clock, durable=False, connections=3) for _ in range(2)]
        for engine in engines:
            await engine.open()
        try:
            await story(*engines)
        finally:
            for engine in engines:
                await engine.close()

    asyncio.run(both())


def test_the_sweep_waits_for_no_writer_and_takes_nothing_that_came_back_to_life(schema: Schema) -> None:
    clock = ManualClock()

    async def story(engine: PostgresEngine) -> None:
        await engine._sweeper.stop()
        space = (await new_space(engine)).number
        await commit(engine, space, *(put(k(str(n)), ttl=10) for n in range(20)))
        clock.now += 10
        writer = await connected(schema.url)
        await writer.execute("begin")
        await writer.execute("update kvasir_entry set expires_at = null where key = $1", k("7"))
        assert await asyncio.wait_for(engine.sweep(), 10) == 19
        await writer.execute("commit")
        await writer.close()
        assert await engine.sweep() == 0
        await there(engine, space, k("7"))

    run_stories(schema, story, clock=clock)


# -- what check finds -----------------------------------------------------------------------------------------


@pytest.mark.one_server("damages the system space where it is on one server")
@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        ("delete from kvasir_head where space <> 1", "belong to no space"),
        ("delete from kvasir_head where space = 1", "own space is missing"),
        ("insert into kvasir_alias values ('store', '', 'x', 77)", "aliases lead to no space"),
        ("delete from kvasir_space", "belong to no space"),
        ("update kvasir_entry set sequence = 1::bigint << 62", "newer than the last number"),
        ("update kvasir_entry set created_at = created_at + 1", "created after the latest"),
        ("update kvasir_entry set key = 'a'", "packed form"),
        ("update kvasir_entry set value = '{'", "not valid JSON"),
        ("update kvasir_entry set metadata = '[]'", "not a JSON object"),
    ],
)
def test_check_finds_what_does_not_belong_together(schema: Schema, damage: str, finding: str) -> None:
    async def story(engine: PostgresEngine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(k("a")))
        assert await engine.check() == []
        await schema.ask(damage)
        assert any(finding in fault for fault in await engine.check())

    run_stories(schema, story)
