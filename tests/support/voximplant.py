"""The dialect in-process over the memory engine, with a clock that stands still until it is told otherwise."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kvasir import keys
from kvasir.access.service_tokens import ServiceTokenVerifier
from kvasir.config.table import Config
from kvasir.control import applications, service_accounts
from kvasir.control.service_accounts import Credentials
from kvasir.dialects.http import Response
from kvasir.dialects.voximplant import Settings, VoximplantDialect
from kvasir.limits import Limits
from kvasir.model import Entry, Principal, Set, Space
from kvasir.server.worker import voximplant_settings
from kvasir.store.store import Store
from tests.support.engines import new_engine
from tests.support.organisations import ORGANISATION
from tests.support.request import FakeRequest

NOW = 1_795_205_810
URLENCODED = "application/x-www-form-urlencoded"


@functools.cache
def private_key(pem: str) -> RSAPrivateKey:
    """Loading one examines its primes, which takes longer than a whole test."""
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, RSAPrivateKey)
    return key


def settings_with(**changes: Any) -> Settings:
    """The default settings, but for these."""
    return dataclasses.replace(voximplant_settings(Config()), **changes)


class World:
    """One organisation with the application 1, `myapp1`, and a Developer's key."""

    def __init__(self, settings: Settings | None = None, limits: Limits | None = None) -> None:
        self.now = NOW * 1000
        self.engine = new_engine(lambda: self.now)
        self.store = Store(self.engine, limits or Limits(), lambda: self.now)
        self.owner = Principal(ORGANISATION, "owner", "test")
        self.dialect = VoximplantDialect(
            self.store, ServiceTokenVerifier(self.store, self.engine), settings or settings_with()
        )
        self.space = self.application("myapp1", 1)
        self.credentials = self.account("Developer")
        self.token = self.sign()

    def application(self, name: str, id: int) -> Space:
        return asyncio.run(applications.create(self.store, self.owner, name, id)).space

    def account(self, *roles: str, scope: Sequence[str] | None = None, organisation: str = ORGANISATION) -> Credentials:
        return asyncio.run(service_accounts.create(self.engine, lambda: self.now, organisation, roles, scope))

    def sign(
        self, credentials: Credentials | None = None, header: Mapping[str, Any] | None = None, **claims: Any
    ) -> str:
        """A token as the official clients make it; a claim or header member of None is left out."""
        credentials = credentials or self.credentials
        now = self.now // 1000
        whole = {"iss": str(credentials.account_id), "iat": now - 5, "exp": now + 60} | claims
        payload = json.dumps({name: claim for name, claim in whole.items() if claim is not None}).encode()
        key = private_key(credentials.private_key)
        return jwt.PyJWS().encode(payload, key, "RS256", {"kid": credentials.key_id} | dict(header or {}))

    def respond(self, request: FakeRequest) -> Response:
        return asyncio.run(self.dialect(request))

    def ask(
        self,
        path: str,
        query: str = "",
        body: bytes = b"",
        content_type: str | None = URLENCODED,
        *,
        token: str | None = None,
        verb: str = "POST",
    ) -> dict[str, Any]:
        """The JSON of an answer with status 200."""
        headers = {"authorization": f"Bearer {token or self.token}"}
        if content_type is not None:
            headers["content-type"] = content_type
        response = self.respond(FakeRequest(verb, f"{path}?{query}", body, headers))
        assert response.status == 200
        assert response.content_type == "application/json; charset=utf-8"
        answer: dict[str, Any] = json.loads(response.body)
        # The Python client takes the mere presence of `error` for a failure, Go that of `errors`.
        assert ("error" in answer) != ("result" in answer)
        assert "errors" not in answer
        return answer

    def call(self, method: str, *, token: str | None = None, **parameters: object) -> dict[str, Any]:
        """Call a method as the Python client does, for application 1 unless said otherwise."""
        given = {"application_id": 1} | parameters
        form = {name: value for name, value in given.items() if value is not None}
        body = urlencode(form | {"cmd": method}).encode()
        return self.ask("/platform_api", body=body, token=token)

    def result(self, method: str, **parameters: Any) -> Any:
        answer = self.call(method, **parameters)
        assert "result" in answer, answer
        return answer["result"]

    def code(self, method: str, *, token: str | None = None, **parameters: object) -> int | None:
        """The code of the error; None for a success."""
        answer = self.call(method, token=token, **parameters)
        return answer["error"]["code"] if "error" in answer else None

    def put(self, *parts: str, value: bytes, ttl: int | None = None) -> None:
        """Store an entry as another API does."""
        asyncio.run(self.store.write(self.owner, self.space, Set(keys.pack(parts), value, ttl=ttl)))

    def entry(self, *parts: str) -> Entry | None:
        """What the store holds, as another API sees it."""
        return asyncio.run(self.store.get(self.owner, self.space, [keys.pack(parts)]))[0]
