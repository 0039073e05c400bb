"""The clock of a test bed: every kind of life in every API ends when it says, to the millisecond."""

from __future__ import annotations

import json
import time
from datetime import datetime
from typing import Any

import httpx
import pytest

from kvasir.testing import Server
from kvasir.testing.controls import ControlFailed
from tests.support.testbed import DAY_MS, LIVES, Failed, Nemesis, Versori, Voximplant, opened


@pytest.mark.parametrize(("name", "life", "milliseconds"), LIVES.values(), ids=LIVES)
def test_an_entry_is_there_until_a_millisecond_before_its_end(
    kvasir_server: Server, name: str, life: Any, milliseconds: int
) -> None:
    with opened(kvasir_server, name) as door:
        door.space.clock.freeze("2030-01-01T00:00:00Z")
        now = door.space.clock.now_ms()
        door.set("v", **life(now, milliseconds))
        assert door.space.clock.advance(f"{milliseconds - 1}ms") == 0
        assert door.get() == "v"
        assert door.space.clock.advance("1ms") == 1
        assert door.get() is None


@pytest.mark.parametrize("name", ["versori", "native"])
def test_reading_begins_a_sliding_life_afresh(kvasir_server: Server, name: str) -> None:
    life: dict[str, Any] = {"expireIn": DAY_MS, "refreshOnAccess": True}
    if name == "native":
        life = {"ttl": "24h", "refresh": "true"}
    with opened(kvasir_server, name) as door:
        door.space.clock.freeze()
        door.set("v", **life)
        for _ in range(3):
            door.space.clock.advance(f"{DAY_MS - 1}ms")
            assert door.get() == "v"
        door.space.clock.advance("24h")
        assert door.get() is None


@pytest.mark.parametrize("delete", [True, False], ids=["the session ends", "its keys are cleared"])
def test_a_session_of_nemesis_ends_or_clears_when_it_says(kvasir_server: Server, delete: bool) -> None:
    with opened(kvasir_server, "nemesis") as other:
        kvasir_server.clock.freeze()
        try:
            expiry = {"duration": 3_600, "deleteSession": delete}
            token = other.ask("SH_NEW", name="short", expiry=expiry)["tkn"]
            other.ask("KV_SET", tkn=token, keys={"k": 1})
            kvasir_server.clock.advance("3599999ms")
            assert other.ask("KV_GET", tkn=token, keys=["k"])["keys"] == {"k": 1}
            kvasir_server.clock.advance("1ms")
            found = other.ask("KV_GET", tkn=token, keys=["k"])
            assert found["st"] == 100 if delete else found["keys"] == {"k": None}
        finally:
            kvasir_server.reset()


def test_a_token_made_before_months_passed_still_works(kvasir_server: Server) -> None:
    with opened(kvasir_server, "voximplant") as door:
        assert isinstance(door, Voximplant)
        door.set("v", ttl=60)
        kvasir_server.clock.advance("91d")
        try:
            assert door.get() is None
            door.set("w", ttl=60)
            assert door.get() == "w"
        finally:
            kvasir_server.clock.freeze()
            kvasir_server.clock.run()


def test_one_space_far_ahead_leaves_the_others_alone(kvasir_server: Server) -> None:
    with opened(kvasir_server, "versori") as ahead, opened(kvasir_server, "versori") as behind:
        for door in (ahead, behind):
            door.set("v", expireIn=DAY_MS)
        ahead.space.clock.advance("31d")
        assert (ahead.get(), behind.get()) == (None, "v")
        before = behind.space.clock.now_ms()
        stamp = int(behind.set("w")["versionstamp"], 16)
        assert abs((stamp >> 20) - before) < 60_000, "the other space pulled its versionstamps along"


def test_versionstamps_never_repeat_and_times_never_go_back(kvasir_server: Server) -> None:
    with opened(kvasir_server, "versori") as door:
        assert isinstance(door, Versori)
        door.space.clock.freeze("2030-01-01T00:00:00Z")
        snapshot = door.space.snapshot()
        stamps = [door.set(n)["versionstamp"] for n in range(3)]
        door.space.restore(snapshot)
        assert door.get() is None
        stamps += [door.set(n)["versionstamp"] for n in range(3)]
        kvasir_server.controls.call("POST", "reset", space=door.space.id)
        stamps += [door.set(n)["versionstamp"] for n in range(3)]
        door.space.clock.freeze("2029-01-01T00:00:00Z")
        stamps += [door.set(n)["versionstamp"] for n in range(3)]
        assert stamps == sorted(set(stamps))


def test_a_frozen_clock_stands_and_runs_on(kvasir_server: Server) -> None:
    with opened(kvasir_server, "versori") as door:
        clock = door.space.clock
        clock.freeze("2030-01-01T00:00:00Z")
        assert clock.now_ms() == clock.now_ms() == 1_893_456_000_000
        clock.advance("1500ms")
        assert clock.now_ms() == 1_893_456_001_500
        clock.run()
        assert 0 <= clock.now_ms() - 1_893_456_001_500 < 60_000


@pytest.mark.parametrize("instant", ["nonsense", "", "2026-06-01", "2026-06-01T00:00:00", "2026-13-01T00:00:00Z"])
def test_an_instant_that_is_none_is_refused_with_one_that_is(kvasir_server: Server, instant: str) -> None:
    with opened(kvasir_server, "versori") as door:
        before = door.space.clock.now_ms()
        told = 'freeze must be "now" or a date-time as 2026-06-01T00:00:00Z'
        with pytest.raises(ControlFailed, match=f": {told}$|^{told}$"):
            door.space.clock.freeze(instant)
        assert 0 <= door.space.clock.now_ms() - before < 60_000


def test_clocks_show_1970_to_9999(kvasir_server: Server) -> None:
    with opened(kvasir_server, "versori") as door:
        clock = door.space.clock
        for good, bad in (
            ("1970-01-01T00:00:00Z", "1969-12-31T23:59:59.999Z"),
            ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999-00:01"),
        ):
            clock.freeze(good)
            at = clock.now_ms()
            with pytest.raises(ControlFailed, match="freeze must leave every clock within the years 1970 to 9999"):
                clock.freeze(bad)
            assert clock.now_ms() == at
        with pytest.raises(ControlFailed, match="advance must leave every clock"):
            clock.advance("1ms")
        clock.freeze("9900-01-01T00:00:00Z")
        clock.run()
        # It goes along with the clock of the server, to which this would be nothing.
        with pytest.raises(ControlFailed, match="advance must leave every clock"):
            kvasir_server.clock.advance("36525d")
        assert kvasir_server.clock.now_ms() < 9_000_000_000_000


def test_whatever_is_cached_about_a_session_ends_with_it(kvasir_server: Server) -> None:
    with opened(kvasir_server, "nemesis") as door:
        assert isinstance(door, Nemesis)
        token = door.ask("SH_NEW", name="x", expiry={"duration": 60, "deleteSession": True})["tkn"]
        assert door.ask("KV_COUNT", tkn=token)["cnt"] == 0
        kvasir_server.clock.advance("60s")
        assert door.ask("KV_COUNT", tkn=token)["st"] == 100
        kvasir_server.reset()


def test_our_own_api_judges_instants_by_the_clock_of_the_space(kvasir_server: Server) -> None:
    """In a PUT, in `atomic` and in an import; the life of an access key by the machine's."""
    headers = {"Authorization": f"Bearer {kvasir_server.key}"}
    with opened(kvasir_server, "native") as door:
        address = f"{kvasir_server.url}/v1/spaces/{door.space.id}"
        door.space.clock.freeze("2040-01-01T00:00:00Z")
        past = "2039-12-31T23:59:59Z"
        with pytest.raises(Failed) as failed:
            door.set("v", expires_at=past)
        assert failed.value.code == 400
        mutation = {"type": "set", "key": ["k"], "value": 1, "expires_at": past}
        assert httpx.post(f"{address}/atomic", json={"mutations": [mutation]}, headers=headers).status_code == 400
        line = json.dumps({"key": ["k"], "text": "1", "expires_at": past})
        assert httpx.post(f"{address}/import", content=line, headers=headers).json()["refused"] == 1
        assert door.get() is None
    kvasir_server.clock.advance("400d")
    try:
        made = httpx.post(
            f"{kvasir_server.url}/v1/keys", json={"name": "soon", "role": "viewer", "ttl": "1h"}, headers=headers
        ).json()
        assert time.time() < datetime.fromisoformat(made["expires_at"]).timestamp() < time.time() + 7_200
    finally:
        kvasir_server.reset()


def test_a_watch_ends_with_its_key_by_the_real_clock(kvasir_server: Server) -> None:
    """Months that pass in a test end no watch, and a clock that stands lets none live on."""
    owner = {"Authorization": f"Bearer {kvasir_server.key}"}

    def new_key(ttl: str) -> dict[str, str]:
        asked = {"name": "reader", "role": "viewer", "ttl": ttl}
        made = httpx.post(f"{kvasir_server.url}/v1/keys", json=asked, headers=owner).json()
        return {"Authorization": f"Bearer {made['key']}"}

    def watching(headers: dict[str, str]) -> Any:
        return client.stream("GET", address, headers=headers)

    with opened(kvasir_server, "native") as door, httpx.Client(timeout=30) as client:
        address = f"{kvasir_server.url}/v1/spaces/{door.space.id}/watch"
        try:
            kvasir_server.clock.advance("400d")
            kvasir_server.clock.freeze()
            with watching(new_key("1h")) as long, watching(new_key("1s")) as short:
                lines = long.iter_lines()
                assert next(line for line in lines if line.startswith("event")) == "event: ready"
                events = [line for line in short.iter_lines() if line.startswith(("event", "data"))]
                assert events[-2] == "event: error"
                assert json.loads(events[-1].removeprefix("data: "))["status"] == 401
                door.set("v")
                assert next(line for line in lines if line.startswith("event")) == "event: set"
        finally:
            kvasir_server.reset()
