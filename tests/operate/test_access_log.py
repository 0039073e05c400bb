"""The access log: one line a request, for people and for programs, with the trace that a client belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_client import client
from tests.support.serving import KEY, Server, serving, wait_until

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def line_of(server: Server, traceparent: str | None) -> dict[str, Any]:
    """The line of JSON about a PUT with this header."""
    headers = server.headers | ({} if traceparent is None else {"traceparent": traceparent})
    url = f"{server.url}/v1/spaces/{server.store}/entries/a-secret-key"
    answer = client.put(url, content=b'"a-secret-value"', headers=headers)
    id = answer.headers["x-request-id"]

    def lines() -> list[dict[str, Any]]:
        found = [json.loads(line) for line in server.log.splitlines() if line.startswith("{")]
        return [line for line in found if line.get("request") == id]

    wait_until(lambda: bool(lines()), "the request is logged")
    (line,) = lines()
    return line


def test_a_line_for_programs_and_never_a_key_or_a_value(tmp_path: Path) -> None:
    with serving(tmp_path, "--access-log", "--log-format", "json") as server:
        line = line_of(server, None)
        assert {name: line[name] for name in ("api", "operation", "outcome", "status", "bytes_in", "logger")} == {
            "api": "native", "operation": "SetEntry", "outcome": "ok", "status": 201, "bytes_in": 16,
            "logger": "kvasir.access",
        }  # fmt: skip
        assert 0 < line["milliseconds"] < 60_000
        assert line["bytes_out"] > 0
        assert "trace_id" not in line
        line = line_of(server, f"00-{TRACE}-{SPAN}-01")
        assert (line["trace_id"], line["parent_span_id"]) == (TRACE, SPAN)
        assert line_of(server, f"cc-{TRACE}-{SPAN}-01-more")["trace_id"] == TRACE, "of a version to come"
        for wrong in ("", "x", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE.upper()}-{SPAN}-01"):
            assert "trace_id" not in line_of(server, wrong)
        assert [secret for secret in ("a-secret-key", "a-secret-value", KEY) if secret in server.log] == []


@pytest.mark.parametrize("traceparent", [None, f"00-{TRACE}-{SPAN}-01"])
def test_a_line_for_people(tmp_path: Path, traceparent: str | None) -> None:
    with serving(tmp_path, "--access-log") as server:
        headers = server.headers | ({} if traceparent is None else {"traceparent": traceparent})
        id = client.get(f"{server.url}/v1", headers=headers).headers["x-request-id"]
        wait_until(lambda: f"{id} native About 200" in server.log, "the request is logged")
        assert (f" ms trace {TRACE}" in server.log) == (traceparent is not None)
