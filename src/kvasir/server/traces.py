"""Spans by OTLP, where the standard variables of OpenTelemetry ask for them: one a request, never a key or a value.

A span is made when its request is over. Sending is the business of a thread of the SDK, with a bounded queue: where no
collector takes the spans, they are dropped. OpenTelemetry is imported by `Traces` alone: it is an extra.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kvasir import __version__
from kvasir.dialects.native import routes as native
from kvasir.dialects.versori import routes as versori
from kvasir.dialects.voximplant.app import BASE
from kvasir.dialects.voximplant.methods import COMMANDS
from kvasir.timing import Finished, Phase

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

log = logging.getLogger("kvasir.traces")

#: The outcomes that are failures of the server, not of what a caller does
FAILURES = frozenset({"internal", "unavailable", "timeout", "unknown_outcome"})

#: What OpenTelemetry and its exporter are found by, and what has them
MODULES, EXTRA = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http"), "kvasirdb[otel]"

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"

#: A phase that took as long has a span of its own; shorter ones are but attributes.
PHASE_SECONDS = 0.001
#: How long the end of a process waits for the collector to take the last spans.
CLOSE_SECONDS = 2.0

#: Paths by dialect and operation, with names in the place of what a request fills in: `http.route`
ROUTES: dict[tuple[str, str], str] = {
    **{("native", each.name): f"/v1/{each.path}".removesuffix("/") for each in native.OPERATIONS},
    **{("versori", name): "/o/{organisation}/store" for name in versori.STORES.values()},
    **{("versori", name): "/store/{store}/kv/{key}" for name in versori.KEY.values()},
    **{
        ("versori", name): f"/store/{{store}}/kv/{fixed}"
        for fixed, methods in versori.FIXED.items()
        for name in methods.values()
    },
    **{("voximplant", name): f"/{BASE}/{name}" for name in COMMANDS},
    **{("server", name): f"/{name}" for name in ("healthz", "readyz", "metrics")},
}


def asked_by(variables: Mapping[str, str]) -> str | None:
    """The variable that asks for spans; None: nobody does."""
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    asking = ("OTEL_TRACES_EXPORTER",) if variables.get("OTEL_TRACES_EXPORTER") else ENDPOINTS
    found = next((name for name in asking if variables.get(name)), None)
    return None if found is None or variables[found].strip().lower() == "none" else found


def obstacle(variables: Mapping[str, str]) -> str | None:
    """Why there will be no spans although a variable asks for them, and what to do; None: nothing is in the way."""
    exporter = variables.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter not in ("", "otlp"):
        return f"OTEL_TRACES_EXPORTER is {exporter!r}; only otlp and none are known here"
    for name in PROTOCOLS:
        if protocol := variables.get(name, "").strip().lower():
            if protocol == PROTOCOL:
                break
            return f"{name} is {protocol!r}; only {PROTOCOL} is spoken here, which collectors take at port 4318"
    try:
        missing = any(importlib.util.find_spec(module) is None for module in MODULES)
    except ImportError:
        missing = True
    if missing:
        return f"OpenTelemetry is not installed: install {EXTRA}, or set OTEL_SDK_DISABLED=true"
    return None


def make() -> Traces | None:
    """What sends the spans of this process; None: nobody asks for any, or they cannot be."""
    if asked_by(os.environ) is None or obstacle(os.environ) is not None:
        return None
    try:
        return Traces()
    except Exception as error:  # whatever the SDK raises for a variable that makes no sense to it
        log.warning("there will be no traces, since OpenTelemetry refuses its variables: %s", error)
        return None


def warn() -> None:
    """Log one sentence if a variable asks for spans and there will be none."""
    asking = asked_by(os.environ)
    if asking is not None and (why := obstacle(os.environ)):
        log.warning("%s asks for traces, and there will be none: %s", asking, why)


class Traces:
    """Makes a span of each request, and has it sent. For a process that forks no more."""

    def __init__(self) -> None:
        from opentelemetry import propagate, trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        facts = {"service.version": __version__, "service.instance.id": str(uuid.uuid4())}
        resource = Resource.create(facts if named else facts | {"service.name": "kvasir"})
        # By itself it waits half a minute at the end of the process for a collector that is away.
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_telling(OTLPSpanExporter())))
        self._tracer = self._provider.get_tracer("kvasir", __version__)
        self._extract, self._trace = propagate.extract, trace
        self._nothing = trace.set_span_in_context(trace.INVALID_SPAN)
        self._ok, self._failed = trace.Status(), trace.Status(trace.StatusCode.ERROR)
        # What it has to say of each batch and each span, `_telling` says once.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def __call__(self, finished: Finished) -> None:
        """See `kvasir.timing.Observer`."""
        # From the stopwatch to the clock.
        zero = time.time_ns() - int(time.perf_counter() * 1e9)
        phases = finished.phases()
        route = ROUTES.get((finished.api, finished.operation))
        attributes = _attributes(finished, phases, route)
        what = finished.operation if finished.method is None else f"{finished.method} {route or finished.operation}"
        span = self._tracer.start_span(
            what,
            context=self._extract(finished, context=self._nothing, getter=_HEADERS),
            kind=self._trace.SpanKind.SERVER,
            attributes=attributes,
            start_time=zero + int(finished.began * 1e9),
        )
        if not span.is_recording():
            return
        if "error.type" in attributes:
            span.set_status(self._failed)
        inside = None
        for name, phase in phases.items():
            if phase.seconds >= PHASE_SECONDS:
                inside = inside or self._trace.set_span_in_context(span)
                part = self._tracer.start_span(name, context=inside, start_time=zero + int(phase.began * 1e9))
                part.end(zero + int(phase.ended * 1e9))
        span.end(zero + int(finished.ended * 1e9))

    def close(self) -> None:
        """Have the last spans sent, if that takes no long. What is too slow goes on while the process ends."""
        closing = threading.Thread(target=self._provider.shutdown, name="kvasir-traces", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def _attributes(finished: Finished, phases: Mapping[str, Phase], route: str | None) -> dict[str, Any]:
    """What a span tells: never a path, which may have a key in it, nor a query."""
    attributes: dict[str, Any] = {
        "kvasir.request.id": finished.id,
        "kvasir.api": finished.api,
        "kvasir.operation": finished.operation,
        "kvasir.outcome": finished.outcome,
    }
    if finished.status is not None:
        attributes |= {"http.request.method": finished.method, "http.response.status_code": finished.status}
    if route is not None:
        attributes["http.route"] = route
    if finished.timed.space is not None:
        attributes["kvasir.space"] = finished.timed.space.id
    for name, phase in phases.items():
        attributes[f"kvasir.phase.{name}"] = phase.seconds
    if finished.outcome in FAILURES:
        attributes["error.type"] = finished.outcome
    return attributes


class _Headers:
    """How OpenTelemetry reads the headers of a request."""

    def get(self, carrier: Finished, key: str) -> list[str] | None:
        value = carrier.header(key.lower())
        return None if value is None else [value]

    def keys(self, carrier: Finished) -> list[str]:  # noqa: ARG002
        return []


_HEADERS: Any = _Headers()


def _telling(exporter: SpanExporter) -> SpanExporter:
    """The exporter, but when it begins to fail and when it succeeds again is in the log."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Telling(SpanExporter):
        dropped = 0

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = exporter.export(spans)
            if result is not SpanExportResult.SUCCESS:
                if not self.dropped:
                    log.warning("the collector does not take spans; until it does, they are dropped")
                self.dropped += len(spans)
            elif self.dropped:
                log.warning("the collector takes spans again; %d or more were dropped", self.dropped)
                self.dropped = 0
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

        def force_flush(self, timeout_millis: int = 30_000) -> bool:
            return exporter.force_flush(timeout_millis)

    return Telling()
