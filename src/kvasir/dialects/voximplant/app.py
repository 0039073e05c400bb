"""The dialect: HTTP request -> method, caller and application -> response.

Failures have HTTP status 200, too: the Node and Go clients drop the body of any other status.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import ClassVar

from kvasir.access.service_tokens import BadToken, Caller, Flaw, ServiceTokenVerifier
from kvasir.beside.process import aside
from kvasir.control import applications
from kvasir.dialects.http import JSON, Request, Response
from kvasir.dialects.ignored import Notes
from kvasir.dialects.voximplant import errors, forms
from kvasir.dialects.voximplant.commands import Call, Setting, get_item_nowait
from kvasir.dialects.voximplant.errors import ApiError
from kvasir.dialects.voximplant.methods import COMMANDS, KNOWN
from kvasir.dialects.voximplant.parameters import INTEGER, Parameters
from kvasir.dialects.voximplant.settings import Settings
from kvasir.engine import Outcome
from kvasir.errors import KvasirError, NotFound
from kvasir.model import Principal, Space, Write
from kvasir.store.permissions import READERS
from kvasir.store.store import Store

BASE = "platform_api"
#: Full application names are "<name>.<account>.voximplant.com"; the token already tells the account.
FULL_NAME_SUFFIX = ".voximplant.com"
#: The Java client reads an answer without a charset as ISO-8859-1.
CONTENT_TYPE = f"{JSON}; charset=utf-8"
#: Parameters of every method of the API; the Java client always sends its account_id.
COMMON = frozenset({"output", "format", "account_id"})
#: The operation, for metrics, of a request without a known method.
UNKNOWN = "unknown"

#: How many requests are remembered with their parameters, and the longest query and body of one. Those that set a value
#: are not, as they will hardly come again.
REMEMBERED, REMEMBERED_BYTES = 2_048, 300
_URLENCODED = (None, forms.URLENCODED)

#: What is answered without a coroutine
_NOWAIT = frozenset({"SetKeyValueItem", "GetKeyValueItem"})

log = logging.getLogger(__name__)


class VoximplantDialect:
    """See `kvasir.dialects.http.HttpDialect`."""

    name: ClassVar[str] = "voximplant"
    operations: ClassVar[tuple[str, ...]] = (*COMMANDS, UNKNOWN)

    def __init__(self, store: Store, tokens: ServiceTokenVerifier, settings: Settings, *, strict: bool = False) -> None:
        """`strict`: refuse what would otherwise be ignored, with a word of warning."""
        self._strict = strict
        self._store = store
        self._tokens = tokens
        self._settings = settings
        self._short = min(REMEMBERED_BYTES, settings.form_bytes)
        #: The parameters of the request that `answer_nowait` has just left to a coroutine
        self._decoded: tuple[Request, dict[str, str]] | None = None

    def serves(self, path: str) -> bool:
        """Any prefix that ends in /platform_api, then perhaps a method, then perhaps a slash."""
        return method(path) is not None

    def too_much(self, request: Request, response: Response, error: KvasirError) -> Response:  # noqa: ARG002
        """See `HttpDialect`."""
        command = COMMANDS.get(response.operation)
        only_reads = command is not None and command.roles is READERS
        return failure(errors.of(error), response.operation) if only_reads else response

    def answer_nowait(self, request: Request) -> bool:
        """See `HttpDialect`. Plain sets and gets by a known caller."""
        caller = self._tokens.verify_nowait(request.header("authorization"))
        body = request.body_nowait()
        if caller is None or body is None or request.method not in {"POST", "GET"}:
            return False
        operation = UNKNOWN
        try:
            declared = request.header("content-type")
            if declared in _URLENCODED and len(request.query) + len(body) <= self._short and b"value=" not in body:
                operation, texts = _remembered(request.path, request.query, body)
            else:
                kind, options = forms.content_type(declared)
                if len(body) > self._max_bytes(kind) or not forms.is_light(body, kind):
                    return False
                texts = forms.read(body, request.query, kind, options)
                operation = command(method(request.path), texts)
            _check_caller(caller, operation, texts)
            if not texts.keys() <= COMMANDS[operation].known.keys():
                return False
            space = self._application_nowait(caller.principal, texts)
            if space is None or operation not in _NOWAIT:
                self._decoded = request, texts
                return False
            call = Call(self._store, self._settings, caller.principal, space, Parameters(texts, self._settings))
            if operation == "SetKeyValueItem":
                setting = Setting(call)
                write = Write(space.number, (setting.mutation,), tuple(setting.conditions))
                return self._store.submit(call.principal, space, (write,), _Waiter(request, setting))
            found = get_item_nowait(call)
            response = None if found is None else _success(found, operation)
        except ApiError as error:
            response = failure(error, operation)
        except KvasirError as error:
            response = failure(errors.of(error), operation)
        if response is not None:
            request.answer(response)
        return response is not None

    async def __call__(self, request: Request) -> Response:
        operation, notes = UNKNOWN, None
        decoded, self._decoded = self._decoded, None  # it is called right after `answer_nowait`, or long afterwards
        try:
            if request.method not in {"POST", "GET"}:
                return _not_allowed()
            authorization = request.header("authorization")
            caller = self._tokens.verify_nowait(authorization) or await self._tokens.verify(authorization)
            kind, options = forms.content_type(request.header("content-type"))
            body = await request.body(self._max_bytes(kind))
            if decoded is not None and decoded[0] is request:
                texts = decoded[1]
            elif forms.is_light(body, kind):
                texts = forms.read(body, request.query, kind, options)
            else:
                request.reads_only()
                texts = await aside(forms.read, body, request.query, kind, options)
                request.writes()
            operation = command(method(request.path), texts)
            _check_caller(caller, operation, texts)
            if COMMANDS[operation].roles is READERS:
                request.reads_only()
            notes = Notes(KNOWN, operation, strict=self._strict)
            notes.look(texts, COMMANDS[operation].known, "")
            principal = caller.principal
            space = self._application_nowait(principal, texts) or await self._application(principal, texts)
            call = Call(
                self._store, self._settings, principal, space, Parameters(texts, self._settings), notes, request
            )
            response = _success(await COMMANDS[operation].run(call), operation)
        except ApiError as error:
            response = failure(error, operation)
        except BadToken as error:
            response = failure(self._unauthenticated(error), operation)
        except KvasirError as error:
            response = failure(errors.of(error), operation)
        except Exception:
            log.exception("request %s failed", request.id)
            response = failure(ApiError(errors.INTERNAL), operation)
        return response if notes is None else notes.told(response, request.id)

    def _max_bytes(self, kind: str) -> int:
        return self._settings.json_bytes if kind == JSON else self._settings.form_bytes

    def _unauthenticated(self, bad: BadToken) -> ApiError:
        failure = errors.FLAWS[bad.flaw]
        if bad.flaw is Flaw.KEY_ID:
            failure = errors.recoded(failure, self._settings.unknown_key_id_code)
        return ApiError(failure)

    def _application_nowait(self, principal: Principal, texts: dict[str, str]) -> Space | None:
        """What `_application` finds, if the id alone leads to a cached space; None says nothing."""
        id = texts.get("application_id")
        if not id or "application_name" in texts:
            return None
        return self._store.resolve_nowait(principal, applications.by_id(principal.organisation, id))

    async def _application(self, principal: Principal, texts: dict[str, str]) -> Space:
        """The application that a request names: the id wins, and a name beside it must agree.

        One of another account or outside the key's scope is reported like one that does not exist.
        """
        name = texts.get("application_name")
        short = name.split(".", 1)[0] if name and name.endswith(FULL_NAME_SUFFIX) else name
        id = texts.get("application_id")
        if short and id and not id.strip("0"):
            id = None  # the Go and .NET clients, which cannot leave it out, send 0
        if not id and not short:
            raise ApiError(errors.EMPTY, field="application_id")
        try:
            if not id:
                alias = applications.by_name(principal.organisation, short or "")
            elif INTEGER.fullmatch(id):
                alias = applications.by_id(principal.organisation, int(id))
            else:
                raise ApiError(errors.APPLICATION_ID, field="application_id")
            space = self._store.resolve_nowait(principal, alias) or await self._store.resolve(principal, alias)
        except NotFound:
            raise self._unknown_application(by_id=bool(id)) from None
        if short and space.name != short:
            raise ApiError(errors.APPLICATION_NAME, field="application_name")
        return space

    def _unknown_application(self, *, by_id: bool) -> ApiError:
        if not by_id:
            return ApiError(errors.APPLICATION_NAME, field="application_name")
        failure = errors.recoded(errors.APPLICATION_ID, self._settings.unknown_application_code)
        return ApiError(failure, field="application_id")


class _Waiter:
    """A `kvasir.engine.Waiter`: a SetKeyValueItem that waits for its commit."""

    __slots__ = ("_request", "_setting")

    def __init__(self, request: Request, setting: Setting) -> None:
        self._request = request
        self._setting = setting

    def done(self) -> bool:
        return False

    def set_result(self, outcomes: list[Outcome]) -> None:
        outcome = outcomes[0]
        if isinstance(outcome, KvasirError):
            self.set_exception(outcome)
            return
        try:
            response = _success(self._setting.response(outcome), "SetKeyValueItem")
        except ApiError as error:
            response = failure(error, "SetKeyValueItem")
        self._request.answer(response)

    def set_exception(self, error: KvasirError) -> None:
        self._request.answer(failure(errors.of(error), "SetKeyValueItem"))


def _success(body: bytes, operation: str) -> Response:
    return Response(200, body, operation, content_type=CONTENT_TYPE)


def failure(error: ApiError, operation: str) -> Response:
    return Response(200, errors.render(error), operation, error.failure.outcome, content_type=CONTENT_TYPE)


@lru_cache(maxsize=256)  # called twice for each request, with very few different paths
def method(path: str) -> str | None:
    """The method that a path names, "" if it names none; None if the path does not belong to this API."""
    head, _, last = path.removesuffix("/").rpartition("/")
    if last == BASE:
        return ""
    return last if head.endswith(f"/{BASE}") else None


@lru_cache(REMEMBERED)
def _remembered(path: str, query: str, body: bytes) -> tuple[str, dict[str, str]]:
    """The method of a request without a content type or with that of forms, and its parameters, not to be changed."""
    texts = forms.read(body, query, forms.URLENCODED, {})
    return command(method(path), texts), texts


def command(method: str | None, texts: dict[str, str]) -> str:
    """The name of a known method, from `cmd` or the path."""
    name = texts.get("cmd") or method
    if not name:
        raise ApiError(errors.NO_COMMAND)
    if method and name != method:
        raise ApiError(errors.ARGUMENTS, field="cmd", detail="cmd and the path name different methods")
    if name not in COMMANDS:
        raise ApiError(errors.UNKNOWN_COMMAND)
    return name


def _check_caller(caller: Caller, operation: str, texts: dict[str, str]) -> None:
    if caller.principal.role not in COMMANDS[operation].roles:
        raise ApiError(errors.FORBIDDEN)
    if not COMMON.isdisjoint(texts):
        _check_common(texts, caller)


def _check_common(texts: dict[str, str], caller: Caller) -> None:
    for name in ("output", "format"):
        if texts.get(name, "json").lower() != "json":
            raise ApiError(errors.FORMAT, field=name)
    if (account := texts.get("account_id")) is None:
        return
    if INTEGER.fullmatch(account) is None:
        raise ApiError(errors.ACCOUNT_ID, field="account_id")
    if int(account) not in {0, caller.account_id}:
        raise ApiError(errors.AUTHORIZATION, field="account_id")


def _not_allowed() -> Response:
    error = ApiError(errors.ARGUMENTS, detail="send GET or POST")
    return Response(405, errors.render(error), UNKNOWN, error.failure.outcome, (("Allow", "GET, POST"),), CONTENT_TYPE)
