"""Who may use a database while it is being filled, and afterwards: never two at once, and nobody loses data."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kvasir.config.table import Config
from kvasir.control import bootstrap, copy_mark, organisation
from kvasir.engine import Engine
from kvasir.engines.memory import MemoryEngine
from kvasir.engines.sqlite import SqliteEngine
from kvasir.errors import Conflicting, Unavailable
from kvasir.model import SYSTEM_SPACE, Query
from kvasir.transfer import dump_file
from kvasir.transfer.source import EngineSource
from kvasir.transfer.target import Report, fill
from tests.support.cli import run
from tests.support.clock import ManualClock
from tests.support.lab import commit, k, new_space, put, ulid
from tests.support.organisations import ORGANISATION

#: More calls than a first start, or the beginning of a copy, makes.
CALLS = range(1, 16)

#: With an organisation of its own, and with that of the database that is copied: then the stores' aliases collide.
SETTINGS = [Config(), Config(organisation_id=ORGANISATION)]


class Between:
    """An engine on which something else happens just before the call with this number."""

    def __init__(self, engine: Engine, at: int, act: Callable[[], Awaitable[object]]) -> None:
        self._engine = engine
        self._calls = itertools.count(1)
        self._at = at
        self._act = act

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._engine, name)
        if name not in ("get", "page", "list_spaces", "create_space", "end_space", "load", "write"):
            return found

        async def call(*arguments: Any, **named: Any) -> Any:
            if next(self._calls) == self._at:
                await self._act()
            return await found(*arguments, **named)

        return call


async def source(clock: ManualClock) -> Engine:
    engine = MemoryEngine(clock)
    await bootstrap.bootstrap(engine, Config(organisation_id=ORGANISATION), clock)
    for n in (1, 2):
        await commit(engine, (await new_space(engine, n)).number, put(k("a")), put(k("b")))
    return engine


async def copied(old: Engine, new: Engine) -> Report:
    return await fill(await EngineSource.of(old), new, lambda _: None)


async def databases(clock: ManualClock, *, again: bool) -> tuple[Engine, Engine]:
    """One to copy and one to copy into: empty or, if `again`, a copy from which a store has to go."""
    old, new = await source(clock), MemoryEngine(clock)
    if again:
        await copied(old, new)
        await old.end_space(ulid(1))
    return old, new


async def dumped(engine: Engine) -> list[object]:
    """Everything but the mark and the numbers of spaces."""
    return [
        (section.space.id, section.aliases, [entry async for entry in section.entries()])
        async for section in EngineSource(engine, "", 0).sections()
    ]


@pytest.mark.parametrize("config", SETTINGS, ids=["own", "same"])
@pytest.mark.parametrize("again", [False, True], ids=["empty", "copy"])
@pytest.mark.parametrize("at", CALLS)
def test_a_server_that_starts_while_a_copy_begins_loses_nothing(at: int, again: bool, config: Config) -> None:
    async def story() -> None:
        clock = ManualClock()
        old, new = await databases(clock, again=again)
        started = False

        async def start() -> None:
            nonlocal started
            with contextlib.suppress(Unavailable):
                await bootstrap.bootstrap(new, config, clock)
                assert await copy_mark.read(new) is None
                await new_space(new, 9)
                started = True

        try:
            report = await copied(old, Between(new, at, start))
        except Conflicting:
            report = None
        if started:
            assert report is None
            assert await new.get_space(ulid(9)) is not None
            await organisation.first_organisation(new)
            await bootstrap.bootstrap(new, config, clock)
        elif report is not None:
            assert report.differences == []
            assert await dumped(new) == await dumped(old)

    asyncio.run(story())


@pytest.mark.parametrize("config", SETTINGS, ids=["own", "same"])
@pytest.mark.parametrize("again", [False, True], ids=["empty", "copy"])
@pytest.mark.parametrize("at", CALLS)
def test_a_copy_made_while_a_server_starts_is_a_copy(at: int, again: bool, config: Config) -> None:
    async def story() -> None:
        clock = ManualClock()
        old, new = await databases(clock, again=again)
        report = None

        async def move() -> None:
            nonlocal report
            with contextlib.suppress(Conflicting):
                report = await copied(old, new)

        try:
            made = await bootstrap.bootstrap(Between(new, at, move), config, clock)
            assert await copy_mark.read(new) is None
        except Unavailable:
            made = None
        if report is not None:
            assert made is None
            assert report.differences == []
            assert await dumped(new) == await dumped(old)

    asyncio.run(story())


@pytest.mark.parametrize("at", CALLS)
def test_of_two_copies_at_once_one_finishes(at: int) -> None:
    async def story() -> None:
        clock = ManualClock()
        old, new = await source(clock), MemoryEngine(clock)
        other: list[Report] = []

        async def move() -> None:
            other.append(await copied(old, new))

        try:
            report = [await copied(old, Between(new, at, move))]
        except Conflicting:
            report = []
        assert len(report + other) >= 1
        assert await dumped(new) == await dumped(old)
        assert await bootstrap.bootstrap(new, Config(), clock) is None

    asyncio.run(story())


@pytest.mark.parametrize("then", ["server", "copy"])
def test_a_copy_interrupted_before_its_mark_means_anything_has_not_begun(then: str) -> None:
    async def story() -> None:
        clock = ManualClock()
        old, new = await source(clock), MemoryEngine(clock)

        async def stop() -> None:
            raise Unavailable("gone")

        # The calls are: get, page, list_spaces, load, and the write that is not made.
        with pytest.raises(Unavailable, match="gone"):
            await copied(old, Between(new, 5, stop))
        (place,) = (await new.page(SYSTEM_SPACE, Query())).entries
        assert (place.key, await copy_mark.read(new)) == (copy_mark.COPY_MARK, None)
        if then == "server":
            assert await bootstrap.bootstrap(new, Config(), clock) is not None
            with pytest.raises(Conflicting, match="data of its own"):
                await copied(old, new)
        else:
            assert (await copied(old, new)).differences == []
            assert await dumped(new) == await dumped(old)

    asyncio.run(story())


def test_an_incomplete_copy_cannot_be_copied() -> None:
    async def story() -> None:
        clock = ManualClock()
        old, half, new = await source(clock), MemoryEngine(clock), MemoryEngine(clock)

        async def stop() -> None:
            raise Unavailable("gone")

        # Before its own records are there, and when a second run has changed some of its spaces.
        for at in (9, 5):
            with pytest.raises(Unavailable, match="gone"):
                await copied(old, Between(half, at, stop))
            with pytest.raises(Conflicting, match="run it again"):
                await copied(half, new)
            assert await dumped(new) == await dumped(MemoryEngine(clock))
            await copied(old, half)
            await old.end_space(ulid(1))
        await copied(old, half)
        assert (await copied(half, new)).differences == []

    asyncio.run(story())


def test_a_copy_that_is_filled_again_while_it_is_read_is_not_dumped_as_a_whole() -> None:
    async def story() -> None:
        clock = ManualClock()
        old, half = await source(clock), MemoryEngine(clock)
        await copied(old, half)
        given, out = await EngineSource.of(half), io.BytesIO()
        origin = given.origin
        sections = given.sections()
        await anext(sections)
        await copy_mark.claim(half, origin)
        with pytest.raises(Conflicting, match="incomplete copy"):
            async for _ in sections:
                pass
        await copied(old, half)
        assert (await dump_file.write(given, out, lambda _: None)).spaces == 3

    asyncio.run(story())


WRITING = [
    ("key", "create", "--name", "app", "--role", "developer"),
    ("key", "revoke", "admin"),
    ("store", "create", "cellar"),
    ("store", "delete", "default", "--yes"),
    ("store", "share", "default", "--session", "all"),
    ("application", "create", "--name", "app"),
    ("service-account", "create", "--role", "Developer"),
]
READING = [
    ("check",),
    ("key", "list"),
    ("store", "list"),
    ("session", "list"),
    ("application", "list"),
    ("service-account", "list"),
]


def on_a_copy(folder: Path, act: Callable[[Engine, Engine], Awaitable[None]]) -> str:
    """Do something with a database and with a file that may become a copy of it; return the URL of that file."""

    async def story() -> None:
        old, new = MemoryEngine(ManualClock()), SqliteEngine(folder / "new.db")
        await bootstrap.bootstrap(old, Config(organisation_id=ORGANISATION, admin_key="a" * 40), old.clock)
        await new.open()
        try:
            await act(old, new)
        finally:
            await new.close()

    asyncio.run(story())
    return f"sqlite:{folder / 'new.db'}"


async def _make(old: Engine, new: Engine) -> None:
    assert (await copied(old, new)).differences == []


async def _claim(old: Engine, new: Engine) -> None:
    await copy_mark.claim(new, await organisation.origin(old))


async def _refused(old: Engine, new: Engine) -> None:
    before = await dumped(new)
    with pytest.raises(Conflicting, match="data of its own"):
        await copied(old, new)
    assert await dumped(new) == before


@pytest.mark.only_sqlite
@pytest.mark.parametrize("command", WRITING, ids=" ".join)
def test_what_a_command_writes_is_safe_from_the_next_copy(tmp_path: Path, command: tuple[str, ...]) -> None:
    engine = ("--engine", on_a_copy(tmp_path, _make))
    run(*command, *engine)
    on_a_copy(tmp_path, _refused)


@pytest.mark.only_sqlite
@pytest.mark.parametrize(
    ("command", "again"), [(command, True) for command in WRITING + READING] + [(command, False) for command in READING]
)
def test_no_command_uses_an_incomplete_copy(tmp_path: Path, command: tuple[str, ...], again: bool) -> None:
    """`again`: there are the records of an earlier run; otherwise it could pass for an empty database."""
    if again:
        on_a_copy(tmp_path, _make)
    engine = ("--engine", on_a_copy(tmp_path, _claim))
    refused = run(*command, *engine, status=1)
    assert "let it finish, or run it again" in refused.stderr
    assert refused.stdout == ""
    on_a_copy(tmp_path, _make)


@pytest.mark.only_sqlite
def test_commands_that_only_read_leave_a_copy_that_can_be_filled_again(tmp_path: Path) -> None:
    engine = ("--engine", on_a_copy(tmp_path, _make))
    for command in READING:
        run(*command, *engine)
    # There is no terminal to ask on, so nothing is deleted.
    run("store", "delete", "default", *engine, status=2)
    on_a_copy(tmp_path, _make)
