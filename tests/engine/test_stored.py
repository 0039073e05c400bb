"""Databases and a dump made by versions before the present schema open, migrate and load; their servers stand aside.

`tests/stored/` holds them as those versions left them: a store, an application and a shared session with their entries,
access keys, and in PostgreSQL the functions of the version.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import asyncpg
import pytest

from kvasir.control.access_keys import digest_of, find_key
from kvasir.engine import Engine
from kvasir.engines.memory import MemoryEngine
from kvasir.engines.sqlite import SqliteEngine
from kvasir.engines.sqlite.schema import MIGRATIONS
from kvasir.errors import Unavailable
from kvasir.keys import pack
from kvasir.model import SYSTEM_SPACE, KeyRange
from kvasir.transfer.dump_file import FileSource
from kvasir.transfer.source import EngineSource
from kvasir.transfer.target import fill
from tests.support.lab import Schema, connected
from tests.support.organisations import ORGANISATION
from tests.support.postgres import postgres_engine

STORED = Path(__file__).parents[1] / "stored"

#: What a server of each version asks before it answers any request, reads too. Source: its module `gathering`, later
#: `read_batcher`.
OLD_EPOCHS = {
    2: "select last, kvasir_now() from kvasir_head where space = 1",
    3: "select last, kvasir_clock() from kvasir_head where space = 1",
}
#: What that version answers as "unavailable, nothing happened". Source: its `failures` module.
OLD_RETRY = "57P03"


#: Where the aliases are in each version
ALIASES = {2: "door", 3: "alias"}


@pytest.fixture(params=ALIASES)
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def old_file(tmp_path: Path, version: int) -> Path:
    return Path(shutil.copy(STORED / f"sqlite-version-{version}.db", tmp_path / "kvasir.db"))


@pytest.fixture
def old_schema(version: int) -> Schema:
    """A fresh schema, filled; the caller drops it."""
    schema = Schema()

    async def restore() -> None:
        connection = await connected(schema.url)
        try:
            text = (STORED / f"postgres-version-{version}.sql").read_text(encoding="utf-8")
            await connection.execute(text.replace("@.", f"{schema.name}."))
        finally:
            await connection.close()

    asyncio.run(restore())
    return schema


async def examine(engine: Engine) -> None:
    """Everything is there, and found the way it was."""
    store = await engine.resolve(("store", ORGANISATION, "default"))
    assert store is not None
    keys = [pack(["products", "1"]), pack(["products", "2"]), pack(["grüße"])]
    first, second, third = await engine.get(store.number, keys)
    assert first
    assert second
    assert third
    assert (first.value, first.metadata) == (b'{"name": "mead", "price": 9.50}', b'{"by": "me"}')
    assert (second.value, second.expires_at) == (b"12345678901234567890.10", 4_102_444_800_000)
    assert second.refresh
    assert third.value.decode() == '"🍯"'
    application = await engine.resolve(("application", ORGANISATION, "1"))
    assert application == await engine.resolve(("application-name", ORGANISATION, "shop"))
    assert application is not None
    session = await engine.resolve(("session-token", "", "4242"))
    assert session is not None
    assert await engine.aliases(session.id) == [("session-name", "", "cart"), ("session-token", "", "4242")]
    key = await find_key(engine, digest_of("kv_reader_of_the_stored_database"))
    assert key is not None
    assert (key.role, key.prefix) == ("viewer", ("products",))
    assert len(await engine.get(SYSTEM_SPACE, [pack(["first-organisation"])])) == 1
    assert await engine.check() == []


def run_story(engine: Engine, story: Callable[[Engine], object] = examine) -> None:
    async def whole() -> None:
        await engine.open()
        try:
            await story(engine)  # type: ignore[misc]
        finally:
            await engine.close()

    asyncio.run(whole())


def test_a_stored_file_is_migrated(old_file: Path) -> None:
    run_story(SqliteEngine(old_file))
    run_story(SqliteEngine(old_file))
    with apsw.Connection(str(old_file)) as connection:
        assert connection.pragma("user_version") == len(MIGRATIONS)
        assert connection.pragma("journal_mode") == "wal"


def test_a_log_of_changes_in_an_earlier_form_is_a_gap_to_who_watches(tmp_path: Path) -> None:
    file = tmp_path / "kvasir.db"
    with apsw.Connection(str(file)) as made:
        for migration in MIGRATIONS[:4]:
            made.execute(migration)
        made.pragma("user_version", 4)
        made.execute("UPDATE meta SET last = 7")
        made.execute("INSERT INTO change VALUES (7, 3, 3, x'010203')")
    made.close()

    async def watches(engine: Engine) -> None:
        for since in (3, 5):
            watch = await engine.watch(SYSTEM_SPACE, [KeyRange(b"", b"\xff")], since)
            assert (await anext(watch)).resync
            watch.close()

    run_story(SqliteEngine(file), watches)


def test_a_file_that_a_server_of_before_has_open_is_left_to_it(old_file: Path, version: int) -> None:
    """Such a server cannot be told by its database to stop, so it is not migrated under it."""
    old = apsw.Connection(str(old_file))
    assert old.execute(f"SELECT count(*) FROM {ALIASES[version]}").get == 5
    with pytest.raises(Unavailable, match="stop every server and command of the earlier version"):
        run_story(SqliteEngine(old_file))
    assert old.execute(f"SELECT count(*) FROM {ALIASES[version]}").get == 5
    old.execute("UPDATE meta SET epoch = epoch + 1")
    old.close()
    run_story(SqliteEngine(old_file))


def test_a_stored_schema_of_postgresql_is_migrated(old_schema: Schema) -> None:
    try:
        run_story(postgres_engine(old_schema.url, durable=False))
        run_story(postgres_engine(old_schema.url, durable=False))
    finally:
        old_schema.drop()


@pytest.mark.one_server("no older server knew a cluster")
def test_to_an_older_server_postgresql_is_unavailable(old_schema: Schema, version: int) -> None:
    """Also one that has prepared its statements long ago."""

    async def ask() -> None:
        connection = await connected(old_schema.url)
        try:
            epoch = await connection.prepare(OLD_EPOCHS[version])
            assert await epoch.fetch()
            engine = postgres_engine(old_schema.url, durable=False)
            await engine.open()
            await engine.close()
            with pytest.raises(asyncpg.PostgresError) as failed:
                await epoch.fetch()
            assert failed.value.sqlstate == OLD_RETRY
        finally:
            await connection.close()

    try:
        asyncio.run(ask())
    finally:
        old_schema.drop()


def test_a_dump_of_version_1_is_loaded_and_copied_on(tmp_path: Path) -> None:
    """Through all three engines; every step proves its checksums."""

    schema = Schema()

    async def story() -> None:
        engines: list[Engine] = [
            MemoryEngine(),
            SqliteEngine(tmp_path / "copy.db"),
            postgres_engine(schema.url, durable=False),
        ]
        for engine in engines:
            await engine.open()
        with (STORED / "dump-version-1.jsonl").open("rb") as file:
            report = await fill(FileSource(file, "stored", None, engines[0].clock), engines[0], lambda _: None)
        assert (report.spaces, report.entries, report.differences) == (3, 10, [])
        for source, target in itertools.pairwise(engines):
            report = await fill(await EngineSource.of(source), target, lambda _: None)
            assert (report.spaces, report.entries, report.differences) == (3, 10, [])
        for engine in engines:
            await examine(engine)
            await engine.close()

    try:
        asyncio.run(story())
    finally:
        schema.drop()
