"""`kvasir dev` from start to end: the worker of `kvasir serve` on a test bed, with controls beside it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import uvloop
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from msgspec import Struct, structs

from kvasir.config import loading
from kvasir.config.table import Config
from kvasir.control import applications, bootstrap, service_accounts
from kvasir.control.organisation import first_organisation
from kvasir.dialects.http import HttpDialect
from kvasir.dialects.websocket import Dialect
from kvasir.engine import Engine
from kvasir.engines.numbering import wall_clock
from kvasir.errors import KvasirError, Unavailable
from kvasir.listeners.http import HttpListener
from kvasir.metrics import Metrics
from kvasir.server import logs, sockets
from kvasir.server.run import operations_of
from kvasir.server.worker import Worker
from kvasir.store.store import Store
from kvasir.testbed import seeds
from kvasir.testbed.bed import TestBed
from kvasir.testbed.controls import PATH, Controls
from kvasir.testbed.forms import HttpForm, Named, NativeForm, VersoriForm, VoximplantForm
from kvasir.testbed.interception import InterceptedHttp

#: The Voximplant application that is there from the start.
APPLICATION = "testbed"

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"  # noqa: S104  # for containers, when asked for

STDIN = 0


class Certificate(Struct, frozen=True):
    """For HTTPS: files in PEM."""

    ca: Path
    chain: Path
    key: Path


class Options(Struct, frozen=True):
    """What `kvasir dev` was told."""

    seed: Path | None = None
    nemesis: bool = False
    #: None: no HTTPS
    certificate: Certificate | None = None
    port: int = 0
    until_stdin_closes: bool = False
    in_container: bool = False
    lenient: bool = False
    log_level: str = "warning"


class DevWorker(Worker):
    """A worker whose clock, failures and contents the controls move."""

    _mode: ClassVar[str | None] = "dev"

    def __init__(self, config: Config, options: Options, private_key: RSAPrivateKey) -> None:
        self._private_key = private_key
        self._options = options
        self._credential_clock = wall_clock
        operations = operations_of(config)
        self._bed = TestBed(config.limits, operations)
        self._token = secrets.token_urlsafe(32)
        self._facts: dict[str, Any] = {}
        controls = Controls(self._bed, self._token)
        metrics = Metrics({**operations, controls.name: controls.operations}, 1)
        config, given = sockets.with_free_ports(config, {})
        super().__init__(config, metrics, given)
        self._controls = HttpListener([controls], metrics, config.limits, fallback=controls)

    def _create_engine(self) -> Engine:
        return self._bed.engine

    def _create_store(self) -> Store:
        return self._bed.store

    def _create_traces(self) -> None:
        """What a test bed does is nobody's traffic."""

    def _create_nemesis(self, *parts: Any, **settings: Any) -> Dialect:
        from kvasir.dialects.nemesis.app import NemesisDialect
        from kvasir.testbed.nemesis import InterceptedNemesis

        return InterceptedNemesis(self._bed, NemesisDialect(*parts, **settings))

    def _dressed(self, dialect: HttpDialect) -> HttpDialect:
        named = Named(self._bed)
        forms: dict[str, HttpForm] = {
            "versori": VersoriForm(),
            "voximplant": VoximplantForm(named),
            "native": NativeForm(),
        }
        form = forms.get(dialect.name)
        return dialect if form is None else InterceptedHttp(dialect, form, self._bed.faults, self._bed.journal)

    async def _set_up(self) -> None:
        """Fill the database with the seed, and with what the line tells of."""
        bed = self._bed
        if self._options.seed is not None:
            await seeds.restore_dump(self._options.seed, bed.engine)
        await bootstrap.bootstrap(bed.engine, self._config, wall_clock)
        organisation = await first_organisation(bed.engine)
        bed.operator = structs.replace(bed.operator, organisation=organisation)
        await bed.store.refresh()
        if self._options.seed is not None:
            await seeds.load(self._options.seed, bed)
        application = await applications.create(bed.store, bed.operator, APPLICATION)
        credentials = await service_accounts.create(
            bed.engine, wall_clock, organisation, ["Owner"], private=self._private_key
        )
        found = await bed.store.list_spaces(bed.operator, "store")
        bed.keep_as_seed()
        self._facts = {
            "organisation": organisation,
            "key": self._config.admin_key,
            "stores": {space.name: space.id for space in found},
            "voximplant": {
                "application_id": application.application_id,
                "application_name": application.space.name,
                "credentials": structs.asdict(credentials),
            },
        }

    def _listen(self) -> list[socket.socket]:
        listening = socket.create_server((LOOPBACK, 0), backlog=sockets.BACKLOG)
        self._facts["control"] = {
            "url": f"http://{LOOPBACK}:{listening.getsockname()[1]}{PATH.rstrip('/')}",
            "token": self._token,
        }
        self._controls.listen(listening)
        if self._options.until_stdin_closes:
            try:
                asyncio.get_running_loop().add_reader(STDIN, _stop_at_the_end_of_input)
            except PermissionError:  # a file or /dev/null, which nobody can keep open
                raise Unavailable("--until-stdin-closes needs a pipe or a terminal as standard input") from None
        return super()._listen()

    async def _tell_ready(self, addresses: Mapping[str, list[str]], pid: int) -> None:
        """Print the one line that says where everything is."""
        urls = {name: urls[0].replace(EVERYWHERE, LOOPBACK) for name, urls in addresses.items()}
        ca = {} if self._options.certificate is None else {"ca": str(self._options.certificate.ca)}
        print(json.dumps(urls | self._facts | ca | {"pid": pid}), flush=True)  # noqa: T201  # the answer to a command

    async def _drain(self) -> None:
        await asyncio.gather(super()._drain(), self._controls.stop(0))


def _stop_at_the_end_of_input() -> None:
    if not os.read(STDIN, 65_536):
        asyncio.get_running_loop().remove_reader(STDIN)
        os.kill(os.getpid(), signal.SIGTERM)


def _config(options: Options, data_dir: str) -> Config:
    """The settings of a test bed: nothing of the environment, nothing of a kvasir.toml."""
    host = EVERYWHERE if options.in_container else LOOPBACK
    given: dict[str, str | None] = {
        "engine": "memory:",
        "data_dir": data_dir,
        "http": f"{host}:{options.port}",
        "nemesis": f"{host}:0" if options.nemesis else "off",
        "nemesis_auth": "none" if options.in_container else "local",
        "admin_key": f"kv_{secrets.token_urlsafe(32)}",
        "drain_seconds": "1",
        "log_level": options.log_level,
        "strict_requests": "false" if options.lenient else "true",
    }
    if options.certificate is not None:
        given |= {
            "https": f"{host}:0",
            "tls_cert": str(options.certificate.chain),
            "tls_key": str(options.certificate.key),
        }
    return loading.load(given, {}, Path(os.devnull))


def run(options: Options, private_key: RSAPrivateKey) -> int:
    """Serve until SIGTERM, SIGINT or, when asked for, the end of standard input. Returns the exit status.

    `private_key`: of the service account that the line tells of.
    """
    logs.set_up(options.log_level, "text")
    with tempfile.TemporaryDirectory(prefix="kvasir-dev-") as data_dir:
        try:
            config = _config(options, data_dir)
            sockets.check(config, {})
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                worker = DevWorker(config, options, private_key)
                return runner.run(worker.serve(announce=True, parent=None, on_ready=None))
        except KvasirError as error:
            print(f"kvasir: {error.message}", file=sys.stderr)  # noqa: T201  # the answer to a command
            return 1
