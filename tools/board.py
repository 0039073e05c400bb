"""Writes deploy/grafana/kvasir.json, the board for Grafana, from the description below: `make docs`.

A test asks a real Prometheus every query of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

FILE = Path(__file__).parent.parent / "deploy" / "grafana" / "kvasir.json"

#: Of the grid: columns in all, and what a panel takes.
WIDTH, PANEL_WIDTH, STAT_WIDTH, PANEL_HEIGHT, STAT_HEIGHT = 24, 12, 4, 8, 4

#: Stands in every query for the servers that are chosen at the top of the board.
CHOSEN = 'instance=~"$instance"'
FAILURES = 'outcome=~"internal|unavailable|timeout|unknown_outcome"'


class Query(Struct, frozen=True):
    """One or more lines of a panel."""

    expression: str
    #: How each line is called, with its labels in double braces
    legend: str


class Panel(Struct, frozen=True):
    """One picture."""

    title: str
    #: What it means, for whoever holds the mouse over it
    about: str
    #: As Grafana calls units: "s", "reqps", "bytes", "short", "percentunit"
    unit: str
    queries: tuple[Query, ...]
    #: Whether it is one number instead of lines
    is_number: bool = False


def quantiles(name: str, by: str = "") -> tuple[Query, ...]:
    """The median and the 99th percentile of a histogram, of each value of a label if one is given."""
    labels = f"le, {by}" if by else "le"
    rates = f"sum by ({labels}) (rate({name}_bucket{{{CHOSEN}}}[$__rate_interval]))"
    told = f"{{{{{by}}}}} " if by else ""
    return tuple(Query(f"histogram_quantile({part}, {rates})", f"{told}p{part * 100:g}") for part in (0.5, 0.99))


def rate(name: str, more: str = "", by: str = "") -> str:
    """How much a counter grows a second."""
    matched = ", ".join(each for each in (CHOSEN, more) if each)
    return f"sum{f' by ({by})' if by else ''} (rate({name}{{{matched}}}[$__rate_interval]))"


def total(name: str, by: str = "") -> str:
    """A gauge of all chosen servers together."""
    return f"sum{f' by ({by})' if by else ''} ({name}{{{CHOSEN}}})"


_REQUESTS = "kvasir_requests_total"

ROWS: dict[str, tuple[Panel, ...]] = {
    "At a glance": (
        Panel("Ready", "Servers that are ready.", "short", (Query(total("kvasir_ready"), "ready"),), True),
        Panel("Requests", "Of all APIs.", "reqps", (Query(rate(_REQUESTS), "requests"),), True),
        Panel(
            "Failed",
            "The part of the requests that failed by the server's fault or for want of room.",
            "percentunit",
            (Query(f"({rate(_REQUESTS, FAILURES)} or vector(0)) / {rate(_REQUESTS)}", "failed"),),
            True,
        ),
        Panel(
            "Entries", "On disk, expired ones included.", "short", (Query(total("kvasir_entries"), "entries"),), True
        ),
        Panel("Database", "Size on disk.", "bytes", (Query(f"max (kvasir_database_bytes{{{CHOSEN}}})", "size"),), True),
        Panel(
            "Failed commits",
            "Groups of writes that failed as a whole since the servers started. It should be 0.",
            "short",
            (Query(total("kvasir_failed_commits_total"), "failed"),),
            True,
        ),
    ),
    "Requests": (
        Panel(
            "Requests by API",
            "Answered requests.",
            "reqps",
            (Query(rate(_REQUESTS, by="dialect"), "{{dialect}}"),),
        ),
        Panel(
            "Failures by API",
            "By the server's fault or for want of room; what callers did wrong does not count.",
            "reqps",
            (
                Query(
                    f"{rate(_REQUESTS, FAILURES, by='dialect')} or 0 * {rate(_REQUESTS, by='dialect')}", "{{dialect}}"
                ),
            ),
        ),
        Panel(
            "Time to answer by API",
            "From a request's head to its answer.",
            "s",
            quantiles("kvasir_request_seconds", "dialect"),
        ),
        Panel(
            "Outcomes",
            "How requests ended; docs/errors.md explains the codes.",
            "reqps",
            (Query(rate(_REQUESTS, by="outcome"), "{{outcome}}"),),
        ),
    ),
    "Writes": (
        Panel(
            "Time of a commit",
            "From its begin until it is durable. High: the disk, or PostgreSQL, is slow.",
            "s",
            quantiles("kvasir_commit_seconds"),
        ),
        Panel(
            "Wait for a commit",
            "From a write's arrival until its commit began. High: more writes than the disk takes.",
            "s",
            quantiles("kvasir_write_wait_seconds"),
        ),
        Panel(
            "Writes and commits",
            "Many writers share a commit.",
            "short",
            (
                Query(rate("kvasir_commit_writes_sum"), "writes/s"),
                Query(rate("kvasir_commit_writes_count"), "commits/s"),
            ),
        ),
        Panel(
            "Queue",
            "Writes that wait; beyond the limit they are refused.",
            "short",
            (
                Query(total("kvasir_writes_waiting", "instance"), "{{instance}}"),
                Query(total("kvasir_writes_waiting_limit", "instance"), "{{instance}} limit"),
            ),
        ),
    ),
    "Clients": (
        Panel(
            "Connections",
            "Open connections by listener.",
            "short",
            (Query(total("kvasir_connections", "listener"), "{{listener}}"),),
        ),
        Panel(
            "In flight",
            "Requests that are being answered, and open watches.",
            "short",
            (
                Query(total("kvasir_http_requests_in_flight"), "HTTP requests"),
                Query(total("kvasir_watches"), "watches"),
            ),
        ),
        Panel(
            "Refusals by bound",
            "Whom limits have stopped; docs/limits.md explains them.",
            "reqps",
            (Query(f"topk(8, {rate('kvasir_refusals_total', by='bound')})", "{{bound}}"),),
        ),
        Panel(
            "Memory for clients",
            "Bodies on their way in, and answers that clients have not read.",
            "bytes",
            (
                Query(total("kvasir_held_body_bytes"), "bodies"),
                Query(total("kvasir_unread_bytes", "protocol"), "unread, {{protocol}}"),
            ),
        ),
    ),
    "Server": (
        Panel(
            "Lag of the event loop",
            "How late it was when it should have woken up. High: too little processor.",
            "s",
            quantiles("kvasir_event_loop_lag_seconds"),
        ),
        Panel(
            "Processor",
            "Cores in use, by worker.",
            "short",
            (Query(rate("process_cpu_seconds_total", by="instance, worker"), "{{instance}} {{worker}}"),),
        ),
        Panel(
            "Memory",
            "By worker, shared pages included.",
            "bytes",
            (Query(total("process_resident_memory_bytes", "instance, worker"), "{{instance}} {{worker}}"),),
        ),
        Panel(
            "Disk",
            "Room on the file system of a SQLite database, and what of it is its write-ahead log.",
            "bytes",
            (
                Query(total("kvasir_disk_free_bytes", "instance"), "{{instance}} free"),
                Query(total("kvasir_disk_bytes", "instance"), "{{instance}} size"),
                Query(total("kvasir_wal_bytes", "instance"), "{{instance}} log"),
            ),
        ),
        Panel(
            "Sweep",
            "Expired entries that wait for it, and what it removes a second.",
            "short",
            (
                Query(total("kvasir_expired_entries"), "expired"),
                Query(rate("kvasir_swept_total"), "removed/s"),
            ),
        ),
        Panel(
            "Reads of entries",
            "Those that the cache answered, and those that asked the database (SQLite).",
            "reqps",
            (
                Query(rate("kvasir_entry_cache_hits_total"), "cache"),
                Query(rate("kvasir_entry_cache_misses_total"), "database"),
            ),
        ),
        Panel(
            "Connections to PostgreSQL",
            "Requests wait while all are in use.",
            "short",
            (
                Query(total("kvasir_postgres_connections", "state"), "{{state}}"),
                Query(total("kvasir_postgres_connections_limit"), "limit"),
            ),
        ),
    ),
}


def board() -> dict[str, Any]:
    """The board as Grafana reads it."""
    source = {"type": "prometheus", "uid": "${source}"}
    instances = {"query": "label_values(kvasir_build_info, instance)", "refId": "instance"}
    return {
        "title": "Kvasir",
        "uid": "kvasir",
        "tags": ["kvasir"],
        "schemaVersion": 38,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {"name": "source", "label": "Source", "type": "datasource", "query": "prometheus"},
                {
                    "name": "instance",
                    "label": "Server",
                    "type": "query",
                    "datasource": source,
                    "query": instances,
                    "refresh": 2,
                    "includeAll": True,
                    "multi": True,
                    "current": {"text": ["All"], "value": ["$__all"]},
                },
            ]
        },
        "panels": list(_panels(source)),
    }


def _panels(source: dict[str, str]) -> Iterator[dict[str, Any]]:
    number, top = 0, 0
    for title, panels in ROWS.items():
        number += 1
        yield {"id": number, "type": "row", "title": title, "gridPos": _place(0, top, WIDTH, 1), "panels": []}
        top += 1
        left = 0
        for panel in panels:
            width, height = (STAT_WIDTH, STAT_HEIGHT) if panel.is_number else (PANEL_WIDTH, PANEL_HEIGHT)
            if left + width > WIDTH:
                left, top = 0, top + height
            number += 1
            yield _panel(panel, number, _place(left, top, width, height), source)
            left += width
        top += height


def _place(left: int, top: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


def _panel(panel: Panel, number: int, place: dict[str, int], source: dict[str, str]) -> dict[str, Any]:
    return {
        "id": number,
        "type": "stat" if panel.is_number else "timeseries",
        "title": panel.title,
        "description": panel.about,
        "gridPos": place,
        "datasource": source,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": "ABCDEF"[at],
                "datasource": source,
                "expr": query.expression,
                "legendFormat": query.legend,
                "instant": panel.is_number,
                "range": not panel.is_number,
            }
            for at, query in enumerate(panel.queries)
        ],
    }


def text() -> str:
    """The file."""
    return json.dumps(board(), indent=1) + "\n"


def main() -> None:
    """Write the file."""
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
