"""The composition root: the only module that names concrete engines, dialects and listeners.

One worker is one process with one event loop, one engine and all listeners; `kvasir.supervisor` starts several.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from kvasir import admin, logs, settings, supervisor
from kvasir.auth import Auth
from kvasir.auth_tokens import ServiceTokens
from kvasir.config import Config
from kvasir.dialects.nemesis.app import NemesisDialect
from kvasir.dialects.nemesis.talk import Bounds
from kvasir.dialects.versori import openapi
from kvasir.dialects.versori.app import VersoriDialect
from kvasir.dialects.voximplant import Settings as VoximplantSettings
from kvasir.dialects.voximplant import VoximplantDialect
from kvasir.engine import Engine
from kvasir.engines.memory import MemoryEngine
from kvasir.engines.postgres import PostgresEngine
from kvasir.engines.sqlite import SqliteEngine
from kvasir.errors import KvasirError, Unavailable
from kvasir.health import HealthDialect
from kvasir.http import HttpDialect
from kvasir.identity import IdentityProvider
from kvasir.listeners.http import HttpListener, HttpSocket
from kvasir.listeners.websocket import NemesisBounds, NemesisListener, start_nemesis
from kvasir.metrics import Metrics
from kvasir.model import Principal
from kvasir.reference import ReferenceDialect
from kvasir.snapshots import Snapshots
from kvasir.store import Store
from kvasir.values import split_address
from kvasir.welcome import welcome

log = logging.getLogger("kvasir")

#: How often a worker shows the others its writer's counters.
PUBLISH_SECONDS = 1.0

#: The memory engine does nothing by itself and looks at every entry when it is asked to sweep.
MEMORY_SWEEP_SECONDS = 60.0

#: Objects made before the youngest generation is collected. Requests leave no cycles behind.
GC_THRESHOLD = 10_000

#: What is in a data directory, and how the names of the database's files end.
SAVES, DATABASE = "saves", "kvasir.db"
FILES = ("", "-wal", "-shm", "-writer", "-cells")

#: What a process keeps open beside its connections, with room to spare.
OTHER_FILES = 100

#: What metrics can count, by dialect.
OPERATIONS: Mapping[str, tuple[str, ...]] = {
    dialect.name: dialect.operations
    for dialect in (VersoriDialect, VoximplantDialect, NemesisDialect, HealthDialect, ReferenceDialect)
}


def create_engine(config: Config) -> Engine:
    """The engine that the settings name, not yet open. Makes the data directory if it is missing."""
    durable = config.durability == "full"
    if config.engine_name == "postgresql":
        return PostgresEngine(
            config.engine, durable=durable, limits=config.limits, connections=config.postgres_connections
        )
    if config.database is None:
        return MemoryEngine()
    config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Values are nobody else's business. SQLite gives its other files the mode of this one.
    os.close(os.open(config.database, os.O_RDWR | os.O_CREAT, 0o600))
    return SqliteEngine(config.database, durable=durable, limits=config.limits)


def voximplant_settings(config: Config) -> VoximplantSettings:
    """The settings of the Voximplant dialect; each has a row of its name."""
    fields = VoximplantSettings.__struct_fields__
    return VoximplantSettings(**{field: getattr(config, f"voximplant_{field}") for field in fields})


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT; the process's exit status."""
    logs.set_up(config.log_level, config.log_format)
    try:
        for address in (config.http, config.https, config.nemesis):
            if address:
                _claim(address)
        _keep_private(config)
        _warn_of_few_files(config)
        metrics = Metrics(OPERATIONS, config.workers)
        if config.workers == 1:
            return _serve(config, metrics, 0)
        with _runner() as runner:
            runner.run(_prepare(config))
        return supervisor.supervise(config.workers, partial(_serve_among_others, config, metrics))
    except KvasirError as error:
        print(f"kvasir: {error.message}", file=sys.stderr)  # noqa: T201  # the answer to a command
        return 1


def _keep_private(config: Config) -> None:
    """Take away what other users may do with what is kept. Made by hand or restored, it has the rights of a umask."""
    if sys.platform == "win32":
        return
    kept = [config.data_dir / SAVES, config.data_dir]
    if config.database is not None:
        kept += [config.database.with_name(config.database.name + ending) for ending in FILES]
    for path in kept:
        try:
            found = path.stat()
        except OSError:  # not there yet; whether it can be used is found out when it is
            continue
        if not found.st_mode & 0o077:
            continue
        try:
            if found.st_uid != os.geteuid():
                raise PermissionError("it belongs to another user")
            if path == config.data_dir and not all(map(_is_kept, path.iterdir())):
                raise PermissionError("it holds other things too; give Kvasir a directory of its own")
            path.chmod(stat.S_IMODE(found.st_mode) & ~0o077)
        except OSError as error:
            log.warning("%s is open to other users of this machine, and stays so: %s", path, error)
        else:
            log.warning("%s was open to other users of this machine; their rights were taken away", path)


def _is_kept(path: Path) -> bool:
    """Whether a data directory with this in it may still be Kvasir's alone: /tmp and home directories are not."""
    return path.name.startswith(DATABASE) or path.name in (SAVES, settings.FILE, "lost+found")


def _warn_of_few_files(config: Config) -> None:
    """Say so where the system allows a process fewer files than connections are allowed, each of which is one."""
    if sys.platform == "win32":
        return
    import resource  # noqa: PLC0415  # not there on Windows

    # The soft limit is no matter: the listener raises it to the hard one.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = OTHER_FILES + config.limits.connections * sum(map(bool, (config.http, config.https)))
    if config.nemesis:
        needed += NemesisBounds().connections
    if config.engine_name == "postgresql":
        needed += config.postgres_connections
    if most != resource.RLIM_INFINITY and most < needed:
        log.warning(
            "the system allows a process %d open files, but its connections may take %d; "
            "raise the hard limit (LimitNOFILE= of systemd, ulimit -Hn) or lower --limit-connections",
            most,
            needed,
        )


def _claim(address: str) -> None:
    """Refuse an address that another program serves; workers share theirs, so the system would let them share it."""
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {address}: {error.strerror}. Stop what uses it or choose another address"
            ) from None


def _runner() -> asyncio.Runner:
    if sys.platform == "win32":
        return asyncio.Runner()
    import uvloop  # noqa: PLC0415  # not there on Windows

    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def _prepare(config: Config) -> None:
    """The first start, before there are workers."""
    engine = create_engine(config)
    await engine.open()
    try:
        _announce(await admin.bootstrap(engine, config, engine.clock), config)
    finally:
        await engine.close()


def _serve(
    config: Config, metrics: Metrics, worker: int, parent: int | None = None, up: Callable[[], None] | None = None
) -> int:
    """Be one worker until asked to stop.

    `parent`: a descriptor that is readable once the supervisor is gone. `up` is called once it serves.
    """
    metrics.serve_as(worker)
    with _runner() as runner:
        return runner.run(_Worker(config, metrics).serve(announce=config.workers == 1, parent=parent, up=up))


def _serve_among_others(config: Config, metrics: Metrics, worker: int, parent: int, up: Callable[[], None]) -> int:
    """Be one of several; what a single one would print as its last word is logged."""
    try:
        return _serve(config, metrics, worker, parent, up)
    except KvasirError as error:
        log.error("worker %d cannot serve: %s", worker, error.message)
        return 1


class _Worker:
    """Everything one worker process is made of, built here and nowhere else."""

    def __init__(self, config: Config, metrics: Metrics) -> None:
        self._config = config
        self._metrics = metrics
        self._engine = create_engine(config)
        self._store = Store(self._engine, config.limits, self._engine.clock)
        self._auth = Auth(self._store, self._engine, IdentityProvider.of(config))
        self._health = HealthDialect(
            self._engine, metrics, engine_name=config.engine_name, durability=config.durability
        )
        versori = VersoriDialect(self._store, self._auth)
        voximplant = VoximplantDialect(
            self._store, ServiceTokens(self._store, self._engine), voximplant_settings(config)
        )
        # Versori twice: its paths win, since a key in one may look like a path of another API, and it answers the rest.
        reference = ReferenceDialect(openapi.document(config.limits))
        dialects: list[HttpDialect] = [versori, self._health, reference, voximplant, versori]
        self._listener = HttpListener(dialects, metrics, config.limits, log_requests=config.access_log)
        self._sockets = self._http_sockets()
        self._nemesis: NemesisListener | None = None

    def _http_sockets(self) -> list[HttpSocket]:
        config = self._config
        sockets = []
        if config.http:
            sockets.append(HttpSocket(self._listener, *split_address(config.http)))
        if config.https:
            sockets.append(
                HttpSocket(self._listener, *split_address(config.https), cert=config.tls_cert, key=config.tls_key)
            )
        return sockets

    async def _start_nemesis(self) -> NemesisListener | None:
        config = self._config
        if config.nemesis is None:
            return None
        caller: Principal | Auth = self._auth
        first = await admin.first_organisation(self._engine)
        if config.nemesis_auth != "key":
            caller = Principal(first, "developer", "nemesis")
        saves = Snapshots(config.nemesis_save_dir or config.data_dir / SAVES, first)
        bounds = Bounds(profile=config.nemesis_profile)
        dialect = NemesisDialect(self._store, caller, bounds=bounds, saves=saves, observe=self._metrics.observe)
        return await start_nemesis(
            dialect,
            *split_address(config.nemesis),
            NemesisBounds(max_payload=config.nemesis_max_payload, origins=config.nemesis_origins),
            share_port=config.workers > 1,
        )

    async def serve(self, *, announce: bool, parent: int | None, up: Callable[[], None] | None) -> int:
        """Start, wait for the signal to stop, drain; the exit status. `up` is called in between."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if parent is not None:
            loop.add_reader(parent, stop.set)
        await self._engine.open()
        if announce:
            _announce(await admin.bootstrap(self._engine, self._config, self._engine.clock), self._config)
        for http in self._sockets:
            http.start()
        self._nemesis = await self._start_nemesis()
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 50, 50)
        chores = [loop.create_task(self._publish())]
        if isinstance(self._engine, MemoryEngine):
            chores.append(loop.create_task(self._sweep()))
        log.info("listening on %s", ", ".join(_addresses(self._config)))
        if up is not None:
            up()
        await stop.wait()
        if parent is not None:
            loop.remove_reader(parent)
        for chore in chores:
            chore.cancel()
        return await self._drain()

    async def _drain(self) -> int:
        self._health.stopping = True
        log.info("stopping: requests in flight are answered first")
        seconds = self._config.drain_seconds
        began = time.monotonic()
        stopping = [http.stop(seconds) for http in self._sockets]
        if self._nemesis is not None:
            stopping.append(self._nemesis.stop(seconds))
        await asyncio.gather(*stopping)
        if not await self._listener.drained(max(0.0, seconds - (time.monotonic() - began))):
            log.warning("%d requests were still in flight after the drain time", self._listener.in_flight)
        await self._engine.close()
        self._metrics.publish(self._engine.writer)
        log.info("stopped")
        return 0

    async def _publish(self) -> None:
        while True:
            self._metrics.publish(self._engine.writer)
            await asyncio.sleep(PUBLISH_SECONDS)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(MEMORY_SWEEP_SECONDS)
            await self._engine.sweep()


def _addresses(config: Config) -> list[str]:
    named = (("http://", config.http), ("https://", config.https), ("ws://", config.nemesis))
    return [scheme + address for scheme, address in named if address]


def _announce(first: admin.FirstStart | None, config: Config) -> None:
    """Show what the first start made; the owner key is never shown again."""
    if first is not None:
        print(welcome(first, config), flush=True)  # noqa: T201  # the answer to a command
