"""Readers who mean harm, with a key that may read: what they ask for is bounded, and ends when they leave."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.gauges import Watch, seconds_until_idle
from tests.support.cli import Commands
from tests.support.nemesis import TEXT, Raw, client, frame
from tests.support.raw_http import Client, Wire, dump, request
from tests.support.serving import Server, serving, wait_until

MIB = 1 << 20
#: Metadata that takes milliseconds to compare with this filter: Python takes them for equal, which JSON does not.
METADATA = '{"m":[' + "[]," * 4_000 + "true]}"
FILTER: dict[str, object] = {"selector": {"filter": {"metadata": {"m": [[]] * 4_000 + [1]}}}}
ENTRIES = 1_500


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with 64 values of 1 MiB, and entries that are slow to filter."""
    with serving(tmp_path_factory.mktemp("hostile"), "--drain-seconds", "1") as server:
        stock(server)
        yield server


def stock(server: Server) -> None:
    with Client(server, server.store) as client:
        for n in range(64):
            assert client.put(f"large/{n}", "x" * (MIB - 2)).status == 200
        for at in range(0, ENTRIES, 100):
            entries = ",".join(
                f'{{"key":["slow","{n}"],"value":1,"options":{{"metadata":{METADATA}}}}}' for n in range(at, at + 100)
            )
            answer = client.wire.ask("PUT", f"/store/{server.store}/kv/batch", f'{{"entries":[{entries}]}}'.encode())
            assert len(answer.json()["successes"]) == 100


@pytest.fixture(scope="module")
def viewer(stocked: Server) -> str:
    """The secret of a key that may only read."""
    return Commands(stocked)("key", "create", "--name", "viewer", "--role", "viewer").stdout.strip()


def listing(server: Server, key: str, body: object) -> bytes:
    return request("POST", f"/store/{server.store}/kv/list", dump(body), key=key)


def test_pages_that_nobody_reads_stay_small(stocked: Server, viewer: str) -> None:
    asked = listing(stocked, viewer, {"selector": {"prefix": ["large"]}})
    with Watch(stocked) as watch:
        wires = [Wire(stocked.port) for _ in range(20)]
        for wire in wires:
            for _ in range(5):
                wire.send(asked)
        wait_until(lambda: watch.answers > 50, "all are busy")
        for wire in wires:
            wire.close()
    assert watch.above_rest_mib < 300


def test_a_page_ends_by_its_bytes_and_the_cursor_goes_on(stocked: Server, viewer: str) -> None:
    found: list[str] = []
    selector: dict[str, object] = {"prefix": ["large"]}
    with Wire(stocked.port) as wire:
        while True:
            wire.send(listing(stocked, viewer, {"selector": selector}))
            page = wire.answer().json()
            assert 1 <= len(page["data"]) <= 4
            found += [entry["key"][1] for entry in page["data"]]
            if not page["pagination"]["nextCursor"]:
                break
            selector["after"] = page["pagination"]["nextCursor"]
    assert found == [str(n) for n in reversed(range(64))]


def test_large_answers_that_nobody_reads_are_bounded(stocked: Server, viewer: str) -> None:
    """Beyond the room for them, others are told to try again; when the readers have left, there is room again."""
    body = dump({"keys": [["large", str(n)] for n in range(31)]})
    asked = request("POST", f"/store/{stocked.store}/kv/batch", body, key=viewer)
    with Watch(stocked) as watch, Wire(stocked.port) as other:
        wires = [Wire(stocked.port) for _ in range(12)]
        for wire in wires:
            wire.send(asked)

        def is_refused() -> bool:
            other.send(asked)
            return other.answer().status == 503

        wait_until(is_refused, "there is no room for another large answer")
        assert other.ask("GET", f"/store/{stocked.store}/kv/slow/1", key=viewer).status == 200
        for wire in wires:
            wire.close()
        wait_until(lambda: not is_refused(), "there is room again")
    assert watch.above_rest_mib < 512


@pytest.mark.parametrize("goodbye", ["reset", "close"])
def test_a_scan_ends_when_its_client_leaves(stocked: Server, viewer: str, goodbye: str) -> None:
    """It would take a second to its end, and they take turns."""
    wires = [Wire(stocked.port) for _ in range(30)]
    for wire in wires:
        wire.send(listing(stocked, viewer, FILTER))
    time.sleep(0.3)
    for wire in wires:
        if goodbye == "reset":
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        wire.close()
    assert seconds_until_idle(stocked.pid, most=20) < 4
    with Wire(stocked.port) as wire:
        wire.send(listing(stocked, viewer, {"options": {"limit": 1}}))
        assert wire.answer().status == 200


def test_a_drain_cancels_scans_when_its_time_is_over(tmp_path: Path) -> None:
    with serving(tmp_path, "--drain-seconds", "1") as server:
        stock(server)
        wires = [Wire(server.port) for _ in range(8)]
        for wire in wires:
            wire.send(listing(server, server.key, FILTER))
        time.sleep(0.3)
        os.kill(server.pid, signal.SIGTERM)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 5
        for wire in wires:
            wire.close()


def test_searches_end_when_their_clients_leave(stocked: Server) -> None:
    """Each would take a second or two, and they take turns."""
    with client(stocked.nemesis_url) as nemesis:
        session = nemesis.session("searched")
        for n in range(4):
            nemesis.do("KV_SET", tkn=session, keys={f"k{n}": [{"a": 1}] * 80_000})
    searching = dump({"KV_FIND": {"tkn": session, "path": "$..[?(@.a > 1)]", "rsp": "keys"}})
    callers = [Raw(stocked.nemesis_port) for _ in range(20)]
    for caller in callers:
        caller.send(frame(TEXT, searching))
    time.sleep(0.3)
    for caller in callers:
        caller.__exit__()
    assert seconds_until_idle(stocked.pid, most=20) < 4


def test_a_message_that_is_slow_to_parse_is_answered_like_any_other(stocked: Server) -> None:
    with client(stocked.nemesis_url) as nemesis:
        session = nemesis.session("large messages")
        many = {str(n): n for n in range(30_000)}
        assert len(nemesis.do("KV_SET", tkn=session, keys=many)["keys"]) == 30_000
        assert nemesis.do("KV_GET", tkn=session, keys=list(many))["keys"] == many
        assert nemesis.do("KV_COUNT", tkn=session)["cnt"] == 30_000
        dense = [{"a": n} for n in range(20_000)]
        nemesis.do("KV_SET", tkn=session, keys={"dense": dense})
        assert nemesis.do("KV_APPEND", tkn=session, dense=[1])["st"] == 1
        assert nemesis.do("KV_UPDATE", **{"tkn": session, "key": "dense", "/5/a": "x"})["st"] == 1
        (stored,) = nemesis.do("KV_GET", tkn=session, keys=["dense"])["keys"].values()
        assert stored == [*dense[:5], {"a": "x"}, *dense[6:], 1]
        refused = nemesis.ask('{"KV_SET":{"tkn":"x","keys":{"a":[' + "[]," * 110_000 + "1]}}}")
        assert refused["ERR"]["st"] == 42
