"""What machines ask a server about itself: /healthz, /readyz and /metrics. No credential needed, no secret shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import ClassVar

import msgspec

from kvasir import __version__
from kvasir.control.clock_warning import clock_warning
from kvasir.dialects.http import Request, Response
from kvasir.engine import Engine
from kvasir.errors import KvasirError
from kvasir.metrics import BUILD, DISK, DISK_FREE, LISTENING, LOG, Metrics

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

#: A sample that is made when it is asked for: see `Metrics.text`.
Made = tuple[str, tuple[str, ...], float]


class HealthDialect:
    """See `kvasir.dialects.http.HttpDialect`."""

    name: ClassVar[str] = "server"
    operations: ClassVar[tuple[str, ...]] = ("healthz", "readyz", "metrics")

    def __init__(
        self, engine: Engine, metrics: Metrics, *, engine_name: str, durability: str, mode: str | None = None
    ) -> None:
        self._engine = engine
        self._metrics = metrics
        self._about = {"status": "ok", "version": __version__, "engine": engine_name, "durability": durability}
        if mode is not None:
            self._about["mode"] = mode
        #: Set when the server starts to stop: nobody should send it new work.
        self.stopping = False
        #: The URLs of each listener, once they listen
        self.addresses: Mapping[str, Sequence[str]] = {}
        self._responses: dict[str, Callable[[Request], Awaitable[tuple[int, bytes, str]]]] = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._text,
        }
        self.serves = self._responses.__contains__

    def too_much(self, request: Request, response: Response, error: KvasirError) -> Response:  # noqa: ARG002
        """See `HttpDialect`. None of its answers is large."""
        return response

    def answer_nowait(self, request: Request) -> bool:  # noqa: ARG002
        return False

    async def __call__(self, request: Request) -> Response:
        operation = request.path[1:]
        if request.method not in {"GET", "HEAD"}:
            return Response(405, b"", operation, "invalid", (("allow", "GET, HEAD"),))
        status, body, content_type = await self._responses[request.path](request)
        outcome = "ok" if status == 200 else "unavailable"
        return Response(status, body if request.method == "GET" else b"", operation, outcome, (), content_type)

    async def _healthz(self, _request: Request) -> tuple[int, bytes, str]:
        return 200, msgspec.json.encode(self._about), "application/json"

    async def _readyz(self, _request: Request) -> tuple[int, bytes, str]:
        reason = await self._reason()
        if reason is None:
            return 200, msgspec.json.encode({"status": "ready"} | await self._warnings()), "application/json"
        return 503, msgspec.json.encode({"status": "not ready", "reason": reason}), "application/json"

    async def _reason(self) -> str | None:
        if self.stopping:
            return "the server is stopping"
        if self._engine.writer.broken:
            return "a commit failed; writes are refused until the database has been checked"
        try:
            await self._engine.epoch()
        except KvasirError as error:
            return error.message
        return None

    async def _warnings(self) -> dict[str, list[str]]:
        try:
            warning = await clock_warning(self._engine)
        except KvasirError:
            return {}
        return {"warnings": [warning]} if warning else {}

    async def _text(self, request: Request) -> tuple[int, bytes, str]:
        self._metrics.publish()
        open_metrics = wants_open_metrics(request.header("accept") or "")
        text = self._metrics.text([*self._about_itself(), *await self._figures()], open_metrics=open_metrics)
        return 200, text.encode(), OPEN_METRICS if open_metrics else PROMETHEUS

    def _about_itself(self) -> Iterator[Made]:
        yield BUILD.name, (__version__, self._about["engine"], self._about["durability"]), 1
        for listener, urls in self.addresses.items():
            for url in urls:
                yield LISTENING.name, (listener, url), 1
        yield "kvasir_workers", (), self._metrics.workers

    async def _figures(self) -> list[Made]:
        """What the database tells; without it only that this server is not ready."""
        ready = await self._reason() is None
        made: list[Made] = [("kvasir_ready", (), float(ready))]
        try:
            stats = await self._engine.stats()
        except KvasirError:
            return made
        made += [
            ("kvasir_spaces", (), stats.spaces),
            ("kvasir_entries", (), stats.entries),
            ("kvasir_expired_entries", (), stats.expired),
            ("kvasir_database_bytes", (), stats.database_bytes),
        ]
        of_the_file = (LOG, stats.log_bytes), (DISK_FREE, stats.disk_free_bytes), (DISK, stats.disk_bytes)
        for family, value in of_the_file:
            if value is not None:
                made.append((family.name, (), value))
        return made


def wants_open_metrics(accept: str) -> bool:
    """Whether a client would rather have OpenMetrics than Prometheus' own text (RFC 9110, section 12.5.1)."""
    weights = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for each in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in each.split(";"))
        given = [part.removeprefix("q=") for part in parameters if part.startswith("q=")]
        try:
            weight = float(given[0]) if given else 1.0
        except ValueError:
            weight = 0.0
        if kind in weights:
            weights[kind] = max(weights[kind], weight)
    return weights["application/openmetrics-text"] > weights["text/plain"]
