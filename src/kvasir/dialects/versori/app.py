"""The Versori KV API as a dialect: authenticate, parse, ask the store, render. No I/O and no clock of its own."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import ClassVar, TypeVar

from kvasir import jsontext
from kvasir.access.authenticator import Authenticator
from kvasir.beside.thread import read_and_rendered, rendered
from kvasir.control import stores
from kvasir.control.audit import Audit, recorded
from kvasir.dialects.http import Request, Response
from kvasir.dialects.ignored import Notes, NotPlain, must_be_plain, noting
from kvasir.dialects.versori import batches, requests, responses, routes
from kvasir.dialects.versori.members import KNOWN
from kvasir.engine import Outcome
from kvasir.errors import Forbidden, KvasirError, NotFound
from kvasir.jsontext import BYTE_ORDER_MARK
from kvasir.keys import pack
from kvasir.model import Commit, Conflict, Entry, Principal, Space, Write
from kvasir.store.deadline import within
from kvasir.store.store import Store

log = logging.getLogger("kvasir.versori")

T = TypeVar("T")

#: The operations that change nothing but how long entries live that are refreshed.
READS = frozenset({"GetKV", "BatchGetKV", "ListKV", "CountKV", "ListStores"})

#: How many paths that were taken apart are remembered, and the longest.
REMEMBERED_PATHS, REMEMBERED_CHARACTERS = 4_096, 300


class VersoriDialect:
    """See `kvasir.dialects.http.HttpDialect`. Ten operations; `_handlers` has the method for each operationId."""

    name: ClassVar[str] = "versori"
    operations: ClassVar[tuple[str, ...]] = (*routes.OPERATIONS, routes.UNROUTED)

    def __init__(self, store: Store, auth: Authenticator, *, strict: bool = False, trail: Audit | None = None) -> None:
        """`strict`: refuse what would otherwise be ignored, with a word of warning. `trail`: records what is made."""
        self._trail = trail
        self._strict = strict
        self._store = store
        self._limits = store.limits
        self._auth = auth
        self.serves = routes.serves
        self._handlers: dict[str, Callable[[Request, Principal, str, str, Notes], Awaitable[Response]]] = {
            "CreateStore": self._create_store,
            "ListStores": self._list_stores,
            "GetKV": self._get,
            "SetKV": self._set,
            "DeleteKV": self._delete,
            "BatchGetKV": self._batch_get,
            "BatchSetKV": self._batch_set,
            "BatchDeleteKV": self._batch_delete,
            "ListKV": self._list,
            "CountKV": self._count,
        }
        self._nowait: dict[str, Callable[[Request, Principal, Space, bytes], bool]] = {
            "GetKV": self._get_nowait,
            "SetKV": self._set_nowait,
        }

    def too_much(self, request: Request, response: Response, error: KvasirError) -> Response:
        """See `HttpDialect`."""
        return responses.failure(error, response.operation, request.id) if response.operation in READS else response

    def answer_nowait(self, request: Request) -> bool:
        """See `HttpDialect`. Plain reads and writes of one key by a known caller."""
        if request.query or len(request.path) > REMEMBERED_CHARACTERS:
            return False
        operation, owner, packed = _one_key(request.method, request.path)
        handler = self._nowait.get(operation)
        if handler is None:
            return False
        principal = self._auth.authenticate_nowait(request.header("authorization"))
        space = None if principal is None else self._store.resolve_nowait(principal, owner)
        if principal is None or space is None:
            return False
        try:
            return handler(request, principal, space, packed)
        except KvasirError as error:
            request.answer(responses.failure(error, operation, request.id))
            return True

    async def __call__(self, request: Request) -> Response:
        operation, notes = routes.UNROUTED, None
        try:
            operation, owner, rest = routes.route(request.method, request.path)
            notes = Notes(KNOWN, operation, strict=self._strict)
            authorization = request.header("authorization")
            principal = await self._auth.authenticate(
                authorization, None if authorization else request.header("cookie")
            )
            if request.query:
                notes.look_at_query(request.query)
            response = await self._handlers[operation](request, principal, owner, rest, notes)
        except KvasirError as error:
            response = responses.failure(error, operation, request.id)
        except Exception:
            log.exception("request %s: %s failed", request.id, operation)
            response = responses.failure(KvasirError("the server failed to handle the request"), operation, request.id)
        return response if notes is None else notes.told(response, request.id)

    # -- one key ------------------------------------------------------------------------------------------

    async def _get(self, _request: Request, principal: Principal, owner: str, rest: str, _notes: Notes) -> Response:
        packed = pack(routes.key_parts(rest))
        self._limits.check_key(packed)  # the store checks only what is written
        space = await self._store.open(principal, owner)
        entry = (await self._store.get(principal, space, (packed,)))[0]
        return _get_response(entry)

    def _get_nowait(self, request: Request, principal: Principal, space: Space, packed: bytes) -> bool:
        self._limits.check_key(packed)
        entries = self._store.get_nowait(principal, space, (packed,))
        if entries is None:
            return False
        request.answer(_get_response(entries[0]))
        return True

    def _set_nowait(self, request: Request, principal: Principal, space: Space, packed: bytes) -> bool:
        body = request.body_nowait(self._limits.set_body_bytes)
        if body is None or not jsontext.is_light(body):
            return False
        try:
            put = requests.read_set(body.removeprefix(BYTE_ORDER_MARK), packed, self._limits, must_be_plain)
        except NotPlain:
            return False
        write = Write(space.number, (put.set,), put.conditions)
        return self._store.submit(principal, space, (write,), _Setting(request))

    async def _set(self, request: Request, principal: Principal, owner: str, rest: str, notes: Notes) -> Response:
        packed = pack(routes.key_parts(rest))
        space = await self._store.open(principal, owner)
        body = await _body(request, self._limits.set_body_bytes)
        request.reads_only()
        put = await noting(notes, requests.read_set, body, packed, self._limits)
        request.writes()
        return await self._put(principal, space, put)

    async def _put(self, principal: Principal, space: Space, put: requests.Put) -> Response:
        return _set_response(await self._store.write(principal, space, put.set, when=put.conditions))

    async def _delete(self, request: Request, principal: Principal, owner: str, rest: str, notes: Notes) -> Response:
        packed = pack(routes.key_parts(rest))
        space = await self._store.open(principal, owner)
        body = await _body(request, self._limits.query_body_bytes)
        request.reads_only()
        removal = await noting(notes, requests.read_delete, body, packed, self._limits)
        request.writes()
        return await self._remove(principal, space, removal, "DeleteKV")

    # -- batches ------------------------------------------------------------------------------------------

    async def _batch_get(
        self, request: Request, principal: Principal, owner: str, _rest: str, notes: Notes
    ) -> Response:
        space = await self._store.open(principal, owner)
        body = await _body(request, self._limits.keys_body_bytes)
        request.reads_only()
        packed, timeout = await noting(notes, batches.read_batch_get, body, self._limits)

        found = read_and_rendered(lambda: self._store.get(principal, space, packed), responses.found)
        return Response(200, await within(timeout, found), "BatchGetKV")

    async def _batch_set(
        self, request: Request, principal: Principal, owner: str, _rest: str, notes: Notes
    ) -> Response:
        space = await self._store.open(principal, owner)
        body = await _body(request, self._limits.batch_body_bytes)
        request.reads_only()
        entries = await noting(notes, batches.read_batch_set, body, self._limits)
        request.writes()
        if isinstance(entries, requests.Put):
            try:
                return await self._put(principal, space, entries)
            except KvasirError as error:
                return responses.failure(error, "SetKV", request.id)
        writes = [
            Write(space.number, (entry.set,), entry.conditions) for entry in entries if isinstance(entry, requests.Put)
        ]
        outcomes = await self._store.write_many(principal, space, writes)
        for outcome in outcomes:
            if isinstance(outcome, NotFound):  # the store itself is gone
                raise outcome
        return Response(200, await rendered(outcomes, lambda: responses.batch_result(entries, outcomes)), "BatchSetKV")

    async def _batch_delete(
        self, request: Request, principal: Principal, owner: str, _rest: str, notes: Notes
    ) -> Response:
        space = await self._store.open(principal, owner)
        body = await _body(request, self._limits.keys_body_bytes)
        request.reads_only()
        removal, is_batch = await noting(notes, batches.read_batch_delete, body, self._limits)
        request.writes()
        return await self._remove(principal, space, removal, "BatchDeleteKV" if is_batch else "DeleteKV")

    async def _remove(self, principal: Principal, space: Space, removal: requests.Removal, operation: str) -> Response:
        outcome = await self._store.write(principal, space, *removal.mutations, when=removal.conditions)
        if isinstance(outcome, Conflict):
            raise responses.not_removed(outcome)
        return Response(200, responses.removed(outcome), operation)

    # -- listings -----------------------------------------------------------------------------------------

    async def _list(self, request: Request, principal: Principal, owner: str, _rest: str, notes: Notes) -> Response:
        space = await self._store.open(principal, owner)
        body = await _body(request, self._limits.query_body_bytes)
        request.reads_only()
        query = await noting(notes, requests.read_listing, body, space.id, self._limits)
        page = await self._store.page(principal, space, query)
        body = await rendered(page.entries, lambda: responses.page(page, query, space.id))
        return Response(200, body, "ListKV")

    async def _count(self, request: Request, principal: Principal, owner: str, _rest: str, notes: Notes) -> Response:
        space = await self._store.open(principal, owner)
        body = await _body(request, self._limits.query_body_bytes)
        request.reads_only()
        key_range = await noting(notes, requests.read_count, body, self._limits)
        return Response(200, responses.count(await self._store.count(principal, space, key_range)), "CountKV")

    # -- stores -------------------------------------------------------------------------------------------

    async def _create_store(
        self, request: Request, principal: Principal, owner: str, _rest: str, notes: Notes
    ) -> Response:
        async with recorded(self._trail, principal, "space.create") as act:
            _require_own(principal, owner)
            body = await _body(request, self._limits.query_body_bytes)
            name = await noting(notes, requests.read_store_name, body, self._limits)
            created = await stores.create(self._store, principal, name)
            act.subject = created.id
        return Response(200, responses.store_id(created), "CreateStore")

    async def _list_stores(
        self, request: Request, principal: Principal, owner: str, _rest: str, _notes: Notes
    ) -> Response:
        _require_own(principal, owner)
        request.reads_only()
        return Response(200, responses.stores(await self._store.list_spaces(principal, "store")), "ListStores")


@lru_cache(REMEMBERED_PATHS)
def _one_key(method: str, path: str) -> tuple[str, str, bytes]:
    """(operation, ULID of the store, packed key) of a request with a key in its path; ("", "", b"") of all others."""
    try:
        operation, owner, rest = routes.route(method, path)
        return operation, owner, pack(routes.key_parts(rest)) if operation in routes.KEY.values() else b""
    except KvasirError:
        return "", "", b""


class _Setting:
    """A `Waiter`: a SetKV that waits for its commit."""

    __slots__ = ("_request",)

    def __init__(self, request: Request) -> None:
        self._request = request

    def done(self) -> bool:
        return False

    def set_result(self, outcomes: list[Outcome]) -> None:
        outcome = outcomes[0]
        if isinstance(outcome, KvasirError):
            self.set_exception(outcome)
        else:
            self._request.answer(_set_response(outcome))

    def set_exception(self, error: KvasirError) -> None:
        self._request.answer(responses.failure(error, "SetKV", self._request.id))


async def _body(request: Request, limit: int) -> bytes:
    return (await request.body(limit)).removeprefix(BYTE_ORDER_MARK)


def _get_response(entry: Entry | None) -> Response:
    if entry is None:
        raise NotFound("Key not found")
    return Response(200, responses.value(entry), "GetKV")


def _set_response(outcome: Commit | Conflict) -> Response:
    return Response(200, responses.committed(outcome), "SetKV", _outcome(outcome))


def _outcome(outcome: object) -> str:
    return "conflict" if isinstance(outcome, Conflict) else "ok"


def _require_own(principal: Principal, organisation: str) -> None:
    if principal.organisation != organisation:
        raise Forbidden("this credential belongs to another organisation than the one in the path")
