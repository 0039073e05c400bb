"""Counters of every worker in one shared memory, and their Prometheus text form.

Each worker adds to a row of its own, without locks; whichever worker is scraped adds the rows up. What can be counted
is known when the server starts: the operations of its dialects and the outcomes below.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec import Struct

from kvasir import __version__
from kvasir.errors import KvasirError
from kvasir.model import Stats, WriterStats

#: "ok", "conflict" (also an unmet condition that the answer has a place for), the codes of all failures, "internal".
OUTCOMES: tuple[str, ...] = ("ok", "internal", *(failure.code for failure in KvasirError.__subclasses__()))

#: Upper bounds of the latency histogram, in seconds.
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

#: Upper bounds of the histogram of writes per commit.
GROUPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

WRITER = {
    "kvasir_writes_waiting": ("gauge", "Writes that wait for the disk."),
    "kvasir_failed_commits_total": ("counter", "Groups of writes that failed as a whole."),
    "kvasir_connections": ("gauge", "Open connections, HTTP and WebSocket."),
    "kvasir_swept_total": ("counter", "Expired or ended entries and spaces removed from disk."),
}

_OUTCOME_AT = {outcome: at for at, outcome in enumerate(OUTCOMES)}
_BUCKETS_AT = len(OUTCOMES)
_ROW = len(OUTCOMES) + len(BUCKETS) + 2  # counts, buckets and the one beyond, the sum in microseconds
_WRITER_ROW = len(WRITER) + len(GROUPS) + 2


class Totals(Struct, frozen=True):
    """What all workers together have counted since the server's start, and how things are."""

    #: By dialect: how many requests had each of the outcomes, then how many took each bucket's time, or longer
    requests: dict[str, list[int]]
    writes: int
    commits: int
    #: Writes that wait for the disk
    waiting: int
    connections: int


class Metrics:
    """What a server counts. Made once, before its workers are forked; each worker calls `serve_as` once."""

    def __init__(self, operations: Mapping[str, Sequence[str]], workers: int) -> None:
        """`operations`: for every dialect, the names its answers carry."""
        self._names = [(dialect, operation) for dialect, names in operations.items() for operation in names]
        self._workers = workers
        self._width = len(self._names) * _ROW + _WRITER_ROW
        self._cells = memoryview(mmap.mmap(-1, max(1, self._width * workers) * 8)).cast("Q")
        #: How many connections this worker has
        self.connections: Callable[[], int] = lambda: 0
        self._base = 0
        self._at: dict[tuple[str, str], int] = {}
        self.serve_as(0)

    def serve_as(self, worker: int) -> None:
        """Count in this worker's row from now on."""
        self.worker = worker
        self._base = worker * self._width
        self._at = {name: self._base + at * _ROW for at, name in enumerate(self._names)}

    def observe(self, dialect: str, operation: str, outcome: str, seconds: float, requests: int = 1) -> None:
        """Count an answered request, or several that were answered together, each after so many seconds."""
        cells = self._cells
        at = self._at[dialect, operation]
        cells[at + _OUTCOME_AT[outcome]] += requests
        cells[at + _BUCKETS_AT + bisect_left(BUCKETS, seconds)] += requests
        cells[at + _ROW - 1] += int(seconds * 1_000_000) * requests

    def publish(self, stats: WriterStats) -> None:
        """Show the other workers what this one's writer has done. To be called every second or so."""
        at = self._base + len(self._names) * _ROW
        gauges = stats.queue_depth, stats.failures, self.connections(), stats.swept
        cells = (*gauges, *stats.groups, stats.writes)
        for offset, value in enumerate(cells):
            self._cells[at + offset] = value

    def text(self, stats: Stats) -> str:
        """The Prometheus text form (version 0.0.4) of all workers together."""
        return "\n".join([*self._requests(), *self._writer(), *_database(stats), ""])

    def totals(self) -> Totals:
        """What all workers together have counted so far."""
        requests: dict[str, list[int]] = {}
        for at, (dialect, _) in enumerate(self._names):
            cells = self._sum(at * _ROW, _ROW - 1)
            requests[dialect] = [a + b for a, b in zip(requests.get(dialect, [0] * len(cells)), cells, strict=True)]
        writer = self._sum(len(self._names) * _ROW, _WRITER_ROW)
        waiting, _, connections, _, *groups, writes = writer
        return Totals(requests, writes, sum(groups), waiting, connections)

    def _sum(self, at: int, length: int) -> list[int]:
        return [
            sum(self._cells[worker * self._width + at + offset] for worker in range(self._workers))
            for offset in range(length)
        ]

    def _requests(self) -> Iterator[str]:
        counted = [(name, self._sum(at * _ROW, _ROW)) for at, name in enumerate(self._names)]
        yield from _head("kvasir_requests_total", "counter", "Requests answered.")
        for (dialect, operation), cells in counted:
            for outcome, count in zip(OUTCOMES, cells, strict=False):
                if count:
                    labels = f'dialect="{dialect}",operation="{operation}",outcome="{outcome}"'
                    yield f"kvasir_requests_total{{{labels}}} {count}"
        yield from _head("kvasir_request_seconds", "histogram", "Time from a request's head to its answer.")
        for (dialect, operation), cells in counted:
            if any(cells):
                labels = f'dialect="{dialect}",operation="{operation}"'
                buckets = cells[len(OUTCOMES) : -1]
                yield from _histogram("kvasir_request_seconds", labels, BUCKETS, buckets, cells[-1] / 1_000_000)

    def _writer(self) -> Iterator[str]:
        cells = self._sum(len(self._names) * _ROW, _WRITER_ROW)
        for (name, (kind, text)), value in zip(WRITER.items(), cells, strict=False):
            yield from _head(name, kind, text)
            yield f"{name} {value}"
        yield from _head("kvasir_commit_writes", "histogram", "Writes that shared a commit; its count: commits.")
        yield from _histogram("kvasir_commit_writes", "", GROUPS, cells[len(WRITER) : -1], cells[-1])


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"


def _histogram(name: str, labels: str, bounds: Sequence[float], counts: Sequence[int], total: float) -> Iterator[str]:
    so_far = 0
    for bound, count in zip((*bounds, "+Inf"), counts, strict=True):
        so_far += count
        yield f'{name}_bucket{{{labels}{"," if labels else ""}le="{bound}"}} {so_far}'
    braced = f"{{{labels}}}" if labels else ""
    yield f"{name}_sum{braced} {total}"
    yield f"{name}_count{braced} {so_far}"


def _database(stats: Stats) -> Iterator[str]:
    for name, text, value in (
        ("kvasir_spaces", "Stores, applications and sessions.", stats.spaces),
        ("kvasir_entries", "Entries on disk, the expired ones that await the sweep included.", stats.entries),
        ("kvasir_database_bytes", "Size of the database on disk.", stats.database_bytes),
    ):
        yield from _head(name, "gauge", text)
        yield f"{name} {value}"
    yield from _head("kvasir_build_info", "gauge", "The version that runs.")
    yield f'kvasir_build_info{{version="{__version__}"}} 1'
