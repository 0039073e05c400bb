"""One-time links to the console: spent once, soon, by whoever; never for more than who asked may do."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from kvasir.control import access_keys, console_links, records
from kvasir.engines.memory import MemoryEngine
from kvasir.errors import Unauthenticated, Unavailable
from kvasir.keys import prefix_range
from kvasir.model import SYSTEM_SPACE, Principal
from tests.support.clock import ManualClock
from tests.support.native import Client, refusal
from tests.support.organisations import ORGANISATION
from tests.support.serving import Server, serving, wait_until

OWNER = Principal(ORGANISATION, "owner", "somebody")


def client_of(server: Server, key: str | None = None) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=f"{server.url}/v1/", headers=headers, timeout=60, trust_env=False)


@pytest.fixture
def stranger(server: Server) -> Iterator[httpx.Client]:
    """Whoever has no credential: a browser."""
    with client_of(server) as client:
        yield client


def link(client: httpx.Client) -> str:
    """The code of a new link."""
    answer = client.post("console/links")
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert made["path"] == f"/console/#code={made['code']}"
    return str(made["code"])


def exchange(client: httpx.Client, code: str) -> httpx.Response:
    return client.post("console/exchange", json={"code": code})


def test_a_link_gives_a_key_with_the_rights_of_who_asked(
    v1: httpx.Client, stranger: httpx.Client, server: Server
) -> None:
    answer = exchange(stranger, link(v1))
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store, no-transform"
    made = answer.json()
    assert (made["name"], made["role"], made["spaces"], made["prefix"]) == ("console", "owner", None, None)
    life = datetime.fromisoformat(made["expires_at"]) - datetime.fromisoformat(made["created_at"])
    assert life == timedelta(hours=12)
    with client_of(server, made["key"]) as console:
        assert console.get("").json()["caller"]["name"] == made["id"]
        assert console.get("keys").status_code == 200


def test_a_link_is_used_once(v1: httpx.Client, stranger: httpx.Client) -> None:
    code = link(v1)
    assert exchange(stranger, code).status_code == 201
    assert refusal(exchange(stranger, code)) == (401, "unauthorized", [])


def test_whatever_is_no_code_gets_the_same_answer(v1: httpx.Client, stranger: httpx.Client) -> None:
    used = link(v1)
    exchange(stranger, used)
    codes = [used, "A" * 43, "", "é" * 43, "A" * 500, link(v1)[:-1] + "!"]
    answers = [exchange(stranger, code) for code in codes]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.json()["detail"] for answer in answers}) == 1
    assert refusal(stranger.post("console/exchange", json={"code": "A" * 2_000}))[0] == 413
    assert refusal(stranger.post("console/exchange", json={})) == (400, "invalid", ["code"])
    assert refusal(stranger.post("console/links"))[:2] == (401, "unauthorized")


def test_two_workers_spend_a_link_once(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as server, client_of(server, server.key) as owner:
        with contextlib.ExitStack() as open_clients:
            found: dict[str, httpx.Client] = {}

            def both_are_there() -> bool:
                client = open_clients.enter_context(client_of(server))
                found.setdefault(worker_of(client), client)
                return len(found) == 2

            wait_until(both_are_there, "a connection leads to the other worker")
            code = link(owner)
            assert [exchange(client, code).status_code for client in found.values()] == [201, 401]
        # And at the same moment
        code, statuses = link(owner), list[int]()
        start = threading.Barrier(8)

        def race() -> None:
            with client_of(server) as client:
                client.get("")
                start.wait()
                statuses.append(exchange(client, code).status_code)

        threads = [threading.Thread(target=race) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(statuses) == [201] + [401] * 7


def worker_of(client: httpx.Client) -> str:
    """Which process answers on a connection that stays open."""
    return client.get("").headers["x-request-id"].partition("-")[0]


@pytest.mark.parametrize(
    "scope",
    [{"role": "viewer"}, {"role": "developer", "prefix": ["a", "b/c"]}, {"role": "admin", "ttl": "1h"}, {"spaces": []}],
)
def test_the_key_of_a_link_may_do_no_more_than_who_asked(
    v1: httpx.Client, kv: Client, stranger: httpx.Client, server: Server, scope: dict[str, Any]
) -> None:
    asked = {"name": "asker", "role": "viewer"} | scope
    if "spaces" in scope:
        asked["spaces"] = [kv.id]
    asker = v1.post("keys", json=asked).json()
    with client_of(server, asker["key"]) as client:
        made = exchange(stranger, link(client)).json()
    assert {name: made[name] for name in ("role", "spaces", "prefix")} == {
        name: asker[name] for name in ("role", "spaces", "prefix")
    }
    if asker["expires_at"]:
        assert made["expires_at"] == asker["expires_at"]
    with client_of(server, made["key"]) as console:
        caller = console.get("").json()["caller"]
        assert (caller["role"], caller["prefix"]) == (asker["role"], asker["prefix"])
        status = console.put(f"spaces/{kv.id}/entries/zzz", content=b"1").status_code
        assert status == (201 if asker["role"] == "admin" else 403)
        assert console.get(f"spaces/{server.store}").status_code == (404 if asker["spaces"] else 200)


def test_the_key_of_a_link_ends_with_the_key_that_asked(
    v1: httpx.Client, stranger: httpx.Client, server: Server
) -> None:
    asker = v1.post("keys", json={"name": "asker", "role": "admin"}).json()
    with client_of(server, asker["key"]) as client:
        used, unused = link(client), link(client)
    made = exchange(stranger, used).json()
    with client_of(server, made["key"]) as console:
        assert console.get("").status_code == 200
        assert v1.delete(f"keys/{asker['id']}").status_code == 204
        assert console.get("").status_code == 401
    assert exchange(stranger, unused).status_code == 401
    assert made["id"] not in {key["id"] for key in v1.get("keys").json()["keys"]}


def test_signing_out_revokes_the_key_whatever_its_role(
    v1: httpx.Client, stranger: httpx.Client, server: Server
) -> None:
    viewer = v1.post("keys", json={"name": "asker", "role": "viewer"}).json()
    with client_of(server, viewer["key"]) as client:
        made = exchange(stranger, link(client)).json()
        with client_of(server, made["key"]) as console:
            assert console.delete(f"keys/{viewer['id']}").status_code == 403
            assert console.delete(f"keys/{made['id']}").status_code == 204
            assert console.get("").status_code == 401
        assert client.get("").status_code == 200


def test_a_key_that_came_by_a_link_makes_no_links(v1: httpx.Client, stranger: httpx.Client, server: Server) -> None:
    made = exchange(stranger, link(v1)).json()
    with client_of(server, made["key"]) as console:
        assert refusal(console.post("console/links"))[:2] == (403, "forbidden")


def test_links_of_one_caller_are_bounded(v1: httpx.Client, server: Server, stranger: httpx.Client) -> None:
    asker = v1.post("keys", json={"name": "asker", "role": "viewer"}).json()
    with client_of(server, asker["key"]) as client:
        codes = [link(client) for _ in range(console_links.LINKS_A_CALLER)]
        assert refusal(client.post("console/links"))[:2] == (503, "unavailable")
        assert exchange(stranger, codes[0]).status_code == 201
        link(client)
    link(v1)


def test_nothing_secret_is_kept_or_logged(v1: httpx.Client, stranger: httpx.Client, server: Server) -> None:
    code = link(v1)
    secret = exchange(stranger, code).json()["key"]
    assert code not in server.log
    assert secret not in server.log
    for file in server.data_dir.glob("kvasir.db*"):
        content = file.read_bytes()
        assert code.encode() not in content
        assert secret.encode() not in content


def test_without_a_console_there_are_no_links(tmp_path: Path) -> None:
    with serving(tmp_path, "--console", "off") as server, client_of(server, server.key) as client:
        assert refusal(client.post("console/links")) == (404, "console_off", [])
        assert refusal(exchange(client, "A" * 43)) == (404, "console_off", [])


# -- by the clock -------------------------------------------------------------------------------------------------


def spent(engine: MemoryEngine, clock: ManualClock, code: str, id: str = "one") -> tuple[access_keys.AccessKey, str]:
    return asyncio.run(console_links.exchange(engine, clock(), id, code))


def test_a_link_is_good_for_a_minute(clock: ManualClock) -> None:
    engine = MemoryEngine(clock)
    late, early = (asyncio.run(console_links.create(engine, clock(), OWNER))[0] for _ in range(2))
    clock.advance(59_999)
    assert spent(engine, clock, early)[0].role == "owner"
    clock.advance(1)
    with pytest.raises(Unauthenticated, match="kvasir console"):
        spent(engine, clock, late)
    assert asyncio.run(records.list_kind(engine, "console-link")) == []


def test_links_that_nobody_used_make_room_when_they_have_ended(clock: ManualClock) -> None:
    engine = MemoryEngine(clock)
    for _ in range(console_links.LINKS_A_CALLER):
        asyncio.run(console_links.create(engine, clock(), OWNER))
    with pytest.raises(Unavailable):
        asyncio.run(console_links.create(engine, clock(), OWNER))
    clock.advance(60_000)
    asyncio.run(console_links.create(engine, clock(), OWNER))


def test_a_key_outlives_neither_half_a_day_nor_who_asked_and_leaves_nothing(clock: ManualClock) -> None:
    engine = MemoryEngine(clock)
    code, _ = asyncio.run(console_links.create(engine, clock(), OWNER))
    key, secret = spent(engine, clock, code)
    assert key.expires_at == clock() + 12 * 3_600_000
    digest = access_keys.digest_of(secret)
    assert asyncio.run(access_keys.find_key(engine, digest)) == key
    clock.advance(12 * 3_600_000)
    assert asyncio.run(engine.count(SYSTEM_SPACE)) == 0
    brief = Principal(ORGANISATION, "viewer", "token", frozenset(["S"]), prefix_range(["a"]), clock() + 30_000)
    code, _ = asyncio.run(console_links.create(engine, clock(), brief))
    key, _ = spent(engine, clock, code)
    assert (key.expires_at, key.spaces, key.prefix) == (brief.expires_at, ("S",), ("a",))
    code, _ = asyncio.run(console_links.create(engine, clock(), brief))
    clock.advance(30_000)
    with pytest.raises(Unauthenticated):
        spent(engine, clock, code)


def test_wrong_codes_leave_nothing_behind(clock: ManualClock) -> None:
    engine = MemoryEngine(clock)
    before = asyncio.run(engine.epoch())
    for number in range(1_000):
        with pytest.raises(Unauthenticated):
            spent(engine, clock, f"{number:043}")
    assert asyncio.run(engine.count(SYSTEM_SPACE)) == 0
    assert asyncio.run(engine.epoch()) == before


def test_a_new_admin_key_ends_what_came_from_the_former(clock: ManualClock) -> None:
    engine = MemoryEngine(clock)
    former, newer = ("former" * 8, "newer" * 8)

    async def story() -> None:
        await access_keys.set_admin_key(engine, ORGANISATION, former, clock)
        code, _ = await console_links.create(engine, clock(), OWNER, access_keys.digest_of(former))
        unused, _ = await console_links.create(engine, clock(), OWNER, access_keys.digest_of(former))
        _, secret = await console_links.exchange(engine, clock(), "one", code)
        assert await access_keys.find_key(engine, access_keys.digest_of(secret)) is not None
        await access_keys.set_admin_key(engine, ORGANISATION, newer, clock)
        assert await access_keys.find_key(engine, access_keys.digest_of(secret)) is None
        with pytest.raises(Unauthenticated):
            await console_links.exchange(engine, clock(), "two", unused)

    asyncio.run(story())
