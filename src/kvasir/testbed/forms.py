"""How each API names what a request asks for, and how it tells a failure that was ordered. Changes nothing.

A request that cannot be read has no space and no keys; the dialect refuses it in its own words.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol
from urllib.parse import parse_qsl

import msgspec

from kvasir.control import applications, sessions
from kvasir.dialects.http import Request, Response
from kvasir.dialects.native import keytext, problems
from kvasir.dialects.native import routes as native
from kvasir.dialects.nemesis.commands.profiles import NO_COMMAND, Profile
from kvasir.dialects.nemesis.conversation.requests import parse_request, render_failure
from kvasir.dialects.nemesis.frames import NotText
from kvasir.dialects.versori import responses, routes
from kvasir.dialects.voximplant import app as voximplant
from kvasir.dialects.voximplant import errors, forms
from kvasir.errors import KvasirError, Unavailable
from kvasir.limits import Limits
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
        return Call("versori", operation, owner, _keys(keys))

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
            texts = forms.read(request.query, await request.body(), kind, options)
            operation = voximplant.command(voximplant.method(request.path), texts)
            space = await self._space(texts)
            keys = [[texts["key"]]] if "key" in texts else ()
        except (KvasirError, errors.ApiError):
            pass
        return Call("voximplant", operation, space, _keys(keys))

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
        return Call("native", operation, space or None, _keys(keys))

    def failure(self, error: KvasirError, operation: str, request: Request) -> Response:
        return problems.failure(error, operation, request.id)

    def refusal(self, code: int, operation: str) -> Response:  # noqa: ARG002  # there is only the rate limit
        body = {"type": "urn:kvasir:error:rate_limited", "status": 429, "code": "rate_limited", "detail": RATE_LIMITED}
        headers = (*problems.HEADERS, ("Retry-After", "1"))
        return Response(429, msgspec.json.encode(body), operation, Unavailable.code, headers, problems.CONTENT_TYPE)


class NemesisForm:
    """The NemesisDB API, for connections with one set of commands."""

    def __init__(self, named: Named, profile: Profile, store_name: Alias | None, limits: Limits) -> None:
        """`store_name`: of the one store that all commands are about; None: each names its session."""
        self._named = named
        self._profile = profile
        self._store_name = store_name
        self._limits = limits

    async def call(self, message: bytes | None) -> Call:
        """What a message asks for."""
        try:
            value = _json.decode(message or b"")
            ((name, body),) = value.items()
        except (AttributeError, ValueError, RecursionError):
            return Call("nemesis", NO_COMMAND)
        if name not in self._profile.commands or not isinstance(body, dict):
            return Call("nemesis", NO_COMMAND)
        alias = self._store_name or sessions.by_token(str(body.get("tkn", "")))
        named = body.get("keys", ())
        return Call("nemesis", name, await self._named.by_alias(alias), _keys([each] for each in _items(named)))

    def failure(self, message: bytes | None, error: KvasirError | None) -> bytes:
        """The frame that tells a failure; None: a rate limit, which this API has no word for but its message."""
        try:
            request = parse_request(self._profile, message, self._limits, 0.0)
        except NotText:
            request = parse_request(self._profile, None, self._limits, 0.0)
        return render_failure(self._profile, request, error or Unavailable(RATE_LIMITED))[1] or b""


def _named_keys(body: Any) -> Iterable[Any]:
    """The keys of POST …/get and …/atomic."""
    if not isinstance(body, dict):
        return ()
    items = [*_items(body.get("checks")), *_items(body.get("mutations"))]
    return [*_items(body.get("keys")), *(item.get("key") for item in items if isinstance(item, dict))]


def _batch_keys(body: Any) -> Iterable[Any]:
    if not isinstance(body, dict):
        return ()
    entries = _items(body.get("entries"))
    return [*_items(body.get("keys")), *(entry.get("key") for entry in entries if isinstance(entry, dict))]


def _items(found: Any) -> Iterable[Any]:
    """The items of a list or the names of an object; a client may send anything else, which the dialect refuses."""
    return found if isinstance(found, list | dict) else ()


def _keys(found: Iterable[Any]) -> tuple[tuple[str, ...], ...]:
    """Those of them that are keys."""
    return tuple(tuple(key) for key in found if isinstance(key, list) and all(isinstance(part, str) for part in key))
