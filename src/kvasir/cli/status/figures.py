"""Two looks at a server -> what it did in between, and what somebody should do about it. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from msgspec import Struct

from kvasir.cli.status.asking import Look
from kvasir.metrics import percentile

#: Outcomes that are the server's fault, or its lack of room; what a caller did wrong is none.
FAILURES = frozenset({"internal", "unavailable", "timeout", "unknown_outcome"})

#: Shares and times beyond which there is a warning.
QUEUE_SHARE, FILES_SHARE, DISK_SHARE, FAILED_SHARE = 0.5, 0.8, 0.1, 0.01
COMMIT_SECONDS, LAG_SECONDS = 0.5, 0.1


class Api(Struct, frozen=True):
    """One API, in the time between the looks."""

    name: str
    requests_per_second: float
    failures_per_second: float
    p50_seconds: float | None
    p99_seconds: float | None


class Warn(Struct, frozen=True):
    """What is wrong, and what to do."""

    what: str
    do: str


class Database(Struct, frozen=True):
    """What is kept, and where."""

    engine: str
    durability: str
    spaces: int
    entries: int
    expired_entries: int
    bytes: int
    #: Of the file system with a SQLite database
    disk_free_bytes: int | None
    disk_bytes: int | None


class Writes(Struct, frozen=True):
    """Writes and their commits, in the time between the looks."""

    writes_per_second: float
    commits_per_second: float
    commit_p50_seconds: float | None
    commit_p99_seconds: float | None
    wait_p99_seconds: float | None
    waiting: int
    waiting_limit: int
    failed_commits: int


class Clients(Struct, frozen=True):
    """Who is connected."""

    #: By listener
    connections: dict[str, int]
    requests_in_flight: int
    watches: int
    #: By bound, in the time between the looks
    refusals: dict[str, int]


class Process(Struct, frozen=True):
    """All workers together."""

    workers: int
    uptime_seconds: float
    #: Of one core
    cpu_share: float
    memory_bytes: int
    loop_lag_p99_seconds: float | None
    cache_hit_share: float | None


class Postgres(Struct, frozen=True):
    """The connections of all workers together; all 0 on other engines."""

    used: int
    idle: int
    limit: int
    #: Each with what it is: "primary", "standby", "node of Citus", or why it cannot be reached
    nodes: dict[str, str]


class Figures(Struct, frozen=True):
    """Everything that `kvasir status --json` tells."""

    url: str
    #: Unix time, in seconds
    at: float
    version: str
    ready: bool
    addresses: dict[str, list[str]]
    apis: list[Api]
    database: Database
    writes: Writes
    clients: Clients
    process: Process
    postgres: Postgres
    warnings: list[Warn]


class Between:
    """What was counted between two looks."""

    def __init__(self, before: Look, now: Look) -> None:
        self._before, self.now = before, now
        self.seconds = max(0.001, now.at - before.at)

    def value(self, name: str, **labels: str) -> float:
        """The present value of a gauge, the matching samples added up."""
        return _sum(self.now, name, labels)

    def grown(self, name: str, **labels: str) -> float:
        """How much a counter has grown; since its start if the server has started meanwhile."""
        now, before = _sum(self.now, name, labels), _sum(self._before, name, labels)
        return now - before if now >= before else now

    def rate(self, name: str, **labels: str) -> float:
        """The same by the second."""
        return self.grown(name, **labels) / self.seconds

    def percentile(self, name: str, part: float, **labels: str) -> float | None:
        """The value below which this part of a histogram's observations is."""
        bounds = dict.fromkeys(each["le"] for each, _ in self.now.samples.get(f"{name}_bucket", []))
        below = [self.grown(f"{name}_bucket", le=bound, **labels) for bound in bounds]
        counts = [max(0.0, upto - last) for upto, last in zip(below, [0.0, *below], strict=False)]
        return percentile(counts, part, [float(bound) for bound in bounds][:-1]) if len(counts) > 1 else None


def _sum(look: Look, name: str, wanted: dict[str, str]) -> float:
    return sum(value for labels, value in look.samples.get(name, []) if wanted.items() <= labels.items())


def figures(before: Look, now: Look, nodes: list[tuple[str, str]]) -> Figures:
    """`nodes`: those of PostgreSQL, with what each is."""
    between = Between(before, now)
    ((build, _),) = now.samples["kvasir_build_info"]
    addresses: defaultdict[str, list[str]] = defaultdict(list)
    for labels, _ in now.samples.get("kvasir_listener_info", []):
        addresses[labels["listener"]].append(labels["url"])
    used, idle = (int(between.value("kvasir_postgres_connections", state=state)) for state in ("used", "idle"))
    return Figures(
        now.url,
        now.at,
        build["version"],
        now.reason is None,
        dict(addresses),
        list(_apis(between)),
        _database(between, build),
        _writes(between),
        _clients(between),
        _process(between),
        Postgres(used, idle, int(between.value("kvasir_postgres_connections_limit")), dict(nodes)),
        list(_warnings(between, nodes)),
    )


def _database(between: Between, build: dict[str, str]) -> Database:
    has_disk = "kvasir_disk_bytes" in between.now.samples
    return Database(
        build["engine"],
        build["durability"],
        int(between.value("kvasir_spaces")),
        int(between.value("kvasir_entries")),
        int(between.value("kvasir_expired_entries")),
        int(between.value("kvasir_database_bytes")),
        int(between.value("kvasir_disk_free_bytes")) if has_disk else None,
        int(between.value("kvasir_disk_bytes")) if has_disk else None,
    )


def _writes(between: Between) -> Writes:
    return Writes(
        between.rate("kvasir_commit_writes_sum"),
        between.rate("kvasir_commit_writes_count"),
        between.percentile("kvasir_commit_seconds", 0.5),
        between.percentile("kvasir_commit_seconds", 0.99),
        between.percentile("kvasir_write_wait_seconds", 0.99),
        int(between.value("kvasir_writes_waiting")),
        int(between.value("kvasir_writes_waiting_limit")),
        int(between.value("kvasir_failed_commits_total")),
    )


def _clients(between: Between) -> Clients:
    samples = between.now.samples
    refused = {
        labels["bound"]: int(between.grown("kvasir_refusals_total", bound=labels["bound"]))
        for labels, _ in samples.get("kvasir_refusals_total", [])
    }
    return Clients(
        {labels["listener"]: int(value) for labels, value in samples.get("kvasir_connections", [])},
        int(between.value("kvasir_http_requests_in_flight")),
        int(between.value("kvasir_watches")),
        {bound: times for bound, times in refused.items() if times},
    )


def _process(between: Between) -> Process:
    now = between.now
    started = [value for _, value in now.samples.get("process_start_time_seconds", [])]
    hits, misses = (between.grown(f"kvasir_entry_cache_{name}_total") for name in ("hits", "misses"))
    return Process(
        int(between.value("kvasir_workers")),
        max(0.0, now.at - min(started, default=now.at)),
        between.rate("process_cpu_seconds_total"),
        int(between.value("process_resident_memory_bytes")),
        between.percentile("kvasir_event_loop_lag_seconds", 0.99),
        hits / (hits + misses) if hits + misses else None,
    )


def _apis(between: Between) -> Iterator[Api]:
    names = dict.fromkeys(labels["dialect"] for labels, _ in between.now.samples.get("kvasir_requests_total", []))
    for name in names:
        yield Api(
            name,
            between.rate("kvasir_requests_total", dialect=name),
            sum(between.rate("kvasir_requests_total", dialect=name, outcome=each) for each in FAILURES),
            between.percentile("kvasir_request_seconds", 0.5, dialect=name),
            between.percentile("kvasir_request_seconds", 0.99, dialect=name),
        )


def _warnings(between: Between, nodes: list[tuple[str, str]]) -> Iterator[Warn]:
    yield from (Warn(what, do) for holds, what, do in _worries(between) if holds)
    yield from (Warn(what, do) for holds, what, do in _worries_about_room(between) if holds)
    for node, state in nodes:
        if state.startswith("unreachable"):
            yield Warn(f"{node} is {state}", "look at that PostgreSQL server")


def _worries(between: Between) -> Iterator[tuple[object, str, str]]:
    """Whether each is one, what is wrong, and what to do."""
    now = between.now
    yield now.reason, f"not ready: {now.reason}", "see the log of the server"
    for told in now.warnings:
        yield told, told, "see observability.md"
    failed = between.value("kvasir_failed_commits_total")
    yield failed, f"{failed:,.0f} commits have failed", "look at the disk and the log, then run `kvasir check`"
    unrecorded = between.value("kvasir_audit_unrecorded_total")
    yield unrecorded, f"{unrecorded:,.0f} acts are not in the audit file", "make room where it is, see the log"
    requests = between.grown("kvasir_requests_total")
    failures = sum(between.grown("kvasir_requests_total", outcome=each) for each in FAILURES)
    yield failures > FAILED_SHARE * requests, f"{failures:,.0f} of {requests:,.0f} requests failed", "see the log"


def _worries_about_room(between: Between) -> Iterator[tuple[object, str, str]]:
    waiting, most = between.value("kvasir_writes_waiting"), between.value("kvasir_writes_waiting_limit")
    yield (
        most and waiting > QUEUE_SHARE * most,
        f"{waiting:,.0f} of at most {most:,.0f} writes wait",
        "slow down the writers, or let them write in batches",
    )
    free, size = between.value("kvasir_disk_free_bytes"), between.value("kvasir_disk_bytes")
    yield size and free < DISK_SHARE * size, f"only {free / size if size else 0:.0%} of the disk is free", "make room"
    commit = between.percentile("kvasir_commit_seconds", 0.99) or 0.0
    yield commit > COMMIT_SECONDS, f"commits take {commit:.1f} s", "find what else uses the disk, or a faster one"
    lag = between.percentile("kvasir_event_loop_lag_seconds", 0.99) or 0.0
    yield lag > LAG_SECONDS, f"the event loop is {lag * 1000:.0f} ms late", "give it more processor, or --workers"
    used, limit = (
        between.value("kvasir_postgres_connections", state="used"), between.value("kvasir_postgres_connections_limit")
    )  # fmt: skip
    yield limit and used >= limit, "all connections to PostgreSQL are in use", "raise --postgres-connections"
    for labels, open_files in between.now.samples.get("process_open_fds", []):
        may = between.value("process_max_fds", worker=labels["worker"])
        yield (
            open_files > FILES_SHARE * may,
            f"worker {labels['worker']} has {open_files:,.0f} of {may:,.0f} files open",
            "raise LimitNOFILE, or lower --limit-connections",
        )
