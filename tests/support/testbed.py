"""One entry of a test bed, through each API: set with a kind of life, looked at, and what failures look like."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from urllib.parse import urlencode

import httpx
import jwt
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from kvasir.testing import Server, Space

DAY_MS = 86_400_000


def instant(milliseconds: int) -> str:
    """RFC 3339, as the APIs take it."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)).isoformat().replace("+00:00", "Z")


#: Kinds of lives: an API, the options of a set at an instant for one that lasts so many milliseconds, and how long
#: one may be that is tested by a clock that can be moved.
LIVES: dict[str, tuple[str, Any, int]] = {
    "versori ttl": ("versori", lambda now, lasts: {"expireIn": lasts}, 31 * DAY_MS),
    "versori absolute": ("versori", lambda now, lasts: {"expireAt": instant(now + lasts)}, DAY_MS),
    "native ttl": ("native", lambda now, lasts: {"ttl": f"{lasts}ms"}, 90 * DAY_MS),
    "native absolute": ("native", lambda now, lasts: {"expires_at": instant(now + lasts)}, 1_500),
    "voximplant ttl": ("voximplant", lambda now, lasts: {"ttl": lasts // 1000}, 30 * DAY_MS),
    "voximplant absolute": ("voximplant", lambda now, lasts: {"expires_at": (now + lasts) // 1000}, DAY_MS),
}


class Disconnected(Exception):
    """The connection was cut."""


class Door(Protocol):
    """An API on one space, for the key "k"."""

    name: str
    set_operation: str
    get_operation: str

    def set(self, value: object, **life: Any) -> Any:
        """What the API says to a set."""
        ...

    def get(self) -> Any:
        """The value; None if there is none. Raises `Failed` for a failure."""
        ...


class Failed(Exception):
    """The API told a failure: with this status or code of its own."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Http:
    def __init__(self, server: Server, space: Space) -> None:
        self.server, self.space = server, space
        self._client = httpx.Client(timeout=30)

    def close(self) -> None:
        self._client.close()

    def _send(self, *request: Any, **more: Any) -> httpx.Response:
        try:
            return self._client.request(*request, **more)
        except httpx.RemoteProtocolError as error:
            raise Disconnected from error
        except httpx.ReadError as error:
            raise Disconnected from error


class Versori(_Http):
    name, set_operation, get_operation = "versori", "SetKV", "GetKV"

    def _do(self, method: str, body: object = None) -> Any:
        address = f"{self.server.url}/store/{self.space.id}/kv/k"
        answer = self._send(method, address, json=body, headers={"Authorization": f"Bearer {self.server.key}"})
        if answer.status_code == 404 and method == "GET" and "Key not found" in answer.text:
            return None
        if answer.status_code != 200:
            raise Failed(answer.status_code)
        return answer.json()

    def set(self, value: object, **life: Any) -> Any:
        return self._do("PUT", {"value": value, "options": life} if life else {"value": value})

    def get(self) -> Any:
        found = self._do("GET")
        return None if found is None else found["value"]


class Native(_Http):
    name, set_operation, get_operation = "native", "SetEntry", "GetEntry"

    def _do(self, method: str, query: dict[str, Any], body: object = None) -> httpx.Response | None:
        address = f"{self.server.url}/v1/spaces/{self.space.id}/entries/k?{urlencode(query)}".rstrip("?")
        content = None if body is None else json.dumps(body)
        answer = self._send(method, address, content=content, headers={"Authorization": f"Bearer {self.server.key}"})
        if answer.status_code == 404 and method == "GET" and "there is no entry" in answer.text:
            return None
        if answer.status_code not in (200, 201):
            raise Failed(answer.status_code)
        return answer

    def set(self, value: object, **life: Any) -> Any:
        answer = self._do("PUT", life, value)
        assert answer is not None
        return answer.headers["etag"]

    def get(self) -> Any:
        answer = self._do("GET", {})
        return None if answer is None else answer.json()


class Voximplant(_Http):
    name, set_operation, get_operation = "voximplant", "SetKeyValueItem", "GetKeyValueItem"

    def __init__(self, server: Server, space: Space) -> None:
        super().__init__(server, space)
        credentials = server.facts["voximplant"]["credentials"]
        now = int(time.time())
        claims = {"iss": str(credentials["account_id"]), "iat": now - 5, "exp": now + 3_595}
        self.token = jwt.encode(claims, credentials["private_key"], "RS256", {"kid": credentials["key_id"]})

    def _do(self, operation: str, **parameters: Any) -> Any:
        form = {"application_id": self.space.facts["application_id"], "key": "k", **parameters}
        address = f"{self.server.url}/platform_api/{operation}"
        answer = self._send("POST", address, data=form, headers={"Authorization": f"Bearer {self.token}"})
        if answer.status_code != 200:
            raise Failed(answer.status_code)
        found = answer.json()
        if "error" in found:
            if (found["error"]["code"], found["error"].get("reason")) == (496, "not_found"):
                return None
            raise Failed(found["error"]["code"])
        return found["result"]

    def set(self, value: object, **life: Any) -> Any:
        return self._do("SetKeyValueItem", value=json.dumps(value), **(life or {"ttl": 864_000}))

    def get(self) -> Any:
        found = self._do("GetKeyValueItem")
        return None if found is None else json.loads(found["value"])


class Nemesis:
    name, set_operation, get_operation = "nemesis", "KV_SET", "KV_GET"

    def __init__(self, server: Server, space: Space) -> None:
        self.server, self.space = server, space
        self.token = space.facts["token"]
        self._connection: ClientConnection | None = None
        self._closing = ExitStack()

    def close(self) -> None:
        self._closing.close()

    def ask(self, command: str, **parameters: Any) -> Any:
        if self._connection is None:
            self._connection = self._closing.enter_context(connect(f"{self.server.facts['nemesis']}/session"))
        try:
            self._connection.send(json.dumps({command: parameters}))
            answer = json.loads(self._connection.recv(timeout=30))
        except ConnectionClosed as closed:
            self._connection = None
            if closed.rcvd is not None:
                raise Failed(closed.rcvd.code) from closed
            raise Disconnected from closed
        return answer[f"{command}_RSP"]

    def set(self, value: object, **life: Any) -> Any:
        found = self.ask("KV_SET", tkn=self.token, keys={"k": value})
        if "keys" not in found:
            raise Failed(found["st"])
        return found

    def get(self) -> Any:
        found = self.ask("KV_GET", tkn=self.token, keys=["k"])
        if "keys" not in found:
            if found["st"] == 100:
                return None
            raise Failed(found["st"])
        return found["keys"]["k"]


KINDS: dict[str, tuple[type[Any], str]] = {
    "versori": (Versori, "store"),
    "native": (Native, "store"),
    "voximplant": (Voximplant, "application"),
    "nemesis": (Nemesis, "session"),
}


@contextmanager
def opened(server: Server, name: str) -> Iterator[Any]:
    """The API of this name on a space of its own."""
    kind, space_kind = KINDS[name]
    space = server.space(space_kind)
    door = kind(server, space)
    try:
        yield door
    finally:
        door.close()
        space.end()
