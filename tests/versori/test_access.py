"""Stores, and who may do what to whose; that every failure has its row and its form."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from kvasir import errors
from kvasir.dialects.versori import responses, routes
from kvasir.engine import Outcome
from kvasir.engines.memory import MemoryEngine
from kvasir.errors import KvasirError
from kvasir.keys import prefix_range
from kvasir.metrics import OUTCOMES
from kvasir.model import Entry, Principal, Write
from tests.support.clock import ManualClock
from tests.support.organisations import ORGANISATION, OTHER
from tests.support.request import FakeRequest
from tests.support.versori import PRINCIPALS, Api

STORES = f"/o/{ORGANISATION}/store"


def test_create_store_and_list_stores(api: Api) -> None:
    created = api.send("POST", STORES, b'{"name":"orders"}')
    assert set(created.json) == {"id"}
    listed = api.send("GET", STORES).json
    assert listed == {
        "stores": [
            {"id": api.id, "name": "default", "orgId": ORGANISATION},
            {"id": created.json["id"], "name": "orders", "orgId": ORGANISATION},
        ]
    }
    api.id = created.json["id"]
    assert api.set("a").status == 200


def test_create_store_gives_the_same_id_for_the_same_name(api: Api) -> None:
    ids = {api.send("POST", STORES, b'{"name":"default"}').json["id"] for _ in range(2)}
    assert ids == {api.id}


@pytest.mark.parametrize(
    "body", [b"{}", b'{"name":""}', b'{"name":null}', b'{"name":5}', b'{"name":"' + b"x" * 256 + b'"}']
)
def test_create_store_refuses(api: Api, body: bytes) -> None:
    assert api.send("POST", STORES, body).refusal() == (400, "invalid", ["name"])


def test_a_name_may_have_255_characters(api: Api) -> None:
    assert api.send("POST", STORES, ('{"name":"' + "é" * 255 + '"}').encode()).status == 200


def every_request(api: Api) -> list[tuple[str, str]]:
    """(method, target) of all ten operations."""
    single = [(method, f"/store/{api.id}/kv/a") for method in routes.KEY]
    fixed = [(method, f"/store/{api.id}/kv/{name}") for name, methods in routes.FIXED.items() for method in methods]
    return [*((method, STORES) for method in routes.STORES), *single, *fixed]


@pytest.mark.parametrize("authorization", [None, "", "JWT unknown"])
def test_without_a_good_credential_nothing_is_served(api: Api, authorization: str | None) -> None:
    for method, target in every_request(api):
        answer = api.send(method, target, b"not even JSON", authorization=authorization)
        assert answer.refusal() == (401, "unauthorized", [])
        assert answer.headers == {"WWW-Authenticate": 'Bearer realm="kvasir"'}


def test_the_body_is_not_asked_for_before_the_credential_and_the_store_are_good(api: Api) -> None:
    for target, authorization in ((f"/store/{api.id}/kv/a", ""), (f"/store/{OTHER}/kv/a", "JWT owner")):
        request = FakeRequest("PUT", target, b"", {"authorization": authorization})
        assert asyncio.run(api.dialect(request)).status in (401, 404)
        assert not request.asked_for_body


def test_another_organisations_store_answers_as_if_it_did_not_exist(api: Api) -> None:
    api.set("a")
    for method, target in every_request(api)[2:]:
        theirs = api.send(method, target, b'{"value":1}', authorization="JWT stranger")
        missing = api.send(method, target.replace(api.id, "01JZX0W7M2Q4T8V6B3N5C9D1EZ"), b'{"value":1}')
        assert theirs.refusal() == (404, "store_not_found", [])
        assert theirs.text == missing.text
    assert api.send("GET", "/store/no-ulid/kv/a").refusal() == (404, "store_not_found", [])


def test_another_organisation_is_forbidden(api: Api) -> None:
    for method in routes.STORES:
        answer = api.send(method, STORES, b'{"name":"x"}', authorization="JWT stranger")
        assert answer.refusal() == (403, "forbidden", [])
    assert api.send("GET", f"/o/{OTHER}/store", authorization="JWT stranger").json == {"stores": []}


def test_a_viewer_reads_and_does_not_write(api: Api) -> None:
    api.set("a")
    body = b'{"value":2,"entries":[{"key":["a"],"value":2}],"keys":[["a"]],"name":"new"}'
    for method, target in every_request(api):
        answer = api.send(method, target, body, authorization="JWT viewer")
        reads = answer.response.operation in ("ListStores", "GetKV", "BatchGetKV", "ListKV", "CountKV")
        assert (answer.status == 200) is reads, answer.text
        if not reads:
            assert answer.refusal() == (403, "forbidden", [])
    assert api.value("a") == 1
    empty = api.call("PUT", "batch", {"entries": []}, authorization="JWT viewer")
    assert empty.status == 403


def test_a_credential_limited_to_a_prefix_gets_nothing_else(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = prefix_range(["mine"])
    monkeypatch.setitem(PRINCIPALS, "JWT limited", Principal(ORGANISATION, "developer", "limited", keys=allowed))
    for rest in ("mine/a", "mine", "yours/a"):
        api.set(rest)

    def status(method: str, rest: str, body: object = None) -> int:
        return api.call(method, rest, body, authorization="JWT limited").status

    assert status("GET", "mine/a") == status("PUT", "mine/b", {"value": 1}) == 200
    assert status("GET", "yours/a") == status("DELETE", "yours/a") == status("PUT", "yours/b", {"value": 1}) == 403
    assert status("POST", "list", {}) == status("POST", "count", {}) == 403
    assert status("POST", "list", {"selector": {"prefix": ["mine"]}}) == 200
    entries = [{"key": ["yours", "b"], "value": 1}, {"key": ["mine", "c"], "value": 1}]
    done = api.call("PUT", "batch", {"entries": entries}, authorization="JWT limited").json
    assert ([one["key"][0] for one in done["failures"]], len(done["successes"])) == (["yours"], 1)
    assert status("DELETE", "batch", {"keys": [["mine", "a"], ["yours", "a"]]}) == 403
    assert api.count(["yours"]) == 1


# -- failures ---------------------------------------------------------------------------------------------


def failure_classes() -> list[type[KvasirError]]:
    return [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, KvasirError)]


@pytest.mark.parametrize("kind", failure_classes())
def test_every_class_of_failure_has_its_row(kind: type[KvasirError]) -> None:
    assert kind in responses.FAILURES
    answer = responses.failure(kind("what happened", fields=(("a.b", "wrong"),)), "GetKV", "r-1")
    assert answer.status == responses.FAILURES[kind].status >= 400
    assert answer.outcome in OUTCOMES


def test_statuses_of_failures() -> None:
    statuses = {kind.__name__: row.status for kind, row in responses.FAILURES.items()}
    assert statuses == {
        "KvasirError": 500,
        "Invalid": 400,
        "MethodNotAllowed": 405,
        "EncodedBody": 415,
        "TooLarge": 413,
        "NotFound": 404,
        "Unauthenticated": 401,
        "Forbidden": 403,
        "Conflicting": 409,
        "Unavailable": 503,
        "Timeout": 504,
        "UnknownOutcome": 500,
    }


class BrokenEngine(MemoryEngine):
    """Fails as it is told."""

    failure: Exception

    def get_nowait(self, space: int, keys: Sequence[bytes]) -> list[Entry | None]:
        raise self.failure

    async def get(self, space: int, keys: Sequence[bytes], max_bytes: int | None = None) -> list[Entry | None]:
        raise self.failure

    async def write(self, writes: Sequence[Write]) -> list[Outcome]:
        raise self.failure


@pytest.mark.parametrize(
    ("failure", "refusal", "headers"),
    [
        (errors.Unavailable("the queue is full"), (503, "unavailable", []), {"Retry-After": "1"}),
        (errors.UnknownOutcome("the commit failed"), (500, "unknown_outcome", []), {}),
        (errors.NotFound("gone", code="store_not_found"), (404, "store_not_found", []), {}),
    ],
)
def test_failures_of_the_engine(
    clock: ManualClock, failure: KvasirError, refusal: tuple[int, str, list[str]], headers: dict[str, str]
) -> None:
    engine = BrokenEngine(clock)
    engine.failure = failure
    api = Api(clock, engine)
    for answer in (api.get("a"), api.set("a"), api.call("PUT", "batch", {"entries": [{"key": ["a"], "value": 1}]})):
        assert answer.refusal() == refusal
        assert answer.headers == headers


def test_a_fault_never_leaks_and_names_the_request(clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    engine = BrokenEngine(clock)
    engine.failure = RuntimeError("secret path /var/lib")
    api = Api(clock, engine)
    with caplog.at_level(logging.ERROR):
        answer = api.get("a")
    assert answer.refusal() == (500, "internal", [])
    assert answer.response.outcome == "internal"
    assert "secret" not in answer.text
    assert FakeRequest.id in answer.json["details"]
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("kvasir.versori", "ERROR")
    assert FakeRequest.id in record.getMessage()


def test_every_failure_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "dialects" / "versori.md").read_text(encoding="utf-8")
    rows = {(int(status), code) for status, code in re.findall(r"^\| (\d{3}) \| `(\w+)` \|", text, re.MULTILINE)}
    own_words = {(400, "invalid_cursor"), (400, "too_large"), (404, "store_not_found"), (404, "route_not_found")}
    by_class = {(row.status, kind.code) for kind, row in responses.FAILURES.items()} - {
        (405, "invalid"),
        (415, "invalid"),
    }
    assert rows == by_class | own_words | {(405, "method_not_allowed"), (415, "unsupported_encoding")}
    assert all(f"| {operation} |" in text for operation in routes.OPERATIONS)
