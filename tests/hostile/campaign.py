"""Carries attacks out and measures what they do: see `attacks`, `attacker`, `beating` and `gauges`."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from tests.hostile.attacks import MIB, Attack, World
from tests.hostile.beating import Heartbeat
from tests.hostile.gauges import Watch, seconds_until_idle
from tests.support.serving import Server, serving

ROOT = Path(__file__).parents[2]

#: How the connections behave, and how many there are.
MODES = (("reading", 1), ("reading", 20), ("deaf", 20), ("leaving", 20))

#: How long work is watched that goes on after the clients have left.
PATIENCE_SECONDS = 20.0

#: How often an attack is carried out at most whose bounds do not hold.
ATTEMPTS = 3

#: What must hold; a large body or answer may take longer.
STANDSTILL_SECONDS, LARGE_STANDSTILL_SECONDS = 0.050, 0.150
MEMORY_MIB, HEALTHZ_SECONDS, AFTER_SECONDS = 512.0, 0.250, 1.0


class Result(Struct):
    """What one attack did."""

    attack: Attack
    mode: str
    connections: int
    requests: int
    answer: str
    standstill: float
    healthz: float
    memory: float
    after: float

    @property
    def faults(self) -> list[str]:
        """Which bounds did not hold."""
        standstill = LARGE_STANDSTILL_SECONDS if self.attack.large else STANDSTILL_SECONDS
        held = {
            "standstill": self.standstill <= standstill,
            "healthz": self.healthz <= HEALTHZ_SECONDS,
            "memory": self.memory <= MEMORY_MIB,
            "after": self.after <= AFTER_SECONDS,
        }
        return [name for name, holds in held.items() if not holds]

    def line(self) -> str:
        """A row of the table."""
        who = f"{self.connections} {self.mode}"
        return (
            f"{self.attack.operation:<17} {self.attack.what:<40} {who:<11} {self.requests:>7} "
            f"{self.standstill * 1000:>7.0f} {self.healthz * 1000:>7.0f} {self.memory:>6.0f} {self.after:>6.1f}"
            f"  {' '.join(self.faults) or 'holds'}"
        )


HEAD = f"{'operation':<17} {'request':<40} {'clients':<11} {'sent':>7}" + (
    f" {'loop ms':>7} {'healthz':>7} {'MiB':>6} {'after s':>6}"
)


@contextlib.contextmanager
def attacked(directory: Path) -> Iterator[tuple[World, Heartbeat]]:
    """A server to attack, with its heartbeat."""
    file = directory / "heartbeat"
    env = {"HEARTBEAT": str(file), "PYTHONPATH": str(ROOT)}
    heartbeat = Heartbeat(file)
    program = (sys.executable, "-m", "tests.hostile.beating")
    with serving(directory, "--drain-seconds", "5", env=env, program=program) as server:
        yield World(server, directory), heartbeat


def carried_out(
    world: World, heartbeat: Heartbeat, attack: Attack, mode: str, connections: int, seconds: float
) -> Result:
    """One attack. If a bound does not hold, it is repeated, up to twice: what does so every time is the server's doing,
    and not that of a machine which stalls now and then. The best of them is the result.
    """
    results: list[Result] = []
    while len(results) < ATTEMPTS and (not results or results[-1].faults):
        results.append(carry_out(world, heartbeat, attack, mode, connections, seconds))
    return min(results, key=lambda result: (len(result.faults), result.standstill))


def carry_out(
    world: World, heartbeat: Heartbeat, attack: Attack, mode: str, connections: int, seconds: float
) -> Result:
    """One attack, from so many connections, for so long; then the server comes to rest."""
    server: Server = world.server
    is_nemesis = attack.api == "nemesis"
    port = server.nemesis_port if is_nemesis else server.port
    command = [sys.executable, "-m", "tests.hostile.attacker", str(port), str(connections), mode, str(seconds)]
    if is_nemesis:
        command.append(str(world.upgrade))
    heartbeat.read()
    with Watch(server) as watch:
        done = subprocess.run(command, input=attack.request, capture_output=True, check=True, cwd=ROOT, timeout=120)
        after = seconds_until_idle(server.pid, most=PATIENCE_SECONDS)
    standstill = heartbeat.read()
    requests, _, answer = done.stdout.decode().strip().partition(" ")
    # What the allocator keeps is given back before the next one, else it would count as rest.
    time.sleep(0.05)
    return Result(
        attack, mode, connections, int(requests), answer, standstill, watch.healthz_seconds, watch.above_rest_mib, after
    )


__all__ = ["HEAD", "MIB", "MODES", "Result", "attacked", "carried_out", "carry_out"]
