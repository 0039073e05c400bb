"""`kvasir serve` as a whole: what is refused or warned of first, then one worker or several."""

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

#: What a process keeps open beside its connections, with room to spare.
OTHER_FILES = 100

#: What metrics can count, by dialect.
OPERATIONS: Mapping[str, tuple[str, ...]] = {
    dialect.name: dialect.operations
    for dialect in (VersoriDialect, VoximplantDialect, NemesisDialect, HealthDialect, ReferenceDialect)
}


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT; the process's exit status."""
    logs.set_up(config.log_level, config.log_format)
    try:
        for address in (config.http, config.https, config.nemesis):
            if address:
                _claim(address)
        keep_private(config)
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


def _warn_of_few_files(config: Config) -> None:
    """Say so where the system allows a process fewer files than connections are allowed, each of which is one."""
    # The soft limit is no matter: the listener raises it to the hard one.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = OTHER_FILES + config.limits.connections * sum(map(bool, (config.http, config.https)))
    if config.nemesis:
        needed += config.websocket_limits.connections
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
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


async def _prepare(config: Config) -> None:
    """The first start, before there are workers."""
    engine = create_engine(config)
    await engine.open()
    try:
        announce(await bootstrap.bootstrap(engine, config, engine.clock), config)
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
        return runner.run(Worker(config, metrics).serve(announce=config.workers == 1, parent=parent, up=up))


def _serve_among_others(config: Config, metrics: Metrics, worker: int, parent: int, up: Callable[[], None]) -> int:
    """Be one of several; what a single one would print as its last word is logged."""
    try:
        return _serve(config, metrics, worker, parent, up)
    except KvasirError as error:
        log.error("worker %d cannot serve: %s", worker, error.message)
        return 1
