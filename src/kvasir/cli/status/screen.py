"""Figures -> lines of text for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from kvasir.cli.status.figures import Figures
from kvasir.cli.terminal import contents, counted
from kvasir.printable import printable


def lines(found: Figures, width: int, height: int) -> list[str]:
    """At most so many lines of at most so many characters."""
    state = "ready" if found.ready else "NOT READY"
    head = f"kvasir {found.version}, {found.database.engine}, durability {found.database.durability}"
    clock = f"{datetime.fromtimestamp(found.at, UTC):%H:%M:%S} UTC"
    left = f"{head}: {state}, up {_span(found.process.uptime_seconds)}"
    shown = [left + clock.rjust(max(1 + len(clock), width - len(left)))]
    shown += [" ".join(url for urls in found.addresses.values() for url in urls) or found.url, ""]
    shown += [*_apis(found), "", *_rows(found)]
    if found.warnings:
        shown.append("")
        room = height - len(shown)
        warnings = [f"! {each.what}: {each.do}" for each in found.warnings]
        if len(warnings) > room:
            warnings = [*warnings[: max(0, room - 1)], f"! and {len(warnings) - max(0, room - 1)} more: --json has all"]
        shown += warnings
    return [_cut(printable(line).rstrip(), width) for line in shown[:height]]


def _apis(found: Figures) -> list[str]:
    table = [f"{'API':<12}{'requests/s':>12}{'failures/s':>12}{'p50':>12}{'p99':>12}"]
    return table + [
        f"{api.name:<12}{api.requests_per_second:>12,.1f}{api.failures_per_second:>12,.1f}"
        f"{_time(api.p50_seconds):>12}{_time(api.p99_seconds):>12}"
        for api in found.apis
    ]


def _rows(found: Figures) -> list[str]:
    rows = [*_work(found), *_resources(found)]
    postgres = found.postgres
    if postgres.limit:
        rows.append(
            ("postgresql", f"{postgres.used} connections in use, {postgres.idle} idle, at most {postgres.limit}")
        )
        rows += [("", f"{node}: {state}") for node, state in postgres.nodes.items()]
    return [f"{name:<12}{text}" for name, text in rows]


def _work(found: Figures) -> Iterator[tuple[str, str]]:
    database, writes, clients = found.database, found.writes, found.clients
    kept = f"{contents(database.spaces, database.entries)}, {_size(database.bytes)}"
    yield "database", kept + (f", {database.expired_entries:,} expired" if database.expired_entries else "")
    commits = writes.commits_per_second
    shared = f", {writes.writes_per_second / commits:,.1f} writes each" if commits else ""
    yield "writes", f"{writes.writes_per_second:,.1f}/s in {commits:,.1f} commits/s{shared}"
    yield "commit", f"p50 {_time(writes.commit_p50_seconds)}, p99 {_time(writes.commit_p99_seconds)}"
    yield "queue", f"{writes.waiting:,} of {writes.waiting_limit:,} writes, p99 {_time(writes.wait_p99_seconds)}"
    connections = ", ".join(f"{name} {count:,}" for name, count in clients.connections.items())
    busy = f"{counted(clients.requests_in_flight, 'request')} in flight"
    yield "connections", f"{connections}; {busy}, {counted(clients.watches, 'watch', 'watches')}"
    if clients.refusals:
        yield "refused", ", ".join(f"{bound} {times:,}" for bound, times in clients.refusals.items())


def _resources(found: Figures) -> Iterator[tuple[str, str]]:
    process, database = found.process, found.database
    lag = f"loop lag p99 {_time(process.loop_lag_p99_seconds)}"
    cores = f"{process.cpu_share:.0%} of a core"
    yield "process", f"{counted(process.workers, 'worker')}, {cores}, {_size(process.memory_bytes)}, {lag}"
    if database.disk_bytes and database.disk_free_bytes is not None:
        yield "disk", f"{_size(database.disk_free_bytes)} free of {_size(database.disk_bytes)}"
    if process.cache_hit_share is not None:
        yield "cache", f"{process.cache_hit_share:.1%} of the reads of entries"


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else line[: width - 1] + "…"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:,.2f} s" if seconds >= 1 else f"{seconds * 1000:,.1f} ms"


def _size(size: float) -> str:
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    power = min(len(units) - 1, max(0, int(size).bit_length() - 1) // 10)
    return f"{size / 1024**power:,.{1 if power else 0}f} {units[power]}"


def _span(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
