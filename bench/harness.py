"""What every part needs: wrk, an empty HTTP server as the floor, and lines that say whether a target holds."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.serving import free_ports, wait_until

#: Each load runs this long; longer gives steadier figures.
SECONDS = float(os.environ.get("KVASIR_BENCH_SECONDS", "5"))
#: Loads of each of two servers that are compared, in turn, so that neither gets the better minutes of the machine.
TURNS = 5


class Load(NamedTuple):
    """What one run of wrk saw."""

    per_second: float
    p50_ms: float
    p99_ms: float


class Report:
    """Prints figures and remembers which targets hold."""

    def __init__(self) -> None:
        self.held = 0
        self.missed = 0

    def figure(self, name: str, value: float, unit: str) -> None:
        """A figure without a target."""
        print(f"  {name:<58} {value:>12,.1f} {unit}", flush=True)

    def target(self, name: str, value: float, bound: float, unit: str = "×", *, most: bool = False) -> None:
        """A figure that must be at least (`most`: at most) `bound`."""
        holds = value <= bound if most else value >= bound
        self.held += holds
        self.missed += not holds
        wanted = f"{'<=' if most else '>='} {bound:g}"
        print(f"  {name:<58} {value:>12,.2f} {unit} {wanted:>9}  {'holds' if holds else 'MISSED'}", flush=True)


def wrk(
    url: str, *, connections: int, headers: dict[str, str] | None = None, script: str = "", seconds: float = SECONDS
) -> Load:
    """Load a URL from one thread. Fails if an answer is not 2xx."""
    program = shutil.which("wrk")
    if program is None:
        sys.exit("the benchmark needs wrk: apt-get install wrk")
    command = [program, "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency"]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        said = subprocess.run(
            [*command, *(["-s", file.name] if script else []), url], check=True, capture_output=True, text=True
        ).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise AssertionError(f"wrk met failures:\n{said}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    times = [re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", said) for percent in (50, 99)]
    if rate is None or None in times:
        raise AssertionError(f"wrk said something else:\n{said}")
    unit = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    return Load(float(rate[1]), *[float(found[1]) * unit[found[2]] for found in times if found])


@contextlib.contextmanager
def hello() -> Iterator[str]:
    """An empty server, the floor of everything that speaks HTTP here; its URL."""
    (port,) = free_ports(1)
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.floor", str(port)],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/"
    try:
        wait_until(lambda: answers(url), "the empty server answers")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def answers(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def fsync_microseconds(rounds: int = 200) -> float:
    """The median time of a bare fsync after 16 KiB, where the benchmark's databases are."""
    taken = []
    with tempfile.TemporaryFile() as file:
        for _ in range(rounds):
            file.write(b"x" * 16_384)
            file.flush()
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1_000_000


def fdatasync_microseconds(rounds: int = 400) -> float:
    """The median time of a bare fdatasync after 4 KiB written over what is there, as a log of writes does."""
    taken = []
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 4_096)
        os.fsync(file.fileno())
        for _ in range(rounds):
            os.pwrite(file.fileno(), b"x" * 4_096, 0)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1_000_000


def anonymous_mib(pid: int) -> float:
    """Memory of a process that no file backs, in MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Anonymous:\s+(\d+) kB", text, re.MULTILINE)
    if found is None:
        raise AssertionError("the kernel does not tell the anonymous memory")
    return int(found[1]) / 1024
