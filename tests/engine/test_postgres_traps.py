"""Faults made to happen between the PostgreSQL engine and a real server, and survived."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from kvasir.engines.postgres import PostgresEngine, failures, pool
from kvasir.errors import KvasirError, Unavailable, UnknownOutcome
from kvasir.model import SYSTEM_SPACE, Check, Commit, Query, Write
from tests.support.lab import Schema, commit, connected, k, new_space, one, put, there, ulid
from tests.support.postgres import PostgresServer
from tests.support.postgres_stories import holding, queued, run_story, until

A, B, C = k("a"), k("b"), k("c")


@pytest.fixture
def schema() -> Iterator[Schema]:
    """An empty schema of the server that all tests share."""
    schema = Schema()
    yield schema
    schema.drop()


def as_role(url: str, role: str) -> str:
    """The URL with another user."""
    return re.sub("//[^@/]*@", f"//{role}@", url, count=1)


async def freshened(engine: PostgresEngine) -> None:
    """Use all connections at once, so that those the server has closed are replaced."""
    await asyncio.gather(*(engine._pool.fetch("select pg_sleep(0.02)") for _ in range(8)))


# -- callers --------------------------------------------------------------------------------------------------


def test_reads_whose_callers_leave_harm_nobody(schema: Schema) -> None:
    async def story(engine: PostgresEngine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, *(put(k(str(n)), b'"' + b"x" * 5_000 + b'"') for n in range(1_000)))
        for n in range(30):
            tasks: list[asyncio.Task[Any]] = [
                asyncio.create_task(work)
                for work in (
                    engine.get(space, [k("1")]),
                    engine.page(space, Query(metadata=b"{}")),
                    engine.page(space, Query()),
                    engine.count(space),
                    engine.epoch(),
                )
            ]
            for _ in range(n):
                await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await engine.count(space) == 1_000
        assert len((await engine.page(space, Query(metadata=b"{}"))).entries) == 1_000
        await there(engine, space, k("1"))

    run_story(schema, story)


@pytest.mark.one_server("locks and sessions of this server")
def test_writers_of_one_space_do_not_hold_up_those_of_another(schema: Schema) -> None:
    async def story(engine: PostgresEngine) -> None:
        held, free = (await new_space(engine, 1)).number, (await new_space(engine, 2)).number
        async with holding(schema, held) as hold:
            waits = queued(engine, held, put(A))
            await hold.waiting()
            for n in range(20):
                await commit(engine, free, put(k(str(n))))
            await commit(engine, SYSTEM_SPACE, put(A))
            assert not waits.done()
            await hold.release()
            assert isinstance((await waits)[0], Commit)

    run_story(schema, story)


# -- the server -----------------------------------------------------------------------------------------------


@pytest.mark.one_server("sessions of this server")
def test_a_connection_lost_during_a_write_is_an_unknown_outcome_and_the_next_one_is_fresh(schema: Schema) -> None:
    async def story(engine: PostgresEngine) -> None:
        space = (await new_space(engine)).number
        async with holding(schema, space) as hold:
            lost = queued(engine, space, put(A))
            (pid,) = await hold.waiting()
            later = queued(engine, space, put(B))
            await schema.ask("select pg_terminate_backend($1)", pid)
            with pytest.raises(UnknownOutcome, match="read before writing again"):
                await lost
            await hold.release()
            assert isinstance((await later)[0], Commit)
        # After an unknown outcome a write is not sent again.
        assert await one(engine, space, A) is None
        assert engine.writer.failures == 1

    run_story(schema, story)


@pytest.mark.one_server("a lock and sessions of this server")
def test_a_connection_lost_during_a_check_is_a_failure_with_words(schema: Schema) -> None:
    async def story(engine: PostgresEngine) -> None:
        async with holding(schema) as hold:
            await hold.connection.execute("lock table kvasir_entry in access exclusive mode")
            checking = asyncio.ensure_future(engine.check())
            end = "select pg_terminate_backend(pid) from pg_locks where not granted and relation = to_regclass($1)"
            await until(lambda: hold.connection.fetch(end, "kvasir_entry"), "the check waits, and ends")
            with pytest.raises(Unavailable, match="connection to the database broke"):
                await checking

    run_story(schema, story)


@pytest.mark.one_server("a lock and a setting of this server")
@pytest.mark.parametrize("setting", ["statement_timeout", "lock_timeout"])
def test_a_write_that_the_server_gave_up_has_not_happened(schema: Schema, setting: str) -> None:
    async def story(engine: PostgresEngine) -> None:
        space = (await new_space(engine)).number
        async with holding(schema, space):
            with pytest.raises(Unavailable, match="nothing was written"):
                await engine.write([Write(space, (put(A),))])
        assert await one(engine, space, A) is None
        await commit(engine, space, put(A), when=[Check(A, None)])

    url = schema.server.url(options=f"-c search_path={schema.name} -c {setting}=300")
    run_story(schema, story, url)


@pytest.mark.one_server("locks of this server")
def test_a_deadlock_is_rolled_back_and_reported(schema: Schema) -> None:
    async def story(engine: PostgresEngine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(A))
        other = await connected(schema.url)
        try:
            await other.execute("begin; set local deadlock_timeout = '60s'")
            await other.execute("select from kvasir_entry where space = $1 for update", space)
            write = queued(engine, space, put(A, b"2"))

            async def crosswise() -> None:
                await other.execute("select from kvasir_head where space = $1 for update", space)

            async def waits() -> bool:
                rows = await schema.ask("select 1 from pg_stat_activity where cardinality(pg_blocking_pids(pid)) > 0")
                return bool(rows)

            await until(waits, "the write waits for the entry")
            crossing = asyncio.create_task(crosswise())
            with pytest.raises(Unavailable, match="in the way"):
                await write
            await crossing
        finally:
            await other.close()
        assert (await there(engine, space, A)).value == b"1"

    run_story(schema, story)


def test_reads_survive_the_loss_of_every_connection(schema: Schema) -> None:
    async def story(engine: PostgresEngine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(A))
        for _ in range(5):
            await schema.ask(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'kvasir' and pid <> pg_backend_pid() and datname = current_database()"
            )
            reads = await asyncio.gather(
                *(engine.get(space, [A]) for _ in range(10)), engine.epoch(), return_exceptions=True
            )
            assert not [read for read in reads if isinstance(read, BaseException)]

    run_story(schema, story)


@pytest.mark.one_server("locks of several spaces at once")
def test_when_all_connections_are_busy_the_wait_is_bounded(schema: Schema, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(engine: PostgresEngine) -> None:
        spaces = [(await new_space(engine, n)).number for n in (1, 2, 3)]
        async with holding(schema, *spaces) as hold:
            waiting = [queued(engine, space, put(A)) for space in spaces[:2]]

            async def both() -> bool:
                return len(await hold.waiting()) == 2

            await until(both, "both connections wait")
            monkeypatch.setattr(pool, "BUSY_SECONDS", 0.2)
            with pytest.raises(Unavailable, match="connections to the database are busy"):
                await engine.write([Write(spaces[2], (put(A),))])
            with pytest.raises(Unavailable, match="busy"):
                await engine.count(spaces[2])
            await hold.release()
            for task in waiting:
                assert isinstance((await task)[0], Commit)
        await commit(engine, spaces[2], put(A))

    run_story(schema, story, connections=2)


def test_a_server_that_is_away_is_unavailable_and_comes_back_by_itself() -> None:
    with PostgresServer(fsync="off") as server:
        schema = Schema(server)

        async def story(engine: PostgresEngine) -> None:
            space = (await new_space(engine)).number
            await commit(engine, space, put(A))
            await asyncio.to_thread(server.stop)
            for _ in range(3):
                for work in (engine.epoch(), engine.get(space, [A]), engine.page(space, Query())):
                    with pytest.raises(Unavailable):
                        await work
                with pytest.raises(Unavailable, match="nothing was written"):
                    await engine.write([Write(space, (put(B),))])
            await asyncio.to_thread(server.start)

            async def back() -> bool:
                try:
                    await engine.epoch()
                except Unavailable:
                    return False
                return True

            await until(back, "the engine has found its server again")
            assert await one(engine, space, B) is None
            await commit(engine, space, put(B))

        run_story(schema, story)


@pytest.mark.one_server("a setting of this server")
def test_a_read_only_server_takes_no_writes_and_says_so(schema: Schema) -> None:
    async def story(engine: PostgresEngine) -> None:
        space = (await new_space(engine)).number
        await schema.ask(f"alter role {role} set default_transaction_read_only = on")
        await schema.ask(f"select pg_terminate_backend(pid) from pg_stat_activity where usename = '{role}'")
        await freshened(engine)
        for _ in range(3):
            with pytest.raises(Unavailable, match="read-only"):
                await engine.write([Write(space, (put(A),))])
        await schema.ask(f"alter role {role} reset default_transaction_read_only")

        async def back() -> bool:
            try:
                await commit(engine, space, put(A))
            except Unavailable:
                return False
            return True

        await until(back, "writes are taken again")

    role = f"{schema.name}_role"
    schema.query(f"create role {role} superuser login")
    try:
        run_story(schema, story, as_role(schema.url, role))
    finally:
        schema.query(f"drop owned by {role} cascade")
        schema.query(f"drop role {role}")


def test_a_server_without_a_free_connection_is_unavailable(schema: Schema) -> None:
    role = f"{schema.name}_crowd"
    schema.query(f"create role {role} login connection limit 0")
    try:
        with pytest.raises(Unavailable, match="max_connections"):
            run_story(schema, _nothing, as_role(schema.url, role))
    finally:
        schema.query(f"drop role {role}")


async def _nothing(_: PostgresEngine) -> None:
    pass


def test_without_fsync_full_durability_is_refused() -> None:
    with PostgresServer(fsync="off") as server:
        schema = Schema(server)
        with pytest.raises(Unavailable, match=r"fsync=off.*--durability relaxed"):
            run_story(schema, _nothing, durable=True)
        run_story(schema, _nothing, durable=False)


@pytest.mark.one_server("a trigger")
@pytest.mark.parametrize("server_says", ["on", "off"])
@pytest.mark.parametrize("durable", [True, False], ids=["full", "relaxed"])
def test_durability_is_known_to_every_commit(schema: Schema, server_says: str, durable: bool) -> None:
    """`synchronous_commit` inside the transaction is what the operator of Kvasir chose, whatever the server's is."""
    seen: list[str] = []

    async def story(engine: PostgresEngine) -> None:
        engine._writes._durable = engine._registry._durable = durable
        space = (await new_space(engine)).number
        await schema.ask(
            "create function spy() returns trigger language plpgsql as"
            " $$ begin insert into seen values (current_setting('synchronous_commit')); return null; end $$"
        )
        await schema.ask("create table seen (setting text)")
        await schema.ask("create trigger spy after insert on kvasir_entry execute function spy()")
        await commit(engine, space, put(A))
        await commit(engine, space, put(B), when=[Check(B, None)])
        seen.extend([row["setting"] for row in await schema.ask("select setting from seen")])

    run_story(
        schema, story, schema.server.url(options=f"-c search_path={schema.name} -c synchronous_commit={server_says}")
    )
    assert seen == ["on" if durable else "off"] * 2


def test_a_commit_that_no_standby_confirmed_is_an_unknown_outcome() -> None:
    # Setting up waits for no standby; what comes later does.
    with PostgresServer(synchronous_standby_names="nobody", synchronous_commit="local") as server:
        schema = Schema(server)

        async def story(engine: PostgresEngine) -> None:
            space = (await new_space(engine)).number
            await schema.ask("alter role kvasir set synchronous_commit = on")
            await schema.ask(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'kvasir' and datname = current_database()"
            )
            await freshened(engine)
            write = queued(engine, space, put(A))

            async def gave_up() -> bool:
                await schema.ask(
                    "select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'"
                    " and application_name = 'kvasir' and query like '%kvasir_set%'"
                )
                return write.done()

            await until(gave_up, "the write has stopped waiting for its standby")
            with pytest.raises(UnknownOutcome, match="no standby has confirmed it"):
                await write
            assert (await there(engine, space, A)).value == b"1"

        run_story(schema, story, durable=True)


# -- the table of failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["25006", "40001", "40P01", "55P03", "57014", "57P03", "53100", "53300", "53200"])
def test_what_the_server_refused_has_not_happened(state: str) -> None:
    error = asyncpg.PostgresError.new({"C": state, "M": "planted secret"})
    for failure in (failures.failed_writing(error), failures.failed_reading(error), failures.failed_connecting(error)):
        assert isinstance(failure, Unavailable)
        assert "planted" not in failure.message


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.PostgresError.new({"C": "57P01", "M": "planted"}),
        asyncpg.PostgresError.new({"C": "57P02", "M": "planted"}),
        asyncpg.ConnectionDoesNotExistError("planted"),
        ConnectionResetError("planted"),
        TimeoutError("planted"),
        asyncpg.InterfaceError("planted"),
        asyncpg.InternalClientError("planted"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_have_happened_is_unknown(error: Exception) -> None:
    assert isinstance(failures.failed_writing(error), UnknownOutcome)
    assert "planted" not in failures.failed_writing(error).message


NODE = "connection to the remote node kvasir@db-2.example.org:5432 failed with the following error: "
#: What a node of a cluster says of another, as Citus 13 says it
REFUSED = NODE + 'connection to server at "db-2.example.org" (10.0.0.2), port 5432 failed: Connection refused'
STARTING = NODE + "FATAL:  the database system is starting up"
BROKE = NODE + "server closed the connection unexpectedly"
SLOW = "could not establish any connections to the node db-2.example.org:5432 after 30000 ms"
ENDED = "terminating connection due to administrator command"
THERE = "while executing command on db-2.example.org:5432"


def of_node(state: str, message: str, severity: str = "ERROR", *, context: str = "", **fields: str) -> Any:
    return asyncpg.PostgresError.new({"S": "FEHLER", "V": severity, "C": state, "M": message, "W": context} | fields)


@pytest.mark.parametrize("message", [REFUSED, STARTING, SLOW], ids=["refused", "starting", "slow"])
def test_a_node_that_was_not_reached_is_named_and_nothing_was_written(message: str) -> None:
    error = of_node("08006", message)
    assert not failures.connection_lost(error), "the session lives: only the way from one node to the other is gone"
    for failure in (failures.failed_writing(error), failures.failed_reading(error)):
        assert isinstance(failure, Unavailable)
        assert "db-2.example.org:5432" in failure.message
    assert "nothing was written" in failures.failed_writing(error).message


@pytest.mark.parametrize(
    "error",
    [of_node("08006", BROKE), of_node("57P01", ENDED, context=THERE), of_node("XX000", "planted", context=THERE)],
    ids=["broke", "ended", "internal"],
)
def test_what_another_node_may_have_done_is_unknown(error: Any) -> None:
    assert not failures.connection_lost(error)
    assert isinstance(failures.failed_writing(error), UnknownOutcome)
    assert isinstance(failures.failed_reading(error), Unavailable), "a read may be sent again"


def test_a_node_whose_size_is_asked_for_is_named_too() -> None:
    error = of_node("08006", 'could not connect to db-2.example.org:5432 to get size of relation "kvasir_entry"')
    assert "db-2.example.org:5432" in failures.failed_reading(error).message
    assert isinstance(failures.failed_reading(of_node("08006", "in other words")), Unavailable)


@pytest.mark.parametrize("state", ["08006", "57P01", "57P02", "XX000"])
def test_a_session_ends_by_its_severity_not_by_its_state(state: str) -> None:
    assert failures.connection_lost(of_node(state, "planted", "FATAL"))
    assert failures.connection_lost(of_node(state, "planted", "PANIC"))
    assert not failures.connection_lost(of_node(state, "planted"))


@pytest.mark.parametrize("severity", ["FATAL", "PANIC"])
@pytest.mark.parametrize("state", ["53100", "53200", "58030"])
def test_what_ends_the_server_amid_a_commit_leaves_its_outcome_unknown(state: str, severity: str) -> None:
    """A full disk under the log is a PANIC: the commit may be in what was written of it."""
    assert isinstance(failures.failed_writing(of_node(state, "planted", severity)), UnknownOutcome)
    assert isinstance(failures.failed_writing(of_node(state, "planted")), Unavailable)


@pytest.mark.parametrize("state", ["53300", "57P03"])
def test_what_keeps_a_session_from_beginning_has_not_happened(state: str) -> None:
    assert isinstance(failures.failed_writing(of_node(state, "planted", "FATAL")), Unavailable)


def test_an_error_inside_the_server_is_never_told_as_nothing_written() -> None:
    assert isinstance(failures.failed_writing(of_node("XX000", "could not commit on all nodes")), UnknownOutcome)
    assert isinstance(failures.failed_writing(of_node("XX001", "planted")), UnknownOutcome)


def test_a_commit_that_a_node_has_not_confirmed_is_unknown() -> None:
    message = "failed to commit transaction on db-2.example.org:5432"
    assert failures.not_confirmed(of_node("01000", message, "WARNING")) is None
    warning = of_node("01000", message, "WARNING", R="FinishRemoteTransactionCommit")
    assert failures.not_confirmed(warning) == failures.NOT_EVERYWHERE
    detail = "The transaction has already committed locally, but might not have been replicated to the standby."
    standby = of_node("01000", "canceling wait for synchronous replication", "WARNING", D=detail)
    assert failures.not_confirmed(standby) == failures.NOT_REPLICATED


def test_what_was_never_sent_has_not_happened() -> None:
    assert isinstance(failures.failed_writing(asyncpg.InternalClientError("cannot switch to state 11; …")), Unavailable)
    assert isinstance(failures.failed_writing(asyncpg.InternalClientError("something else")), UnknownOutcome)


# -- conflicts between servers --------------------------------------------------------------------------------


@pytest.mark.one_server("locks of this server")
def test_an_ended_space_is_gone_for_a_server_whose_write_waited(schema: Schema) -> None:
    async def story(engine: PostgresEngine) -> None:
        space = await new_space(engine)
        async with holding(schema, space.number) as hold:
            ending = asyncio.create_task(engine.end_space(space.id))
            await hold.waiting()
            write = queued(engine, space.number, put(A))

            async def both() -> bool:
                return len(await hold.waiting()) >= 1 and engine.writer.queue_depth == 1

            await until(both, "the write waits, too")
            await hold.release()
            assert await ending
            (outcome,) = await write
        assert isinstance(outcome, KvasirError | Commit)
        assert await engine.get_space(ulid(1)) is None

    run_story(schema, story)
