"""An upgrade may bring other functions for the same tables, also while servers are working with the present ones."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator

import pytest

from kvasir.engines.postgres import PostgresEngine, schema
from kvasir.engines.postgres.functions import REVISION
from kvasir.keys import pack
from kvasir.model import SYSTEM_SPACE, Check, Commit, Set, Write
from tests.support.lab import Schema
from tests.support.postgres import postgres_engine

#: SHA-256 of the functions by `REVISION`. A line that is in a release stays as it is; until then it follows the text.
REVISIONS = {
    1: "c201edd5e2455f143ebc433ea3143cabad0e9e6fbb0cc9fb6e0bf669c53a7a70",
}


@pytest.fixture
def database() -> Iterator[Schema]:
    """An empty schema of the server that all tests share."""
    schema = Schema()
    yield schema
    schema.drop()


@pytest.fixture
def upgrade(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], None]:
    """Makes this program another one: with functions of this revision, and one more whose result is that text."""

    def upgrade(revision: int, result: str) -> None:
        extra = f"create or replace function @kvasir_extra() returns text language sql as $$ select '{result}' $$;"
        monkeypatch.setattr(schema, "REVISION", revision)
        monkeypatch.setattr(
            schema, "ALL_FUNCTIONS", ORIGINAL.replace("floor(extract", f"floor( /* {result} */ extract") + extra
        )

    return upgrade


ORIGINAL = schema.ALL_FUNCTIONS


def opened(database: Schema, servers: int = 1) -> None:
    """Start so many servers at once, and stop them."""

    async def start() -> None:
        engines = [engine_on(database) for _ in range(servers)]
        await asyncio.gather(*(engine.open() for engine in engines))
        for engine in engines:
            await engine.close()

    asyncio.run(start())


def engine_on(database: Schema) -> PostgresEngine:
    return postgres_engine(database.url, durable=False, connections=3)


def identities(database: Schema) -> dict[str, int]:
    """The oids of the functions by their names."""
    rows = database.query("select proname, oid from pg_proc where pronamespace = current_schema()::regnamespace")
    return {row["proname"]: row["oid"] for row in rows}


def extra(database: Schema) -> str:
    return str(database.query("select kvasir_extra()")[0][0])


def clock_text(database: Schema) -> str:
    return str(database.query("select prosrc from pg_proc where oid = to_regprocedure('kvasir_time()')")[0][0])


def test_a_change_of_the_functions_is_a_new_revision() -> None:
    digest = hashlib.sha256(schema.ALL_FUNCTIONS.encode()).hexdigest()
    assert max(REVISIONS) == REVISION
    assert digest == REVISIONS[REVISION], (
        f"the functions have changed: if revision {REVISION} is in a release, raise it, or servers of that release will"
        f" put their own back; then pin {digest}"
    )


def test_an_upgrade_replaces_functions_and_keeps_their_identity(
    database: Schema, upgrade: Callable[[int, str], None]
) -> None:
    opened(database)
    before = identities(database)
    upgrade(REVISION + 1, "new")
    opened(database, servers=3)
    after = identities(database)
    assert extra(database) == "new"
    assert "/* new */" in clock_text(database)
    assert {name: after[name] for name in before} == before, "a prepared statement, and Citus, know it by its oid"
    assert after.keys() - before.keys() == {"kvasir_extra"}


def test_a_server_goes_on_while_its_functions_are_replaced(
    database: Schema, upgrade: Callable[[int, str], None]
) -> None:
    async def story() -> None:
        serving = engine_on(database)
        await serving.open()
        done = asyncio.Event()
        written = 0

        async def work(name: str) -> None:
            nonlocal written
            key, stamp = pack([name]), None
            while not done.is_set():
                # By way of `kvasir_set`, then of `kvasir_write`.
                await serving.write([Write(SYSTEM_SPACE, (Set(pack([name, "plain"]), b"1"),))])
                (outcome,) = await serving.write([Write(SYSTEM_SPACE, (Set(key, b"1"),), (Check(key, stamp),))])
                assert isinstance(outcome, Commit)
                stamp = outcome.versionstamp
                (entry,) = await serving.get(SYSTEM_SPACE, [key])
                assert entry is not None
                assert entry.versionstamp == stamp
                assert await serving.epoch() >= stamp
                written += 1

        workers = [asyncio.create_task(work(str(n))) for n in range(4)]
        for n in range(1, 11):
            upgrade(REVISION + n, str(n))
            newer = engine_on(database)
            await newer.open()
            await newer.close()
            count = written
            while written < count + 20 and not any(worker.done() for worker in workers):  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        done.set()
        await asyncio.gather(*workers)
        assert await serving.check() == []
        await serving.close()

    asyncio.run(story())
    assert extra(database) == "10"


def test_an_older_server_leaves_newer_functions_alone(database: Schema, upgrade: Callable[[int, str], None]) -> None:
    upgrade(REVISION + 1, "newer")
    opened(database)
    upgrade(REVISION, "older")
    opened(database)
    assert extra(database) == "newer"
    assert "/* newer */" in clock_text(database)


def test_other_functions_of_the_same_revision_are_replaced(
    database: Schema, upgrade: Callable[[int, str], None]
) -> None:
    upgrade(REVISION, "one")
    opened(database)
    upgrade(REVISION, "other")
    opened(database)
    assert extra(database) == "other"


def test_what_is_in_place_is_not_touched(database: Schema) -> None:
    opened(database)
    before = database.query("select oid, xmin::text from pg_proc where pronamespace = current_schema()::regnamespace")
    opened(database)
    after = database.query("select oid, xmin::text from pg_proc where pronamespace = current_schema()::regnamespace")
    assert before == after


def test_functions_from_before_they_were_marked_are_replaced(database: Schema) -> None:
    opened(database)
    database.query("drop function kvasir_functions()")
    database.query(
        "create or replace function kvasir_time() returns bigint language sql volatile as 'select 5::bigint'"
    )
    opened(database)
    assert "clock_timestamp" in clock_text(database)


def test_a_renamed_schema_gets_functions_that_know_its_name(database: Schema) -> None:
    opened(database)
    name = f"{database.name}_renamed"
    database.server.query(f"alter schema {database.name} rename to {name}")
    database.url = database.url.replace(database.name, name)
    database.name = name

    async def write() -> None:
        engine = engine_on(database)
        await engine.open()
        await engine.write([Write(SYSTEM_SPACE, (Set(pack(["a"]), b"1"),))])
        assert await engine.check() == []
        await engine.close()

    asyncio.run(write())


def test_a_migration_drops_functions_that_are_no_more(
    database: Schema, upgrade: Callable[[int, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade(REVISION, "old")
    opened(database)
    monkeypatch.setattr(schema, "ALL_FUNCTIONS", ORIGINAL)
    opened(database)
    assert "kvasir_extra" in identities(database), "another server may be calling it"
    monkeypatch.setattr(schema, "MIGRATIONS", (*schema.MIGRATIONS, "alter table @kvasir_entry add column more bigint"))
    opened(database)
    assert "kvasir_extra" not in identities(database)
