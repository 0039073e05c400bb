"""The composition root of one worker: a process with one event loop, one engine, all dialects and all listeners.

`kvasir.server.run` starts one worker in its own process, or several through `kvasir.server.supervisor`.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from kvasir.access.authenticator import Authenticator
from kvasir.access.identity_provider import IdentityProvider
from kvasir.access.service_tokens import ServiceTokenVerifier
from kvasir.access.timed import TimedAuthenticator, TimedVerifier
from kvasir.beside import process
from kvasir.config.table import Config
from kvasir.control import audit, bootstrap, organisation
from kvasir.control.clock_warning import ClockLog
from kvasir.dialects.cors import CrossOrigin
from kvasir.dialects.http import HttpDialect
from kvasir.dialects.native import openapi as native_openapi
from kvasir.dialects.native import stats
from kvasir.dialects.native.app import NativeDialect
from kvasir.dialects.operations.console import ConsoleDialect
from kvasir.dialects.operations.health import HealthDialect
from kvasir.dialects.operations.reference import ReferenceDialect
from kvasir.dialects.versori import openapi
from kvasir.dialects.versori.app import VersoriDialect
from kvasir.dialects.voximplant import Settings as VoximplantSettings
from kvasir.dialects.voximplant import VoximplantDialect
from kvasir.dialects.websocket import Dialect
from kvasir.engine import Clock, Engine
from kvasir.engines.memory import MemoryEngine
from kvasir.errors import KvasirError
from kvasir.listeners.http import HttpListener
from kvasir.metrics import Metrics
from kvasir.model import Principal
from kvasir.server import observers, ready_file, sockets, traces, welcome
from kvasir.server.create_engine import create_engine
from kvasir.server.data_directory import SAVES
from kvasir.server.save_directory import SaveDirectory
from kvasir.server.sockets import Given, confirm, listen
from kvasir.server.vitals import Vitals
from kvasir.store.store import Store
from kvasir.store.timed import TimedStore

if TYPE_CHECKING:
    from kvasir.listeners.websocket import WebSocketListener

log = logging.getLogger("kvasir")

#: How often a worker publishes its writer's counters to the other workers.
PUBLISH_SECONDS = 1.0

#: How often it is looked whether the database is ahead of the clock.
CLOCK_SECONDS = 60.0

#: How often the memory engine removes expired entries. It does not do so by itself, and has to look at all of them.
MEMORY_SWEEP_SECONDS = 60.0

#: How long the event loop waits at most for the interpreter's lock while a thread computes: behind every call of the
#: system, of which it makes one or two for each client. Python's own is 5 ms.
SWITCH_SECONDS = 0.0005

#: Net allocations before the youngest generation is collected. High, because requests leave no cycles behind.
GC_THRESHOLD = 10_000


def voximplant_settings(config: Config) -> VoximplantSettings:
    """The settings of the Voximplant dialect."""
    return VoximplantSettings(
        **asdict(config.voximplant_limits),
        missing_key_code=config.voximplant_missing_key_code,
        unknown_application_code=config.voximplant_unknown_application_code,
        unknown_key_id_code=config.voximplant_unknown_key_id_code,
        pattern=config.voximplant_pattern,
        ttl_default_seconds=config.voximplant_ttl_default_seconds,
        page_default=config.voximplant_page_default,
    )


class Worker:
    """Everything that one worker process consists of."""

    def __init__(self, config: Config, metrics: Metrics, given: Given | None = None) -> None:
        """`given`: sockets that listen already, which take the place of addresses in the settings."""
        self._given = given or {}
        self._config = config
        self._metrics = metrics
        self._traces = self._create_traces()
        self._watcher = observers.watcher(config, self._traces)
        self._engine = self._create_engine()
        self._store = self._create_store()
        self._auth, verifier = self._create_access()
        self._health = HealthDialect(
            self._engine, metrics, engine_name=config.engine_name, durability=config.durability, mode=self._mode
        )
        trail = audit.of(config)
        versori = VersoriDialect(self._store, self._auth, strict=config.strict_requests, trail=trail)
        with_console = sockets.has_console(config, self._given)
        self._native = NativeDialect(
            self._store,
            self._engine,
            self._auth,
            engine_name=config.engine_name,
            durability=config.durability,
            with_console=with_console,
            trail=trail,
        )
        voximplant = VoximplantDialect(
            self._store, verifier, voximplant_settings(config), strict=config.strict_requests
        )
        console = ConsoleDialect(on=with_console)
        reference = ReferenceDialect(
            openapi.document(config.limits), native_openapi.document(config.limits), console=with_console
        )
        shared: list[HttpDialect] = [versori, self._native]
        if config.cors_origin:
            shared = [CrossOrigin(dialect, config.cors_origin) for dialect in shared]
        # Versori's paths win, since a key in one may look like a path of another API.
        chosen = (shared[0], reference, shared[1], self._health, voximplant, console)
        dialects = [self._dressed(each) for each in chosen]
        self._listener = HttpListener(
            dialects,
            metrics,
            config.limits,
            fallback=dialects[0],
            log_requests=config.access_log,
            watcher=self._watcher,
        )
        self._nemesis: WebSocketListener | None = None
        self._vitals = Vitals(self._engine, self._listener, lambda: self._nemesis, config.limits, trail)
        metrics.collect = self._vitals

    # -- what a test bed does otherwise -------------------------------------------------------------------

    #: What /healthz tells of
    _mode: ClassVar[str | None] = None
    #: What keys and tokens expire by; None: the clock of the engine
    _credential_clock: Clock | None = None

    def _create_engine(self) -> Engine:
        return create_engine(self._config)

    def _create_store(self) -> Store:
        kind = Store if self._watcher is None else TimedStore
        return kind(self._engine, self._config.limits, self._engine.clock)

    def _create_traces(self) -> traces.Traces | None:
        return traces.make()

    def _create_access(self) -> tuple[Authenticator, ServiceTokenVerifier]:
        keys, tokens = (
            (Authenticator, ServiceTokenVerifier) if self._watcher is None else (TimedAuthenticator, TimedVerifier)
        )
        parts, clock = (self._store, self._engine), self._credential_clock
        return keys(*parts, IdentityProvider.from_config(self._config), clock=clock), tokens(*parts, clock=clock)

    def _create_nemesis(self, *parts: Any, **settings: Any) -> Dialect:
        from kvasir.dialects.nemesis.app import NemesisDialect

        return NemesisDialect(*parts, **settings)

    def _dressed(self, dialect: HttpDialect) -> HttpDialect:
        return dialect

    async def _set_up(self) -> None:
        """Set up a new database, and print what it contains."""
        welcome.announce(await bootstrap.bootstrap(self._engine, self._config, self._engine.clock), self._config)

    # -- listening and serving ----------------------------------------------------------------------------

    def _listen(self) -> list[socket.socket]:
        listening = listen("http", self._config, self._given)
        for each in listening:
            self._listener.listen(each)
        if secured := listen("https", self._config, self._given):
            tls = self._tls("h2", "http/1.1")
            for each in secured:
                self._listener.listen(each, tls)
        return listening + secured

    def _tls(self, *protocols: str) -> ssl.SSLContext:
        """`protocols`: those of ALPN, the preferred one first."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._config.tls_cert or "", self._config.tls_key)
        context.set_alpn_protocols(list(protocols))
        return context

    async def _start_nemesis(self) -> list[socket.socket]:
        config = self._config
        listening = listen("nemesis", config, self._given)
        if not listening:
            return []
        # With all that it needs, it is a third of what a process imports; many serve without it.
        from kvasir.listeners.websocket import WebSocketListener

        caller: Principal | Authenticator = self._auth
        first = await organisation.first_organisation(self._engine)
        if config.nemesis_auth != "key":
            caller = Principal(first, "developer", "nemesis")
        saves = SaveDirectory(config.nemesis_save_dir or config.data_dir / SAVES, first)
        dialect = self._create_nemesis(
            self._store,
            caller,
            limits=config.nemesis_limits,
            default_profile=config.nemesis_profile,
            saves=saves,
            observe=self._metrics.observe,
            strict=config.strict_requests,
            watcher=self._watcher,
        )
        self._nemesis = WebSocketListener(dialect, config.websocket_limits, origins=config.nemesis_origins)
        await self._nemesis.start(*listening, tls=self._tls("http/1.1") if config.nemesis_tls else None)
        return listening

    async def serve(self, *, announce: bool, parent: int | None, on_ready: Callable[[], bool] | None) -> int:
        """Serve until SIGTERM, SIGINT or the end of the supervisor, then drain. Returns the exit status.

        `announce`: set up a new database and print what it contains. `parent`: a descriptor that becomes readable when
        the supervisor is gone. `on_ready` is called once the worker serves, and says whether all of them do.
        """
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if parent is not None:
            loop.add_reader(parent, stop.set)
        await self._engine.open()
        if announce:
            await self._set_up()
        # Before HTTP, where /readyz says that the server is ready, and /metrics where it listens.
        self._health.addresses = addresses = sockets.addresses(self._config, self._given)
        listening = await self._start_nemesis()
        listening += self._listen()
        await confirm(each.getsockname()[:2] for each in listening)
        sys.setswitchinterval(SWITCH_SECONDS)
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 50, 50)
        chores = [loop.create_task(each) for each in self._chores()]
        log.info("listening on %s", ", ".join(each for found in addresses.values() for each in found))
        if on_ready is None or on_ready():
            await self._tell_ready(addresses, os.getpid() if parent is None else os.getppid())
        failed = await self._end(stop)
        if parent is not None:
            loop.remove_reader(parent)
        for chore in chores:
            chore.cancel()
        await self._drain()
        return int(failed)

    async def _tell_ready(self, addresses: Mapping[str, list[str]], pid: int) -> None:
        if self._config.ready_file is not None:
            first = await organisation.first_organisation(self._engine)
            ready_file.write(self._config.ready_file, addresses, first, pid)

    async def _end(self, stop: asyncio.Event) -> bool:
        """Wait until the worker is told to stop, or cannot go on; whether it is the latter."""
        stopping = asyncio.ensure_future(stop.wait())
        running = [*self._listener.running, *(self._nemesis.running if self._nemesis is not None else ())]
        await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        failures = [task.exception() for task in running if task.done()]
        for failure in failures:
            log.error("a listener failed, so the server stops: %s", failure, exc_info=failure)
        return bool(failures)

    async def _drain(self) -> None:
        self._health.stopping = True
        self._native.stop()
        log.info("stopping; requests in flight are answered first")
        seconds = self._config.drain_seconds
        stopping: list[Awaitable[Any]] = [self._listener.stop(seconds)]
        if self._nemesis is not None:
            stopping.append(self._nemesis.stop(seconds))
        if not (await asyncio.gather(*stopping))[0]:
            log.warning("%d requests were still in flight when the drain time was over", self._listener.in_flight)
        process.stop()
        await self._engine.close()
        if self._traces is not None:
            await asyncio.to_thread(self._traces.close)
        self._metrics.publish()
        log.info("stopped")

    def _chores(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What is done all the time that the worker serves."""
        yield self._vitals.measure_lag()
        yield again_and_again(PUBLISH_SECONDS, self._publish)
        yield again_and_again(stats.INTERVAL_SECONDS, self._sample)
        if isinstance(self._engine, MemoryEngine):
            yield again_and_again(MEMORY_SWEEP_SECONDS, self._engine.sweep)
        if self._metrics.worker == 0:
            yield again_and_again(CLOCK_SECONDS, ClockLog(self._engine).look)

    async def _publish(self) -> None:
        self._metrics.publish()

    async def _sample(self) -> None:
        database = await self._engine.stats()
        self._native.history.add(stats.Moment(self._engine.clock(), self._metrics.totals(), database))


async def again_and_again(seconds: float, work: Callable[[], Awaitable[object]]) -> None:
    """Do this for ever. What fails, most often for want of the database or of open files, may go well the next time."""
    while True:
        try:
            await work()
        except KvasirError:
            pass  # whoever needs the database will be told
        except Exception:
            log.exception("something that is done every %g s failed", seconds)
        await asyncio.sleep(seconds)
