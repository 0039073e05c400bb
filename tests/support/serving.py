"""A real `kvasir serve` as a process, on free ports, for tests that talk to it from outside."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from tests.support.organisations import ORGANISATION

KVASIR = Path(sys.executable).with_name("kvasir")
KEY = "test-admin-key-0123456789-0123456789-abcdef"

#: Start and stop on a busy machine; a healthy server takes well under a second.
PATIENCE_SECONDS = 60.0


class Databases(Protocol):
    """Says which database belongs to a data directory."""

    def url(self, data_dir: Path) -> str:
        """The value for `--engine`; the same for the same directory."""
        ...


#: None: the file in the data directory itself
databases: Databases | None = None


def database_options(data_dir: Path) -> list[str]:
    """The options by which `kvasir serve` and every command find the database of this data directory."""
    engine = [] if databases is None else ["--engine", databases.url(data_dir)]
    return ["--data-dir", str(data_dir), *engine]


def database_variables(data_dir: Path) -> dict[str, str]:
    """The same as variables of the environment."""
    engine = {} if databases is None else {"KVASIR_ENGINE": databases.url(data_dir)}
    return {"KVASIR_DATA_DIR": str(data_dir)} | engine


class Server:
    """A running server. Its data stays in `data_dir`, so that a second `serving` on the same path goes on with it."""

    def __init__(
        self, process: subprocess.Popen[bytes], port: int, nemesis_port: int, directory: Path, data_dir: Path
    ) -> None:
        self._process = process
        self.port = port
        self.nemesis_port = nemesis_port
        self.url = f"http://127.0.0.1:{port}"
        self.nemesis_url = f"ws://127.0.0.1:{nemesis_port}"
        self.key = KEY
        self.organisation = ORGANISATION
        self.data_dir = data_dir
        self._log_file = directory / "server.log"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def database_options(self) -> list[str]:
        """For a command on its database."""
        return database_options(self.data_dir)

    @property
    def database_variables(self) -> dict[str, str]:
        """The same as variables of the environment."""
        return database_variables(self.data_dir)

    @property
    def log(self) -> str:
        """What it has printed so far, of earlier servers on the same path too."""
        return self._log_file.read_text(encoding="utf-8", errors="replace")

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    @cached_property
    def store(self) -> str:
        """The ULID of the store `default`."""
        status, body = self._get(f"/o/{self.organisation}/store")
        assert status == 200, body
        return str(next(store["id"] for store in json.loads(body)["stores"] if store["name"] == "default"))

    def stop(self) -> int:
        """Ask it to stop, as an operator would; returns its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the server did not stop after SIGTERM:\n{self.log}") from None

    def wait(self) -> None:
        """Wait until it has ended, by whatever."""
        self._process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        """End it and its workers with SIGKILL, as a crash would."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(PATIENCE_SECONDS)

    def is_ready(self) -> bool:
        """Whether /readyz says so. Fails if the process has ended."""
        if self._process.poll() is not None:
            raise AssertionError(f"the server ended with status {self._process.returncode}:\n{self.log}")
        try:
            return self._get("/readyz")[0] == 200
        except OSError:
            return False

    def _get(self, path: str) -> tuple[int, bytes]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)) as connection:
            connection.request("GET", path, headers=self.headers)
            answer = connection.getresponse()
            return answer.status, answer.read()


@contextlib.contextmanager
def serving(
    directory: Path,
    *options: str,
    env: Mapping[str, str] | None = None,
    program: Sequence[str] = (str(KVASIR),),
    port: int | None = None,
) -> Iterator[Server]:
    """Start `kvasir serve` with its data in `directory`/data, wait until it is ready, end it afterwards.

    `options` come last and win; `env` is added to an environment without any KVASIR_ variable but the admin key.
    `program`: what stands in for `kvasir`. `port`: for HTTP, where an earlier server has to be followed; or a free one.
    """
    free_port, nemesis_port = free_ports(2)
    port = port or free_port
    data_dir = Path(options[options.index("--data-dir") + 1]) if "--data-dir" in options else directory / "data"
    command = [*program, "serve", *database_options(data_dir), "--http", f"127.0.0.1:{port}"]
    command += ["--nemesis", f"127.0.0.1:{nemesis_port}", *options]
    with (directory / "server.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment(KVASIR_ADMIN_KEY=KEY, KVASIR_ORGANISATION_ID=ORGANISATION) | dict(env or {}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(process, port, nemesis_port, directory, data_dir)
    try:
        wait_until(server.is_ready, "the server is ready")
        yield server
    finally:
        server.kill()


def environment(**more: str) -> dict[str, str]:
    """This process's environment without settings of Kvasir, and with `more`."""
    return {name: value for name, value in os.environ.items() if not name.startswith("KVASIR_")} | more


def wait_until(condition: Callable[[], bool], what: str, patience: float = PATIENCE_SECONDS) -> None:
    """Wait until a condition holds. Fails, naming `what` was waited for, after `patience` seconds."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience:g} s in vain until {what}")
        time.sleep(0.02)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody uses; below those the system gives to outgoing connections.

    Of two processes that run tests, neither is given what the other may be about to use.
    """
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    chosen: list[int] = []
    while len(chosen) < count:
        port = random.SystemRandom().randrange(12_000 + process, 32_000, processes)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in chosen:
            chosen.append(port)
    return chosen
