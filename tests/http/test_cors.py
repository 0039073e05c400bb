"""Pages of other origins: exactly those that were named, in both APIs, with failures and streams."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from kvasir.config.parsers import origins
from tests.support.serving import Server, serving

ORIGIN = "https://app.example.org"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = ("--cors-origin", ORIGIN, "--cors-origin", "http://127.0.0.1:3000")
    with serving(tmp_path_factory.mktemp("shared"), *options) as server:
        yield server


def ask(server: Server, method: str, path: str, origin: str | None = ORIGIN, **headers: str) -> httpx.Response:
    given = {name.replace("_", "-"): text for name, text in headers.items()}
    if origin is not None:
        given["Origin"] = origin
    content = b'{"value":1}' if method == "PUT" else None
    return httpx.request(method, server.url + path, headers=given, content=content, trust_env=False)


def paths(server: Server) -> tuple[str, ...]:
    store = server.store
    return f"/v1/spaces/{store}/entries/a", f"/store/{store}/kv/a", f"/api/v2/store/{store}/kv/a", "/v1", "/v1/nothing"


def test_a_preflight_needs_no_credential(shared: Server) -> None:
    for path in paths(shared):
        answer = ask(shared, "OPTIONS", path, access_control_request_method="PUT")
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert {"PUT", "PATCH", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))
        allowed = set(answer.headers["access-control-allow-headers"].lower().split(", "))
        assert allowed >= {"authorization", "content-type", "if-match", "if-none-match", "last-event-id"}
        assert "kvasir-metadata" in allowed
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    ["null", "https://app.example.org.evil.example", "https://app.example.or", "http://app.example.org", "*",
     "https://app.example.org:8443", "https://APP.example.org", "https://app.example.org/"],
)  # fmt: skip
def test_other_origins_are_given_nothing(shared: Server, origin: str) -> None:
    for method in ("OPTIONS", "GET", "PUT"):
        for path in paths(shared):
            headers = {"access_control_request_method": "PUT"} if method == "OPTIONS" else shared.headers
            answer = ask(shared, method, path, origin, **headers)
            assert "access-control-allow-origin" not in answer.headers
            assert answer.headers["vary"] == "Origin"


@pytest.mark.parametrize("origin", [ORIGIN, "http://127.0.0.1:3000"])
def test_answers_and_failures_carry_the_headers(shared: Server, origin: str) -> None:
    for path in paths(shared):
        for method in ("PUT", "GET", "DELETE"):
            for headers in ({}, shared.headers, shared.headers):
                answer = ask(shared, method, path, origin, **headers)
                assert answer.headers["access-control-allow-origin"] == origin
                exposed = answer.headers["access-control-expose-headers"].lower().split(", ")
                assert {"etag", "retry-after", "x-request-id", "kvasir-warning"} <= set(exposed)
                kvasir = {name for name in answer.headers if name.startswith("kvasir-")}
                assert kvasir <= set(exposed)
                assert answer.headers["vary"] == "Origin"
    answer = ask(shared, "GET", f"/v1/spaces/{shared.store}/export", origin, **shared.headers)
    assert answer.headers["access-control-allow-origin"] == origin


def test_without_origins_nothing_is_said(server: Server) -> None:
    for path in paths(server):
        for method in ("GET", "OPTIONS"):
            answer = ask(server, method, path, **server.headers, access_control_request_method="PUT")
            assert not [name for name in answer.headers if name.startswith("access-control-")]
            assert "vary" not in answer.headers


@pytest.mark.parametrize(
    "wrong", ["*", "null", "https://*.example.org", "https://a.example/", "https://A.example", "a.example", "https://"]
)
def test_what_is_no_exact_origin_is_no_setting(wrong: str) -> None:
    with pytest.raises(ValueError, match="exact origins"):
        origins(f"https://good.example,{wrong}")
    assert origins("https://a.example, http://[::1]:80,") == ("https://a.example", "http://[::1]:80")
