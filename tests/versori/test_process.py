"""The API of a real server: a data set that nobody made for a test, and what only a process can show."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.cli import Commands
from tests.support.raw_http import Client, Wire, dump, request
from tests.support.serving import Server, serving, wait_until

BATCH = 500


@pytest.fixture
def kv(server: Server) -> Iterator[httpx.Client]:
    """A client of a store that nothing has been written to."""
    with httpx.Client(base_url=f"{server.url}/api/v2/", headers=server.headers, timeout=60) as client:
        name = f"store {client.get(f'o/{server.organisation}/store').text.count('orgId')}"
        created = client.post(f"o/{server.organisation}/store", json={"name": name}).json()
        client.base_url = client.base_url.join(f"store/{created['id']}/kv/")
        yield client


def subdivisions() -> dict[tuple[str, ...], Any]:
    """The subdivisions of the world's countries (ISO 3166-2), by country and code."""
    text = (files("pycountry") / "databases" / "iso3166-2.json").read_text(encoding="utf-8")
    return {("world", *one["code"].split("-", 1)): one for one in json.loads(text)["3166-2"]}


def test_a_data_set_of_others_is_loaded_and_read_back_in_every_way(kv: httpx.Client) -> None:
    world = subdivisions()
    assert len(world) > 4000
    keys = [list(key) for key in world]
    for start in range(0, len(keys), BATCH):
        entries = [{"key": key, "value": world[tuple(key)]} for key in keys[start : start + BATCH]]
        done = kv.put("batch", json={"entries": entries}).json()
        assert [one["key"] for one in done["successes"]] == keys[start : start + BATCH]
        assert len({one["versionstamp"] for one in done["successes"]}) == 1
        assert done["failures"] == []

    assert kv.post("count", json={}).json() == {"count": len(world)}
    french = [key for key in keys if key[1] == "FR"]
    assert kv.post("count", json={"selector": {"prefix": ["world", "FR"]}}).json() == {"count": len(french)}

    assert kv.get("world/FR/75C").json()["value"] == world["world", "FR", "75C"]
    for start in range(0, len(keys), BATCH):
        asked = keys[start : start + BATCH]
        found = kv.post("batch", json={"keys": asked}).json()["entries"]
        assert [(entry["key"], entry["value"]) for entry in found] == [(key, world[tuple(key)]) for key in asked]

    assert listed(kv, {}, reverse=True) == keys
    assert listed(kv, {"prefix": ["world", "FR"]}) == french[::-1]
    assert {tuple(key): value for key, value in pages(kv, {})} == world
    removed = kv.request("DELETE", "world/FR", json={"options": {"cascade": True}}).json()
    assert removed == {"status": "deleted", "count": len(french)}
    assert kv.post("count", json={}).json() == {"count": len(world) - len(french)}


def pages(kv: httpx.Client, selector: dict[str, Any], **options: Any) -> Iterator[tuple[list[str], Any]]:
    """(key, value) of all entries of a listing, page by page."""
    cursor = ""
    while True:
        answer = kv.post("list", json={"selector": {**selector, "after": cursor}, "options": options}).json()
        yield from ((entry["key"], entry["value"]) for entry in answer["data"])
        cursor = answer["pagination"]["nextCursor"]
        if not cursor:
            return


def listed(kv: httpx.Client, selector: dict[str, Any], **options: Any) -> list[list[str]]:
    return [key for key, _ in pages(kv, selector, **options)]


@pytest.mark.parametrize("target", ["%80", "a%2F%2Fb", "a//b", "%ED%A0%80", "x" * 2047], ids=range(5))
def test_odd_paths_reach_the_dialect_as_they_were_sent(kv: httpx.Client, target: str) -> None:
    answer = kv.put(target, json={"value": 1})
    assert answer.status_code == (413 if "x" in target else 400)
    assert answer.json()["fields"][0]["field"] == "key"


@pytest.mark.parametrize(
    ("target", "key"), [("%00", "\x00"), ("a%2Fb", "a/b"), ("%C3%A9", "é"), ("x" * 2046, "x" * 2046)], ids=range(4)
)
def test_odd_keys_of_a_path(kv: httpx.Client, target: str, key: str) -> None:
    assert kv.put(target, json={"value": target}).json()["committed"] is True
    assert kv.get(target).json()["value"] == target
    assert kv.post("batch", json={"keys": [key.split("/")]}).json()["entries"][0]["value"] == target


@pytest.mark.parametrize("scheme", ["Bearer", "JWT", "bearer", "jwt"])
def test_every_scheme_of_the_header_is_accepted(server: Server, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {server.key}"}
    assert httpx.get(f"{server.url}/o/{server.organisation}/store", headers=headers).status_code == 200


def test_the_cookie_is_accepted(server: Server) -> None:
    cookies = {"cookie": server.key}
    assert httpx.get(f"{server.url}/o/{server.organisation}/store", cookies=cookies).status_code == 200


def test_the_reference_is_served_without_a_credential(server: Server) -> None:
    document = httpx.get(f"{server.url}/openapi.json")
    assert document.headers["Content-Type"] == "application/json"
    assert document.json()["openapi"].startswith("3.1")
    page = httpx.get(f"{server.url}/docs")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "BatchSetKV" in page.text


def test_a_key_that_is_revoked_while_the_body_comes_changes_nothing(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        commands = Commands(server)
        made, good = (commands.json("key", "create", "--role", "admin", "--name", name) for name in ("late", "good"))

        def late(name: str, key: str) -> list[bytes]:
            return [
                request("PUT", f"/store/{server.store}/kv/{name}", dump({"value": 1}), key=key),
                request("POST", f"/o/{server.organisation}/store", dump({"name": name}), key=key),
            ]

        sent = [*late("late", made["key"]), *late("good", good["key"])]
        with contextlib.ExitStack() as stack:
            wires = [stack.enter_context(Wire(server.port)) for _ in sent]
            for wire, whole in zip(wires, sent, strict=True):
                wire.send(whole[:-1])
            began = time.monotonic()
            commands.text("key", "revoke", made["id"])
            again = stack.enter_context(Wire(server.port))
            again.send(sent[0])
            assert again.answer().status == 401
            wait_until(lambda: time.monotonic() - began > 2.5, "the bodies have taken long")
            for wire, whole in zip(wires, sent, strict=True):
                wire.send(whole[-1:])
            assert [wire.answer().status for wire in wires] == [401, 401, 200, 200]
        with Client(server, server.store) as client:
            assert client.get("late").status == 404
            assert client.get("good").status == 200
        assert "late" not in commands.text("store", "list")
