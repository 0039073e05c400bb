"""Backups one after another while every connection writes: what writers lose by it, and what the log grows to."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import httpx

from bench.harness import Load, Report, wrk
from bench.native import PUT, VALUE
from bench.versori import _fill
from kvasir.keys import pack
from tests.support.serving import KVASIR, Server, environment, serving

#: In the database: of 190 bytes each, some 320 MB.
MANY = 1_000_000
CONNECTIONS = 128
#: Pairs of loads, without and with backups.
TURNS = 3
SECONDS = 10


def run(report: Report) -> None:
    """See the module."""
    with tempfile.TemporaryDirectory() as directory:
        with serving(Path(directory), "--no-nemesis") as server:
            store = server.store
            server.stop()
        asyncio.run(_fill(server.data_dir / "kvasir.db", store, MANY))
        with serving(Path(directory), "--no-nemesis") as server:
            _in_turns(report, server, Path(directory) / "copy.db")


def _in_turns(report: Report, server: Server, copy: Path) -> None:
    loads: dict[str, list[Load]] = {"without": [], "with": []}
    made: list[tuple[str, int]] = []
    _load(server)
    for _ in range(TURNS):
        loads["without"].append(_load(server))
        with _backups(server, copy, made):
            loads["with"].append(_load(server))
    rates = {turn: statistics.median(load.per_second for load in found) for turn, found in loads.items()}
    p99 = {turn: statistics.median(load.p99_ms for load in found) for turn, found in loads.items()}
    for turn, found in loads.items():
        report.figure(f"durable PUT, {CONNECTIONS} connections, {turn} backup", rates[turn], "/s")
        report.figure(f"99th percentile, {turn} backup", p99[turn], "ms")
        print(f"    {', '.join(f'{load.per_second:,.0f}/s {load.p99_ms:.1f} ms' for load in found)}")
    report.figure("backups made", len(made), "")
    print(f"    {made[-1][0].strip()}")
    report.figure("longest write-ahead log meanwhile", max(log for _, log in made) / 2**20, "MiB")
    report.target("PUT with / without a backup", rates["with"] / rates["without"], 0.8)
    report.target("99th percentile of PUT with / without a backup", p99["with"] / p99["without"], 2, most=True)


def _load(server: Server) -> Load:
    url = f"{server.url}/v1/spaces/{server.store}/entries/"
    return wrk(url, connections=CONNECTIONS, headers=server.headers, script=PUT.format(body=VALUE), seconds=SECONDS)


@contextlib.contextmanager
def _backups(server: Server, copy: Path, made: list[tuple[str, int]]) -> Iterator[None]:
    """Makes a backup after another, each of which must hold what was acknowledged just before it began."""
    end = threading.Event()
    failures: list[BaseException] = []

    def go_on() -> None:
        try:
            while not end.is_set():
                made.append(_backup(server, copy, len(made)))
        except BaseException as failure:
            failures.append(failure)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
    if failures:
        raise failures[0]


def _backup(server: Server, copy: Path, number: int) -> tuple[str, int]:
    """What the command says of it, and the longest that the write-ahead log was meanwhile."""
    longest = 0
    mark = f"{server.url}/v1/spaces/{server.store}/entries/mark"
    httpx.put(mark, content=b"%d" % number, headers=server.headers, trust_env=False, timeout=60).raise_for_status()
    command = [str(KVASIR), "backup", str(copy), "--data-dir", str(server.data_dir), "--overwrite"]
    log = server.data_dir / "kvasir.db-wal"
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            longest = max(longest, log.stat().st_size)
            time.sleep(0.1)
        said = process.stderr.read() if process.stderr else ""
    assert process.returncode == 0, said
    with contextlib.closing(apsw.Connection(str(copy), flags=apsw.SQLITE_OPEN_READONLY)) as copied:
        found = copied.execute("SELECT value FROM entry WHERE key = ?", (pack(["mark"]),)).get
    assert int(found) >= number, "the backup lacks what was acknowledged before it began"
    return said, longest
