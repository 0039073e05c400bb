"""Kvasir's own API as a dialect: route, authenticate, read the query, hand over to a handler. No I/O, no clock."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import ClassVar

import msgspec
from msgspec import Struct

from kvasir import __version__, jsontext
from kvasir.access.authenticator import Authenticator
from kvasir.control.audit import Audit
from kvasir.dialects.http import Request, Response
from kvasir.dialects.native import (
    atomic,
    console,
    credentials,
    entries,
    exporting,
    importing,
    keytext,
    listings,
    parameters,
    preconditions,
    problems,
    rendering,
    routes,
    spaces,
    stats,
    watching,
)
from kvasir.dialects.native.calls import Call, Handler, Services
from kvasir.dialects.native.preconditions import ConditionNotMet
from kvasir.dialects.native.streams import Slots
from kvasir.dialects.native.watching import Watches
from kvasir.engine import Engine, Outcome
from kvasir.errors import KvasirError
from kvasir.keys import pack, unpack
from kvasir.model import Principal, Space, Write
from kvasir.store.store import Store

log = logging.getLogger("kvasir.native")

#: How many paths that were taken apart are remembered, and the longest.
REMEMBERED_PATHS, REMEMBERED_CHARACTERS = 4_096, 300

#: Who asks without a credential, where none is needed.
NOBODY = Principal("", "none", "nobody")

#: What a client may rely on, beyond the plain reads and writes of entries.
FEATURES: tuple[str, ...] = ("atomic", "children", "watch", "export", "import")


async def _about(services: Services, call: Call) -> Response:
    """What the server is, and who asks."""
    principal = call.principal
    caller = {
        "name": principal.name,
        "organisation": principal.organisation,
        "role": principal.role,
        "spaces": None if principal.spaces is None else sorted(principal.spaces),
        "prefix": None if principal.keys is None else unpack(principal.keys.start),
        "expires_at": rendering.instant(principal.expires_at),
    }
    return call.answer(rendering.document(**services.about, features=FEATURES, caller=caller))


#: The handler of every operation.
HANDLERS: dict[str, Handler] = {
    "About": _about,
    "ListSpaces": spaces.list_all,
    "CreateSpace": spaces.create,
    "GetSpace": spaces.show,
    "RenameSpace": spaces.rename,
    "EndSpace": spaces.end,
    "GetEntry": entries.get,
    "SetEntry": entries.put,
    "DeleteEntry": entries.delete,
    "GetEntryByKey": entries.get,
    "SetEntryByKey": entries.put,
    "DeleteEntryByKey": entries.delete,
    "ListEntries": listings.list_entries,
    "DeletePrefix": listings.delete_prefix,
    "ListChildren": listings.children,
    "CountEntries": listings.count,
    "GetMany": listings.get_many,
    "Atomic": atomic.commit,
    "ListKeys": credentials.list_keys,
    "CreateKey": credentials.create_key,
    "RevokeKey": credentials.revoke_key,
    "ListServiceAccounts": credentials.list_accounts,
    "CreateServiceAccount": credentials.create_account,
    "RevokeServiceAccount": credentials.revoke_account,
    "CreateConsoleLink": console.create_link,
    "ExchangeConsoleCode": console.exchange,
    "Stats": stats.show,
    "Watch": watching.watch,
    "Export": exporting.export,
    "Import": importing.load,
}


#: What the audit file calls each operation that administers.
ACTS = {
    "CreateSpace": "space.create",
    "RenameSpace": "space.rename",
    "EndSpace": "space.end",
    "CreateKey": "key.create",
    "RevokeKey": "key.revoke",
    "CreateServiceAccount": "service-account.create",
    "RevokeServiceAccount": "service-account.revoke",
    "CreateConsoleLink": "console-link.create",
}


#: The operations that change nothing but how long entries live that are refreshed.
READS = frozenset(
    {"About", "ListSpaces", "GetSpace", "GetEntry", "GetEntryByKey", "ListEntries", "ListChildren", "CountEntries"}
    | {"GetMany"}
)


@lru_cache(REMEMBERED_PATHS)
def _one_key(method: str, raw_path: str) -> tuple[str, str, bytes]:
    """(operation, ULID of the space, packed key) of a request with a key in its path; ("", "", b"") of all others."""
    try:
        operation, id, key = routes.route(method, raw_path)
        return (operation.name, id, pack(keytext.of_path(key))) if "{key}" in operation.path else ("", "", b"")
    except KvasirError:
        return "", "", b""


class Made(Struct):
    """The id of what was made, of all that an answer has: the rest may be secret."""

    id: str = ""
    key_id: str = ""


class NativeDialect:
    """See `kvasir.dialects.http.HttpDialect`."""

    name: ClassVar[str] = "native"
    operations: ClassVar[tuple[str, ...]] = (*(row.name for row in routes.OPERATIONS), routes.UNROUTED)

    def __init__(
        self,
        store: Store,
        engine: Engine,
        auth: Authenticator,
        *,
        engine_name: str,
        durability: str,
        with_console: bool = False,
        trail: Audit | None = None,
    ) -> None:
        self._store = store
        self._auth = auth
        #: For `stats`; to be fed by whoever has a timer.
        self.history = stats.History()
        about = {"version": __version__, "engine": engine_name, "durability": durability}
        self._services = Services(store, engine, auth, about, Slots(), Watches(), self.history, with_console, trail)
        self.serves = routes.serves
        self._nowait: dict[str, Callable[[Request, Principal, Space, bytes], bool]] = {
            "GetEntry": self._get_nowait,
            "SetEntry": self._set_nowait,
        }

    def stop(self) -> None:
        """The server stops: end what would have no end. What was begun otherwise goes on."""
        self._services.watches.stop()

    def too_much(self, request: Request, response: Response, error: KvasirError) -> Response:
        """See `HttpDialect`."""
        only_reads = response.operation in READS
        return problems.failure(error, response.operation, request.id) if only_reads else response

    def answer_nowait(self, request: Request) -> bool:
        """See `HttpDialect`. Plain reads and writes of one key by a known caller."""
        if len(request.raw_path) > REMEMBERED_CHARACTERS:
            return False
        name, id, packed = _one_key(request.method, request.raw_path)
        handler = self._nowait.get(name)
        if handler is None:
            return False
        principal = self._auth.authenticate_nowait(request.header("authorization"))
        space = None if principal is None else self._store.resolve_nowait(principal, id)
        if principal is None or space is None:
            return False
        try:
            return handler(request, principal, space, packed)
        except KvasirError as error:
            request.answer(problems.failure(error, name, request.id))
            return True

    async def __call__(self, request: Request) -> Response:
        name = routes.UNROUTED
        try:
            operation, id, key = routes.route(request.method, request.raw_path)
            name = operation.name
            # Never a cookie, which a browser sends by itself.
            authorization = request.header("authorization")
            principal = NOBODY if operation.anonymous else await self._auth.authenticate(authorization, None)
            query = parameters.read(request.query, operation.parameters, operation.repeated)
            if operation.instead:
                preconditions.refuse(request, operation.instead)
            if name in READS:
                request.reads_only()
            call = Call(request, operation, principal, id, key, query)
            trail = self._services.trail
            if trail is not None and name in ACTS:
                return await self._recorded(trail, call)
            return await HANDLERS[name](self._services, call)
        except KvasirError as error:
            return problems.failure(error, name, request.id)
        except Exception:
            log.exception("request %s: %s failed", request.id, name)
            failure = KvasirError("the server failed to handle the request; this is a bug, tell its operator the id")
            return problems.failure(failure, name, request.id)

    async def _recorded(self, trail: Audit, call: Call) -> Response:
        """An act of administration, in the audit file whatever becomes of it."""
        name = call.operation.name
        async with trail.act(call.principal, ACTS[name], call.id) as act:
            response = await HANDLERS[name](self._services, call)
            if not act.subject and response.body:
                made = msgspec.json.decode(response.body, type=Made)
                act.subject = made.id or made.key_id
        return response

    def _get_nowait(self, request: Request, principal: Principal, space: Space, packed: bytes) -> bool:
        if request.query or request.is_head:
            return False
        if request.header("if-none-match") is not None or request.header("if-match") is not None:
            return False
        self._store.limits.check_key(packed)
        found = self._store.get_nowait(principal, space, (packed,))
        if found is None:
            return False
        if found[0] is None:
            raise entries.no_entry()
        request.answer(entries.value_response(found[0]))
        return True

    def _set_nowait(self, request: Request, principal: Principal, space: Space, packed: bytes) -> bool:
        body = request.body_nowait(self._store.limits.set_body_bytes)
        if body is None or not jsontext.is_light(body):
            return False
        when = entries.plain_conditions(request, packed)
        if when is None:
            return False
        query = parameters.read(request.query, routes.SET_ENTRY.parameters) if request.query else {}
        entries.check_value(body, self._store.limits)
        wanted = entries.wanted_set(request, query, packed, body, self._store, space)
        return self._store.submit(principal, space, (Write(space.number, (wanted,), tuple(when)),), _Setting(request))


class _Setting:
    """A `Waiter`: a PUT that waits for its commit."""

    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        self._request = request

    def done(self) -> bool:
        return False

    def set_result(self, outcomes: list[Outcome]) -> None:
        outcome = outcomes[0]
        if isinstance(outcome, KvasirError):
            self.set_exception(outcome)
            return
        try:
            response = entries.set_response(outcome, "SetEntry")
        except ConditionNotMet as error:
            self.set_exception(error)
        else:
            self._request.answer(response)

    def set_exception(self, error: KvasirError) -> None:
        self._request.answer(problems.failure(error, "SetEntry", self._request.id))
