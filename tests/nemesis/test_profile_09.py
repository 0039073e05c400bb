"""Profile 0.9: what the last official Python client sends, and what it makes of the replies."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from kvasir.server.save_directory import SaveDirectory
from tests.support.nemesis import Client, client, local
from tests.support.organisations import ORGANISATION
from tests.support.serving import serving

ST_SUCCESS, ST_SAVE_COMPLETE, ST_LOAD_COMPLETE = 1, 120, 141


class ResponseError(Exception):
    """What that client raises for any status other than the one it expects."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class NdbClient:
    """Its calls, messages and rules: one request at a time, and the next message is its reply."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def _query(self, command: str, body: dict[str, Any], expected: int = ST_SUCCESS) -> Any:
        await self._connection.send(json.dumps({command: body}))
        reply = json.loads(await self._connection.recv())
        if command + "_RSP" in reply:
            status = reply[command + "_RSP"]["st"]
            if status != expected:
                raise ResponseError(status)
            return reply[command + "_RSP"]
        raise ResponseError(reply["ERR"]["st"])

    async def set(self, keys: dict[str, Any]) -> None:
        await self._query("KV_SET", {"keys": keys})

    async def add(self, keys: dict[str, Any]) -> None:
        await self._query("KV_ADD", {"keys": keys})

    async def get(self, key: str | None = None, keys: Iterable[str] = ()) -> Any:
        found = (await self._query("KV_GET", {"keys": [key] if key else list(keys)}))["keys"]
        return found.get(key) if key else found

    async def rmv(self, keys: Iterable[str]) -> None:
        await self._query("KV_RMV", {"keys": list(keys)})

    async def clear(self) -> int:
        return int((await self._query("KV_CLEAR", {}))["cnt"])

    async def count(self) -> int:
        return int((await self._query("KV_COUNT", {}))["cnt"])

    async def contains(self, keys: Iterable[str]) -> list[str]:
        return list((await self._query("KV_CONTAINS", {"keys": list(keys)}))["contains"])

    async def keys(self) -> list[str]:
        return list((await self._query("KV_KEYS", {}))["keys"])

    async def clear_set(self, keys: dict[str, Any]) -> int:
        return int((await self._query("KV_CLEAR_SET", {"keys": keys}))["cnt"])

    async def save(self, name: str) -> None:
        await self._query("KV_SAVE", {"name": name}, ST_SAVE_COMPLETE)

    async def load(self, name: str) -> int:
        return int((await self._query("KV_LOAD", {"name": name}, ST_LOAD_COMPLETE))["keys"])

    async def info(self) -> dict[str, Any]:
        reply = await self._query("SV_INFO", {})
        return {name: value for name, value in reply.items() if name != "st"}


def test_every_call_of_the_client(tmp_path: Path) -> None:
    async def story(url: str) -> None:
        async with connect(url) as connection:
            kv = NdbClient(connection)
            info = await kv.info()
            assert info == {"persistEnabled": True, "serverVersion": "0.9"}
            await kv.clear()
            await kv.set({"username": "billy", "address": {"city": "Paris"}, "n": 1, "none": None})
            assert await kv.get(key="username") == "billy"
            assert await kv.get(keys=("username", "nope", "none")) == {"username": "billy", "none": None}
            assert await kv.get(key="nope") is None
            await kv.add({"username": "other", "added": 2})
            assert await kv.get(keys=("username", "added")) == {"username": "billy", "added": 2}
            assert await kv.keys() == ["username", "address", "n", "none", "added"]
            assert await kv.contains(("added", "nope", "n")) == ["added", "n"]
            assert await kv.count() == 5
            await kv.rmv(("n", "never there"))
            assert await kv.count() == 4
            await kv.save("dump")
            assert await kv.clear_set({"only": 1}) == 4
            assert await kv.keys() == ["only"]
            assert await kv.load("dump") == 4
            assert await kv.get(keys=("only", "username")) == {"only": 1, "username": "billy"}
            with pytest.raises(ResponseError) as refused:
                await kv.load("never saved")
            assert refused.value.status == 142
            with pytest.raises(ResponseError) as empty:
                await kv.rmv(())
            assert empty.value.status == 42
            assert await kv.clear() == 5

    with serving(tmp_path) as server:
        asyncio.run(story(server.nemesis_url + "/0.9"))
        asyncio.run(story(server.nemesis_url + "/0.9/?x=1"))
    with serving(tmp_path, "--nemesis-profile", "0.9") as server:
        asyncio.run(story(server.nemesis_url))


@pytest.fixture
def caller() -> Iterator[Client]:
    with local() as server, client(server.url + "/0.9") as connected:
        yield connected


@pytest.mark.parametrize(
    ("message", "reply"),
    [
        (b"{}", '{"ERR":{"st":2}}'),
        ("nope", '{"ERR":{"st":3}}'),
        ("", '{"ERR":{"st":3}}'),
        ("[]", '{"ERR":{"st":13}}'),
        ("5", '{"ERR":{"st":13}}'),
        ("null", '{"ERR":{"st":13}}'),
        ("{}", '{"ERR":{"st":13}}'),
        ('{"KV_GET":{},"KV_SET":{}}', '{"ERR":{"st":13}}'),
        ('{"KV_GET":5}', '{"KV_GET_RSP":{"st":13}}'),
        ('{"NOPE":{}}', '{"NOPE_RSP":{"st":13}}'),
        ('{"KV_NOPE":{}}', '{"ERR":{"st":10}}'),
        ('{"OARR_CREATE":{"name":"a","len":3}}', '{"ERR":{"st":10}}'),
        ('{"SH_NEW":{"name":"a"}}', '{"SH_NEW_RSP":{"st":10}}'),
        ('{"kv_count":{}}', '{"kv_count_RSP":{"st":10}}'),
        ('{"KV_SET":{}}', '{"KV_SET_RSP":{"st":26}}'),
        ('{"KV_SET":{"keys":[]}}', '{"KV_SET_RSP":{"st":41}}'),
        ('{"KV_SET":{"keys":{}}}', '{"KV_SET_RSP":{"st":1}}'),
        ('{"KV_GET":{"keys":[]}}', '{"KV_GET_RSP":{"keys":{},"st":1}}'),
        ('{"KV_GET":{"keys":[5,null]}}', '{"KV_GET_RSP":{"keys":{},"st":1}}'),
        ('{"KV_RMV":{"keys":[]}}', '{"KV_RMV_RSP":{"st":42}}'),
        ('{"KV_CONTAINS":{"keys":{}}}', '{"KV_CONTAINS_RSP":{"st":41}}'),
        ('{"KV_CLEAR_SET":{"keys":{}}}', '{"KV_CLEAR_SET_RSP":{"cnt":0,"st":1}}'),
        ('{"KV_SAVE":{}}', '{"KV_SAVE_RSP":{"st":26}}'),
        ('{"KV_SAVE":{"name":5}}', '{"KV_SAVE_RSP":{"st":41}}'),
        ('{"KV_SAVE":{"name":"x"}}', '{"KV_SAVE_RSP":{"st":14}}'),
        ('{"KV_LOAD":{"name":"x"}}', '{"KV_LOAD_RSP":{"name":"x","st":142}}'),
        ('{"SV_INFO":{}}', '{"SV_INFO_RSP":{"persistEnabled":false,"serverVersion":"0.9","st":1}}'),
    ],
)
def test_each_refusal(caller: Client, message: str | bytes, reply: str) -> None:
    caller.connection.send(message)
    assert caller.connection.recv(timeout=30) == reply


def test_a_save_of_sessions_is_not_one_of_keys(tmp_path: Path) -> None:
    with local(saves=SaveDirectory(tmp_path, ORGANISATION)) as server:
        with client(server.url + "/session") as sessions:
            sessions.session()
            sessions.send({"SH_SAVE": {"name": "s"}})
            assert [sessions.receive()["SH_SAVE_RSP"]["st"] for _ in range(2)] == [120, 121]
        with client(server.url + "/0.9") as current:
            assert current.do("KV_LOAD", name="s") == {"name": "s", "st": 142}
            assert current.do("KV_SAVE", name="../escape") == {"name": "../escape", "st": 121}
            assert current.do("KV_SAVE", name="k")["st"] == 120
        with client(server.url) as sessions:
            assert sessions.do("SH_LOAD", name="k") == {"st": 142, "name": "k"}


def test_the_keyspace_is_the_store_called_nemesis(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        with client(server.nemesis_url + "/0.9") as caller:
            caller.do("KV_SET", keys={"a": {"b": 1}})

        def get(path: str) -> Any:
            request = urllib.request.Request(f"{server.url}{path}", headers=server.headers)
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.loads(answer.read())

        stores = get(f"/o/{server.organisation}/store")["stores"]
        store = next(store for store in stores if store["name"] == "nemesis")
        assert get(f"/store/{store['id']}/kv/a")["value"] == {"b": 1}
