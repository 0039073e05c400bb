"""SIGTERM: whoever is in the middle of a request is answered, nothing acknowledged is lost, the exit status is 0."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.faults.load import Writer, verified
from tests.support.raw_http import Client, Wire, dump, request
from tests.support.serving import Server, serving, wait_until


@contextmanager
def writers_wait(server: Server) -> Iterator[None]:
    """Another process has the turn to write, and takes its time."""
    lock = os.open(f"{server.data_dir / 'kvasir.db'}-writer", os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def metric(server: Server, name: str) -> float:
    """The sum of a metric's samples."""
    with Wire(server.port) as wire:
        lines = wire.ask("GET", "/metrics").body.decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((name + " ", name + "{")))


def test_requests_in_flight_are_answered_and_the_last_word_is_kept(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        store = server.store
        wires = [Wire(server.port) for _ in range(40)]
        slow = Wire(server.port)
        body = dump({"value": "slow"})
        half = request("PUT", f"/store/{store}/kv/slow", body)
        with writers_wait(server):
            slow.send(half[:-5])
            for n, wire in enumerate(wires):
                wire.send(request("PUT", f"/store/{store}/kv/flight/{n}", dump({"value": n})))
            wait_until(lambda: metric(server, "kvasir_writes_waiting") >= 40, "all of them wait for the disk")
            os.kill(server.pid, signal.SIGTERM)
            wait_until(lambda: "stopping" in server.log, "the server begins to stop")
        slow.send(half[-5:])
        for wire in (*wires, slow):
            answer = wire.answer()
            assert answer.status == 200, answer
            wire.close()
        assert server.stop() == 0
    with serving(tmp_path) as server, Client(server, store) as client:
        assert client.count("flight") == 40
        assert client.get("slow").json()["value"] == "slow"


@pytest.mark.usefixtures("each_engine")
@pytest.mark.parametrize("workers", ["1", "2"])
def test_nothing_acknowledged_under_load_is_lost(tmp_path: Path, workers: str) -> None:
    with serving(tmp_path, "--workers", workers) as server:
        store = server.store
        writers = [Writer(server, store, str(n)) for n in range(8)]
        for writer in writers:
            writer.start()
        wait_until(lambda: all(writer.log[1] > 20 for writer in writers), "the load is on")
        assert server.stop() == 0
        for writer in writers:
            writer.join(60)
            assert not writer.is_alive()
        assert "Traceback" not in server.log
    with serving(tmp_path, "--workers", workers) as server:
        assert verified(server, store, writers) > 8 * 20


def test_a_client_that_never_reads_does_not_keep_the_server_from_stopping(tmp_path: Path) -> None:
    with serving(tmp_path, "--drain-seconds", "2") as server:
        with Client(server, server.store) as client:
            assert client.put("big", "x" * 1_000_000).status == 200
        stuck = Wire(server.port)
        body = dump({"keys": [["big"]] * 30})
        for _ in range(4):
            stuck.send(request("POST", f"/store/{server.store}/kv/batch", body))
        wait_until(lambda: metric(server, "kvasir_requests_total") > 2, "the answers are on their way")
        assert server.stop() == 0
        stuck.close()


@pytest.mark.usefixtures("each_engine")
def test_what_has_no_whole_request_is_let_go_of_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, "--drain-seconds", "600", "--limit-head-seconds", "600") as server:
        idle, half, served = Wire(server.port), Wire(server.port), Wire(server.port)
        half.send(b"GET /healthz HT")
        assert served.ask("GET", "/healthz").status == 200
        assert server.stop() == 0, "long before the time to drain is over"
        for wire in (idle, half, served):
            wire.close()


def test_a_client_that_never_finishes_its_request_does_not_either(tmp_path: Path) -> None:
    with serving(tmp_path, "--drain-seconds", "2") as server:
        stuck = Wire(server.port)
        stuck.send(request("PUT", f"/store/{server.store}/kv/a", dump({"value": 1}))[:-1])
        idle = Wire(server.port)
        half = Wire(server.port)
        half.send(b"GET /healthz HT")
        assert server.stop() == 0
        for wire in (stuck, idle, half):
            wire.close()
