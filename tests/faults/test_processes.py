"""Several processes on one database: what one has taken back, no other still allows."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.cli import Commands
from tests.support.nemesis import client
from tests.support.raw_http import Client, Wire, dump
from tests.support.serving import serving, wait_until

pytestmark = pytest.mark.usefixtures("each_engine")


def test_a_revoked_key_and_a_deleted_store_stop_working_at_once_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with (
        serving(tmp_path, "--workers", "2") as one,
        serving(tmp_path / "second", "--data-dir", str(one.data_dir)) as other,
    ):
        wires = [Wire(server.port) for server in (one, one, one, one, other)]
        for round in range(3):
            made = Commands(one).json("key", "create", "--name", f"n{round}", "--role", "developer")
            store = Commands(one).json("store", "create", f"s{round}")["id"]
            path = f"/store/{store}/kv/a"
            for wire in wires:
                for _ in range(3):  # also from what they remember
                    assert wire.ask("PUT", path, dump({"value": 1}), key=made["key"]).status == 200
                    assert wire.ask("GET", path, key=made["key"]).status == 200
            Commands(one).text("key", "revoke", made["id"])
            for wire in wires:
                for method, body in (("GET", b""), ("PUT", dump({"value": 2}))):
                    answer = wire.ask(method, path, body, key=made["key"])
                    assert (answer.status, answer.json()["code"]) == (401, "unauthorized")
                assert wire.ask("GET", path).status == 200
            Commands(one).text("store", "delete", store, "--yes")
            for wire in wires:
                for method, body in (("GET", b""), ("PUT", dump({"value": 2}))):
                    answer = wire.ask(method, path, body)
                    assert (answer.status, answer.json()["code"]) == (404, "store_not_found")


def test_what_one_process_acknowledged_every_other_reads(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with serving(tmp_path) as one, serving(tmp_path / "second", "--data-dir", str(one.data_dir)) as other:
        with Client(one, one.store) as first, Client(other, one.store) as second:
            for n in range(200):
                writer, reader = (first, second) if n % 2 else (second, first)
                stamp = writer.put("a", n).json()["versionstamp"]
                read = reader.get("a").json()
                assert (read["value"], read["versionstamp"]) == (n, stamp)
        assert other.stop() == 0
        with Client(one, one.store) as client:
            assert client.put("a", "on").status == 200


def test_a_worker_that_dies_is_replaced_and_its_neighbours_go_on(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as server, Client(server, server.store) as client:
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
        if not children.exists():
            return
        before = children.read_text().split()
        assert len(before) == 2
        assert client.put("a", 1).status == 200
        os.kill(int(before[0]), signal.SIGKILL)

        def answered() -> bool:
            with Client(server, server.store) as again:
                return again.put("a", 2).status == 200

        wait_until(
            lambda: len(children.read_text().split()) == 2 and before[0] not in children.read_text().split(),
            "a new worker",
        )
        wait_until(answered, "the server answers")
        assert server.stop() == 0


def test_a_session_that_ends_through_one_server_is_over_at_once_in_the_other(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with (
        serving(tmp_path) as one,
        serving(tmp_path / "second", "--data-dir", str(one.data_dir)) as other,
        client(one.nemesis_url) as here,
        client(other.nemesis_url) as there,
    ):
        for caller, neighbour in ((here, there), (there, here)) * 3:
            token = caller.session()
            for _ in range(3):  # also from what it remembers
                assert "a" in neighbour.do("KV_SET", tkn=token, keys={"a": 1})["keys"]
                assert neighbour.do("KV_GET", tkn=token, keys=["a"])["keys"] == {"a": 1}
            assert caller.do("SH_END", tkn=token)["st"] == 1
            assert neighbour.do("KV_GET", tkn=token, keys=["a"])["st"] == 100
            assert neighbour.do("KV_SET", tkn=token, keys={"a": 2})["st"] == 100
