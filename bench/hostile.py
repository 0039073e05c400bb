"""The attack bench: every attack of `tests/hostile/attacks.py`, alone and from 20 connections that read, do not read,
or leave; what it did to the event loop, to /healthz and to memory, and for how long work went on afterwards.

`KVASIR_HOSTILE=sqlite/versori,postgresql/nemesis` runs a part of it, `KVASIR_HOSTILE_SECONDS` sets how long each lasts.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

from bench.harness import Report
from tests.hostile import campaign
from tests.hostile.attacks import APIS
from tests.support import postgres
from tests.support import serving as servers

ENGINES = ("sqlite", "postgresql")
SECONDS = float(os.environ.get("KVASIR_HOSTILE_SECONDS", "1"))


def run(report: Report) -> None:
    """All engines and APIs, or those of KVASIR_HOSTILE."""
    chosen = [part for part in os.environ.get("KVASIR_HOSTILE", "").split(",") if part]
    for engine in ENGINES:
        apis = [api for api in APIS if not chosen or f"{engine}/{api}" in chosen]
        if apis:
            servers.databases = postgres.DatabasePerDirectory() if engine == "postgresql" else None
            try:
                _attack(report, engine, apis)
            finally:
                servers.databases = None
    postgres.close_shared_server()


def _attack(report: Report, engine: str, apis: list[str]) -> None:
    results: list[campaign.Result] = []
    with tempfile.TemporaryDirectory() as directory, campaign.attacked(Path(directory)) as (world, heartbeat):
        print(f"\n{engine}\n{campaign.HEAD}", flush=True)
        for api in apis:
            for attack in APIS[api](world):
                for mode, connections in campaign.MODES:
                    result = campaign.carried_out(world, heartbeat, attack, mode, connections, SECONDS)
                    results.append(result)
                    print(result.line(), flush=True)
        began = time.monotonic()
        os.kill(world.server.pid, signal.SIGTERM)
        status = world.server.stop()
        stopped = time.monotonic() - began
    small = [result for result in results if not result.attack.large]
    large = [result for result in results if result.attack.large]
    for name, these, bound in (("small", small, 50), ("above 4 MiB", large, 150)):
        longest = max((result.standstill for result in these), default=0.0)
        report.target(f"{engine}: longest standstill, {name}", longest * 1000, bound, "ms", most=True)
    for name, value, bound, unit in (
        ("/healthz", max(result.healthz for result in results) * 1000, 250, "ms"),
        ("memory above rest", max(result.memory for result in results), 512, "MiB"),
        ("work after the clients left", max(result.after for result in results), 1, "s"),
        (f"SIGTERM with --drain-seconds 5 (status {status})", stopped, 6, "s"),
    ):
        report.target(f"{engine}: {name}", value, bound, unit, most=True)
