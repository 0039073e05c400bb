"""`kvasir serve` from start to end: checks what could go wrong, then runs one worker or several."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
import sys
from collections.abc import Callable, Mapping
from functools import partial

import uvloop

from kvasir.config.parsers import split_address
from kvasir.config.table import Config
from kvasir.control import bootstrap
from kvasir.dialects.nemesis.app import NemesisDialect
from kvasir.dialects.operations.health import HealthDialect
from kvasir.dialects.operations.reference import ReferenceDialect
from kvasir.dialects.versori.app import VersoriDialect
from kvasir.dialects.voximplant import VoximplantDialect
from kvasir.errors import KvasirError, Unavailable
from kvasir.metrics import Metrics
from kvasir.server import logs, supervisor
from kvasir.server.create_engine import create_engine
from kvasir.server.data_directory import keep_private
from kvasir.server.welcome import announce
from kvasir.server.worker import Worker

log = logging.getLogger("kvasir")

#: Files that a process has open besides its connections, with room to spare.
OTHER_FILES = 100

#: The operations that are counted, by dialect.
OPERATIONS: Mapping[str, tuple[str, ...]] = {
    dialect.name: dialect.operations
    for dialect in (VersoriDialect, VoximplantDialect, NemesisDialect, HealthDialect, ReferenceDialect)
}


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status of the process."""
    logs.set_up(config.log_level, config.log_format)
    try:
        for address in (config.http, config.https, config.nemesis):
            if address:
                _check_free(address)
        keep_private(config)
        _warn_of_few_files(config)
        metrics = Metrics(OPERATIONS, config.workers)
        if config.workers == 1:
            return _serve(config, metrics, 0)
        with _runner() as runner:
            runner.run(_prepare(config))
        return supervisor.supervise(config.workers, partial(_serve_supervised, config, metrics))
    except KvasirError as error:
        print(f"kvasir: {error.message}", file=sys.stderr)  # noqa: T201  # the answer to a command
        return 1


def _warn_of_few_files(config: Config) -> None:
    """Warn if the settings allow more connections than the system allows the process open files."""
    # The soft limit does not matter: the listener raises it to the hard one.
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = OTHER_FILES + config.limits.connections * sum(map(bool, (config.http, config.https)))
    if config.nemesis:
        needed += config.websocket_limits.connections
    if config.engine_name == "postgresql":
        needed += config.postgres_connections
    if allowed != resource.RLIM_INFINITY and allowed < needed:
        log.warning(
            "the system allows a process %d open files, but its connections may need %d; "
            "raise the hard limit (LimitNOFILE= in systemd, ulimit -Hn) or lower --limit-connections and "
            "--nemesis-connections",
            allowed,
            needed,
        )


def _check_free(address: str) -> None:
    """Raises `Unavailable` if another program serves this address.

    The listeners would not notice: workers share their ports, so the system would let them share this one, too.
    """
    host, port = split_address(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Unavailable(
                f"cannot listen on {address}: {error.strerror}. Stop the program that uses it or choose another address"
            ) from None


def _runner() -> asyncio.Runner:
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def _prepare(config: Config) -> None:
    """Set up a new database before there are workers."""
    engine = create_engine(config)
    await engine.open()
    try:
        announce(await bootstrap.bootstrap(engine, config, engine.clock), config)
    finally:
        await engine.close()


def _serve(
    config: Config, metrics: Metrics, worker: int, parent: int | None = None, on_ready: Callable[[], None] | None = None
) -> int:
    """Run one worker until it is told to stop.

    `parent`: a descriptor that becomes readable when the supervisor is gone. `on_ready` is called once it serves.
    """
    metrics.serve_as(worker)
    with _runner() as runner:
        return runner.run(Worker(config, metrics).serve(announce=config.workers == 1, parent=parent, on_ready=on_ready))


def _serve_supervised(config: Config, metrics: Metrics, worker: int, parent: int, on_ready: Callable[[], None]) -> int:
    """Run one worker of several. An error that would end a single one with a message is logged."""
    try:
        return _serve(config, metrics, worker, parent, on_ready)
    except KvasirError as error:
        log.error("worker %d cannot serve: %s", worker, error.message)
        return 1
