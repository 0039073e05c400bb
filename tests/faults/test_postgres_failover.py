"""A streaming standby takes the place of the primary under load: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvasir.engines.postgres import address, pool
from kvasir.errors import Unavailable, UnknownOutcome
from kvasir.model import SYSTEM_SPACE, Query, Set, Write
from tests.support.faults.history import Caller, Record
from tests.support.faults.linearizable import violation
from tests.support.faults.stubborn import Keeper, Stubborn, under_load, verify_counter, wait_for_progress
from tests.support.postgres import PostgresServer, postgres_engine
from tests.support.raw_http import Client
from tests.support.serving import PATIENCE_SECONDS, Server, serving, wait_until


@pytest.fixture
def primary() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture
def standby(primary: PostgresServer) -> Iterator[PostgresServer]:
    """It has everything that the primary acknowledges, before the primary does so."""
    primary.new_database("kvasir")
    with primary.standby() as server:
        primary.query("alter system set synchronous_standby_names = 'standby'")
        primary.query("select pg_reload_conf()")
        states = "select sync_state from pg_stat_replication where application_name = 'standby'"
        wait_until(lambda: [row[0] for row in primary.query(states)] == ["sync"], "the standby is synchronous")
        yield server


def both(primary: PostgresServer, standby: PostgresServer) -> str:
    """The URL of whichever takes writes."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in (primary, standby))
    return f"postgresql://kvasir@{hosts}/kvasir?target_session_attrs=read-write"


@contextlib.contextmanager
def two_servers(url: str, folder: Path) -> Iterator[list[Server]]:
    for name in ("one", "two"):
        (folder / name).mkdir()
    with serving(folder / "one", "--engine", url) as one, serving(folder / "two", "--engine", url) as two:
        yield [one, two]


@pytest.mark.parametrize("end", [PostgresServer.kill, PostgresServer.stop])
def test_nothing_acknowledged_is_lost(
    primary: PostgresServer, standby: PostgresServer, tmp_path: Path, end: Callable[[PostgresServer], None]
) -> None:
    with two_servers(both(primary, standby), tmp_path) as servers:
        store = servers[0].store
        with Client(servers[0], store) as client:
            assert client.put(Keeper.COUNTER, 0).status == 200
        record = Record(servers, store, ["a", "b", "c"])
        keepers = [Keeper(servers, store, str(n)) for n in range(4)]
        clients: list[Stubborn] = [*keepers, *(Caller(record) for _ in range(4))]
        with under_load(clients):
            wait_for_progress(clients, 100)
            end(primary)
            standby.promote()
            wait_for_progress(clients, 100)
        for server in servers:
            wait_until(server.is_ready, "the server is ready")
            with Client(server, store) as client:
                verify_counter(client, keepers)
                for keeper in keepers:
                    keeper.verify(client)
        record.read_at_last()
    assert violation(record.history()) is None
    assert all(keeper.increments > 0 for keeper in keepers)


class Hang:
    """Stops a server with all its connections open, as a host does that hangs."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._pids: list[int] = []

    def begin(self) -> None:
        self._pids = [self._server.pid, *self._server.backends()]
        for pid in self._pids:
            os.kill(pid, signal.SIGSTOP)

    def end(self) -> None:
        for pid in self._pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._pids = []


@pytest.fixture
def hang(primary: PostgresServer) -> Iterator[Hang]:
    """Of the primary. It is over after the test."""
    hang = Hang(primary)
    yield hang
    hang.end()


def test_a_primary_that_hangs_is_given_up(
    primary: PostgresServer, standby: PostgresServer, hang: Hang, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With limits that are shorter than the real ones, so that it does not take a minute."""
    monkeypatch.setattr(pool, "COMMAND_SECONDS", 1.0)
    monkeypatch.setattr(address, "CONNECT_SECONDS", 1.0)

    async def story() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        engine = postgres_engine(both(primary, standby))
        await engine.open()
        await engine.write([put(1)])
        # Some connections are idle when the hang begins.
        await asyncio.gather(*(engine.page(SYSTEM_SPACE, Query()) for _ in range(8)))
        await asyncio.to_thread(hang.begin)
        await asyncio.to_thread(standby.promote)
        with pytest.raises(UnknownOutcome):
            await engine.write([put(2)])
        # More connections are begun at different moments, which still wait when the first has found its way.
        waiting = [asyncio.create_task(engine.get(space, [b"a"])) for space in range(1, 9)]
        deadline = time.monotonic() + PATIENCE_SECONDS
        while isinstance(await outcome(engine.write([put(3)])), Unavailable):
            assert time.monotonic() < deadline, "it never found the new primary"
            waiting.append(asyncio.create_task(engine.get(SYSTEM_SPACE, [b"a"])))
            await asyncio.sleep(0.05)
        for task in asyncio.all_tasks():
            if "Connection.close" in repr(task):
                await asyncio.wait([task])
        await asyncio.to_thread(hang.end)
        await asyncio.gather(*waiting, return_exceptions=True)
        for _ in range(30):
            reads = [outcome(engine.get(SYSTEM_SPACE, [b"a"])) for _ in range(8)]
            for read in await asyncio.gather(*reads, outcome(engine.page(SYSTEM_SPACE, Query()))):
                assert isinstance(read, Unavailable) or "value 3" in repr(read)
        await engine.close()
        gc.collect()

    unseen: list[dict[str, Any]] = []
    asyncio.run(story())
    # Connections that the hung server did not see off ended all the same, without a failure nobody waits for.
    assert unseen == []


def put(value: int) -> Write:
    return Write(SYSTEM_SPACE, (Set(b"a", b'"value %d"' % value),))


async def outcome(call: Awaitable[object]) -> object:
    """What it gives, or that it is unavailable."""
    try:
        return await call
    except Unavailable as unavailable:
        return unavailable
