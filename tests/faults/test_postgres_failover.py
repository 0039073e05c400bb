"""A streaming standby takes the place of the primary under load: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvasir.engines.postgres import PostgresEngine, address, link
from kvasir.errors import Unavailable, UnknownOutcome
from kvasir.model import SYSTEM_SPACE, Set, Write
from tests.faults.history import Caller, Record
from tests.faults.linearizable import violation
from tests.faults.stubborn import Keeper, Stubborn, under_load, verify_counter, wait_for_progress
from tests.postgres import PostgresServer
from tests.raw import Client
from tests.serving import Server, serving, wait_until


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


@pytest.fixture
def frozen(primary: PostgresServer) -> Iterator[Callable[[], None]]:
    """Stops the primary with all its connections open, as a host does that hangs. It goes on after the test."""
    pids: list[int] = []

    def freeze() -> None:
        pids.extend([primary.pid, *primary.backends()])
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)

    yield freeze
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def test_a_primary_that_hangs_is_given_up(
    primary: PostgresServer, standby: PostgresServer, frozen: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With limits that are shorter than the real ones, so that it does not take a minute."""
    monkeypatch.setattr(link, "COMMAND_SECONDS", 1.0)
    monkeypatch.setattr(address, "CONNECT_SECONDS", 1.0)
    put = Write(SYSTEM_SPACE, (Set(b"a", b"1"),))

    async def story() -> None:
        engine = PostgresEngine(both(primary, standby))
        await engine.open()
        await engine.write([put])
        await asyncio.to_thread(frozen)
        await asyncio.to_thread(standby.promote)
        with pytest.raises(UnknownOutcome):
            await engine.write([put])
        deadline = time.monotonic() + 20
        while True:
            try:
                assert len(await engine.write([put])) == 1
                assert await engine.get(SYSTEM_SPACE, [b"a"]) != [None]
                break
            except Unavailable:
                assert time.monotonic() < deadline, "it never found the new primary"
                await asyncio.sleep(0.05)
        await engine.close()

    asyncio.run(story())
