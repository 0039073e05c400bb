"""Spaces: what there is, made, shown, renamed and ended; and who asks."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from kvasir import __version__
from kvasir.dialects.native import app, routes
from kvasir.dialects.native.app import NativeDialect
from tests.support.native import Client, refusal
from tests.support.nemesis import client as nemesis
from tests.support.serving import Server


def test_every_operation_has_a_handler() -> None:
    assert list(app.HANDLERS) == [row.name for row in routes.OPERATIONS]
    assert len(set(app.HANDLERS)) == len(routes.OPERATIONS)


def test_the_server_says_what_it_is_and_who_asks(v1: httpx.Client, server: Server) -> None:
    about = v1.get("").json()
    assert about["version"] == __version__
    assert about["engine"] in ("sqlite", "postgresql")
    assert about["durability"] == "full"
    assert about["caller"] == {
        "name": "admin", "organisation": server.organisation, "role": "owner", "spaces": None, "prefix": None,
        "expires_at": None,
    }  # fmt: skip


def test_a_credential_is_a_header_and_never_a_cookie(server: Server) -> None:
    for headers in ({}, {"Cookie": f"cookie={server.key}"}, {"Authorization": "Bearer wrong"}):
        for path in ("", "spaces", f"spaces/{server.store}/entries/a", "stats"):
            answer = httpx.get(f"{server.url}/v1/{path}", headers=headers, trust_env=False)
            if path in {row.path for row in routes.OPERATIONS} or path.startswith("spaces/"):
                assert refusal(answer) == (401, "unauthorized", [])
                assert answer.headers["www-authenticate"] == 'Bearer realm="kvasir"'


def test_a_store_is_made_once_for_a_name(v1: httpx.Client) -> None:
    made = v1.post("spaces", json={"name": "made once"})
    assert made.status_code == 201
    space = made.json()
    assert made.headers["location"] == f"/v1/spaces/{space['id']}"
    again = v1.post("spaces", json={"name": "made once", "kind": "store"})
    assert (again.status_code, again.json()) == (200, space)
    assert space["aliases"] == [{"kind": "store", "name": "made once"}]
    assert v1.get(f"spaces/{space['id'].lower()}").json() == space | {"count": 0}


def test_an_application_is_made_with_a_number(v1: httpx.Client) -> None:
    made = v1.post("spaces", json={"name": "app", "kind": "application"})
    assert made.status_code == 201
    assert {alias["kind"] for alias in made.json()["aliases"]} == {"application", "application-name"}
    assert v1.post("spaces", json={"name": "app", "kind": "application"}).status_code == 200
    assert refusal(v1.post("spaces", json={"name": "1", "kind": "application"})) == (400, "invalid", ["name"])


@pytest.mark.parametrize(
    ("body", "fields"),
    [({}, ["name"]), ({"name": 1}, ["name"]), ({"name": ""}, ["name"]), ({"name": "x" * 256}, ["name"]), ([], []),
     ({"name": "a", "kind": "session"}, ["kind"]), ({"name": "a", "colour": 1}, ["colour"])],
)  # fmt: skip
def test_what_makes_no_space_is_refused(v1: httpx.Client, body: Any, fields: list[str]) -> None:
    answer = v1.post("spaces", json=body)
    assert refusal(answer) == (400, "invalid", fields)
    if fields == ["kind"]:
        assert answer.json()["detail"] == "kind: must be one of: store, application"


def test_a_store_is_renamed(v1: httpx.Client) -> None:
    space = v1.post("spaces", json={"name": "before"}).json()
    other = v1.post("spaces", json={"name": "taken"}).json()
    renamed = v1.patch(f"spaces/{space['id']}", json={"name": "after"})
    assert renamed.json() == space | {"name": "after", "aliases": [{"kind": "store", "name": "after"}]}
    assert v1.patch(f"spaces/{space['id']}", json={"name": "after"}).json()["name"] == "after"
    assert v1.post("spaces", json={"name": "after"}).json()["id"] == space["id"]
    assert v1.post("spaces", json={"name": "before"}).status_code == 201
    assert refusal(v1.patch(f"spaces/{space['id']}", json={"name": "taken"})) == (409, "conflict", [])
    assert v1.get(f"spaces/{other['id']}").json()["name"] == "taken"


def test_an_ended_space_is_gone_with_its_keys(kv: Client) -> None:
    kv.set("a", 1)
    assert kv.http.get(f"spaces/{kv.id}").json()["count"] == 1
    assert kv.http.delete(f"spaces/{kv.id}").status_code == 204
    assert refusal(kv.http.delete(f"spaces/{kv.id}")) == (404, "store_not_found", [])
    assert refusal(kv.get("a")) == (404, "store_not_found", [])
    assert refusal(kv.set("a", 1)) == (404, "store_not_found", [])
    assert refusal(kv.get("b")) == refusal(kv.http.get("spaces/01HF0000000000000000000000/entries/b"))


def test_spaces_are_listed_page_by_page(v1: httpx.Client) -> None:
    made = [v1.post("spaces", json={"name": f"listed {n}"}).json() for n in range(3)]
    v1.post("spaces", json={"name": "listed", "kind": "application"})
    found: list[Any] = []
    after: str | None = ""
    while after is not None:
        page = v1.get("spaces", params={"kind": "store", "limit": 2, **({"after": after} if after else {})}).json()
        assert len(page["spaces"]) <= 2
        found += page["spaces"]
        after = page["next"]
    assert [space for space in found if space["name"].startswith("listed")] == made
    assert {space["kind"] for space in found} == {"store"}
    assert {space["kind"] for space in v1.get("spaces").json()["spaces"]} >= {"store", "application"}
    for query in ("kind=bucket", "limit=0", "limit=1001", "limit=x"):
        assert v1.get(f"spaces?{query}").status_code == 400


def test_no_answer_has_the_token_of_a_session_or_of_a_shared_store(v1: httpx.Client, server: Server) -> None:
    with nemesis(server.nemesis_url) as websocket:
        token = websocket.session("secret session", shared=True)
    found = v1.get("spaces", params={"kind": "session"})
    (session,) = found.json()["spaces"]
    assert session["name"] == "secret session"
    assert "aliases" not in session
    one = v1.get(f"spaces/{session['id']}")
    renamed = v1.patch(f"spaces/{session['id']}", json={"name": "x"})
    assert refusal(renamed) == (400, "invalid", [])
    for answer in (found, one, renamed, v1.get("spaces"), v1.get("")):
        assert token not in answer.text
        assert token not in str(answer.headers)


# -- routes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["x", "spaces/", "spaces/x/y", "entries/a", "spaces//entries/a", "keys/a/b", "SPACES", "%73paces"]
)
def test_nothing_else_is_served(v1: httpx.Client, path: str) -> None:
    assert refusal(v1.get(path)) == (404, "route_not_found", [])


def test_a_slash_that_is_percent_encoded_separates_nothing(v1: httpx.Client, server: Server) -> None:
    for path in ("/v1%2Fspaces", f"/v1%2fspaces%2f{server.store}%2Fentries%2Fa", "/v1%2F", "/%761/spaces"):
        answer = httpx.get(server.url + path, headers=v1.headers, trust_env=False)
        assert refusal(answer) == (404, "route_not_found", [])


def test_other_methods_are_answered_with_those_that_are_served(kv: Client) -> None:
    answer = kv.ask("POST", "entries/a")
    assert refusal(answer) == (405, "method_not_allowed", [])
    assert answer.headers["allow"] == "DELETE, GET, HEAD, PUT"


def test_serves_claims_its_paths_only() -> None:
    for path in ("/v1", "/v1/", "/v1/spaces"):
        assert routes.serves(path)
    for path in ("/v10", "/v1x/spaces", "/api/v1/", "/", "/store/v1/kv/a"):
        assert not routes.serves(path)
    assert set(NativeDialect.operations) == {*app.HANDLERS, routes.UNROUTED}
