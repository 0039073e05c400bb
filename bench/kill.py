"""kill -9 of servers, workers and PostgreSQL, again and again, under load from all three APIs: what was lost?

`--kills` and `--seconds` say how long; whichever ends first. It counts the writes that clients were told of as done and
that are not there in the end, and those done twice or done although refused, and runs `kvasir check`.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

from bench.harness import Report
from tests.support import serving as servers
from tests.support.cli import Commands
from tests.support.faults.keepers import (
    NemesisKeeper,
    Tally,
    VersoriKeeper,
    VoximplantKeeper,
    reader,
    tally_counter,
    tally_versori_counter,
)
from tests.support.faults.stubborn import Stubborn, wait_for_progress
from tests.support.nemesis import client as nemesis_client
from tests.support.postgres import PostgresServer
from tests.support.raw_http import Client
from tests.support.serving import Server, wait_until
from tests.support.voximplant_live import Live

#: Unless the caller asks for more
KILLS = 50
#: Clients of each API on each engine.
CLIENTS = 2
#: Under load for a moment before the next kill; the moment itself is left to chance.
MOMENT_SECONDS = 0.15


class Budget:
    """How many kills are still to come on one engine."""

    def __init__(self, kills: int | None, seconds: float | None) -> None:
        self._left = kills
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self.spent: Counter[str] = Counter()

    def take(self) -> bool:
        """Whether there is one more."""
        if self._left == 0 or (self._deadline is not None and time.monotonic() > self._deadline):
            return False
        if self._left is not None:
            self._left -= 1
        return True

    def note(self, kind: str) -> None:
        self.spent[kind] += 1
        if (total := self.spent.total()) % 100 == 0:
            print(f"  {total:,} kills on one of the engines", flush=True)


class Rig:
    """A server with two workers on one engine, its clients, and who kills what."""

    def __init__(self, folder: Path, postgres: PostgresServer | None) -> None:
        self._folder = folder
        self._postgres = postgres
        self._running = contextlib.ExitStack()
        #: The one that runs; clients look here for whom to ask.
        self.servers: list[Server] = []
        self.clients: list[Stubborn] = []
        self.tally = Tally()

    def __enter__(self) -> Rig:
        self.servers.append(self._start())
        server = self.servers[0]
        live = Live(server, self._folder, 0)
        applications = self._commands("application", "list")
        self.application = next(str(one["id"]) for one in applications if one["application_id"] == 1)
        with nemesis_client(server.nemesis_url) as client:
            self._token = client.session("kill")
        (self.session,) = [str(one["id"]) for one in self._commands("session", "list")]
        with Client(server, server.store) as client:
            assert client.put(VersoriKeeper.COUNTER, 0).status == 200
        names = [str(n) for n in range(CLIENTS)]
        self.versori = [VersoriKeeper(self.servers, server.store, name) for name in names]
        self.nemesis = [NemesisKeeper(self.servers, self._token, name) for name in names]
        self.voximplant = [VoximplantKeeper(self.servers, "1", name, live.token) for name in names]
        self._store = server.store
        self.clients += [*self.versori, *self.nemesis, *self.voximplant]
        for one in self.clients:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.clients:
            one.stop.set()
        self._running.close()
        for one in self.clients:
            one.join(90)

    def _commands(self, *arguments: str) -> list[dict[str, object]]:
        listed: list[dict[str, object]] = Commands(self.servers[0]).json(*arguments)
        return listed

    def _start(self) -> Server:
        return self._running.enter_context(servers.serving(self._folder, "--workers", "2"))

    # -- who kills what ------------------------------------------------------------------------------------------

    def kill(self, budget: Budget) -> None:
        """Kill this and that as long as there is something left to kill by."""
        kinds: list[tuple[str, Callable[[], None]]] = [
            ("server", self._kill_server),
            ("supervisor", self._kill_supervisor),
            ("worker", self._kill_worker),
        ]
        if self._postgres is not None:
            kinds += [("backend", self._kill_backend), ("PostgreSQL", self._kill_postgres)]
        # Those that cost no start of a server come more often.
        cheap = kinds[2:] * (2 if self._postgres is None else 1)
        turn: list[tuple[str, Callable[[], None]]] = []
        while budget.take():
            wait_for_progress(self.clients, 1)
            time.sleep(random.uniform(0, MOMENT_SECONDS))
            # All kinds have their turn, in any order.
            turn = turn or random.sample(cheap, len(cheap)) + random.sample(kinds, len(kinds))
            kind, strike = turn.pop()
            strike()
            budget.note(kind)
        wait_for_progress(self.clients)

    def _kill_server(self) -> None:
        """With its workers, as when the machine's memory runs out."""
        self.servers[0].kill()
        self._restart()

    def _kill_supervisor(self) -> None:
        """Alone; its workers have to notice."""
        workers = self._workers()
        os.kill(self.servers[0].pid, signal.SIGKILL)
        self.servers[0].wait()
        wait_until(lambda: not any(_runs(pid) for pid in workers), "the workers of a dead supervisor end")
        self._restart()

    def _restart(self) -> None:
        self._running.close()
        self.servers[0] = self._start()

    def _kill_worker(self) -> None:
        """One of the two; it is replaced."""
        if workers := self._workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(random.choice(workers), signal.SIGKILL)

    def _workers(self) -> list[int]:
        pid = self.servers[0].pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def _kill_backend(self) -> None:
        assert self._postgres is not None
        with contextlib.suppress(ProcessLookupError):
            if backends := self._postgres.backends("kvasir"):
                self._postgres.kill_backend(random.choice(backends))

    def _kill_postgres(self) -> None:
        assert self._postgres is not None
        self._postgres.kill()
        self._postgres.start()

    # -- the reckoning -------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Let the clients finish."""
        for one in self.clients:
            one.stop.set()
        for one in self.clients:
            one.join(90)
        unexpected = [what for one in self.clients for what in one.unexpected]
        assert not unexpected, unexpected[:3]

    def reckon(self) -> str:
        """Compare what is there with what the clients were told; returns what `kvasir check` finds."""
        server = self.servers[0]
        wait_until(server.is_ready, "the server is ready")
        with Client(server, self._store) as client:
            for keeper in self.versori:
                self.tally.add(keeper.tally(client))
            self.tally.add(tally_versori_counter(client.get(VersoriKeeper.COUNTER).json()["value"], self.versori))
        with Client(server, self.session) as client:
            for one in self.nemesis:
                self.tally.add(one.tally(reader(client)))
        with Client(server, self.application) as client:
            for other in self.voximplant:
                self.tally.add(other.tally(reader(client)))
            self.tally.add(tally_counter(int(client.get(VoximplantKeeper.COUNTER).json()["value"]), self.voximplant))
        command = [str(servers.KVASIR), "check", *server.database_options]
        done = subprocess.run(command, env=servers.environment(), capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else done.stdout + done.stderr


def _runs(pid: int) -> bool:
    """Whether a process still does anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


class _Databases(dict[Path, str]):
    """URLs by data directory; without one, the file in it."""

    def url(self, data_dir: Path) -> str:
        return self.get(data_dir, "sqlite:")


@contextlib.contextmanager
def _rigs() -> Iterator[list[Rig]]:
    """One on SQLite, one on PostgreSQL."""
    with contextlib.ExitStack() as stack:
        folders = [Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2)]
        postgres = stack.enter_context(PostgresServer())
        urls = {folders[1] / "data": postgres.new_database("kvasir")}
        stack.enter_context(mock.patch.object(servers, "databases", _Databases(urls)))
        yield [stack.enter_context(Rig(folders[0], None)), stack.enter_context(Rig(folders[1], postgres))]


class Result:
    """What a run saw."""

    def __init__(self, kills: Counter[str], seconds: float, tally: Tally, faults: list[str]) -> None:
        self.kills = kills
        self.seconds = seconds
        self.tally = tally
        #: What `kvasir check` found
        self.faults = faults

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(self.kills.items()))
        tally = self.tally
        return (
            f"{self.kills.total():,} kills ({kinds}) in {self.seconds:,.0f} s:"
            f" {tally.acknowledged:,} acknowledged writes, {tally.lost} lost,"
            f" {tally.excess} done twice or though refused, {tally.unknown:,} undecided;"
            f" kvasir check: {'; '.join(self.faults) or 'clean'}"
        )


def kill(kills: int | None, seconds: float | None) -> Result:
    """Kill until there were so many kills, half of them on each engine, or the time is over."""
    began = time.monotonic()
    budgets = [Budget(None if kills is None else (kills + more) // 2, seconds) for more in (1, 0)]
    tally = Tally()
    faults: list[str] = []
    with _rigs() as rigs:
        failures: list[BaseException] = []

        def work(rig: Rig, budget: Budget) -> None:
            try:
                rig.kill(budget)
            except BaseException as failure:
                failures.append(failure)

        threads = [threading.Thread(target=work, args=pair) for pair in zip(rigs, budgets, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        for rig in rigs:
            rig.stop()
        for rig in rigs:
            if fault := rig.reckon():
                faults.append(fault)
            tally.add(rig.tally)
    return Result(budgets[0].spent + budgets[1].spent, time.monotonic() - began, tally, faults)


def run(report: Report, kills: int | None = KILLS, seconds: float | None = None) -> None:
    """See the module."""
    result = kill(kills, seconds)
    print(f"  {result}", flush=True)
    report.target("acknowledged writes lost", result.tally.lost, 0, "writes", most=True)
    report.target("writes done twice, or done though refused", result.tally.excess, 0, "writes", most=True)
    report.target("databases that kvasir check finds fault with", len(result.faults), 0, "of 2", most=True)
