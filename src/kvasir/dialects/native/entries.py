"""One entry: GET, PUT and DELETE, in both forms of naming its key."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from kvasir import jsontext
from kvasir.beside.process import aside
from kvasir.dialects import timestamps
from kvasir.dialects.http import JSON, Request, Response
from kvasir.dialects.native import preconditions, rendering
from kvasir.dialects.native.bodies import blame
from kvasir.dialects.native.calls import Call, Services
from kvasir.dialects.native.preconditions import ANY, ConditionNotMet
from kvasir.dialects.native.problems import HEADERS
from kvasir.errors import Invalid, NotFound, TooLarge
from kvasir.limits import Limits
from kvasir.model import Check, Commit, Condition, Conflict, Delete, Entry, Present, Principal, Set, Space
from kvasir.store.store import Store

#: Bytes of metadata in a header. More goes by `atomic`.
METADATA_BYTES = 4_096


# -- get --------------------------------------------------------------------------------------------------


async def get(services: Services, call: Call) -> Response:
    """The value itself, or the whole entry. A HEAD request and a 304 extend no life."""
    store, packed = services.store, call.packed_key()
    store.limits.check_key(packed)
    space = await call.space(services)
    extend = call.query.get("extend", True) and not call.request.is_head
    must, must_not = (preconditions.tags(call.request, name) for name in ("if-match", "if-none-match"))
    whole = call.query.get("form") == "entry"
    if must or must_not:
        entry = (await store.get(call.principal, space, (packed,), extend=False))[0]
        tag = None if entry is None else _tag(entry, whole=whole)
        if must and (tag is None or (must != ANY and tag not in must)):
            raise _not_met(None if entry is None else entry.versionstamp)
        if entry is not None and (must_not == ANY or tag in must_not):
            return call.answer(b"", 304, _headers(tag or "", entry.created_at, entry.expires_at))
    entry = (await store.get(call.principal, space, (packed,), extend=extend))[0]
    if entry is None:
        raise no_entry()
    headers = _headers(_tag(entry, whole=whole), entry.created_at, entry.expires_at)
    return call.answer(rendering.entry(entry) if whole else entry.value, 200, headers)


def value_response(entry: Entry) -> Response:
    """The answer to a plain GET."""
    usual = _value_headers(entry.versionstamp, entry.created_at, entry.expires_at)
    return Response(200, entry.value, "GetEntry", "ok", (), JSON, usual)


def no_entry() -> NotFound:
    """The failure of a GET."""
    return NotFound("there is no entry with this key")


def _tag(entry: Entry, *, whole: bool) -> str:
    return preconditions.entry_tag(entry) if whole else f'"{entry.versionstamp:020x}"'


def _headers(tag: str, created_at: int, expires_at: int | None) -> tuple[tuple[str, str], ...]:
    created = _created(created_at)
    if expires_at is None:
        return ("ETag", tag), created
    return ("ETag", tag), created, ("Kvasir-Expires-At", rendering.instant(expires_at) or "")


@lru_cache(maxsize=4096)  # as many as an engine may have at hand
def _value_headers(versionstamp: int, created_at: int, expires_at: int | None) -> tuple[tuple[str, str], ...]:
    """All headers of an answer with a value, as one object, so that a listener may know it again."""
    return (*_headers(f'"{versionstamp:020x}"', created_at, expires_at), *HEADERS)


@lru_cache(maxsize=4096)
def _created(milliseconds: int) -> tuple[str, str]:
    return "Kvasir-Created-At", timestamps.render(milliseconds).decode()


# -- set --------------------------------------------------------------------------------------------------


async def put(services: Services, call: Call) -> Response:
    """The body is the value."""
    packed = call.packed_key()
    space = await call.space(services)
    when = await _conditions(services.store, call.principal, space, call.request, packed)
    body = await call.request.body(services.store.limits.set_body_bytes)
    if jsontext.is_light(body):
        check_value(body, services.store.limits)
    else:
        call.request.reads_only()
        await aside(check_value, body, services.store.limits)
        call.request.writes()
    wanted = wanted_set(call.request, call.query, packed, body, services.store, space)
    return set_response(await services.store.write(call.principal, space, wanted, when=when), call.operation.name)


def check_value(text: bytes, limits: Limits) -> None:
    """Raises `Invalid` and `TooLarge` for the body of a PUT that is no value."""
    if not text:
        raise Invalid("the body is empty; it must be the value, any JSON")
    limits.check_value(text)
    jsontext.decode(text, limits.json_depth, limits.json_containers)


def wanted_set(request: Request, query: dict[str, Any], packed: bytes, value: bytes, store: Store, space: Space) -> Set:
    """What a PUT with this value asks for. Raises `Invalid` and `TooLarge`."""
    metadata = _metadata(request, store.limits)
    if not query:
        return Set(packed, value, metadata)
    ttl, expires_at = query.get("ttl"), query.get("expires_at")
    check_life(ttl, expires_at, query.get("refresh", False), store.now(space))
    keep: frozenset[str] = query.get("keep", frozenset())
    return Set(
        packed,
        value,
        metadata,
        ttl,
        expires_at,
        query.get("refresh", False),
        keep_expiry="expiry" in keep,
        keep_metadata="metadata" in keep,
    )


def check_life(ttl: int | None, expires_at: int | None, refresh: bool, now: int, at: str = "") -> None:
    """Raises `Invalid` for options of a set or touch that contradict each other; `at` is the path to them."""
    if ttl is not None and expires_at is not None:
        raise blame(at, "ttl", "contradicts expires_at; give one of them")
    if expires_at is not None and expires_at <= now:
        raise blame(at, "expires_at", "must be in the future; to remove the entry, delete it")
    if refresh and ttl is None and expires_at is None:
        raise blame(at, "refresh", "needs a ttl or expires_at, which reading starts afresh")


def _metadata(request: Request, limits: Limits) -> bytes | None:
    text = request.header("kvasir-metadata")
    if text is None:
        return None
    if not text.isascii():
        raise blame("", "kvasir-metadata", 'must be ASCII: escape other characters, as "\\u00e9"')
    if len(text) > METADATA_BYTES:
        raise TooLarge(
            f"the header Kvasir-Metadata has {len(text):,} bytes; at most {METADATA_BYTES:,} are allowed there, "
            "POST …/atomic takes more",
            fields=(("kvasir-metadata", "is too long"),),
        )
    try:
        is_object = jsontext.decode(text.encode(), limits.json_depth).__class__ is dict
    except Invalid as refusal:
        raise blame("", "kvasir-metadata", f"must be a JSON object: {refusal.message}") from None
    if not is_object:
        raise blame("", "kvasir-metadata", "must be a JSON object")
    return text.encode()


def set_response(outcome: Commit | Conflict, operation: str) -> Response:
    """The answer to a PUT. Raises `ConditionNotMet`."""
    if isinstance(outcome, Conflict):
        raise _refused(outcome)
    stamp = f"{outcome.versionstamp:020x}"
    return Response(
        200 if outcome.counts[0] else 201,
        b'{"versionstamp":"%b"}' % stamp.encode(),
        operation,
        "ok",
        (("ETag", f'"{stamp}"'),),
        JSON,
        HEADERS,
    )


# -- delete -----------------------------------------------------------------------------------------------


async def delete(services: Services, call: Call) -> Response:
    """Removing what is not there is no failure."""
    packed = call.packed_key()
    space = await call.space(services)
    when = await _conditions(services.store, call.principal, space, call.request, packed)
    outcome = await services.store.write(call.principal, space, Delete(packed), when=when)
    if isinstance(outcome, Conflict):
        raise _refused(outcome)
    return call.answer(b"", 204, (("Kvasir-Count", str(outcome.counts[0])),))


# -- conditions -------------------------------------------------------------------------------------------


def plain_conditions(request: Request, packed: bytes) -> tuple[Condition, ...] | None:
    """The conditions of a write; None if If-Match names several versionstamps, among which a look has to choose."""
    if request.header("if-match") is None and request.header("if-none-match") is None:
        return ()
    must_not = preconditions.tags(request, "if-none-match")
    must = preconditions.tags(request, "if-match")
    if must_not:
        if must_not != ANY:
            raise blame("", "if-none-match", 'must be "*" in a write: only if the key does not exist')
        if must:
            raise blame("", "if-none-match", "contradicts If-Match; send one of them")
        return (Check(packed, None),)
    if must == ANY:
        return (Present(packed),)
    if len(must) > 1:
        return None
    return (Check(packed, preconditions.versionstamp(must[0])),) if must else ()


async def _conditions(
    store: Store, principal: Principal, space: Space, request: Request, packed: bytes
) -> tuple[Condition, ...]:
    when = plain_conditions(request, packed)
    if when is not None:
        return when
    stamps = [preconditions.versionstamp(tag) for tag in preconditions.tags(request, "if-match")]
    entry = (await store.get(principal, space, (packed,), extend=False))[0]
    present = entry.versionstamp if entry is not None and entry.versionstamp in stamps else stamps[0]
    return (Check(packed, present),)


def _refused(outcome: Conflict) -> ConditionNotMet:
    condition = outcome.unmet[0].condition
    if isinstance(condition, Check) and condition.versionstamp is None:
        return ConditionNotMet("nothing was done: the key exists already", versionstamp=outcome.versionstamp)
    return _not_met(outcome.versionstamp)


def _not_met(versionstamp: int | None) -> ConditionNotMet:
    state = "does not exist" if versionstamp is None else "has another versionstamp"
    return ConditionNotMet(f"nothing was done: the key {state}", versionstamp=versionstamp)
