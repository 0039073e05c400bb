"""The controls under /_kvasir: clock, faults, journal, snapshots and spaces of a test bed, for tests. JSON both ways.

They listen on an address of their own, on this machine only, and ask for a token of their own.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from kvasir import __version__
from kvasir.access.authenticator import is_bearer
from kvasir.config import parsers
from kvasir.dialects import timestamps
from kvasir.dialects.http import Request, Response
from kvasir.dialects.native import durations
from kvasir.errors import Invalid, KvasirError, NotFound, Unauthenticated
from kvasir.testbed.bed import TestBed
from kvasir.testbed.calls import APIS, wrong_operation
from kvasir.testbed.clock import SettableClock
from kvasir.testbed.engine import Snapshot
from kvasir.testbed.faults import Rule

T = TypeVar("T")

PATH = "/_kvasir/"

#: The most snapshots that are kept; the oldest goes first.
SNAPSHOTS = 100

_STATUSES: dict[type[KvasirError], int] = {Invalid: 400, Unauthenticated: 401, NotFound: 404}

log = logging.getLogger(__name__)


class ClockChange(Struct, forbid_unknown_fields=True):
    """One of three."""

    advance: str | None = None
    freeze: str | None = None
    run: Literal[True] | None = None


class NewSpace(Struct, forbid_unknown_fields=True):
    """What POST /spaces makes."""

    kind: Literal["store", "application", "session"] = "store"
    name: str | None = None


class Controls:
    """A `kvasir.dialects.http.HttpDialect`."""

    name: ClassVar[str] = "controls"
    operations: ClassVar[tuple[str, ...]] = ("control",)

    def __init__(self, bed: TestBed, token: str) -> None:
        self._bed = bed
        self._token = token
        self._snapshots: dict[str, Snapshot] = {}
        self._handlers: dict[tuple[str, str], Callable[[Request, dict[str, str]], Awaitable[Any]]] = {
            ("GET", ""): self._about,
            ("POST", "reset"): self._reset,
            ("POST", "spaces"): self._make_space,
            ("DELETE", "spaces"): self._end_space,
            ("GET", "clock"): self._show_clock,
            ("POST", "clock"): self._set_clock,
            ("GET", "faults"): self._show_faults,
            ("POST", "faults"): self._add_faults,
            ("DELETE", "faults"): self._clear_faults,
            ("GET", "requests"): self._requests,
            ("DELETE", "requests"): self._forget_requests,
            ("POST", "snapshot"): self._snapshot,
            ("POST", "restore"): self._restore,
        }

    def serves(self, path: str) -> bool:
        """Everything on this listener."""
        return bool(path)

    def too_much(self, request: Request, response: Response, error: KvasirError) -> Response:  # noqa: ARG002
        """See `HttpDialect`. Tests read what they ask for."""
        return response

    def answer_nowait(self, request: Request) -> bool:  # noqa: ARG002
        return False

    async def __call__(self, request: Request) -> Response:
        try:
            if not is_bearer(request.header("authorization"), self._token):
                raise Unauthenticated("send the control token: Authorization: Bearer <token>")
            name, _, rest = request.path.removeprefix(PATH).strip("/").partition("/")
            handler = self._handlers.get((request.method, name))
            if handler is None or not request.path.startswith(PATH):
                raise NotFound(f"there is no such control; there are: {self._list()}")
            query = dict(parse_qsl(request.query, keep_blank_values=True))
            body = await handler(request, query | ({"": rest} if rest else {}))
            return Response(200, msgspec.json.encode(body), "control")
        except KvasirError as error:
            body = {"code": error.code, "message": error.message}
            return Response(_STATUSES.get(type(error), 503), msgspec.json.encode(body), "control", error.code)
        except Exception:
            log.exception("a control failed")
            body = {"code": "internal", "message": "the control failed; the log says why"}
            return Response(500, msgspec.json.encode(body), "control", "internal")

    def _list(self) -> str:
        return ", ".join(f"{method} {PATH}{name}" for method, name in self._handlers)

    async def _about(self, _request: Request, _query: dict[str, str]) -> object:
        return {"mode": "dev", "version": __version__}

    # -- state --------------------------------------------------------------------------------------------

    async def _reset(self, _request: Request, query: dict[str, str]) -> object:
        self._bed.reset(await self._space(query))
        return {}

    async def _snapshot(self, _request: Request, query: dict[str, str]) -> object:
        while len(self._snapshots) >= SNAPSHOTS:
            del self._snapshots[next(iter(self._snapshots))]
        token = secrets.token_urlsafe(16)
        self._snapshots[token] = self._bed.engine.snapshot(await self._space(query))
        return {"token": token}

    async def _restore(self, _request: Request, query: dict[str, str]) -> object:
        snapshot = self._snapshots.get(query.get("", ""))
        if snapshot is None:
            raise NotFound(f"there is no snapshot with this token; the last {SNAPSHOTS} are kept")
        self._bed.engine.restore(snapshot)
        return {}

    async def _make_space(self, request: Request, _query: dict[str, str]) -> object:
        wanted = await _body(request, NewSpace)
        return await self._bed.make_space(wanted.kind, wanted.name)

    async def _end_space(self, _request: Request, query: dict[str, str]) -> object:
        await self._bed.end_space(query.get("", ""))
        return {}

    # -- the clock ----------------------------------------------------------------------------------------

    async def _show_clock(self, _request: Request, query: dict[str, str]) -> dict[str, Any]:
        clock = self._bed.engine.clock_of(await self._space(query))
        return {"now": timestamps.render(clock()).decode(), "now_ms": clock(), "frozen": clock.is_frozen}

    async def _set_clock(self, request: Request, query: dict[str, str]) -> object:
        change = await _body(request, ClockChange)
        if sum(each is not None for each in (change.advance, change.freeze, change.run)) != 1:
            raise Invalid('give one of {"advance": "31d"}, {"freeze": "2026-06-01T00:00:00Z"} and {"run": true}')
        number = await self._space(query)
        clock = self._bed.engine.clock_of(number)
        before = self._bed.engine.living(number)
        self._move(number, clock, change)
        self._bed.engine.clock_was_set()
        shown = await self._show_clock(request, query)
        return shown | {"expired": max(0, before - self._bed.engine.living(number))}

    def _move(self, number: int | None, clock: SettableClock, change: ClockChange) -> None:
        kept = clock.kept()
        if change.advance is not None:
            clock.advance(_read(durations.parse, change.advance, "advance"))
        elif change.freeze is not None:
            clock.freeze(clock() if change.freeze == "now" else _read(_instant, change.freeze, "freeze"))
        else:
            clock.run()
        # Times that the APIs could not write.
        if not all(0 <= shown <= timestamps.LATEST for shown in self._bed.engine.shown(number)):
            clock.put_back(kept)
            field = "freeze" if change.advance is None else "advance"
            raise Invalid(f"{field} must leave every clock within the years 1970 to 9999")

    # -- faults and the journal ---------------------------------------------------------------------------

    async def _show_faults(self, _request: Request, _query: dict[str, str]) -> object:
        return self._bed.faults.rules()

    async def _add_faults(self, request: Request, query: dict[str, str]) -> object:
        rules = await _body(request, list[Rule])
        await self._space(query)
        for at, rule in enumerate(rules, 1):
            rule.space = _ulid(query) if rule.space is None else _read(parsers.ulid, rule.space, f"fault {at}: space")
        self._bed.faults.add(rules)
        return self._bed.faults.rules()

    async def _clear_faults(self, _request: Request, query: dict[str, str]) -> object:
        self._bed.faults.clear(_ulid(query))
        return self._bed.faults.rules()

    async def _requests(self, _request: Request, query: dict[str, str]) -> object:
        after = query.get("after", "0")
        if not (after.isascii() and after.isdecimal()):
            raise Invalid("after must be the number of a request")
        api, operation = query.get("api"), query.get("operation")
        if api is not None and api not in APIS:
            raise Invalid(f"api must be one of: {', '.join(APIS)}")
        if operation is not None and (words := wrong_operation(self._bed.operations, api, operation)):
            raise Invalid(f"operation {words}")
        return self._bed.journal.records(after=int(after), space=_ulid(query), api=api, operation=operation)

    async def _forget_requests(self, _request: Request, query: dict[str, str]) -> object:
        self._bed.journal.clear(_ulid(query))
        return {}

    async def _space(self, query: dict[str, str]) -> int | None:
        """The number of the space that the query names; None: the whole server. Raises `NotFound`."""
        id = query.get("space")
        if id is None:
            return None
        space = await self._bed.engine.get_space(id.upper())
        if space is None:
            raise NotFound(f"there is no space {id[:40]!r}; space takes the ULID of a store, application or session")
        return space.number


async def _body(request: Request, kind: Any) -> Any:
    """The body as this type. Raises `Invalid` that says what is wrong."""
    try:
        return msgspec.json.decode(await request.body() or b"{}", type=kind)
    except msgspec.DecodeError as error:  # of which `ValidationError` is one
        raise Invalid(f"the body is not what this control takes: {error}") from None


def _ulid(query: dict[str, str]) -> str | None:
    """The ULID of the space that the query names, which may be gone by now. Raises `Invalid`."""
    id = query.get("space")
    return None if id is None else _read(parsers.ulid, id, "space")


def _instant(text: str) -> int:
    try:
        return timestamps.parse(text)
    except ValueError:
        raise ValueError('"now" or a date-time as 2026-06-01T00:00:00Z') from None


def _read(parse: Callable[[str], T], text: str, field: str) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise Invalid(f"{field} must be {error}") from None
