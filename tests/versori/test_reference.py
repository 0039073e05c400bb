"""The OpenAPI document says what is served, and the page of /docs shows all of it from this server alone."""

from __future__ import annotations

import asyncio
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from kvasir.dialects.operations.reference import ReferenceDialect
from kvasir.dialects.versori import openapi, requests, responses, routes
from kvasir.limits import Limits
from tests.support.request import FakeRequest
from tests.support.versori import Api

METHODS = ("get", "put", "post", "delete")

#: The operations and schemas of the service's own document, with all their members.
OPTIONS = {
    "SetOptions": "expireIn expireAt refreshOnAccess ifVersionstamp ifNotExists overwrite metadata",
    "GetOptions": "timeout",
    "DeleteOptions": "ifVersionstamp cascade",
    "ListOptions": "limit reverse",
    "ListSelector": "prefix before after filter",
    "ListFilter": "createdAfter createdBefore metadata",
    "KVEntry": "key value versionstamp createdAt expiresAt metadata",
    "KVCommitResult": "ok versionstamp committed key",
    "KVBatchFailure": "key error index",
    "Error": "code message fields details",
    "Pagination": "nextCursor prevCursor",
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return openapi.document(Limits())


def operations(document: dict[str, Any]) -> dict[str, tuple[str, str, dict[str, Any]]]:
    return {
        item[method]["operationId"]: (method.upper(), path, item[method])
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    }


def test_every_operation_is_described_under_its_path(document: dict[str, Any]) -> None:
    described = operations(document)
    for operation, (method, path, _) in described.items():
        target = path.replace("{store}", "S").replace("{organisation_id}", "O").replace("{key}", "k/e/y")
        assert routes.route(method, target)[0] == operation.partition("_")[0]
    assert set(routes.OPERATIONS) == {name for name in described if "_" not in name}
    served = {(method, name) for name, methods in routes.FIXED.items() for method in routes.KEY | methods}
    assert served == {
        (method, path.rpartition("/")[2])
        for method, path, _ in described.values()
        if not path.endswith(("}", "/store"))
    }


def test_every_option_is_described(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    for name, members in OPTIONS.items():
        assert set(schemas[name]["properties"]) == set(members.split())


def test_every_status_of_a_failure_is_described(document: dict[str, Any]) -> None:
    described = {status for _, _, one in operations(document).values() for status in one["responses"]}
    assert described == {"200", "default", *(str(row.status) for row in responses.FAILURES.values())}
    for response in document["components"]["responses"].values():
        (media,) = response["content"].values()
        details = {row.details for row in responses.FAILURES.values()}
        assert media["example"]["details"].replace("3f1c9a52", "{request}") in details


def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    def look(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                found: Any = document
                for step in node["$ref"].removeprefix("#/").split("/"):
                    found = found[step]
            for child in node.values():
                look(child)
        elif isinstance(node, list):
            for child in node:
                look(child)

    look(document)


def test_examples_do_what_they_show(document: dict[str, Any], api: Api) -> None:
    for operation, (method, path, one) in operations(document).items():
        if "requestBody" in one and "{store}" in path and "_" not in operation:
            (media,) = one["requestBody"]["content"].values()
            rest = path.partition("/kv/")[2].replace("{key}", "products/123")
            answer = api.call(method, rest, media["example"])
            shown = one["responses"]["200"]["content"]["application/json"]["example"]
            assert answer.status == 200
            assert set(answer.json) == set(shown)


def test_the_limits_in_force_are_described() -> None:
    limits = Limits(batch_keys=7, page_entries=5, store_name_characters=3, value_bytes=12_345)
    schemas = openapi.document(limits)["components"]["schemas"]
    assert schemas["BatchEntries"]["maxItems"] == 7
    assert schemas["BatchGetKVRequest"]["properties"]["keys"]["maxItems"] == 7
    assert schemas["BatchDeleteKVRequest"]["properties"]["keys"]["maxItems"] == 7
    assert (
        schemas["ListOptions"]["properties"]["limit"] | {"maximum": 5, "default": 5}
        == (schemas["ListOptions"]["properties"]["limit"])
    )
    assert schemas["CreateStoreRequest"]["properties"]["name"]["maxLength"] == 3
    assert "12,345" in schemas["SetKVRequest"]["properties"]["value"]["description"]
    lifetimes = schemas["SetOptions"]["properties"]["expireIn"]
    assert lifetimes["maximum"] == requests.MAX_LIFE_MS
    assert re.findall(r"\{\w+_\w+\}", str(schemas)) == []


# -- the page ---------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What the page refers to and what it defines."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.ids: set[str] = {"top"}
        self.links: set[str] = set()
        self.styled: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.add(value or "")
            elif name in ("href", "src"):
                self.links.add(value or "")
            elif name == "style" or name.startswith("on"):
                self.styled.append(name)


def read(reference: ReferenceDialect, path: str, method: str = "GET") -> tuple[int, str, dict[str, str]]:
    response = asyncio.run(reference(FakeRequest(method, path)))
    return response.status, response.body.decode(), dict(response.headers)


def test_the_page_needs_nothing_that_its_policy_forbids(document: dict[str, Any]) -> None:
    reference = ReferenceDialect(document, document)
    status, text, headers = read(reference, "/docs")
    assert status == 200
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self'; img-src 'self'")
    page = Page(text)
    assert not page.tags & {"script", "style", "iframe"}
    assert page.styled == []
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
    others = {link for link in page.links if not link.startswith("#")}
    assert others == {"/openapi.json", "/docs", "/docs/v1", "/docs/style.css", "/docs/icon.svg"}
    for link in others:
        assert reference.serves(link)
        assert read(reference, link)[0] == 200
    assert "url(" not in read(reference, "/docs/style.css")[1]


def test_the_page_shows_every_operation_schema_and_status(document: dict[str, Any]) -> None:
    page = Page(read(ReferenceDialect(document, document), "/docs")[1])
    assert {*routes.OPERATIONS, *document["components"]["schemas"]} <= page.ids


def test_the_reference_is_only_read(document: dict[str, Any]) -> None:
    reference = ReferenceDialect(document, document)
    status, _, headers = read(reference, "/docs", "POST")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert not reference.serves("/docs/nothing")
