"""Spans by OTLP: sent to a collector that is real enough to decode them, and none where nobody asks."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from kvasir.dialects.native.app import NativeDialect
from kvasir.dialects.versori.app import VersoriDialect
from kvasir.dialects.voximplant import VoximplantDialect
from kvasir.server.traces import ROUTES, asked_by, obstacle
from tests.support import nemesis
from tests.support.cli import Commands
from tests.support.faults import disk
from tests.support.http_client import client
from tests.support.serving import KEY, Server, environment, free_ports, serving, wait_until
from tests.support.voximplant import private_key

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = {"traceparent": f"00-{TRACE}-{SPAN}-01"}

#: In everything that no collector may see
MARKER = "planted"
SYNC_SECONDS = 0.2


class Collector:
    """Takes spans by OTLP/HTTP, and keeps every byte."""

    def __init__(self, port: int = 0) -> None:
        collector = self
        self.received: list[bytes] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.received.append(f"{self.path}\n{self.headers}".encode())
                collector.received.append(body)
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def resources(self) -> list[Any]:
        return [
            resource
            for body in list(self.received)[1::2]
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        ]

    def spans(self) -> list[Span]:
        """All of them. Those whose arrival was confirmed too late have come twice."""
        spans = [span for each in self.resources() for scope in each.scope_spans for span in scope.spans]
        return list({span.span_id: span for span in spans}.values())

    def span(self, **wanted: object) -> Span:
        """The span with these attributes, once it is there; never two. `_` stands for `.` in their names."""

        def found() -> list[Span]:
            return [
                span for span in self.spans()
                if wanted.items() <= {name.replace(".", "_"): value for name, value in attributes(span).items()}.items()
            ]  # fmt: skip

        wait_until(lambda: bool(found()), f"there is a span with {wanted}")
        (span,) = found()
        return span


def attributes(span: Span) -> dict[str, object]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "") for each in span.attributes}


@contextlib.contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    collector = Collector(port)
    try:
        yield collector
    finally:
        collector.close()


def variables(url: str, patience_seconds: int = 60) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": url,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "OTEL_EXPORTER_OTLP_TIMEOUT": str(patience_seconds),
    }


def documented(url: str) -> dict[str, str]:
    """The variables that the page for operators exports, with this collector in the place of its own."""
    page = (Path(__file__).parents[2] / "docs" / "operate" / "observability.md").read_text(encoding="utf-8")
    found = dict(re.findall(r"^export (OTEL_\w+)=(.*)$", page, re.MULTILINE))
    assert found.pop("OTEL_EXPORTER_OTLP_ENDPOINT") == "http://localhost:4318", "where collectors are by default"
    return variables(url) | found


def put(server: Server, key: str, **headers: str) -> str:
    """The id of the request."""
    url = f"{server.url}/v1/spaces/{server.store}/entries/{key}"
    answer = client.put(url, content=f'"{MARKER}-value"', headers=server.headers | headers)
    assert answer.status_code in (200, 201), answer.text
    return str(answer.headers["x-request-id"])


def service_token(server: Server) -> str:
    command = Commands(server)
    command("application", "create", "--name", "myapp", "--id", "1")
    account = json.loads(command("service-account", "create", "--role", "Developer").stdout)
    now = int(time.time())
    claims = {"iss": str(account["account_id"]), "iat": now - 5, "exp": now + 3_595}
    return jwt.encode(claims, private_key(account["private_key"]), "RS256", headers={"kid": account["key_id"]})


@pytest.mark.only_sqlite("the disk of the test is below SQLite")
def test_each_request_has_a_span_with_its_parent_and_never_a_key_or_a_value(tmp_path: Path) -> None:
    options = ["--workers", "2", "--nemesis-auth", "key"]
    with collecting() as collector:
        env = disk.environment_of(tmp_path) | documented(collector.url)
        with serving(tmp_path, *options, env=env) as server:
            token = service_token(server)
            (tmp_path / disk.SLOW_TO_SYNC).write_text(str(SYNC_SECONDS))
            id = put(server, f"{MARKER}-key", **TRACEPARENT)
            (tmp_path / disk.SLOW_TO_SYNC).unlink()
            span = collector.span(kvasir_request_id=id)
            assert (span.name, span.kind) == ("PUT /v1/spaces/{id}/entries/{key}", Span.SPAN_KIND_SERVER)
            assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
            told = attributes(span)
            assert told["http.response.status_code"] == 201
            assert (told["http.request.method"], told["http.route"]) == ("PUT", "/v1/spaces/{id}/entries/{key}")
            assert (told["kvasir.api"], told["kvasir.operation"], told["kvasir.outcome"]) == (
                "native",
                "SetEntry",
                "ok",
            )
            assert told["kvasir.space"] == server.store
            assert isinstance(told["kvasir.phase.commit"], float)
            assert told["kvasir.phase.commit"] >= SYNC_SECONDS
            assert abs(span.end_time_unix_nano - time.time_ns()) < 600e9, "seconds of the clock, not of a stopwatch"
            (commit,) = [each for each in collector.spans() if each.name == "commit" and each.trace_id == span.trace_id]
            assert commit.parent_span_id == span.span_id
            assert span.start_time_unix_nano <= commit.start_time_unix_nano
            assert (
                commit.start_time_unix_nano + SYNC_SECONDS * 1e9 <= commit.end_time_unix_nano <= span.end_time_unix_nano
            )

            url = f"{server.url}/store/{server.store}/kv/{MARKER}-key"
            answer = client.get(url, params={MARKER: MARKER}, headers=server.headers)
            span = collector.span(kvasir_request_id=answer.headers["x-request-id"])
            assert (span.name, span.parent_span_id) == ("GET /store/{store}/kv/{key}", b"")
            answer = client.get(f"{url}/nothing", headers=server.headers)
            span = collector.span(kvasir_request_id=answer.headers["x-request-id"])
            assert (attributes(span)["kvasir.outcome"], span.status.code) == ("not_found", Status.STATUS_CODE_UNSET)

            form = {"application_id": "1", "key": f"{MARKER}-key", "value": f"{MARKER}-value"}
            answer = client.post(
                f"{server.url}/{MARKER}/platform_api/SetKeyValueItem",
                data=form,
                headers={"Authorization": f"Bearer {token}"},
            )
            span = collector.span(kvasir_request_id=answer.headers["x-request-id"])
            assert span.name == "POST /platform_api/SetKeyValueItem"

            with nemesis.client(server.nemesis_url, additional_headers=server.headers | TRACEPARENT) as session:
                tkn = session.session(f"{MARKER}-session")
                session.do("KV_SET", tkn=tkn, keys={f"{MARKER}-key": f"{MARKER}-value"})
                span = collector.span(kvasir_operation="KV_SET")
                assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("KV_SET", TRACE, SPAN)

            assert server.stop() == 0
        (names,) = {tuple(each.value.string_value for each in of.resource.attributes if each.key == "service.name")
                    for of in collector.resources()}  # fmt: skip
        assert names == ("kvasir-orders",)
        everything = b"\n".join(collector.received)
        secrets = [MARKER, KEY, token, token.rpartition(".")[2], tkn]
        assert [secret for secret in secrets if secret.encode() in everything] == []


def test_a_collector_that_is_away_costs_its_spans_and_a_line(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with serving(tmp_path, env=variables(f"http://127.0.0.1:{port}", 1)) as server:
        put(server, "lost")
        wait_until(lambda: "the collector does not take spans" in server.log, "it is told")
        put(server, "lost")
        with collecting(port) as collector:
            wait_until(lambda: bool(put(server, "taken") and collector.spans()), "spans are sent again")
            told = "the collector takes spans again"
            wait_until(lambda: bool(put(server, "taken")) and told in server.log, "it is told")
        put(server, "lost")
        assert server.stop() == 0
        assert "Traceback" not in server.log


def test_where_nobody_asks_nothing_is_imported(tmp_path: Path) -> None:
    env = {"PYTHONPROFILEIMPORTTIME": "1", "OTEL_SERVICE_NAME": "orders", "OTEL_TRACES_EXPORTER": "none"}
    with serving(tmp_path, env=env | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}) as server:
        put(server, "untold")
        assert server.stop() == 0
        assert "kvasir.server.worker" in server.log, "imports are in it"
        assert "opentelemetry" not in server.log


def test_a_missing_extra_is_named_once_and_the_server_serves(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry'] = None\n")
    env = variables("http://127.0.0.1:9") | {"PYTHONPATH": str(tmp_path)}
    with serving(tmp_path, "--workers", "2", env=env) as server:
        put(server, "untold")
        (line,) = [line for line in server.log.splitlines() if "traces" in line]
        assert line.endswith(
            "OTEL_EXPORTER_OTLP_ENDPOINT asks for traces, and there will be none: OpenTelemetry is not installed: "
            "install kvasirdb[otel], or set OTEL_SDK_DISABLED=true"
        )


@pytest.mark.parametrize(
    ("given", "asking"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "a"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, None),
        ({"OTEL_SDK_DISABLED": "True", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, None),
        ({"OTEL_SDK_DISABLED": "false", "OTEL_TRACES_EXPORTER": "otlp"}, "OTEL_TRACES_EXPORTER"),
    ],
)
def test_the_standard_variables_ask(given: dict[str, str], asking: str | None) -> None:
    assert asked_by(given) == asking


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, None),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, None),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is 'zipkin'; only otlp and none are known here"),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'; only http/protobuf is spoken here, which collectors take at port "
            "4318",
        ),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, None),
    ],
)
def test_what_is_in_the_way_of_spans_is_said(given: dict[str, str], why: str | None) -> None:
    assert obstacle(given) == why


def test_a_variable_that_makes_no_sense_is_no_reason_not_to_serve() -> None:
    program = "import logging; logging.basicConfig(); from kvasir.server.traces import make; print(make())"
    env = environment() | {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_MAX_QUEUE_SIZE": "-1"}
    done = subprocess.run([sys.executable, "-c", program], env=env, check=True, capture_output=True, text=True)
    assert done.stdout == "None\n"
    assert "there will be no traces, since OpenTelemetry refuses its variables: " in done.stderr


def test_every_operation_of_an_api_has_a_route() -> None:
    dialects: list[Any] = [NativeDialect, VersoriDialect, VoximplantDialect]
    operations = {(each.name, operation) for each in dialects for operation in each.operations}
    assert operations - ROUTES.keys() == {("native", "unrouted"), ("versori", "unrouted"), ("voximplant", "unknown")}
