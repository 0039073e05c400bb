"""`kvasir serve` from start to end: checks what could go wrong, then runs one worker or several."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import resource
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import uvloop

from kvasir.config.table import Config
from kvasir.control import audit, bootstrap
from kvasir.dialects.native.app import NativeDialect
from kvasir.dialects.operations.console import ConsoleDialect
from kvasir.dialects.operations.health import HealthDialect
from kvasir.dialects.operations.reference import ReferenceDialect
from kvasir.dialects.versori.app import VersoriDialect
from kvasir.dialects.voximplant import VoximplantDialect
from kvasir.errors import KvasirError, Unavailable
from kvasir.metrics import Metrics
from kvasir.printable import printable_lines
from kvasir.server import logs, ready_file, sockets, supervisor, traces
from kvasir.server.create_engine import create_engine
from kvasir.server.data_directory import keep_private
from kvasir.server.sockets import Given
from kvasir.server.welcome import announce
from kvasir.server.worker import Worker

log = logging.getLogger("kvasir")

#: The parameter of glibc's mallopt for the size from which on a block of memory has pages of its own; and that size.
MMAP_THRESHOLD, LARGE_BLOCK_BYTES = -3, 262_144
#: That for the free memory at the end of all which is kept; to get new pages costs more than to fill them.
TRIM_THRESHOLD, KEPT_BYTES = -1, 4 << 20

#: Files that a process has open besides its connections, with room to spare.
OTHER_FILES = 100


def operations_of(config: Config) -> Mapping[str, tuple[str, ...]]:
    """The operations that are counted, by dialect."""
    served: list[Any] = [NativeDialect, VersoriDialect, VoximplantDialect]
    served += [HealthDialect, ReferenceDialect, ConsoleDialect]
    if config.nemesis:
        from kvasir.dialects.nemesis.app import NemesisDialect

        served.append(NemesisDialect)
    return {dialect.name: dialect.operations for dialect in served}


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status of the process."""
    logs.set_up(config.log_level, config.log_format)
    try:
        given = sockets.inherited()
        sockets.check(config, given)
        config, given = sockets.with_free_ports(config, given)
        keep_private(config)
        _allow_files(config)
        _return_large_blocks()
        audit.settle(config)
        traces.warn()
        metrics = Metrics(operations_of(config), config.workers)
        if config.workers == 1:
            return _serve(config, metrics, given, 0)
        with _runner() as runner:
            runner.run(_prepare(config))
        return supervisor.supervise(config.workers, partial(_serve_supervised, config, metrics, given))
    except KvasirError as error:
        print(f"kvasir: {printable_lines(error.message)}", file=sys.stderr)  # noqa: T201  # the answer to a command
        return 1
    finally:
        ready_file.remove(config)


def _return_large_blocks() -> None:
    """Have memory of large requests returned to the system when they are done, instead of kept in pieces by malloc.

    By itself, glibc's malloc raises the threshold for that with each large block that is freed.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, LARGE_BLOCK_BYTES)
        mallopt(TRIM_THRESHOLD, KEPT_BYTES)


def _allow_files(config: Config) -> None:
    """Have as many open files as the system allows; warn if the settings allow more connections than that."""
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))
    needed = OTHER_FILES + config.limits.connections
    if config.nemesis:
        needed += config.websocket_limits.accepted
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
    config: Config,
    metrics: Metrics,
    given: Given,
    worker: int,
    parent: int | None = None,
    on_ready: Callable[[], bool] | None = None,
) -> int:
    """Run one worker until it is told to stop.

    `parent`: a descriptor that becomes readable when the supervisor is gone. `on_ready` is called once it serves.
    """
    metrics.serve_as(worker)
    with _runner() as runner:
        server = Worker(config, metrics, given)
        return runner.run(server.serve(announce=config.workers == 1, parent=parent, on_ready=on_ready))


def _serve_supervised(
    config: Config, metrics: Metrics, given: Given, worker: int, parent: int, on_ready: Callable[[], bool]
) -> int:
    """Run one worker of several. An error that would end a single one with a message is logged."""
    try:
        return _serve(config, metrics, given, worker, parent, on_ready)
    except KvasirError as error:
        log.error("worker %d cannot serve: %s", worker, error.message)
        return supervisor.NOT_NOW if isinstance(error, Unavailable) else 1
