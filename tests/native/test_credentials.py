"""Access keys and service accounts through the API: never beyond their maker, and no secret but once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from kvasir.control.access_keys import ROLES
from kvasir.dialects.native import cursor
from kvasir.keys import pack
from tests.support.native import Client, Events, refusal
from tests.support.nemesis import client as nemesis
from tests.support.serving import Server

MANAGERS = ("owner", "admin")


def as_key(server: Server, key: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.Client(base_url=f"{server.url}/v1/", headers=headers, timeout=60, trust_env=False)


def make(v1: httpx.Client, **options: Any) -> Any:
    answer = v1.post("keys", json={"name": "made", "role": "viewer"} | options)
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture
def keys_of_roles(v1: httpx.Client, server: Server) -> Iterator[dict[str, httpx.Client]]:
    """A client with a key of each role."""
    clients = {role: as_key(server, make(v1, role=role)["key"]) for role in ROLES}
    yield clients
    for client in clients.values():
        client.close()


def test_a_key_is_shown_once_and_works_at_once_until_it_is_revoked(v1: httpx.Client, server: Server) -> None:
    answer = v1.post("keys", json={"name": "reader", "role": "viewer", "ttl": "1h", "prefix": ["a"]})
    made = answer.json()
    assert answer.headers["location"] == f"/v1/keys/{made['id']}"
    (listed,) = [key for key in v1.get("keys").json()["keys"] if key["id"] == made["id"]]
    assert listed == {name: member for name, member in made.items() if name != "key"}
    assert "digest" not in v1.get("keys").text
    assert made["key"] not in v1.get("keys").text
    with as_key(server, made["key"]) as client:
        caller = client.get("").json()["caller"]
        assert (caller["name"], caller["role"], caller["prefix"]) == (made["id"], "viewer", ["a"])
        assert caller["expires_at"] == made["expires_at"]
        assert v1.delete(f"keys/{made['id']}").status_code == 204
        assert refusal(client.get("")) == (401, "unauthorized", [])
    assert refusal(v1.delete(f"keys/{made['id']}")) == (404, "not_found", [])


@pytest.mark.parametrize(("maker", "wanted"), [*itertools.product(ROLES, ROLES)])
def test_nobody_makes_or_revokes_a_key_with_a_higher_role(
    keys_of_roles: dict[str, httpx.Client], v1: httpx.Client, maker: str, wanted: str
) -> None:
    allowed = maker in MANAGERS and ROLES.index(wanted) >= ROLES.index(maker)
    answer = keys_of_roles[maker].post("keys", json={"name": "x", "role": wanted})
    assert answer.status_code == (201 if allowed else 403)
    other = make(v1, role=wanted)["id"]
    assert keys_of_roles[maker].delete(f"keys/{other}").status_code == (204 if allowed else 403)
    account = keys_of_roles[maker].get("service-accounts").status_code
    assert account == keys_of_roles[maker].get("keys").status_code == (200 if maker in MANAGERS else 403)


def test_nobody_makes_a_key_with_wider_spaces_prefix_or_a_later_end(v1: httpx.Client, server: Server) -> None:
    mine, other = (v1.post("spaces", json={"name": f"scope {n}"}).json()["id"] for n in range(2))
    with as_key(server, make(v1, role="admin", spaces=[mine])["key"]) as scoped:
        assert scoped.post("keys", json={"name": "x", "role": "viewer", "spaces": [mine]}).status_code == 201
        assert scoped.post("keys", json={"name": "x", "role": "viewer"}).status_code == 403
        # What it may not know of is no space.
        assert scoped.post("keys", json={"name": "x", "role": "viewer", "spaces": [mine, other]}).status_code == 400
        assert scoped.post("service-accounts", json={"roles": ["Developer"]}).status_code == 403
    with as_key(server, make(v1, role="admin", prefix=["a", "b"])["key"]) as prefixed:
        inside, outside = (["a", "b"], ["a", "b", "c"]), (["a"], ["a", "bc"], None)
        for prefix, status in [(each, 201) for each in inside] + [(each, 403) for each in outside]:
            assert prefixed.post("keys", json={"name": "x", "role": "viewer", "prefix": prefix}).status_code == status
        assert prefixed.post("service-accounts", json={"roles": ["Developer"]}).status_code == 400
    with as_key(server, make(v1, role="admin", ttl="1h")["key"]) as passing:
        for options, status in (({"ttl": "30m"}, 201), ({"ttl": "2h"}, 403), ({}, 403)):
            assert passing.post("keys", json={"name": "x", "role": "viewer"} | options).status_code == status
        assert passing.post("service-accounts", json={"roles": ["Developer"]}).status_code == 403


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"role": "king"}, ["role"]),
        ({"name": ""}, ["name"]),
        ({"name": "x" * 256}, ["name"]),
        ({"ttl": "1"}, ["ttl"]),
        ({"ttl": "1h", "expires_at": "2100-01-01T00:00:00Z"}, ["ttl"]),
        ({"expires_at": "2000-01-01T00:00:00Z"}, ["expires_at"]),
        ({"prefix": []}, ["prefix"]),
        ({"spaces": []}, ["spaces"]),
        ({"spaces": ["x"]}, ["spaces[0]"]),
        ({"colour": 1}, ["colour"]),
    ],
)
def test_unfit_keys_are_refused_by_name(v1: httpx.Client, options: Any, fields: list[str]) -> None:
    answer = v1.post("keys", json={"name": "x", "role": "viewer"} | options)
    assert refusal(answer) == (400, "invalid", fields)
    for what in answer.json()["fields"]:
        assert what["message"].startswith(("must ", "is no ", "is not known ", "contradicts ")), (
            "it says what is allowed"
        )


def test_a_name_that_a_store_out_of_sight_has_is_taken(v1: httpx.Client, server: Server) -> None:
    for kind in ("store", "application"):
        mine, other = (
            v1.post("spaces", json={"name": f"{which}-{kind}", "kind": kind}).json() for which in ("mine", "theirs")
        )
        with as_key(server, make(v1, role="admin", spaces=[mine["id"]])["key"]) as scoped:
            answer = scoped.patch(f"spaces/{mine['id']}", json={"name": other["name"]})
            assert refusal(answer) == (409, "conflict", [])
            assert other["id"] not in answer.text
            assert scoped.get(f"spaces/{mine['id']}").json()["name"] == mine["name"]
            assert scoped.patch(f"spaces/{mine['id']}", json={"name": f"free-{kind}"}).status_code == 200


def test_a_key_for_a_prefix_makes_renames_and_ends_no_spaces(v1: httpx.Client, kv: Client, server: Server) -> None:
    with as_key(server, make(v1, role="admin", prefix=["a"])["key"]) as prefixed:
        for method, path, body in (
            ("POST", "spaces", {"name": "by-a-key-for-a-prefix"}),
            ("POST", "spaces", {"name": "by-a-key-for-a-prefix", "kind": "application"}),
            ("PATCH", f"spaces/{kv.id}", {"name": "renamed"}),
            ("DELETE", f"spaces/{kv.id}", None),
        ):
            assert refusal(prefixed.request(method, path, json=body)) == (403, "forbidden", [])


def test_a_forged_cursor_tells_a_key_for_a_prefix_of_nothing_beside_it(
    v1: httpx.Client, kv: Client, server: Server
) -> None:
    """A cursor is no secret: whoever knows how can make one for any place."""
    for key in ("a/x", "a%00", "secret/x", "secret"):
        kv.set(key, 1)
    with as_key(server, make(v1, role="viewer", prefix=["a"])["key"]) as client:
        for place in (["secret"], ["secret", "x"], ["a\0"], ["nothing"]):
            forged = cursor.encode(kv.id, pack(["a"]), "children", pack(place))
            answer = Client(client, kv.id).ask("GET", f"children?prefix=a&after={forged}")
            assert answer.json() == {"children": [], "next": None}


def test_a_prefix_limit_holds_for_every_operation(v1: httpx.Client, kv: Client, server: Server) -> None:
    for key in ("a", "a/b", "ab", "b"):
        kv.set(key, 1)
    with as_key(server, make(v1, role="developer", prefix=["a"])["key"]) as client:
        mine = Client(client, kv.id)
        assert v1.get(f"spaces/{kv.id}").json()["count"] == 4
        assert client.get(f"spaces/{kv.id}").json()["count"] == 2
        for method, path, body in (
            ("GET", "entries/ab", None),
            ("PUT", "entries/b", b"1"),
            ("DELETE", "entries/b", None),
            ("GET", "entries", None),
            ("GET", "children", None),
            ("GET", "count", None),
            ("GET", "export", None),
            ("GET", "watch", None),
            ("GET", "watch?key=b", None),
            ("DELETE", "entries?all=true", None),
            ("POST", "get", b'{"keys":[["a"],["b"]]}'),
            ("POST", "atomic", b'{"checks":[{"key":["b"],"present":true}],"mutations":[]}'),
            ("POST", "atomic", b'{"mutations":[{"type":"increment","key":["b"]}]}'),
            ("POST", "atomic", b'{"mutations":[{"type":"delete_prefix","prefix":[],"all":true}]}'),
        ):
            assert refusal(mine.ask(method, path, content=body)) == (403, "forbidden", []), path
        for path in ("entries?prefix=a", "children?prefix=a", "count?prefix=a", "export?prefix=a", "entries/a"):
            assert mine.ask("GET", path).status_code == 200
        assert mine.ask("POST", "import", content=b'{"key":["b"],"value":2}').json()["refused"] == 1
        assert kv.get("b").json() == 1


def test_service_accounts(v1: httpx.Client) -> None:
    app = v1.post("spaces", json={"name": "for-accounts", "kind": "application"}).json()["id"]
    body = {"roles": ["Developer", "Support"], "applications": [app], "description": "of a test"}
    made = v1.post("service-accounts", json=body)
    assert made.status_code == 201
    credentials = made.json()
    assert credentials["private_key"].startswith("-----BEGIN PRIVATE KEY-----")
    assert made.headers["location"] == f"/v1/service-accounts/{credentials['key_id']}"
    listed = v1.get("service-accounts")
    assert "PRIVATE" not in listed.text
    (account,) = [one for one in listed.json()["service_accounts"] if one["id"] == credentials["key_id"]]
    assert account | {"created_at": ""} == body | {
        "id": credentials["key_id"], "account_id": credentials["account_id"], "created_at": "",
    }  # fmt: skip
    assert v1.delete(f"service-accounts/{account['id']}").status_code == 204
    assert refusal(v1.delete(f"service-accounts/{account['id']}")) == (404, "not_found", [])
    assert refusal(v1.post("service-accounts", json={"roles": ["King"]})) == (400, "invalid", [])
    assert refusal(v1.post("service-accounts", json={"roles": []})) == (400, "invalid", ["roles"])
    store = v1.post("spaces", json={"name": "no application"}).json()["id"]
    wrong = v1.post("service-accounts", json={"roles": ["Developer"], "applications": [store]})
    assert refusal(wrong) == (400, "invalid", ["applications[0]"])


def test_no_role_finds_the_token_of_a_session_anywhere(keys_of_roles: dict[str, httpx.Client], server: Server) -> None:
    with nemesis(server.nemesis_url) as websocket:
        token = websocket.session("secret session", shared=True)
    for role, client in keys_of_roles.items():
        sessions = client.get("spaces", params={"kind": "session"}).json()["spaces"]
        assert sessions
        paths = ["", "spaces", "spaces?kind=session", "keys", "service-accounts", "stats"]
        for session in sessions:
            below = ("", "/entries", "/children", "/count", "/export", "/entry?key=%5B%22a%22%5D&form=entry")
            paths += [f"spaces/{session['id']}{path}" for path in below]
        for path in paths:
            answer = client.get(path)
            assert token not in answer.text, (role, path)
            assert token not in str(answer.headers), (role, path)
        with Events(Client(client, sessions[0]["id"])) as events:
            assert token not in str(events.next())
    assert token not in server.log
