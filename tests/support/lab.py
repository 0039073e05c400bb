"""A place to try engines in: every engine, a clock on a string, and a consistency check after each story."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import msgspec

from kvasir.engine import Engine
from kvasir.engines.memory import MemoryEngine
from kvasir.engines.sqlite import SqliteEngine
from kvasir.keys import pack
from kvasir.limits import Limits
from kvasir.model import (
    Alias,
    Commit,
    Condition,
    Conflict,
    Entry,
    Joined,
    KeyRange,
    Mutation,
    Set,
    Space,
    Unmet,
    Write,
)
from tests.support.clock import START, ManualClock
from tests.support.organisations import ORGANISATION
from tests.support.postgres import PostgresServer, postgres_engine, shared_server

ENGINES = ("memory", "sqlite", "postgres")
#: Those whose data survives their process.
DURABLE = ENGINES[1:]

T = TypeVar("T")


async def connected(url: str) -> Any:
    """A connection of another client.

    asyncpg looks types up, for which Citus would look at every table of the database, unless it is told not to.
    """
    return await asyncpg.connect(url, server_settings={"citus.override_table_visibility": "off"})


class Schema:
    """A fresh schema of a PostgreSQL server, which is a database of its own to the engine. `drop` removes it."""

    _numbers = itertools.count(1)

    def __init__(self, server: PostgresServer | None = None) -> None:
        self.server = server or shared_server()
        self.name = f"lab{os.getpid()}_{next(self._numbers)}"
        self.url = self.server.url(options=f"-c search_path={self.name}")
        self.server.query(f"create schema {self.name}")

    def query(self, sql: str, *arguments: object) -> list[Any]:
        """The rows of a statement in it. Not from within an event loop."""
        return asyncio.run(self.ask(sql, *arguments))

    async def ask(self, sql: str, *arguments: object) -> list[Any]:
        """The rows of a statement in it."""
        connection = await connected(self.url)
        try:
            return list(await connection.fetch(sql, *arguments))
        finally:
            await connection.close()

    def drop(self) -> None:
        self.server.query(f"drop schema if exists {self.name} cascade")


class Lab:
    """One database of one kind of engine, opened anew for every story; the memory engine simply lives on."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.clock = ManualClock()
        #: Of the engines it makes from now on
        self.limits: Limits | None = None
        self.file = folder / "kvasir.db"
        self._memory: MemoryEngine | None = None
        self.schema = Schema() if kind == "postgres" else None

    def close(self) -> None:
        if self.schema:
            self.schema.drop()

    @property
    def durable(self) -> bool:
        return self.kind != "memory"

    def engine(self) -> Engine:
        """An engine on the database, not yet open. Several at a time stand for several processes."""
        if self.schema:
            return postgres_engine(self.schema.url, clock=self.clock, limits=self.limits, durable=False, connections=4)
        if self.durable:
            return SqliteEngine(self.file, clock=self.clock, limits=self.limits)
        self._memory = self._memory or MemoryEngine(self.clock, self.limits)
        return self._memory

    def run(self, story: Callable[[Engine], Awaitable[T]]) -> T:
        """Open, tell the story, find nothing wrong with the database, close."""
        return asyncio.run(self._run(story))

    async def _run(self, story: Callable[[Engine], Awaitable[T]]) -> T:
        engine = self.engine()
        await engine.open()
        try:
            result = await story(engine)
            assert await engine.check() == []
            return result
        finally:
            await engine.close()

    def run_pair(self, story: Callable[[Engine, Engine], Awaitable[T]]) -> T:
        """Like `run`, with the database open twice."""

        async def both(first: Engine) -> T:
            second = self.engine()
            await second.open()
            try:
                return await story(first, second)
            finally:
                await second.close()

        return self.run(both)

    @contextlib.asynccontextmanager
    async def writers_held(self, space: int) -> AsyncIterator[None]:
        """Writes to a space of a durable engine wait meanwhile, as they do for the writer of another process."""
        if self.schema:
            connection = await connected(self.schema.url)
            try:
                await connection.execute("begin")
                await connection.execute("select from kvasir_head where space = $1 for update", space)
                yield
            finally:
                await connection.close()
        else:
            with self.file.with_name(f"{self.file.name}-writer").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield


def k(*parts: str) -> bytes:
    return pack(parts)


def put(key: bytes, value: bytes = b"1", **options: object) -> Set:
    return Set(key, value, **options)  # type: ignore[arg-type]


def conflict(condition: Condition, actual: int | None) -> Conflict:
    """What a write gives whose only unmet condition is this one, with the key's actual versionstamp."""
    return Conflict((Unmet(condition, actual),))


async def write(engine: Engine, space: int, *mutations: Mutation, when: Sequence[Condition] = ()) -> Commit | Conflict:
    """One write that is expected to come through or to conflict."""
    (outcome,) = await engine.write([Write(space, mutations, tuple(when))])
    assert isinstance(outcome, Commit | Conflict), outcome
    return outcome


async def commit(engine: Engine, space: int, *mutations: Mutation, when: Sequence[Condition] = ()) -> Commit:
    """One write that is expected to come through."""
    outcome = await write(engine, space, *mutations, when=when)
    assert isinstance(outcome, Commit), outcome
    return outcome


async def scanned(engine: Engine, space: int, key_range: KeyRange | None = None) -> list[Entry]:
    """What a scan gives, with 0 in the place of each sequence."""
    async with contextlib.aclosing(engine.scan(space, key_range)) as batches:
        return [unnumbered(entry) async for batch in batches if not isinstance(batch, Joined) for entry in batch]


async def joined(engine: Engine, space: int, key_range: KeyRange | None = None) -> list[Entry]:
    """The same, with entries joined where the engine does so."""
    async with contextlib.aclosing(engine.scan(space, key_range, True)) as batches:
        return [entry async for batch in batches for entry in _entries_of(batch)]


def _entries_of(batch: list[Entry] | Joined) -> list[Entry]:
    if not isinstance(batch, Joined):
        return [unnumbered(entry) for entry in batch]
    columns = ((batch.keys, b"\x7f"), (batch.values, b"\x1e"), (batch.facts, b"\xff"), (batch.versionstamps, b","))
    rows = zip(*(column.split(between) for column, between in columns), strict=True)
    entries = [_entry_of(*row) for row in rows]
    assert len(entries) == batch.count
    return entries


def _entry_of(key: bytes, value: bytes, facts: bytes, versionstamp: bytes) -> Entry:
    created_at, *others = facts.split(b",", 3)
    expires_at, refresh, metadata = others or [b""] * 3
    return Entry(
        key,
        value,
        int(versionstamp),
        0,
        int(created_at),
        int(expires_at) if expires_at else None,
        int(refresh) if refresh else None,
        metadata or None,
    )


def unnumbered(entry: Entry) -> Entry:
    """The entry with 0 in the place of its sequence."""
    return msgspec.structs.replace(entry, sequence=0)


async def one(engine: Engine, space: int, key: bytes) -> Entry | None:
    """The entry of one key."""
    (entry,) = await engine.get(space, [key])
    at_once = engine.get_nowait(space, [key])
    if at_once not in (None, [entry]):
        assert await engine.get(space, [key]) != [entry], "nobody has written it in between"
    return entry


async def there(engine: Engine, space: int, key: bytes) -> Entry:
    """The entry of one key that is expected to be there."""
    entry = await one(engine, space, key)
    assert entry is not None
    return entry


def ulid(n: int) -> str:
    return f"01HF{n:022d}"


def alias(name: str, kind: str = "store", organisation: str = ORGANISATION) -> Alias:
    return (kind, organisation, name)


async def new_space(
    engine: Engine,
    n: int = 1,
    *,
    kind: str = "store",
    organisation: str = ORGANISATION,
    aliases: Sequence[Alias] | None = None,
    expires_at: int | None = None,
    clear_every: int | None = None,
) -> Space:
    """A fresh space with the n-th ULID, by default behind the store alias `space-n`."""
    space = Space(ulid(n), 0, organisation, kind, f"space-{n}", START, expires_at, clear_every, b'{"facts":[1, 2.50]}')
    wanted = [alias(f"space-{n}")] if aliases is None else aliases
    return await engine.create_space(space, wanted)
