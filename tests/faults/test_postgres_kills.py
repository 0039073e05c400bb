"""PostgreSQL, its backends and Kvasir killed at random moments under load: nothing acknowledged is lost or repeated."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults.history import Caller, Record
from tests.support.faults.linearizable import violation
from tests.support.faults.stubborn import Keeper, Stubborn, under_load, verify_counter, wait_for_progress
from tests.support.postgres import PostgresServer
from tests.support.raw_http import Client
from tests.support.serving import KVASIR, Server, environment, serving, wait_until

#: Three kinds in turn
KILLS = int(os.environ.get("KVASIR_KILLS", "9"))


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    """A server of the test's own, to be killed."""
    with PostgresServer() as server:
        yield server


class Pair:
    """Two Kvasir servers on one PostgreSQL, with clients at work, and those who kill."""

    def __init__(self, postgres: PostgresServer, folder: Path) -> None:
        self.postgres = postgres
        self.url = postgres.new_database("kvasir")
        self.folder = folder
        #: Clients look here for whom to ask.
        self.servers: list[Server] = []
        self._running = [contextlib.ExitStack(), contextlib.ExitStack()]

    def __enter__(self) -> Pair:
        self.servers += [self._start(0), self._start(1)]
        return self

    def __exit__(self, *_: object) -> None:
        for running in self._running:
            running.close()

    def _start(self, n: int) -> Server:
        folder = self.folder / str(n)
        folder.mkdir(exist_ok=True)
        return self._running[n].enter_context(serving(folder, "--engine", self.url))

    def kill_postgres(self) -> None:
        self.postgres.kill()
        self.postgres.start()

    def kill_a_backend(self) -> None:
        self.postgres.kill_backend(random.choice(self.postgres.backends("kvasir")))

    def kill_a_kvasir(self) -> None:
        n = random.randrange(2)
        self.servers[n].kill()
        self._running[n].close()
        # What keeps services alive starts it anew; its clients find it.
        self.servers[n] = self._start(n)

    def check(self) -> str:
        """What `kvasir check` says of the database, nothing if it is sound."""
        command = [str(KVASIR), "check", "--data-dir", str(self.folder), "--engine", self.url]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=60)
        return "" if done.returncode == 0 else done.stdout + done.stderr


def test_killed_at_random_moments_under_load(postgres: PostgresServer, tmp_path: Path) -> None:
    with Pair(postgres, tmp_path) as pair:
        store = pair.servers[0].store
        with Client(pair.servers[0], store) as client:
            assert client.put(Keeper.COUNTER, 0).status == 200
        record = Record(pair.servers, store, ["a", "b", "c"])
        keepers = [Keeper(pair.servers, store, str(n)) for n in range(4)]
        clients: list[Stubborn] = [*keepers, *(Caller(record) for _ in range(4))]
        with under_load(clients):
            killers = itertools.cycle((pair.kill_postgres, pair.kill_a_backend, pair.kill_a_kvasir))
            for _, kill in zip(range(KILLS), killers, strict=False):
                wait_for_progress(clients)
                # The moment of death is the one thing here that is left to chance.
                time.sleep(random.uniform(0.02, 0.4))
                kill()
            wait_for_progress(clients)
        for server in pair.servers:
            wait_until(server.is_ready, "the server is ready")
            with Client(server, store) as client:
                verify_counter(client, keepers)
                for keeper in keepers:
                    keeper.verify(client)
        record.read_at_last()
        history = record.history()
        assert any(operation.answered is None for operation in history), "no kill met a write"
        assert violation(history) is None
        assert pair.check() == ""


def _is_unready(server: Server) -> bool:
    return not server.is_ready()


def test_readiness_turns_red_and_green_by_itself(postgres: PostgresServer, tmp_path: Path) -> None:
    with Pair(postgres, tmp_path) as pair:
        store = pair.servers[0].store
        for stop in (postgres.stop, postgres.kill):
            with contextlib.ExitStack() as open_wires:
                clients = [open_wires.enter_context(Client(server, store)) for server in pair.servers]
                for client in clients:
                    assert client.put("a", 1).status == 200
                stop()
                for server, client in zip(pair.servers, clients, strict=True):
                    wait_until(functools.partial(_is_unready, server), "the server says that it is not ready")
                    for answer in (client.get("a"), client.put("a", 2)):
                        assert (answer.status, answer.json()["code"]) == (503, "unavailable"), answer
                postgres.start()
                for server, client in zip(pair.servers, clients, strict=True):
                    wait_until(server.is_ready, "the server is ready again")
                    assert client.get("a").json()["value"] == 1


def test_a_worker_that_dies_while_the_database_is_away_comes_back_with_it(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    with serving(tmp_path, "--engine", postgres.new_database("kvasir"), "--workers", "2") as server:
        store = server.store
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
        before = set(children.read_text().split())
        assert len(before) == 2
        # A server one of whose workers has never served gives up when that one cannot.
        wait_until(lambda: server.log.count("listening on") >= 2, "both workers serve")
        postgres.stop()
        for pid in before:
            with contextlib.suppress(ProcessLookupError):  # one may still have been looking for the database
                os.kill(int(pid), signal.SIGKILL)
        # Both and their first successors, who find no database.
        wait_until(lambda: server.log.count("exited unexpectedly") >= 4, "the workers are replaced again and again")
        postgres.start()
        wait_until(server.is_ready, "the server is ready again")
        with Client(server, store) as client:
            assert client.put("a", 1).status == 200
        assert server.stop() == 0
