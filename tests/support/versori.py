"""The dialect in this process, over a memory engine and a clock on a string: fast, and without sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from kvasir.dialects.http import Response
from kvasir.dialects.versori.app import VersoriDialect
from kvasir.engine import Engine
from kvasir.errors import KvasirError, Unauthenticated
from kvasir.limits import Limits
from kvasir.model import Principal, Space
from kvasir.store.store import Store
from tests.support.clock import ManualClock
from tests.support.engines import new_engine
from tests.support.organisations import ORGANISATION, OTHER
from tests.support.request import FakeRequest

#: Credentials by the text of the Authorization header.
PRINCIPALS = {
    "JWT owner": Principal(ORGANISATION, "owner", "owner"),
    "JWT developer": Principal(ORGANISATION, "developer", "developer"),
    "JWT viewer": Principal(ORGANISATION, "viewer", "viewer"),
    "JWT stranger": Principal(OTHER, "owner", "stranger"),
}


class KnownCallers:
    """Stands in for `kvasir.access.authenticator.Authenticator`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def authenticate(self, authorization: str | None, cookie: str | None) -> Principal:
        await self._store.refresh()
        if authorization not in PRINCIPALS:
            raise Unauthenticated("not a valid credential")
        return PRINCIPALS[authorization]


class Answer:
    """An answer, with its body decoded."""

    def __init__(self, response: Response) -> None:
        self.response = response
        self.status = response.status
        self.text = response.body.decode()
        self.json: Any = json.loads(response.body)
        self.headers = dict(response.headers)

    def refusal(self) -> tuple[int, str, list[str]]:
        """(status, code, the fields to blame) of a failure in the API's form."""
        error = self.json
        assert set(error) <= {"code", "message", "fields", "details"}
        assert error["message"]
        assert error["details"]
        for field in error.get("fields", []):
            assert set(field) == {"field", "message"}
            assert field["message"]
        return self.status, error["code"], [field["field"] for field in error.get("fields", [])]


class Api:
    """A store named "default", and ways to talk about it."""

    def __init__(self, clock: ManualClock, engine: Engine | None = None, **limits: int) -> None:
        self.clock = clock
        self.engine = engine or new_engine(clock)
        self.store = Store(self.engine, Limits(**limits), clock)
        self.dialect = VersoriDialect(self.store, KnownCallers(self.store))  # type: ignore[arg-type]
        self.id = self.make_space("default").id

    def make_space(self, name: str) -> Space:
        wanted = Space("", 0, ORGANISATION, "store", name, 0)
        return asyncio.run(self.store.create(PRINCIPALS["JWT owner"], wanted, [("store", ORGANISATION, name)]))

    def send(
        self, method: str, target: str, body: bytes | KvasirError = b"", *, authorization: str | None = "JWT owner"
    ) -> Answer:
        """A request to a whole target."""
        headers = {} if authorization is None else {"authorization": authorization}
        return Answer(asyncio.run(self.dialect(FakeRequest(method, target, body, headers))))

    def call(self, method: str, rest: str, body: Any = None, *, authorization: str = "JWT owner") -> Answer:
        """A request to …/kv/`rest` of the store, with a JSON body."""
        text = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return self.send(method, f"/api/v2/store/{self.id}/kv/{rest}", text, authorization=authorization)

    # -- what tests say often --------------------------------------------------------------------------

    def set(self, rest: str, value: Any = 1, **options: Any) -> Answer:
        return self.call("PUT", rest, {"value": value, "options": options})

    def get(self, rest: str) -> Answer:
        return self.call("GET", rest)

    def value(self, rest: str) -> Any:
        """The value of a key; None if it is not there."""
        answer = self.get(rest)
        return answer.json["value"] if answer.status == 200 else None

    def page(self, selector: dict[str, Any] | None = None, **options: Any) -> Answer:
        return self.call("POST", "list", {"selector": selector or {}, "options": options})

    def listed(self, selector: dict[str, Any] | None = None, **options: Any) -> list[str]:
        """The keys of a page, as paths."""
        answer = self.page(selector, **options)
        assert answer.status == 200, answer.text
        return ["/".join(entry["key"]) for entry in answer.json["data"]]

    def count(self, prefix: Sequence[str] | None = None) -> int:
        selector = {} if prefix is None else {"prefix": prefix}
        return int(self.call("POST", "count", {"selector": selector}).json["count"])
