"""What an access key may do through the NemesisDB API, and that it learns nothing of others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from tests.support.cli import Commands
from tests.support.nemesis import Client, Raw, client
from tests.support.serving import Server, serving

ELSEWHERE = "01M7YZZZZZZZZZZZZZZZZZZZZZ"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, "--nemesis-auth", "key") as running:
        yield running


@contextmanager
def caller(server: Server, *options: str, path: str = "") -> Iterator[Client]:
    """A connection with a new key."""
    with client(server.nemesis_url + path, additional_headers=headers(server, *options)) as connected:
        yield connected


def headers(server: Server, *options: str) -> dict[str, str]:
    made = Commands(server).json("key", "create", "--name", "test", *options)
    return {"Authorization": f"Bearer {made.get('key') or made.get('secret')}", "X-Key-Id": made["id"]}


def saved(caller: Client, name: str) -> int:
    """The last status of a SH_SAVE."""
    reply = caller.do("SH_SAVE", name=name)
    status = caller.receive()["SH_SAVE_RSP"]["st"] if reply["st"] == 120 else reply["st"]
    return int(status)


def test_saves_are_those_of_one_organisation(server: Server, tmp_path: Path) -> None:
    with (
        caller(server, "--role", "owner") as mine,
        caller(server, "--role", "owner", "--organisation", ELSEWHERE) as foreign,
    ):
        living, ended = mine.session("living", shared=True), mine.session("ended")
        for token in (living, ended):
            mine.do("KV_SET", tkn=token, keys={"a": "saved"})
        assert saved(mine, "backup") == 121
        mine.do("KV_SET", tkn=living, keys={"a": "newer"})
        mine.do("SH_END", tkn=ended)
        assert foreign.do("SH_LOAD", name="backup") == {"st": 142, "name": "backup"}
        foreign.session()
        assert saved(foreign, "backup") == 121
        # Not even a copy of the files changes what belongs to others.
        (theirs,) = (tmp_path / "data" / "saves").glob("_*/backup/*/data/0/0")
        (ours,) = (tmp_path / "data" / "saves").glob("backup/*/data/0/0")
        theirs.write_bytes(ours.read_bytes())
        assert foreign.do("SH_LOAD", name="backup")["sessions"] == 1
        assert mine.do("KV_GET", tkn=living, keys=["a"])["keys"] == {"a": "newer"}
        assert foreign.do("KV_GET", tkn=living, keys=["a"])["st"] == 100


def test_a_viewer_saves_nothing(server: Server, tmp_path: Path) -> None:
    with caller(server, "--role", "viewer") as viewer:
        assert saved(viewer, "backup") == 14
    assert not (tmp_path / "data" / "saves").exists()


@pytest.mark.parametrize("limit", [(), ("--prefix", '["a"]')], ids=["any key", "some keys"])
def test_anyone_who_may_write_creates_the_store_of_profile_09(server: Server, limit: tuple[str, ...]) -> None:
    with (
        caller(server, "--role", "viewer", path="/0.9") as viewer,
        caller(server, "--role", "developer", "--store", server.store, path="/0.9") as elsewhere,
        caller(server, "--role", "developer", *limit, path="/0.9") as developer,
    ):
        assert viewer.do("KV_COUNT") == elsewhere.do("KV_SET", keys={"a": 1}) == {"st": 14}
        assert developer.do("KV_SET", keys={"a": 1}) == {"st": 1}
        assert viewer.do("KV_COUNT") == {"cnt": 1, "st": 1}
        assert viewer.do("KV_CLEAR") == {"st": 14}


def test_sessions_of_others_are_not_counted(server: Server, tmp_path: Path) -> None:
    with (
        caller(server, "--role", "owner") as mine,
        caller(server, "--role", "viewer", "--organisation", ELSEWHERE) as foreign,
        caller(server, "--role", "viewer", "--store", server.store) as elsewhere,
        caller(server, "--role", "viewer", "--prefix", '["a"]') as part,
    ):
        mine.do("KV_SET", tkn=mine.session(), keys={"a": 1, "b": 2})
        assert mine.do("SH_INFO_ALL") == {"totalSessions": 1, "totalKeys": 2}
        for other in (foreign, elsewhere):
            assert other.do("SH_INFO_ALL") == {"totalSessions": 0, "totalKeys": 0}
        assert part.do("SH_INFO_ALL")["st"] == 14


def test_a_key_for_a_prefix_ends_no_session(server: Server, tmp_path: Path) -> None:
    with (
        caller(server, "--role", "owner") as mine,
        caller(server, "--role", "developer", "--prefix", '["a"]') as part,
    ):
        token = mine.session()
        mine.do("KV_SET", tkn=token, keys={"b": 1})
        assert part.do("SH_END", tkn=token)["st"] == 14
        assert part.do("SH_END_ALL")["st"] == 14
        assert mine.do("KV_COUNT", tkn=token)["cnt"] == 1


def test_a_key_for_one_session_finds_it_among_many(server: Server, tmp_path: Path) -> None:
    with caller(server, "--role", "owner") as mine:
        for number in range(300):
            mine.session(f"s{number}")
        last = Commands(server).json("session", "list")[-1]["id"]
        with caller(server, "--role", "developer", "--store", last) as one:
            assert one.do("SH_INFO_ALL")["totalSessions"] == 1
            assert one.do("SH_END_ALL")["cnt"] == 1
        assert mine.do("SH_INFO_ALL")["totalSessions"] == 299


def test_a_silent_connection_needs_a_valid_key_too(server: Server) -> None:
    with Raw(server.nemesis_port, "Authorization: Bearer wrong\r\n") as raw:
        assert raw.closed_with() == 1008


@pytest.mark.only_sqlite("with PostgreSQL it would take a query for every silent connection, again and again")
def test_a_silent_connection_ends_when_its_key_is_revoked(server: Server, tmp_path: Path) -> None:
    key = headers(server, "--role", "developer")
    with client(server.nemesis_url, additional_headers=key) as silent:
        Commands(server).text("key", "revoke", key["X-Key-Id"])
        with pytest.raises(ConnectionClosed) as closed:
            silent.receive()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
