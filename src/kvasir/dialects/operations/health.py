"""What machines ask a server about itself: /healthz, /readyz and /metrics. No credential needed, no secret shown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

import msgspec

from kvasir import __version__
from kvasir.control.clock_warning import clock_warning
from kvasir.dialects.http import Request, Response
from kvasir.engine import Engine
from kvasir.errors import KvasirError
from kvasir.metrics import Metrics

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


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
        self._responses: dict[str, Callable[[], Awaitable[tuple[int, bytes, str]]]] = {
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
        status, body, content_type = await self._responses[request.path]()
        outcome = "ok" if status == 200 else "unavailable"
        return Response(status, body if request.method == "GET" else b"", operation, outcome, (), content_type)

    async def _healthz(self) -> tuple[int, bytes, str]:
        return 200, msgspec.json.encode(self._about), "application/json"

    async def _readyz(self) -> tuple[int, bytes, str]:
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

    async def _text(self) -> tuple[int, bytes, str]:
        self._metrics.publish(self._engine.writer)
        return 200, self._metrics.text(await self._engine.stats()).encode(), PROMETHEUS
