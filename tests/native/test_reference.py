"""The API's document: complete, made from the tables, and kept by the server under thousands of odd requests."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import httpx
import pytest

from kvasir.dialects.native import descriptions, openapi, parameters, problems, routes
from kvasir.limits import Limits
from tests.support.native import Client
from tests.support.neighbour import beside
from tests.support.serving import KVASIR, Server, environment, serving

#: Requests of each operation, and the time budget of the whole run, so that it ends in time on a slow machine, too.
#: `KVASIR_SCHEMATHESIS_EXAMPLES=400` makes some 10,000 requests in all.
EXAMPLES = int(os.environ.get("KVASIR_SCHEMATHESIS_EXAMPLES", "12"))
SECONDS = 25 if EXAMPLES < 100 else 1_800

HOOKS = """
import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    return value.encode(errors="replace") if isinstance(value, str) else str(value).encode(errors="replace")
"""


def test_every_operation_is_described() -> None:
    assert list(descriptions.OPERATIONS) == [row.name for row in routes.OPERATIONS] or set(descriptions.OPERATIONS) == {
        row.name for row in routes.OPERATIONS
    }
    document = openapi.document(Limits())
    described = {
        (path, method.upper()): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    assert set(described) == {(f"/v1/{row.path}".rstrip("/"), row.method) for row in routes.OPERATIONS}
    for row in routes.OPERATIONS:
        operation = described[f"/v1/{row.path}".rstrip("/"), row.method]
        in_query = tuple(each["name"] for each in operation["parameters"] if each["in"] == "query")
        assert in_query == row.parameters
        assert set(row.parameters) <= set(parameters.PARAMETERS)
    used = {name for row in routes.OPERATIONS for name in row.parameters}
    assert used == set(parameters.PARAMETERS), "every parameter is one of some operation"
    assert {row.status for row in problems.FAILURES.values()} >= {400, 401, 403, 404, 412, 413, 503}


def test_the_document_and_its_page_need_no_credential(server: Server) -> None:
    document = httpx.get(f"{server.url}/v1/openapi.json", trust_env=False)
    assert document.json()["openapi"] == "3.1.0"
    assert document.headers["access-control-allow-origin"] == "*"
    page = httpx.get(f"{server.url}/docs/v1", trust_env=False)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for row in routes.OPERATIONS:
        assert f'<article id="{row.name}">' in page.text
    assert 'href="/docs/v1"' in httpx.get(f"{server.url}/docs", trust_env=False).text
    assert 'href="/docs"' in page.text


@pytest.mark.timeout(300 if EXAMPLES < 100 else 2_100)
def test_schemathesis_finds_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as server, beside(server):
        with httpx.Client(base_url=f"{server.url}/v1/", headers=server.headers, trust_env=False) as client:
            store, ended = (client.post("spaces", json={"name": name}).json()["id"] for name in ("fuzz", "ended"))
            Client(client, store).set("key", 1)
        (tmp_path / "hooks.py").write_text(HOOKS)
        (tmp_path / "schemathesis.toml").write_text(
            # A space that is there, so that requests reach what lies behind it.
            f'hooks = "hooks.py"\n[parameters]\n"path.id" = "{store}"\n'
            # No schema can say what contradicts what, nor what a text in a query must hold.
            "[checks]\npositive_data_acceptance.enabled = false\n"
            # What it makes is not looked for under its own id but under that of the space above.
            "ensure_resource_availability.enabled = false\n"
            # What is refused by one of the API's own statuses is refused; not all of them are in its list.
            'negative_data_rejection.expected-statuses = ["4xx"]\n'
            f'[[operations]]\ninclude-name = "DELETE /v1/spaces/{{id}}"\nparameters = {{ "path.id" = "{ended}" }}\n'
            # Its lines are refused one by one, in an answer that counts them.
            '[[operations]]\ninclude-name = "POST /v1/spaces/{id}/import"\n'
            "checks.negative_data_rejection.enabled = false\n"
        )
        command: list[str | Path] = [
            KVASIR.with_name("schemathesis"),
            "run",
            f"{server.url}/v1/openapi.json",
            "--url",
            server.url,
            # A watch has no end.
            "--exclude-operation-id",
            "Watch",
        ]
        command += ["--header", f"Authorization: Bearer {server.key}", "--continue-on-failure"]
        command += ["--max-examples", str(EXAMPLES), "--max-time", str(SECONDS), "--no-color", "--warnings", "off"]
        # A short run asks the same each time, so that what fails is the change and not the draw.
        command += ["--generation-deterministic"] if EXAMPLES < 100 else []
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=2_000
        )
        assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
        if EXAMPLES > 100:
            print(done.stdout[-2_000:])  # noqa: T201  # the figures of a long run
