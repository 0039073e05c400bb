"""`stats`: what the server did in the last minutes, as samples of what all its workers have counted together.

Each worker takes samples of the same counters by itself, so any of them can answer. Owns no timer.
"""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any

from msgspec import Struct

from kvasir.dialects.http import Response
from kvasir.dialects.native import rendering
from kvasir.dialects.native.calls import Call, Services
from kvasir.metrics import OUTCOMES, Totals, percentile
from kvasir.model import Stats
from kvasir.store.permissions import MANAGERS, require

#: Seconds between two samples, and how far back they go.
INTERVAL_SECONDS, WINDOW_SECONDS = 5, 900


class Moment(Struct, frozen=True):
    """The counters at one instant."""

    #: Unix milliseconds
    at: int
    totals: Totals
    database: Stats


class History:
    """The last moments of one process."""

    def __init__(self) -> None:
        self._moments: deque[Moment] = deque(maxlen=WINDOW_SECONDS // INTERVAL_SECONDS + 1)

    def add(self, moment: Moment) -> None:
        """To be called every `INTERVAL_SECONDS`."""
        self._moments.append(moment)

    def samples(self, window_seconds: int) -> list[dict[str, Any]]:
        """What happened between each two moments, oldest first, as far as that reaches into the window.

        There is the last sample at least: timers are late, so no sample fits into a window as long as one is to be.
        """
        moments = list(self._moments)
        since = moments[-1].at - window_seconds * 1_000 if moments else 0
        pairs = itertools.pairwise(moments)
        return [_sample(before, after) for before, after in pairs if after.at > max(since, before.at)]


async def show(services: Services, call: Call) -> Response:
    """Samples of the last minutes, and since when there are any."""
    require(call.principal, MANAGERS)
    window = call.query.get("window", WINDOW_SECONDS)
    samples = services.history.samples(window)
    since = samples[0]["from"] if samples else None
    return call.answer(rendering.document(interval=INTERVAL_SECONDS, since=since, samples=samples))


def _sample(before: Moment, after: Moment) -> dict[str, Any]:
    seconds = (after.at - before.at) / 1_000
    then, now = before.totals, after.totals
    return {
        "from": rendering.instant(before.at),
        "to": rendering.instant(after.at),
        "dialects": {
            name: _requests([b - a for a, b in zip(then.requests[name], cells, strict=True)], seconds)
            for name, cells in now.requests.items()
        },
        "writes": (now.writes - then.writes) / seconds,
        "commits": (now.commits - then.commits) / seconds,
        "queue_depth": now.waiting,
        "connections": now.connections,
        "entries": after.database.entries,
        "database_bytes": after.database.database_bytes,
    }


def _requests(cells: list[int], seconds: float) -> dict[str, Any]:
    outcomes, buckets = cells[: len(OUTCOMES)], cells[len(OUTCOMES) :]
    fine = sum(count for name, count in zip(OUTCOMES, outcomes, strict=True) if name in ("ok", "conflict"))
    return {
        "requests": sum(outcomes) / seconds,
        "failures": (sum(outcomes) - fine) / seconds,
        "p50": percentile(buckets, 0.5),
        "p99": percentile(buckets, 0.99),
    }
