"""Counters of every worker in shared memory, and their text forms for Prometheus.

Each worker adds to a row of its own, without locks; whichever worker is scraped adds the rows up. What can be counted
is known when the server starts: the operations of its dialects, the outcomes and the table of families below.
"""

from __future__ import annotations

import mmap
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from msgspec import Struct

from kvasir.errors import KvasirError
from kvasir.limits import BOUNDS
from kvasir.model import GROUPS, SECONDS, Histogram

#: "ok", "conflict" (also an unmet condition that the answer has a place for), the codes of all failures, "internal".
OUTCOMES: tuple[str, ...] = ("ok", "internal", *(failure.code for failure in KvasirError.__subclasses__()))

#: Upper bounds of the latency histogram, in seconds.
BUCKETS = SECONDS


class Family(Struct, frozen=True):
    """One metric: a row of docs/operate/metrics.md."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    help: str
    #: The names of its labels
    labels: tuple[str, ...] = ()
    #: What every worker publishes: the values of its one label, () without a label; None: it is made when it is asked
    values: tuple[str, ...] | None = None
    #: Of a published histogram
    bounds: tuple[float, ...] = ()
    #: Whether the workers are told apart by the label `worker` instead of added up
    apart: bool = False


REQUESTS = Family("kvasir_requests_total", "counter", "Requests answered.", ("dialect", "operation", "outcome"))
REQUEST_SECONDS = Family(
    "kvasir_request_seconds", "histogram", "Time from a request's head to its answer.", ("dialect", "operation")
)
BUILD = Family(
    "kvasir_build_info", "info", "1; the version that runs, its engine and its durability.",
    ("version", "engine", "durability"),
)  # fmt: skip
LISTENING = Family("kvasir_listener_info", "info", "1; where each listener can be reached.", ("listener", "url"))
LOG = Family(
    "kvasir_wal_bytes", "gauge",
    "Size of SQLite's write-ahead log; it is cut back to 32 MiB when nothing reads what is in it any more.",
)  # fmt: skip
DISK_FREE = Family("kvasir_disk_free_bytes", "gauge", "Room on the file system with the SQLite database.")
DISK = Family("kvasir_disk_bytes", "gauge", "Size of the file system with the SQLite database.")

_NONE: tuple[str, ...] = ()

#: In the order of the text and of the documents.
FAMILIES: tuple[Family, ...] = (
    BUILD,
    LISTENING,
    Family("kvasir_ready", "gauge", "1 if `/readyz` says ready, else 0."),
    Family("kvasir_workers", "gauge", "Worker processes that the server is to have."),
    REQUESTS,
    REQUEST_SECONDS,
    Family("kvasir_http_requests_in_flight", "gauge", "HTTP requests that are being answered.", values=_NONE),
    Family(
        "kvasir_connections", "gauge", "Open connections.", ("listener",), values=("http", "https", "nemesis")
    ),
    Family(
        "kvasir_unread_bytes", "gauge", "Bytes of large answers in memory that clients have not read.", ("protocol",),
        values=("http", "websocket"),
    ),
    Family("kvasir_held_body_bytes", "gauge", "Bytes of HTTP request bodies in memory.", values=_NONE),
    Family("kvasir_watches", "gauge", "Open watches.", values=_NONE),
    Family(
        "kvasir_refusals_total", "counter",
        "Callers whom a bound (see limits.md) has refused, cut off or made wait.", ("bound",), values=BOUNDS,
    ),
    Family("kvasir_writes_waiting", "gauge", "Writes that wait for the disk.", values=_NONE),
    Family(
        "kvasir_writes_waiting_limit", "gauge", "How many may wait, in all workers; beyond, they are refused.",
        values=_NONE,
    ),
    Family(
        "kvasir_write_wait_seconds", "histogram", "Time from a write's arrival until its commit began.",
        values=_NONE, bounds=SECONDS,
    ),
    Family(
        "kvasir_commit_seconds", "histogram", "Time from the begin of a commit until it was durable.",
        values=_NONE, bounds=SECONDS,
    ),
    Family(
        "kvasir_commit_writes", "histogram", "Writes that shared a commit; its count is the number of commits.",
        values=_NONE, bounds=GROUPS,
    ),
    Family(
        "kvasir_failed_commits_total", "counter", "Groups of writes that failed as a whole: look into it at once.",
        values=_NONE,
    ),
    Family(
        "kvasir_swept_total", "counter", "Expired or ended entries and spaces removed from disk.", values=_NONE
    ),
    Family(
        "kvasir_entry_cache_hits_total", "counter", "Reads of entries that needed no database (SQLite).", values=_NONE
    ),
    Family(
        "kvasir_entry_cache_misses_total", "counter", "Reads of entries that asked the database (SQLite).",
        values=_NONE,
    ),
    Family(
        "kvasir_postgres_connections", "gauge", "Connections to PostgreSQL.", ("state",), values=("used", "idle")
    ),
    Family(
        "kvasir_postgres_connections_limit", "gauge", "How many there may be, in all workers; 0 on other engines.",
        values=_NONE,
    ),
    Family(
        "kvasir_event_loop_lag_seconds", "histogram", "How late the event loop was when it should have woken up.",
        values=_NONE, bounds=SECONDS,
    ),
    Family(
        "kvasir_audit_unrecorded_total",
        "counter",
        "Lines of administrative acts that are missing in the audit file.",
        values=_NONE,
    ),
    Family("kvasir_spaces", "gauge", "Stores, applications and sessions."),
    Family(
        "kvasir_entries",
        "gauge",
        "Entries on disk, with those that await the sweep and Kvasir's own, which are in none of these spaces.",
    ),
    Family("kvasir_expired_entries", "gauge", "Expired entries on disk that await the sweep."),
    Family("kvasir_database_bytes", "gauge", "Size of the database on disk."),
    LOG,
    DISK_FREE,
    DISK,
    Family(
        "process_cpu_seconds_total", "counter", "Processor time used, by worker.", ("worker",), _NONE, apart=True
    ),
    Family(
        "process_resident_memory_bytes", "gauge", "Memory in use, shared pages included.", ("worker",), _NONE,
        apart=True,
    ),
    Family("process_virtual_memory_bytes", "gauge", "Size of the address space.", ("worker",), _NONE, apart=True),
    Family("process_open_fds", "gauge", "Open files and connections.", ("worker",), _NONE, apart=True),
    Family("process_max_fds", "gauge", "How many may be open.", ("worker",), _NONE, apart=True),
    Family("process_start_time_seconds", "gauge", "Unix time of its start.", ("worker",), _NONE, apart=True),
)  # fmt: skip

#: A family's name and the value of its label, "" without one
Series = tuple[str, str]

#: Where each published series is in a row: one cell, or those of a histogram, of which the last is the sum.
PLACES: dict[Series, slice] = {}
_published = 0
for _family in FAMILIES:
    if _family.values is not None:
        for _value in _family.values or ("",):
            _cells = len(_family.bounds) + 2 if _family.bounds else 1
            PLACES[_family.name, _value] = slice(_published, _published + _cells)
            _published += _cells

#: Those that only grow: a worker that takes the place of another goes on from where that one was.
GROWING = [
    place for (name, _), place in PLACES.items()
    if any(family.name == name and family.kind in ("counter", "histogram") for family in FAMILIES)
    and not name.startswith("process_")
]  # fmt: skip

_OUTCOME_AT = {outcome: at for at, outcome in enumerate(OUTCOMES)}
_BUCKETS_AT = len(OUTCOMES)
_QUICK = BUCKETS[0]
_ROW = len(OUTCOMES) + len(BUCKETS) + 2  # counts, buckets and the one beyond, the sum in microseconds


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
        self.workers = workers
        self._width = len(self._names) * _ROW
        self._cells = memoryview(mmap.mmap(-1, max(1, self._width * workers) * 8)).cast("Q")
        self._published = memoryview(mmap.mmap(-1, _published * workers * 8)).cast("d")
        #: What this worker has to publish.
        self.collect: Callable[[], Mapping[Series, float | Histogram]] = dict
        #: What this worker has counted, by dialect and operation. `publish` copies it to `_cells`: to count in shared
        #: memory takes three times as long.
        self._rows: dict[str, dict[str, list[float]]] = {}
        self._before: list[float] = []
        self.serve_as(0)

    def serve_as(self, worker: int) -> None:
        """Count in this worker's row from now on, where the worker before it has left off."""
        self.worker = worker
        self._rows = {dialect: {} for dialect, _ in self._names}
        for (dialect, operation), place in self._places():
            *counts, microseconds = self._cells[place]
            self._rows[dialect][operation] = [*counts, microseconds / 1_000_000]
        former = self._published[worker * _published : (worker + 1) * _published]
        self._before = [0.0] * _published
        for place in GROWING:
            self._before[place] = former[place]

    def observe(self, dialect: str, operation: str, outcome: str, seconds: float, requests: int = 1) -> None:
        """Count an answered request, or several that were answered together, each after so many seconds."""
        row = self._rows[dialect][operation]
        row[_OUTCOME_AT[outcome]] += requests
        row[_BUCKETS_AT if seconds <= _QUICK else _BUCKETS_AT + bisect_left(BUCKETS, seconds)] += requests
        row[-1] += seconds * requests

    def _places(self) -> Iterator[tuple[tuple[str, str], slice]]:
        """The cells of each dialect and operation in this worker's row."""
        base = self.worker * self._width
        for at, name in enumerate(self._names):
            yield name, slice(base + at * _ROW, base + (at + 1) * _ROW)

    def _publish_requests(self) -> None:
        for (dialect, operation), place in self._places():
            *counts, seconds = self._rows[dialect][operation]
            self._cells[place] = memoryview(array("Q", [*map(int, counts), round(seconds * 1_000_000)]))

    def publish(self) -> None:
        """Show the other workers what this one has counted. To be called every second or so."""
        self._publish_requests()
        row = self._published[self.worker * _published : (self.worker + 1) * _published]
        for series, value in self.collect().items():
            place = PLACES[series]
            cells = [*value.counts, value.total] if isinstance(value, Histogram) else [value]
            for at, cell in enumerate(cells, place.start):
                row[at] = self._before[at] + cell

    def totals(self) -> Totals:
        """What all workers together have counted so far."""
        self._publish_requests()
        requests: dict[str, list[int]] = {}
        for at, (dialect, _) in enumerate(self._names):
            cells = self._sum(at * _ROW, _ROW - 1)
            requests[dialect] = [a + b for a, b in zip(requests.get(dialect, [0] * len(cells)), cells, strict=True)]
        *groups, writes = self._together("kvasir_commit_writes", "")
        (waiting,) = self._together("kvasir_writes_waiting", "")
        connections = sum(self._together("kvasir_connections", name)[0] for name in ("http", "https", "nemesis"))
        return Totals(requests, int(writes), int(sum(groups)), int(waiting), int(connections))

    def _sum(self, at: int, length: int) -> list[int]:
        return [
            sum(self._cells[worker * self._width + at + offset] for worker in range(self.workers))
            for offset in range(length)
        ]

    def _of(self, worker: int, series: Series) -> Sequence[float]:
        place = PLACES[series]
        return self._published[worker * _published + place.start : worker * _published + place.stop]

    def _together(self, name: str, value: str) -> list[float]:
        return [
            sum(cells) for cells in zip(*(self._of(each, (name, value)) for each in range(self.workers)), strict=True)
        ]

    # -- text ---------------------------------------------------------------------------------------------

    def text(self, made: Iterable[tuple[str, Sequence[str], float]], *, open_metrics: bool = False) -> str:
        """All workers together, in Prometheus' text form 0.0.4 or as OpenMetrics 1.0.

        `made`: what is not published: names, values of labels, and values.
        """
        asked: dict[str, list[tuple[Sequence[str], float]]] = {}
        for name, labels, number in made:
            asked.setdefault(name, []).append((labels, number))
        lines: list[str] = []
        for family in FAMILIES:
            samples = list(self._samples(family, asked.get(family.name, [])))
            if samples:
                lines += _head(family, open_metrics=open_metrics)
                lines += samples
        return "\n".join([*lines, "# EOF" if open_metrics else "", ""][: None if open_metrics else -1])

    def _samples(self, family: Family, asked: list[tuple[Sequence[str], float]]) -> Iterator[str]:
        if family is REQUESTS:
            yield from self._requests()
        elif family is REQUEST_SECONDS:
            yield from self._request_seconds()
        elif family.values is None:
            for labels, value in asked:
                yield _line(family.name, zip(family.labels, labels, strict=True), value)
        elif family.apart:
            for worker in range(self.workers):
                if any(cells := self._of(worker, (family.name, ""))):
                    yield _line(family.name, [("worker", str(worker))], cells[0])
        else:
            for labelled in family.values or ("",):
                cells = self._together(family.name, labelled)
                pairs = [(family.labels[0], labelled)] if family.labels else []
                if family.bounds:
                    yield from _histogram(family.name, pairs, family.bounds, cells[:-1], cells[-1])
                else:
                    yield _line(family.name, pairs, cells[0])

    def _requests(self) -> Iterator[str]:
        for at, (dialect, operation) in enumerate(self._names):
            for outcome, count in zip(OUTCOMES, self._sum(at * _ROW, len(OUTCOMES)), strict=True):
                if count:
                    labels = [("dialect", dialect), ("operation", operation), ("outcome", outcome)]
                    yield _line(REQUESTS.name, labels, count)

    def _request_seconds(self) -> Iterator[str]:
        for at, (dialect, operation) in enumerate(self._names):
            *buckets, microseconds = self._sum(at * _ROW + _BUCKETS_AT, _ROW - _BUCKETS_AT)
            if any(buckets):
                labels = [("dialect", dialect), ("operation", operation)]
                yield from _histogram(REQUEST_SECONDS.name, labels, BUCKETS, buckets, microseconds / 1_000_000)


def percentile(buckets: Sequence[float], part: float, bounds: Sequence[float] = BUCKETS) -> float | None:
    """The seconds within which this part of what was observed was over, as exactly as the histogram tells.

    None if nothing was observed. Beyond the last bound it is that bound.
    """
    wanted = sum(buckets) * part
    if not wanted:
        return None
    below, edges = 0.0, (0.0, *bounds, bounds[-1])
    for at, count in enumerate(buckets):
        if below + count >= wanted:
            return edges[at] + (edges[at + 1] - edges[at]) * (wanted - below) / count
        below += count
    return bounds[-1]


def _head(family: Family, *, open_metrics: bool) -> list[str]:
    name, kind = family.name, family.kind
    if open_metrics:
        name = name.removesuffix("_total" if kind == "counter" else "_info" if kind == "info" else "")
    elif kind == "info":
        kind = "gauge"
    return [f"# HELP {name} {family.help}", f"# TYPE {name} {kind}"]


def _line(name: str, labels: Iterable[tuple[str, str]], value: float) -> str:
    told = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"{name}{{{told}}} {_number(value)}" if told else f"{name} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


def _histogram(
    name: str, labels: Sequence[tuple[str, str]], bounds: Sequence[float], counts: Sequence[float], total: float
) -> Iterator[str]:
    so_far = 0.0
    for bound, count in zip((*bounds, "+Inf"), counts, strict=True):
        so_far += count
        yield _line(f"{name}_bucket", [*labels, ("le", str(bound))], so_far)
    yield _line(f"{name}_sum", labels, total)
    yield _line(f"{name}_count", labels, so_far)
