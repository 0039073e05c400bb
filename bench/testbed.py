"""How quick a test bed is: to start, to reset, and what a clean space adds to each test of a suite."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.harness import Report
from kvasir.testing.server import KVASIR, Server

STARTS, RESETS, TESTS = 20, 50, 200

CONFTEST = 'pytest_plugins = ["kvasir.testing"]\n'
SUITE = """
import pytest

@pytest.mark.parametrize("n", range({tests}))
def test_nothing({fixture}n):
    pass
"""


def run(report: Report) -> None:
    """Everything."""
    bare = _median(lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))
    report.figure("python -c pass, median", bare * 1000, "ms")
    report.target("kvasir dev, from start to ready, median", _median(_start), 0.6, "s", most=True)
    _reset(report)
    for workers in ("0", "2"):
        bare_suite, suite = (_suite(fixture, workers) for fixture in ("", "kvasir, "))
        # The start of the server is the session's, not each test's.
        name = f"{TESTS} tests with a clean space each, -n {workers}: what that adds"
        report.target(name, suite - bare_suite, 2.0, "s", most=True)


def _median(work: Callable[[], object]) -> float:
    seconds = []
    for _ in range(STARTS):
        began = time.perf_counter()
        done = work()
        seconds.append(done if isinstance(done, float) else time.perf_counter() - began)
    return statistics.median(seconds)


def _start() -> float:
    began = time.perf_counter()
    with subprocess.Popen(
        [*KVASIR, "dev", "--until-stdin-closes"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        json.loads(process.stdout.readline())
        ready = time.perf_counter() - began
        process.stdin.close()
    return ready


def _reset(report: Report) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as seed:
        seed.writelines(json.dumps({"key": f"k{n}", "value": n}) + "\n" for n in range(1_000))
        seed.flush()
        server = Server(["--seed", seed.name])
    try:
        seconds = []
        for _ in range(RESETS):
            began = time.perf_counter()
            server.reset()
            seconds.append(time.perf_counter() - began)
    finally:
        server.stop()
    report.target("reset with 1,000 entries, median", statistics.median(seconds) * 1000, 5, "ms", most=True)


def _suite(fixture: str, workers: str) -> float:
    """Seconds that pytest takes; the better of two."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "conftest.py").write_text(CONFTEST)
        (directory / "test_suite.py").write_text(SUITE.format(tests=TESTS, fixture=fixture))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", workers]
        seconds = []
        for _ in range(2):
            began = time.perf_counter()
            subprocess.run(command, cwd=directory, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - began)
    return min(seconds)
