"""What one worker publishes for `/metrics`: its engine's counters, its listeners, its event loop and its process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kvasir.control.audit import Audit
from kvasir.engine import Engine
from kvasir.limits import Limits, refusals
from kvasir.listeners.http import HttpListener
from kvasir.metrics import Series
from kvasir.model import SECONDS, Histogram

if TYPE_CHECKING:
    from kvasir.listeners.websocket import WebSocketListener

#: How often it is measured how late the event loop is; and how often open files are counted, of which there may be
#: thousands.
LAG_SECONDS, FILES_SECONDS = 0.25, 10.0

_PAGE_BYTES = resource.getpagesize()


class Vitals:
    """Knows all parts of a worker; none of them knows it."""

    def __init__(
        self,
        engine: Engine,
        http: HttpListener,
        nemesis: Callable[[], WebSocketListener | None],
        limits: Limits,
        trail: Audit | None,
    ) -> None:
        self._trail = trail
        self._engine = engine
        self._http = http
        self._nemesis = nemesis
        self._limits = limits
        self._lags = Histogram.of(SECONDS)
        self._started = time.time()
        self._files = (float("-inf"), 0)

    def __call__(self) -> Mapping[Series, float | Histogram]:
        """Everything that `kvasir.metrics.PLACES` has a place for."""
        return self._of_the_engine() | self._of_listeners() | self._of_the_process()

    def _of_the_engine(self) -> dict[Series, float | Histogram]:
        stats, gauges = self._engine.writer, self._engine.gauges()
        return {
            ("kvasir_watches", ""): gauges.watches,
            ("kvasir_writes_waiting", ""): stats.queue_depth,
            ("kvasir_writes_waiting_limit", ""): self._limits.queue_writes,
            ("kvasir_write_wait_seconds", ""): stats.waits,
            ("kvasir_commit_seconds", ""): stats.commits,
            ("kvasir_commit_writes", ""): stats.groups,
            ("kvasir_failed_commits_total", ""): stats.failures,
            ("kvasir_swept_total", ""): stats.swept,
            ("kvasir_entry_cache_hits_total", ""): stats.cache_hits,
            ("kvasir_entry_cache_misses_total", ""): stats.cache_misses,
            ("kvasir_audit_unrecorded_total", ""): 0 if self._trail is None else self._trail.unrecorded,
            ("kvasir_postgres_connections", "used"): gauges.connections_used,
            ("kvasir_postgres_connections", "idle"): gauges.connections_idle,
            ("kvasir_postgres_connections_limit", ""): gauges.connections_most,
        }

    def _of_listeners(self) -> dict[Series, float | Histogram]:
        http, nemesis = self._http, self._nemesis()
        return {
            ("kvasir_http_requests_in_flight", ""): http.in_flight,
            ("kvasir_connections", "http"): http.connections - http.secured,
            ("kvasir_connections", "https"): http.secured,
            ("kvasir_connections", "nemesis"): 0 if nemesis is None else nemesis.connections,
            ("kvasir_unread_bytes", "http"): http.unread,
            ("kvasir_unread_bytes", "websocket"): 0 if nemesis is None else nemesis.unread,
            ("kvasir_held_body_bytes", ""): http.held,
            **{("kvasir_refusals_total", bound): times for bound, times in refusals.items()},
        }

    def _of_the_process(self) -> dict[Series, float | Histogram]:
        resident, virtual = _memory()
        return {
            ("kvasir_event_loop_lag_seconds", ""): self._lags,
            ("process_cpu_seconds_total", ""): time.process_time(),
            ("process_resident_memory_bytes", ""): resident,
            ("process_virtual_memory_bytes", ""): virtual,
            ("process_open_fds", ""): self._open_files(),
            ("process_max_fds", ""): resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            ("process_start_time_seconds", ""): self._started,
        }

    def _open_files(self) -> int:
        if time.monotonic() - self._files[0] > FILES_SECONDS:
            with contextlib.suppress(OSError):  # to look takes a file, of which there may be none left
                self._files = time.monotonic(), len(os.listdir("/dev/fd"))  # noqa: PTH208  # names, not paths
        return self._files[1]

    async def measure_lag(self) -> None:
        """Measure how late the event loop is, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            self._lags.observe(max(0.0, loop.time() - due))


def _memory() -> tuple[int, int]:
    """Bytes (resident, virtual); 0 where the system does not tell."""
    try:
        virtual, resident = Path("/proc/self/statm").read_text(encoding="ascii").split()[:2]
    except OSError:
        return 0, 0
    return int(resident) * _PAGE_BYTES, int(virtual) * _PAGE_BYTES
