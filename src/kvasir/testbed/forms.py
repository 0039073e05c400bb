"""How each API names what a request asks for, and how it tells a failure that was ordered. Changes nothing.

A request that cannot be read has no space and no keys; the dialect refuses it in its own words.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol
from urllib.parse import parse_qsl

import msgspec

from kvasir.control import applications
from kvasir.dialects.http import Request, Response
from kvasir.dialects.native import keytext, problems
from kvasir.dialects.native import routes as native
from kvasir.dialects.versori import responses, routes
from kvasir.dialects.voximplant import app as voximplant
from kvasir.dialects.voximplant import errors, forms
from kvasir.errors import KvasirError, Unavailable
from kvasir.model import Alias
from kvasir.testbed.bed import TestBed
from kvasir.testbed.calls import Call

#: Voximplant's rate limit: https://voximplant.com/docs/references/httpapi/errors
RATE_LIMIT_CODE = 340

RATE_LIMITED = "the rate limit is exceeded; send the request again after a second"

#: Texts of account errors that tests ask for; another code is told without one.
VOXIMPLANT_TEXTS = {
    131: "The account is not activated.",
    314: "Concurrent resource limit exceeded.",
    RATE_LIMIT_CODE: "Rate limit exceed.",
}

#: Operations of the native API whose keys are in the body.
_WITH_KEYS = ("GetMany", "Atomic")

_json = msgspec.json.Decoder()


class HttpForm(Protocol):
    """An HTTP API, for the test bed."""

    async def call(self, request: Request) -> Call:
        """What a request asks for."""
        ...

    def failure(self, error: KvasirError, operation: str, request: Request) -> Response:
        """A failure in the API's own form."""
        ...

    def refusal(self, code: int, operation: str) -> Response:
        """The service's own error with this code; 0: its rate limit."""
        ...


class Named:
    """Finds the spaces that requests name."""

    def __init__(self, bed: TestBed) -> None:
        self._bed = bed

    @property
    def organisation(self) -> str:
        return self._bed.operator.organisation

    async def by_alias(self, alias: Alias) -> str | None:
        """The ULID of the space with this alias."""
        found = await self._bed.engine.resolve(alias)
        return None if found is None else found.id


class VersoriForm:
    """The Versori KV API."""

    async def call(self, request: Request) -> Call:
        operation, owner, rest = routes.UNROUTED, None, ""
        keys: Iterable[Any] = ()
        try:
            operation, owner, rest = routes.route(request.method, request.path)
            if operation in routes.KEY.values():
                keys = [routes.key_parts(rest)]
            elif operation in routes.FIXED["batch"].values():
                keys = _batch_keys(_json.decode(await request.body()))
        except (KvasirError, msgspec.DecodeError, RecursionError):
            pass
        return Call("versori", operation, owner, keys_of(keys))

    def failure(self, error: KvasirError, operation: str, request: Request) -> Response:
        return responses.failure(error, operation, request.id)

    def refusal(self, code: int, operation: str) -> Response:  # noqa: ARG002  # there is only the rate limit
        body = {"code": "rate_limited", "message": RATE_LIMITED, "details": ""}
        return Response(429, msgspec.json.encode(body), operation, Unavailable.code, (("Retry-After", "1"),))


class VoximplantForm:
    """The Voximplant API."""

    def __init__(self, named: Named) -> None:
        self._named = named

    async def call(self, request: Request) -> Call:
        operation, space = voximplant.UNKNOWN, None
        keys: Iterable[Any] = ()
        try:
            kind, options = forms.content_type(request.header("content-type"))
            texts = forms.read(await request.body(), request.query, kind, options)
            operation = voximplant.command(voximplant.method(request.path), texts)
            space = await self._space(texts)
            keys = [[texts["key"]]] if "key" in texts else ()
        except (KvasirError, errors.ApiError):
            pass
        return Call("voximplant", operation, space, keys_of(keys))

    async def _space(self, texts: dict[str, str]) -> str | None:
        organisation, id = self._named.organisation, texts.get("application_id", "").strip()
        if id.strip("0"):
            return await self._named.by_alias(applications.by_id(organisation, id))
        name = texts.get("application_name", "").split(".", 1)[0]
        return await self._named.by_alias(applications.by_name(organisation, name)) if name else None

    def failure(self, error: KvasirError, operation: str, request: Request) -> Response:  # noqa: ARG002
        return voximplant.failure(errors.of(error), operation)

    def refusal(self, code: int, operation: str) -> Response:
        code = code or RATE_LIMIT_CODE
        text = VOXIMPLANT_TEXTS.get(code, "This error was ordered from the test bed.")
        return voximplant.failure(errors.ApiError(errors.Failure(code, text, Unavailable.code)), operation)


class NativeForm:
    """Kvasir's own API."""

    async def call(self, request: Request) -> Call:
        operation, space = native.UNROUTED, None
        keys: Iterable[Any] = ()
        try:
            row, space, key = native.route(request.method, request.raw_path)
            operation = row.name
            if "{key}" in row.path:
                keys = [keytext.of_path(key)]
            elif "key" in row.parameters:
                keys = [_json.decode(text) for name, text in parse_qsl(request.query) if name == "key"]
            elif row.name in _WITH_KEYS:
                keys = _named_keys(_json.decode(await request.body()))
        except (KvasirError, msgspec.DecodeError, RecursionError):
            pass
        return Call("native", operation, space or None, keys_of(keys))

    def failure(self, error: KvasirError, operation: str, request: Request) -> Response:
        return problems.failure(error, operation, request.id)

    def refusal(self, code: int, operation: str) -> Response:  # noqa: ARG002  # there is only the rate limit
        body = {"type": "urn:kvasir:error:rate_limited", "status": 429, "code": "rate_limited", "detail": RATE_LIMITED}
        headers = (*problems.HEADERS, ("Retry-After", "1"))
        return Response(429, msgspec.json.encode(body), operation, Unavailable.code, headers, problems.CONTENT_TYPE)


def _named_keys(body: Any) -> Iterable[Any]:
    """The keys of POST …/get and …/atomic."""
    if not isinstance(body, dict):
        return ()
    items = [*items_of(body.get("checks")), *items_of(body.get("mutations"))]
    return [*items_of(body.get("keys")), *(item.get("key") for item in items if isinstance(item, dict))]


def _batch_keys(body: Any) -> Iterable[Any]:
    if not isinstance(body, dict):
        return ()
    entries = items_of(body.get("entries"))
    return [*items_of(body.get("keys")), *(entry.get("key") for entry in entries if isinstance(entry, dict))]


def items_of(found: Any) -> Iterable[Any]:
    """The items of a list or the names of an object; a client may send anything else, which the dialect refuses."""
    return found if isinstance(found, list | dict) else ()


def keys_of(found: Iterable[Any]) -> tuple[tuple[str, ...], ...]:
    """Those of them that are keys."""
    return tuple(tuple(key) for key in found if isinstance(key, list) and all(isinstance(part, str) for part in key))
