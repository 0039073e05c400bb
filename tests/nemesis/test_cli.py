"""`kvasir session …` and `kvasir store share`, with the server running."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import Commands
from tests.support.nemesis import client
from tests.support.serving import serving


def test_sessions_are_listed_shown_and_ended(tmp_path: Path) -> None:
    with serving(tmp_path) as server, client(server.nemesis_url) as caller:
        token = caller.session("one", shared=True)
        caller.session("two", expiry={"duration": 60, "deleteSession": False})
        caller.do("KV_SET", tkn=token, keys={"a": 1, "b": 2})
        one, two = Commands(server).json("session", "list")
        assert (one["name"], one["shared"], one["keys"]) == ("one", True, 2)
        assert (two["name"], two["clear_every_seconds"]) == ("two", 60)
        assert token not in Commands(server).text("session", "list")
        for handle in (one["id"], token, "one"):
            assert json.loads(Commands(server).text("session", "show", handle))["token"] == token
        # A client that has just used the session notices at once.
        Commands(server).text("session", "end", "one", "--yes")
        assert caller.do("KV_COUNT", tkn=token) == {"st": 100, "tkn": None, "m": token}
        assert caller.do("SH_INFO_ALL")["totalSessions"] == 1
        Commands(server)("session", "show", "one", status=1)
        Commands(server)("session", "end", two["id"], status=2)


def test_a_store_is_opened_like_a_session(tmp_path: Path) -> None:
    with serving(tmp_path) as server, client(server.nemesis_url) as caller:
        token = Commands(server).text("store", "share", "default", "--session", "front")
        assert caller.do("SH_OPEN", name="front") == {"tkn": token, "st": 1}
        assert caller.do("SH_NEW", name="front", shared=True) == {"st": 1, "name": "front", "tkn": token}
        assert caller.do("KV_SET", tkn=token, keys={"a": {"b": 1}})["keys"] == {"a": 20}
        info = caller.do("SH_INFO", tkn=token)
        assert (info["shared"], info["keyCnt"], info["expiry"]["expires"]) == (True, 1, False)
        # A client may end sessions, never a store.
        assert caller.do("SH_END", tkn=token)["st"] == 14
        assert caller.do("SH_END_ALL") == {"st": 1, "cnt": 0}
        assert caller.do("KV_GET", tkn=token, keys=["a"])["keys"] == {"a": {"b": 1}}
        # A second name has the same token; a name that is taken is refused.
        assert Commands(server).text("store", "share", server.store, "--session", "back") == token
        caller.session("taken", shared=True)
        Commands(server)("store", "share", "default", "--session", "taken", status=1)
        Commands(server).text("store", "unshare", "default", "--session", "front")
        assert caller.do("SH_OPEN", name="front")["st"] == 102
        assert caller.do("KV_COUNT", tkn=token)["cnt"] == 1
        Commands(server).text("store", "unshare", "default", "--session", "back")
        assert caller.do("KV_COUNT", tkn=token)["st"] == 100
        Commands(server)("store", "unshare", "default", "--session", "back", status=1)


def test_an_application_is_opened_like_a_session(tmp_path: Path) -> None:
    with serving(tmp_path) as server, client(server.nemesis_url) as caller:
        Commands(server).text("application", "create", "--name", "calls")
        token = Commands(server).text("store", "share", "calls", "--session", "calls")
        assert caller.do("SH_OPEN", name="calls") == {"tkn": token, "st": 1}
        assert caller.do("KV_SET", tkn=token, keys={"a": 1})["keys"] == {"a": 20}


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_a_store_is_not_shared_under_a_name_that_sh_open_refuses(tmp_path: Path, name: str) -> None:
    with serving(tmp_path) as server:
        refused = Commands(server)("store", "share", "default", "--session", name, status=2)
        assert "1 to 255 characters" in refused.stderr
