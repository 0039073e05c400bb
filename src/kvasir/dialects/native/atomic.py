"""One transaction over several keys: what a body asks for -> conditions and mutations; an outcome -> an answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from kvasir import jsontext
from kvasir.beside.process import aside
from kvasir.beside.thread import rendered
from kvasir.dialects.http import Response
from kvasir.dialects.native import bodies, durations, entries, parameters, rendering
from kvasir.dialects.native.bodies import blame
from kvasir.dialects.native.calls import Call, Services
from kvasir.dialects.native.preconditions import ConditionNotMet
from kvasir.errors import Invalid, TooLarge
from kvasir.keys import pack, parse_versionstamp, prefix_range, unpack, versionstamp_text
from kvasir.limits import Limits
from kvasir.model import (
    Check,
    Condition,
    Conflict,
    Delete,
    DeleteRange,
    Increment,
    Mutation,
    Present,
    Set,
    Touch,
    Unmet,
)

#: What an increment may add: 63 bits and a sign.
LARGEST = (1 << 63) - 1

#: An integer as JSON writes it, of no more digits than 63 bits and a sign may have. Python's own would take 1_0, too.
_is_integer = re.compile("-?(?:0|[1-9][0-9]{0,18})").fullmatch
_is_versionstamp = re.compile("[0-9a-f]{20}").fullmatch


async def commit(services: Services, call: Call) -> Response:
    """All mutations at one instant if all checks hold; 412 with every one that does not."""
    store = services.store
    space = await call.space(services)
    body = await call.request.body(store.limits.batch_body_bytes)
    call.request.reads_only()
    limits, now = store.limits, store.now(space)
    heavy = not jsontext.is_light(body)
    when, wanted = await aside(read, body, limits, now) if heavy else read(body, limits, now)
    call.request.writes()
    outcome = await store.write(call.principal, space, *wanted, when=when)
    if isinstance(outcome, Conflict):
        raise ConditionNotMet("nothing was done: a check does not hold", failed=_failed(outcome.unmet, when, wanted))
    stamp, counts = versionstamp_text(outcome.versionstamp), outcome.counts

    def results() -> bytes:
        each = [_result(mutation, count) for mutation, count in zip(wanted, counts, strict=True)]
        return rendering.document(versionstamp=stamp, results=each)

    return call.answer(await rendered(counts, results))


def read(text: bytes, limits: Limits, now: int) -> tuple[list[Condition], list[Mutation]]:
    """What a body asks for. Raises `Invalid` and `TooLarge`."""
    asked = bodies.parse(text, bodies.Atomic, limits)
    if len(asked.checks) + len(asked.mutations) > limits.batch_keys:
        raise TooLarge(f"more than {limits.batch_keys:,} checks and mutations together; send less at a time")
    if not asked.checks and not asked.mutations:
        raise Invalid("the body has neither checks nor mutations")
    when = [condition_of(check, f"checks[{at}].") for at, check in enumerate(asked.checks)]
    return when, [mutation_of(each, f"mutations[{at}].", limits, now) for at, each in enumerate(asked.mutations)]


def condition_of(check: bodies.Check, at: str) -> Condition:
    """What a check asks for; `at` is the path to it."""
    key = _key(check.key, at)
    if (check.versionstamp is UNSET) == (check.present is UNSET):
        raise blame(at, "versionstamp", "or present is needed: one of them")
    if check.present is True:
        return Present(key)
    if check.present is False or check.versionstamp is None:
        return Check(key, None)
    if not _is_versionstamp(stamp := str(check.versionstamp)):
        # As a condition that never holds it would look as if somebody else had been faster, each time.
        raise blame(at, "versionstamp", "must be 20 digits of 0-9a-f, as an entry has them and without quotes, or null")
    return Check(key, parse_versionstamp(stamp))


def mutation_of(asked: bodies.Mutation, at: str, limits: Limits, now: int) -> Mutation:
    """What a mutation asks for; `at` is the path to it. Raises `Invalid` and `TooLarge`."""
    match asked:
        case bodies.Set():
            return _set(asked, at, limits, now)
        case bodies.Delete():
            return Delete(_key(asked.key, at))
        case bodies.DeletePrefix():
            if asked.all and asked.prefix:
                raise blame(at, "all", "contradicts prefix; give one of them")
            if not asked.prefix and not asked.all:
                raise blame(at, "prefix", "is empty, which stands for every key; say all: true if you mean that")
            bodies.check_prefix(pack(asked.prefix), limits, f"{at}prefix")
            return DeleteRange(prefix_range(asked.prefix), asked.expect)
        case bodies.Touch():
            return _touch(asked, at, now)
        case bodies.Increment():
            return _increment(asked, at, now)


def _key(parts: list[str], at: str) -> bytes:
    if not parts:
        raise blame(at, "key", "must have at least one part: an empty array is no key")
    return pack(parts)


def _life(asked: bodies.Set | bodies.Increment, at: str, now: int, *, refresh: bool) -> tuple[int | None, int | None]:
    ttl = None if asked.ttl is None else parsed(durations.parse, asked.ttl, at, "ttl")
    expires_at = None if asked.expires_at is None else parsed(parameters.timestamp, asked.expires_at, at, "expires_at")
    entries.check_life(ttl, expires_at, refresh, now, at)
    return ttl, expires_at


def parsed(parse: Callable[[str], int], text: str, at: str, name: str) -> int:
    """What a parser of the query makes of a member. Raises `Invalid`."""
    try:
        return parse(text)
    except ValueError as error:
        raise blame(at, name, f"must be {error}") from None


def _set(asked: bodies.Set, at: str, limits: Limits, now: int) -> Set:
    value = bytes(asked.value)
    if asked.text is not None:
        if value:
            raise blame(at, "text", "contradicts value; give one of them")
        value = asked.text.encode()
        try:
            jsontext.decode(value, limits.json_depth, limits.json_containers)
        except Invalid as refusal:
            raise blame(at, "text", f"must hold JSON: {refusal.message}") from None
    if not value:
        raise blame(at, "value", "is missing; null is a value, too")
    ttl, expires_at = _life(asked, at, now, refresh=asked.refresh)
    keep = set(asked.keep)
    return Set(
        _key(asked.key, at),
        value,
        metadata_of(asked.metadata, at),
        ttl,
        expires_at,
        asked.refresh,
        keep_expiry="expiry" in keep,
        keep_metadata="metadata" in keep,
    )


def metadata_of(raw: msgspec.Raw, at: str) -> bytes | None:
    """The text of metadata, which must be an object; None for none."""
    text = bytes(raw)
    if not text or text == b"null":
        return None
    if not text.startswith(b"{"):
        raise blame(at, "metadata", "must be an object")
    return text


def _touch(asked: bodies.Touch, at: str, now: int) -> Touch:
    if (asked.ttl is None) == (asked.expires_at is UNSET):
        raise blame(at, "ttl", "or expires_at is needed: one of them; expires_at: null means that it never expires")
    if asked.ttl is not None:
        expires_at: int | None = now + parsed(durations.parse, asked.ttl, at, "ttl")
    elif isinstance(asked.expires_at, str):
        expires_at = parsed(parameters.timestamp, asked.expires_at, at, "expires_at")
        entries.check_life(None, expires_at, False, now, at)
    else:
        expires_at = None
    return Touch(_key(asked.key, at), expires_at, asked.extend)


def _increment(asked: bodies.Increment, at: str, now: int) -> Increment:
    ttl, expires_at = _life(asked, at, now, refresh=False)
    by, initial = (_integer(text, at, name) for text, name in ((asked.by, "by"), (asked.initial, "initial")))
    return Increment(_key(asked.key, at), by, initial, expires_at if ttl is None else now + ttl)


def _integer(given: int | str, at: str, name: str) -> int:
    number = int(given) if isinstance(given, int) or _is_integer(given) else LARGEST + 1
    if not -LARGEST - 1 <= number <= LARGEST:
        raise blame(at, name, "must be an integer of 63 bits and a sign, as a number or as text")
    return number


def _result(mutation: Mutation, count: int) -> dict[str, Any]:
    match mutation:
        case Set():
            return {"type": "set", "replaced": bool(count)}
        case Touch():
            return {"type": "touch", "touched": bool(count)}
        case Increment():
            # Not every program reads numbers beyond 2^53 exactly.
            return {"type": "increment", "value": count, "text": str(count)}
        case Delete():
            return {"type": "delete", "removed": count}
        case DeleteRange():
            return {"type": "delete_prefix", "removed": count}


def _failed(unmet: Sequence[Unmet], when: list[Condition], wanted: list[Mutation]) -> list[dict[str, Any]]:
    """What did not hold, in the order of the body."""
    failed: list[dict[str, Any]] = []
    check = mutation = -1  # the last one told: of equal ones, each is told
    for each in unmet:
        if isinstance(each.condition, DeleteRange):
            mutation = wanted.index(each.condition, mutation + 1)
            prefix = [] if each.condition.range is None else unpack(each.condition.range.start)
            failed.append({"mutation": mutation, "prefix": prefix, "count": each.count})
        else:
            check = when.index(each.condition, check + 1)
            stamp = None if each.versionstamp is None else versionstamp_text(each.versionstamp)
            failed.append({"check": check, "key": unpack(each.condition.key), "versionstamp": stamp})
    return failed
