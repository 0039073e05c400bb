"""Watching: every change once and in order, whoever made it; what is missed is said; and how watches end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.cli import run
from tests.support.native import Client, Events, refusal
from tests.support.raw_http import Client as Versori
from tests.support.serving import Server, serving, wait_until


def test_every_kind_of_change_is_told(kv: Client) -> None:
    kv.set("old", 1)
    with Events(kv) as events:
        assert events.response.headers["content-type"] == "text/event-stream"
        assert events.response.headers["cache-control"] == "no-store, no-transform"
        name, data, id = events.next()
        assert name == "ready"
        assert id == data["versionstamp"]
        kv.set("a/b", b" 1.50\n", "ttl=1h", kvasir_metadata='{"x": 1}')
        name, data, id = events.next()
        entry = kv.entry("a", "b")
        assert name == "set"
        assert id is not None
        assert id >= entry["versionstamp"]
        assert data == {name: member for name, member in entry.items() if name != "value"} | {"text": " 1.50\n"}
        kv.delete("a/b")
        name, data, id = events.next()
        assert (name, data["key"]) == ("delete", ["a", "b"])
        kv.ask("POST", "atomic", json={"mutations": [{"type": "touch", "key": ["old"], "ttl": "1h"}]})
        name, data, _ = events.next()
        assert (name, data["key"], data["expires_at"]) == ("expiry", ["old"], kv.entry("old")["expires_at"])
        kv.ask("DELETE", "entries?prefix=old")
        assert events.next()[:2] == ("delete_prefix", {"prefix": ["old"], "versionstamp": events_stamp(kv)})
        kv.set("last", 1)
        assert events.next()[0] == "set"
        kv.ask("DELETE", "entries?all=true")
        name, data, _ = events.next()
        assert (name, data["prefix"]) == ("delete_prefix", [])


def events_stamp(kv: Client) -> object:
    """Anything, since no answer tells the versionstamp of a deletion."""

    class Anything:
        def __eq__(self, other: object) -> bool:
            return isinstance(other, str)

        __hash__ = None  # type: ignore[assignment]

    return Anything()


def test_only_what_is_asked_for_is_told(kv: Client) -> None:
    with Events(kv, "prefix=a") as under, Events(kv, 'key=b&key=["c","d"]') as some:
        assert under.next()[0] == some.next()[0] == "ready"
        for key in ("x", "a", "ab", "b/c", "b", "a/b", "c/d"):
            kv.set(key, 1)
        assert [under.next()[1]["key"] for _ in range(2)] == [["a"], ["a", "b"]]
        assert [some.next()[1]["key"] for _ in range(2)] == [["b"], ["c", "d"]]


def test_the_events_of_one_transaction_have_one_id_on_the_last(kv: Client) -> None:
    with Events(kv) as events:
        events.next()
        sets = [{"type": "set", "key": [key], "value": key} for key in "abc"]
        stamp = kv.ask("POST", "atomic", json={"mutations": sets}).json()["versionstamp"]
        told = [events.next() for _ in range(3)]
        assert {data["key"][0] for _, data, _ in told} == {"a", "b", "c"}
        assert [id for _, _, id in told[:2]] == [None, None]
        assert str(told[2][2]) >= stamp == told[0][1]["versionstamp"]


def test_who_comes_back_is_told_what_was_missed_or_to_read_again(kv: Client) -> None:
    with Events(kv) as events:
        _, _, id = events.next()
    assert id is not None
    kv.set("a", 1)
    with Events(kv, headers={"Last-Event-ID": id}) as events:
        name, _, _ = events.next()
        if name == "ready":
            assert events.next()[1]["key"] == ["a"]
        else:
            assert name == "resync"
    for unknown in ("7fffffffffffffff0000", "x", "0" * 19 + "g"):
        with Events(kv, headers={"Last-Event-ID": unknown}) as events:
            assert events.next()[0] == "resync"
            kv.set("a", 2)
            assert events.next()[1]["key"] == ["a"]


def test_long_values_are_not_in_events(kv: Client) -> None:
    with Events(kv) as events:
        events.next()
        kv.set("long", b'"' + b"x" * 65_534 + b'"')
        assert len(events.next()[1]["text"]) == 65_536
        kv.set("long", b'"' + b"x" * 65_535 + b'"')
        _, data, _ = events.next()
        assert (data["key"], "text" in data) == (["long"], False)


def test_a_change_by_another_api_is_told(kv: Client, server: Server) -> None:
    with Events(kv) as events, Versori(server, kv.id) as versori:
        events.next()
        versori.put("a/b", {"n": 1})
        name, data, _ = events.next()
        assert (name, data["key"], json.loads(data["text"])) == ("set", ["a", "b"], {"n": 1})


@pytest.mark.parametrize(
    ("query", "field"), [("prefix=", "prefix"), ("key=a&prefix=b", "key"), ("key=", "key"), ("key=[", "key")]
)
def test_unfit_watches_are_refused(kv: Client, query: str, field: str) -> None:
    status, _, fields = refusal(kv.ask("GET", f"watch?{query}"))
    assert status == 400
    assert fields in ([field], [])


# -- how watches end --------------------------------------------------------------------------------------


def test_an_ended_space_ends_its_watches_within_a_second(kv: Client) -> None:
    with Events(kv) as events:
        events.next()
        kv.http.delete(f"spaces/{kv.id}")
        began = time.monotonic()
        name, data, _ = events.next()
        assert (name, data["code"], data["status"]) == ("error", "store_not_found", 404)
        assert events.ended()
        assert time.monotonic() - began < 30


def test_a_revoked_key_ends_its_watches(kv: Client, server: Server) -> None:
    made = run("key", "create", "--role", "viewer", "--name", "watcher", "--json", *server.database_options)
    key = json.loads(made.stdout)
    headers = {"Authorization": f"Bearer {key['key']}"}
    client = httpx.Client(base_url=f"{server.url}/v1/", headers=headers, timeout=60, trust_env=False)
    with client, Events(Client(client, kv.id)) as events:
        assert events.next()[0] == "ready"
        run("key", "revoke", key["id"], *server.database_options)
        name, data, _ = events.next()
        assert (name, data["code"]) == ("error", "unauthorized")
        assert events.ended()


@pytest.fixture
def short_lived(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, "--limit-credential-watches", "3") as server:
        yield server


def test_sigterm_ends_watches_with_bye_and_does_not_wait_for_them(short_lived: Server) -> None:
    url, headers = f"{short_lived.url}/v1/", short_lived.headers
    client = httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False)
    with client, Events(Client(client, short_lived.store)) as events:
        events.next()
        began = time.monotonic()
        assert short_lived.stop() == 0
        assert time.monotonic() - began < 15  # of the 20 s that requests are given
        assert events.next()[0] == "bye"
        assert events.ended()


def test_a_credential_has_only_so_many_watches_and_those_who_leave_give_way(short_lived: Server) -> None:
    url, headers = f"{short_lived.url}/v1/", short_lived.headers
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
        kv = Client(client, short_lived.store)
        watches = [Events(kv) for _ in range(3)]
        for events in watches:
            assert events.next()[0] == "ready"
        answer = kv.ask("GET", "watch")
        assert refusal(answer) == (503, "unavailable", [])
        assert answer.headers["retry-after"] == "1"
        for events in watches:
            events.close()

        def there_is_room() -> bool:
            with Events(kv) as events:
                return events.response.status_code == 200

        wait_until(there_is_room, "the places are free again")


def test_the_log_of_requests_has_neither_paths_nor_queries(tmp_path: Path) -> None:
    with serving(tmp_path, "--access-log") as server:
        with httpx.Client(base_url=f"{server.url}/v1/", headers=server.headers, trust_env=False) as client:
            kv = Client(client, server.store)
            kv.set("unheard-of", 1, kvasir_metadata='{"x":"unheard-of"}')
            kv.get("unheard-of")
            kv.ask("GET", "entries?prefix=unheard-of")
            kv.ask("GET", "entries?prefix=unheard-of&colour=unheard-of")
        wait_until(lambda: server.log.count("native") >= 4, "the requests are logged")
        assert "GetEntry" in server.log
        assert "unheard-of" not in server.log


def test_head_of_a_watch(kv: Client) -> None:
    for _ in range(3):
        assert kv.ask("HEAD", "watch").status_code == 200
