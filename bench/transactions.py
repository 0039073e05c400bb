"""Amounts move between accounts through two servers, 2,000 by each of eight clients, and one server is killed."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.harness import Report
from tests.support import postgres, serving
from tests.support.faults.stubborn import Stubborn, under_load
from tests.support.faults.transfers import Auditor, Mover, open_accounts
from tests.support.raw_http import Client
from tests.support.serving import wait_until

MOVERS = 8
TRANSFERS = 2_000


def run(report: Report) -> None:
    """See the module. A wrong sum ends it."""
    _move(report, "SQLite")
    databases = serving.databases
    serving.databases = postgres.DatabasePerDirectory()
    try:
        _move(report, "PostgreSQL")
    finally:
        serving.databases = databases


def _move(report: Report, name: str) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        tempfile.TemporaryDirectory() as second,
        serving.serving(Path(directory)) as one,
        serving.serving(Path(second), "--data-dir", str(one.data_dir)) as other,
    ):
        servers, store = [one, other], one.store
        with Client(one, store) as client:
            open_accounts(client, store)
        movers = [Mover(servers, store, TRANSFERS) for _ in range(MOVERS)]
        auditors = [Auditor(servers, store) for _ in range(2)]
        clients: list[Stubborn] = [*movers, *auditors]
        began = time.monotonic()
        with under_load(clients):
            wait_until(lambda: sum(each.moved for each in movers) > MOVERS * TRANSFERS // 2, "half is moved", 300)
            other.kill()
            for mover in movers:
                mover.join(300)
        seconds = time.monotonic() - began
        last = Auditor([one], store)
        with Client(one, store) as client:
            last.step(client)
        assert not last.unexpected, last.unexpected
    moved = sum(mover.moved for mover in movers)
    report.figure(f"{name}: transfers", moved / seconds, "/s")
    report.figure(f"{name}: sums taken meanwhile, all right", sum(each.done for each in auditors), "")
    report.figure(f"{name}: conflicts", sum(mover.conflicts for mover in movers), "")
    report.figure(f"{name}: outcomes unknown after the kill", sum(mover.unknown for mover in movers), "")
    report.target(f"{name}: transfers done", moved + sum(mover.unknown for mover in movers), MOVERS * TRANSFERS, "")
