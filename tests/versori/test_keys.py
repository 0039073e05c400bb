"""Keys in path form and in the batch form, odd ones above all; and which operation a path means."""

from __future__ import annotations

from typing import Any

import pytest

from kvasir.dialects.versori import routes
from tests.support.organisations import ORGANISATION
from tests.support.versori import Api

ODD_KEYS = [
    [""],
    ["", ""],
    ["/"],
    ["a/b", "c"],
    [".."],
    ["a", ".", "..", "b"],
    ["\x00"],
    ["a\x00", "\x00\xff"],
    ["\ufffd"],
    [" ", "+", "%2F", "%"],
    ["batch"],
    ["list"],
    ["é", "é", "日本", "🎈", "\U0010ffff"],
    ["a"] * 500,
]


@pytest.mark.parametrize("key", ODD_KEYS, ids=ascii)
def test_every_key_can_be_said_in_the_batch_form(api: Api, key: list[str]) -> None:
    done = api.call("PUT", "batch", {"entries": [{"key": key, "value": 1}]})
    assert done.json["successes"][0]["key"] == key
    found = api.call("POST", "batch", {"keys": [key]}).json["entries"]
    assert [(entry["key"], entry["value"]) for entry in found] == [(key, 1)]
    assert api.page({"prefix": key}).json["data"] == found
    assert api.call("DELETE", "batch", {"keys": [key]}).json["count"] == 1


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("products/123", ["products", "123"]),
        ("products%2F123", ["products", "123"]),
        ("products%2f123/a", ["products", "123", "a"]),
        ("a+b", ["a+b"]),
        ("a%20b%3F%23", ["a b?#"]),
        ("%C3%A9", ["é"]),
        ("%EF%BF%BD", ["\ufffd"]),
        ("a:b@c;d=e,f", ["a:b@c;d=e,f"]),
        ("a/../b", ["a", "..", "b"]),
        ("..", [".."]),
        ("%00", ["\x00"]),
        ("%252F", ["%2F"]),
        ("list", ["list"]),
        ("count", ["count"]),
        ("list/x", ["list", "x"]),
        ("batch/x", ["batch", "x"]),
    ],
)
def test_a_path_is_decoded_and_then_split(api: Api, path: str, key: list[str]) -> None:
    assert api.call("PUT", path, {"value": path}).json["committed"] is True
    entries = api.call("POST", "batch", {"keys": [key]}).json["entries"]
    assert [entry["value"] for entry in entries] == [path]
    assert api.value(path) == path
    assert api.call("DELETE", path).json["count"] == 1


@pytest.mark.parametrize(
    "path", ["", "/", "a//b", "a/", "/a", "a%2F", "%2F%2F", "%80", "a/%FF", "%ED%A0%80", "%C3", "%", "a%2", "%zz"]
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_key_that_no_path_can_say_is_refused_and_told_the_batch_form(api: Api, path: str, method: str) -> None:
    answer = api.call(method, path, {"value": 1} if method == "PUT" else None)
    assert answer.refusal() == (400, "invalid", ["key"])
    assert "batch form" in answer.json["message"]
    assert api.count() == 0


def test_two_broken_paths_are_never_one_key(api: Api) -> None:
    for path in ("%80", "%81"):
        assert api.call("PUT", path, {"value": 1}).status == 400


def test_a_body_for_one_key_means_the_key_batch(api: Api) -> None:
    """What the service's command line sends for `kv set|delete|wipe` of that key."""
    assert api.call("PUT", "batch", {"value": "here", "options": {"ifNotExists": True}}).json["committed"] is True
    assert api.call("PUT", "batch", {"value": 2, "options": {"ifNotExists": True}}).json["committed"] is False
    assert api.value("batch") == "here"
    api.set("batch/below")
    assert api.call("DELETE", "batch", {"options": {}}).json == {"status": "deleted", "count": 1}
    assert api.value("batch/below") == 1
    assert api.call("DELETE", "batch", {"options": {"cascade": True}}).json["count"] == 1
    assert api.call("PUT", "batch", {"value": "x" * 1_048_575}).refusal() == (413, "too_large", ["value"])
    # What says neither is still a batch that lacks something.
    for method, field in (("PUT", "entries"), ("DELETE", "keys")):
        answer = api.call(method, "batch", {})
        assert answer.refusal() == (400, "invalid", [field])
        assert "batch form" in answer.json["message"]
    assert api.call("DELETE", "batch").refusal() == (400, "invalid", ["keys"])


def test_a_key_may_have_2048_bytes_packed_and_no_more(api: Api) -> None:
    longest = "x" * 2046
    assert api.set(longest).json["committed"] is True
    assert api.value(longest) == 1
    assert api.set("é" * 1023).status == 200
    over = (413, "too_large", ["key"])
    for method in ("GET", "PUT", "DELETE"):
        assert api.call(method, longest + "x", {"value": 1}).refusal() == over
        assert api.call(method, "é" * 1023 + "x", {"value": 1}).refusal() == over
    assert api.call("POST", "batch", {"keys": [["a"], [longest + "x"]]}).refusal() == (413, "too_large", ["keys[1]"])
    for options in ({}, {"cascade": True}):
        body = {"keys": [["a"], [longest + "x"]], "options": options}
        assert api.call("DELETE", "batch", body).refusal() == (413, "too_large", ["keys[1]"])


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_keys_are_arrays_of_strings(api: Api, method: str) -> None:
    wrongs: list[tuple[Any, str]] = [
        ("a", "keys"),
        (None, "keys"),
        ([[]], "keys[0]"),
        ([["a"], "b"], "keys[1]"),
        ([["a"], {"a": 1}], "keys[1]"),
        ([["a", 1]], "keys[0][1]"),
        ([["a"], [None]], "keys[1][0]"),
    ]
    for wrong, field in wrongs:
        assert api.call(method, "batch", {"keys": wrong}).refusal() == (400, "invalid", [field])


# -- routes -----------------------------------------------------------------------------------------------


def test_every_operation_is_served_under_the_base_and_at_the_root(api: Api) -> None:
    reached = set()
    for base in ("", "/api/v2"):
        targets = [("kv/some/key", routes.KEY)] + [(f"kv/{name}", methods) for name, methods in routes.FIXED.items()]
        for rest, methods in targets:
            for method, operation in methods.items():
                body = b'{"value": 1, "entries": []}'
                answer = api.send(method, f"{base}/store/{api.id}/{rest}", body)
                assert answer.response.operation == operation
                reached.add((base, operation))
        for method, operation in routes.STORES.items():
            answer = api.send(method, f"{base}/o/{ORGANISATION}/store", b'{"name": "n"}')
            assert (answer.status, answer.response.operation) == (200, operation)
            reached.add((base, operation))
    assert len(reached) == 2 * len(routes.OPERATIONS) == 20


@pytest.mark.parametrize(
    ("method", "rest", "allow"),
    [
        ("POST", "kv/a", "DELETE, GET, PUT"),
        ("PATCH", "kv/a/b", "DELETE, GET, PUT"),
        ("HEAD", "kv/a", "DELETE, GET, PUT"),
        ("OPTIONS", "kv/batch", "DELETE, GET, POST, PUT"),
        ("PATCH", "kv/list", "DELETE, GET, POST, PUT"),
        ("TRACE", "kv/count", "DELETE, GET, POST, PUT"),
        ("POST", "kv/batch/x", "DELETE, GET, PUT"),
    ],
)
def test_other_methods_are_answered_with_those_that_are_served(api: Api, method: str, rest: str, allow: str) -> None:
    answer = api.send(method, f"/store/{api.id}/{rest}")
    assert answer.refusal() == (405, "method_not_allowed", [])
    assert answer.headers["Allow"] == allow
    assert answer.response.outcome == "invalid"
    assert api.send("DELETE", f"/o/{ORGANISATION}/store").headers["Allow"] == "GET, POST"


@pytest.mark.parametrize(
    "path",
    ["/store", "/store/{id}", "/store/{id}/kv", "/store/{id}/files/a", "/o/x/stores", "/o/x/store/y", "/api/v2/", "/x",
     "/api/v3/store/{id}/kv/a", "///store/{id}/kv/a", "/API/V2/store/{id}/kv/a", ""],
)  # fmt: skip
def test_nothing_else_is_served(api: Api, path: str) -> None:
    answer = api.send("GET", path.replace("{id}", api.id), authorization=None)
    assert answer.refusal() == (404, "route_not_found", [])
    assert answer.response.operation == routes.UNROUTED


def test_a_base_address_may_end_in_a_slash_and_a_ulid_may_be_in_lower_case(api: Api) -> None:
    api.set("a", 7)
    for path in ("/store/{id}", "//store/{id}", "/api/v2/store/{id}", "/api/v2//store/{id}"):
        for id in (api.id, api.id.lower()):
            target = path.replace("{id}", id) + "/kv/a"
            assert api.dialect.serves(target)
            assert api.send("GET", target).json["value"] == 7
    assert api.send("GET", f"//o/{ORGANISATION.lower()}/store").status == 200


def test_serves_claims_its_paths_only(api: Api) -> None:
    for path in ("/store/x/kv/y", "/o/x/store", "/api/v2/anything"):
        assert api.dialect.serves(path)
    for path in ("/", "/docs", "/healthz", "/storefront", "/platform_api/SetKeyValueItem"):
        assert not api.dialect.serves(path)
