"""What becomes of a commit that was cut off: it is seen or not, and as it was read first, so it stays.

Both outcomes are right, since nobody was told of the commit. What would be wrong is a change of mind: through the
repair of what the dead writer left, or through the next crash.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from kvasir.engines.sqlite.connection import for_reading
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


def put_and_die(server: Server, store: str, folder: Path) -> None:
    """Its worker is killed when the commit of `ghost` is in the log, but before any process can see it there."""
    with Client(server, store) as client:
        assert client.put("a", 1).status == 200
        (folder / disk.DIES_AFTER_SYNC).touch()
        with pytest.raises(Cut):
            client.put("ghost", 1)


def wait_until_settled(server: Server) -> None:
    with contextlib.closing(Seqlocks(server.data_dir / "kvasir.db")) as seqlocks:
        wait_until(lambda: not seqlocks.held(), "a worker has repaired what the dead one left")


def test_a_commit_that_a_living_process_does_not_see_stays_unseen(tmp_path: Path) -> None:
    """Whoever has the database open knows how far the log was valid when the writer died."""
    with serving(tmp_path, "--workers", "2", env=disk.environment_of(tmp_path)) as server:
        store = server.store
        # The second worker may not have opened the database yet, so the test does.
        with contextlib.closing(for_reading(server.data_dir / "kvasir.db")) as witness:
            assert witness.execute("SELECT count(*) FROM entry").get is not None
            put_and_die(server, store, tmp_path)
            # The neighbour says what everyone may believe from now on.
            assert status(server, store, "ghost") == 404
            wait_until_settled(server)
        assert {status(server, store, "ghost") for _ in range(20)} == {404}
        server.kill()
    with serving(tmp_path) as server:
        assert (status(server, store, "ghost"), status(server, store, "a")) == (404, 200)


def test_a_commit_that_only_the_dead_process_knew_is_recovered_and_stays_seen(tmp_path: Path) -> None:
    """When nobody has the database open, the next process to open it reads the whole log, and the commit is there."""
    with serving(tmp_path, env=disk.environment_of(tmp_path)) as server:
        store = server.store
        put_and_die(server, store, tmp_path)
    with serving(tmp_path, "--workers", "2") as server:
        assert status(server, store, "ghost") == 200
        wait_until_settled(server)
        assert {status(server, store, "ghost") for _ in range(20)} == {200}
        server.kill()
    with serving(tmp_path) as server:
        assert (status(server, store, "ghost"), status(server, store, "a")) == (200, 200)


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
                return server.log.count("the disk still fails") >= 1

            wait_until(tried_in_vain, "it has tried twice to come back")
            assert client.put("a", 2).json()["code"] == "unavailable"
            fault.unlink()
            wait_until(server.is_ready, "the server is ready")
            assert client.get("ghost").status == 404
        server.kill()
    with serving(tmp_path) as server:
        assert (status(server, store, "ghost"), status(server, store, "a")) == (404, 200)


@pytest.mark.parametrize("fault", [disk.NO_ROOM_IN_INDEX, disk.NO_ROOM_TO_SYNC])
def test_a_commit_whose_record_is_in_the_log_is_taken_back_if_there_was_no_room_to_publish_it(
    tmp_path: Path, fault: str
) -> None:
    """With room for a commit of a single page it is certain at once that nothing was written; without, it is not."""
    with serving(tmp_path, env=disk.environment_of(tmp_path)) as server:
        store = server.store
        with Client(server, store) as client:
            assert client.put("a", 1).status == 200
            (tmp_path / fault).touch()
            refusal = client.put("ghost", 1)
            if fault == disk.NO_ROOM_IN_INDEX:
                assert (refusal.status, refusal.json()["code"]) == (503, "unavailable"), refusal
                assert "the disk is full; nothing was written" in refusal.json()["message"]
            else:
                assert (refusal.status, refusal.json()["code"]) == (500, "unknown_outcome"), refusal
                wait_until(lambda: client.put("a", 2).json()["message"].startswith("the disk is full"), "it says why")
                (tmp_path / fault).unlink()
                wait_until(server.is_ready, "the server is ready")
            assert client.get("ghost").status == 404
            assert client.put("a", 2).status == 200
        server.kill()
    with serving(tmp_path) as server:
        assert (status(server, store, "ghost"), status(server, store, "a")) == (404, 200)
