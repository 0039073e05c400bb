"""A commit that was cut off and that nobody sees is settled at once: it does not appear after the next crash."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from kvasir.engines.sqlite.seqlocks import Seqlocks
from tests.support.faults import disk
from tests.support.raw_http import Client, Cut
from tests.support.serving import Server, serving, wait_until


def status(server: Server, store: str, key: str) -> int:
    """What a read is answered; not by a worker that is just dying."""
    found: list[int] = []

    def answered() -> bool:
        with contextlib.suppress(Cut, ConnectionError), Client(server, store) as client:
            found.append(client.get(key).status)
        return bool(found)

    wait_until(answered, "a worker answers")
    return found[0]


def test_what_a_killed_worker_left_in_the_log_stays_unseen(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2", env=disk.environment_of(tmp_path)) as server:
        store = server.store
        with Client(server, store) as client:
            assert client.put("a", 1).status == 200
            (tmp_path / disk.DIES_AFTER_SYNC).touch()
            with pytest.raises(Cut):
                client.put("ghost", 1)
        # The neighbour says what everybody may believe from now on.
        assert status(server, store, "ghost") == 404
        seqlocks = Seqlocks(server.data_dir / "kvasir.db")
        wait_until(lambda: not seqlocks.held(), "a worker has put things right")
        seqlocks.close()
        assert {status(server, store, "ghost") for _ in range(20)} == {404}
        server.kill()
    with serving(tmp_path) as server:
        assert (status(server, store, "ghost"), status(server, store, "a")) == (404, 200)


def test_a_server_whose_disk_cannot_sync_is_not_ready_and_the_failed_commit_stays_unseen(tmp_path: Path) -> None:
    with serving(tmp_path, env=disk.environment_of(tmp_path)) as server:
        store = server.store
        fault = tmp_path / disk.CANNOT_SYNC
        with Client(server, store) as client:
            assert client.put("a", 1).status == 200
            fault.touch()
            assert client.put("ghost", 1).json()["code"] == "unknown_outcome"

            def tried_in_vain() -> bool:
                assert not server.is_ready()
                return server.log.count("the disk failed and the database is not sound") >= 2

            wait_until(tried_in_vain, "it has tried twice to come back")
            assert client.put("a", 2).json()["code"] == "unavailable"
            fault.unlink()
            wait_until(server.is_ready, "the server is ready")
            assert client.get("ghost").status == 404
        server.kill()
    with serving(tmp_path) as server:
        assert (status(server, store, "ghost"), status(server, store, "a")) == (404, 200)
