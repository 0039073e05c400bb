"""What callers notice of others: of writes to a slow disk, and of a thousand clients that send a head byte by byte.

Each load is measured by itself and beside the others in turns; what counts are the ratios of the medians. In the
comparison with Webdis both get the same requests a second, which keep neither busy.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import peers
from bench.harness import TURNS, Load, Report
from tests.support.serving import Server, serving

#: Of the slow disk: milliseconds that a flush takes. PUTs a second beside the GETs
FLUSH_MS, PUTS = 5, 200
DRIBBLING = 1_000

#: Takes the place of the system's flushes. The data directory is in memory, so nothing else makes them wait.
SLOW_FLUSH = f"""
#define _GNU_SOURCE
#include <time.h>
static int flush(void) {{ struct timespec t = {{0, {FLUSH_MS} * 1000000}}; return nanosleep(&t, 0); }}
int fdatasync(int file) {{ (void)file; return flush(); }}
int fsync(int file) {{ (void)file; return flush(); }}
"""

#: Each connection waits for so many milliseconds on average between an answer and its next request.
PACED = "function delay() return math.random(0, 2 * %d) end\n"


def run(report: Report) -> None:
    """See the module."""
    _equal_load(report)
    _slow_disk(report)
    _dribble(report)


def _equal_load(report: Report) -> None:
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(peers.kvasir())
        webdis = stack.enter_context(peers.webdis(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        if webdis is None:
            return
        for operation, connections, pause in (("GET", 32, 3), ("GET", 128, 10), ("PUT", 32, 8), ("PUT", 128, 20)):
            loads: dict[str, list[Load]] = {"Kvasir": [], "Webdis": []}
            for _ in range(TURNS):
                for name, peer in (("Kvasir", ours), ("Webdis", webdis)):
                    loads[name].append(peer.load(operation, connections, PACED % pause))
            what = f"{operation} at equal load, {connections} connections"
            for name, those in loads.items():
                report.figure(f"{name}: {what}", _median(those, 0), f"/s, 99th percentile {_median(those, 2):.2f} ms")
            ratio = _median(loads["Kvasir"], 2) / _median(loads["Webdis"], 2)
            report.target(f"99th percentile / Webdis's, {what}", ratio, 1.5, most=True)


def _slow_disk(report: Report) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        print("  a compiler for C is missing, to slow the disk down by: apt-get install gcc", flush=True)
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        source, library = Path(directory, "flush.c"), Path(directory, "flush.so")
        source.write_text(SLOW_FLUSH)
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
        with serving(Path(directory), "--no-nemesis", env={"LD_PRELOAD": str(library)}) as server:
            peer = peers.of(server)
            peer.load("PUT", 16)
            # Two connections that wait for a commit and as long again
            pause = 2_000 // PUTS - FLUSH_MS
            rates: list[float] = []

            @contextlib.contextmanager
            def writing() -> Iterator[None]:
                loads: list[Load] = []
                thread = threading.Thread(target=lambda: loads.append(peer.load("PUT", 2, PACED % pause)))
                thread.start()
                yield
                thread.join()
                rates.append(loads[0].per_second)

            alone, beside = _in_turns(lambda: peer.load("GET", 32, PACED % 3), writing)
            report.figure(f"PUTs, of which a commit takes {FLUSH_MS} ms", statistics.median(rates), "/s")
            report.figure("GET beside them", _median(beside, 0), f"/s; alone {_median(alone, 0):,.0f}")
            for at, name in ((1, "median"), (2, "99th percentile")):
                report.target(f"GET: {name} beside / alone", _median(beside, at) / _median(alone, at), 1.2, most=True)
            for connections in (2, 16, 32, 128):
                put = peer.load("PUT", connections)
                report.figure(f"PUT, {connections} connections", put.per_second, f"/s, median {put.p50_ms:.2f} ms")


def _dribble(report: Report) -> None:
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory), "--no-nemesis") as server:
        peer = peers.of(server)
        peer.load("PUT", 16)
        alone, beside = _in_turns(lambda: peer.load("GET", 32), lambda: _dribbling(server))
        ratio = _median(beside, 0) / _median(alone, 0)
        report.target(f"GET beside {DRIBBLING:,} heads byte by byte / alone", ratio, 0.95)


@contextlib.contextmanager
def _dribbling(server: Server) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.dribble", str(server.port), str(DRIBBLING)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()  # all of them are connected
            yield
        finally:
            process.terminate()


def _in_turns(
    load: Callable[[], Load], others: Callable[[], contextlib.AbstractContextManager[None]]
) -> tuple[list[Load], list[Load]]:
    """Loads alone, and beside what `others` does."""
    alone, beside = [], []
    for _ in range(TURNS):
        alone.append(load())
        with others():
            beside.append(load())
    return alone, beside


def _median(loads: list[Load], at: int) -> float:
    return statistics.median(load[at] for load in loads)
