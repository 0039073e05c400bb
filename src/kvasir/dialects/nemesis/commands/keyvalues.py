"""The KV_ commands of the session profile, except those that look into values (see `find` and `update`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Raw

from kvasir.dialects.nemesis.commands.context import (
    Command,
    CommandContext,
    OtherCommand,
    ReadCommand,
    WriteCommand,
    chunks,
)
from kvasir.dialects.nemesis.frames import Refusal, Shape, encode, refused, reply, required, token, value_text
from kvasir.dialects.nemesis.statuses import Status
from kvasir.engine import Outcome
from kvasir.errors import Invalid
from kvasir.keys import pack, unpack
from kvasir.model import Check, Commit, Delete, DeleteRange, Entry, Mutation, Query, Set, Space, Write

_OBJECT = Shape(required("keys", dict, Status.PARAM_MISSING), token())
_ARRAY = Shape(required("keys", list, Status.PARAM_MISSING), token())
_CONTAINS = Shape(required("keys", list, Status.PARAM_MISSING, message=""), token(bare=True))

# Encoding a member of an enumeration is slow, and every reply to a KV_SET has one of these.
_SET, _UPDATED = int(Status.KEY_SET), int(Status.KEY_UPDATED)

#: Keys fetched at a time for KV_KEYS.
_PAGE = 1_000


def strings(items: list[Any]) -> list[str]:
    """The strings among the items; the others are skipped silently, as in NemesisDB."""
    return [item for item in items if item.__class__ is str]


def setter(name: str, value: Any) -> Set:
    """The mutation that stores a value. Raises `Invalid` for a number that does not fit a double."""
    try:
        return Set(pack((name,)), value_text(value))
    except ValueError:
        raise Invalid(f"the value of {name[:100]!r} contains a number that does not fit a double") from None


def name_of(key: bytes) -> str | None:
    """The name of a one-part key; None for a longer one, which only other APIs can create and use."""
    parts = unpack(key)
    return parts[0] if len(parts) == 1 else None


# -- what write commands write: (number of the space, most mutations of one write, parameters) -> writes -----------


def set_all(space: int, max_mutations: int, body: dict[str, Any]) -> list[Write]:
    """Writes that store keys."""
    return _in_writes(space, max_mutations, [setter(name, value) for name, value in body["keys"].items()])


def add_all(space: int, _: int, body: dict[str, Any]) -> list[Write]:
    """One write per key, so that keys that exist already do not keep the others out."""
    sets = [setter(name, value) for name, value in body["keys"].items()]
    return [Write(space, (mutation,), (Check(mutation.key, None),)) for mutation in sets]


def remove_all(space: int, max_mutations: int, body: dict[str, Any]) -> list[Write]:
    """Writes that delete keys."""
    return _in_writes(space, max_mutations, [Delete(pack((name,))) for name in strings(body["keys"])])


def clear(space: int, _: int, __: dict[str, Any]) -> list[Write]:
    """A write that empties the space."""
    return [Write(space, (DeleteRange(None),))]


def clear_and_set(space: int, max_mutations: int, body: dict[str, Any]) -> list[Write]:
    """Writes that empty the space and store keys; up to `max_mutations` keys, a single one does both."""
    sets = [setter(name, value) for name, value in body["keys"].items()]
    first, others = sets[:max_mutations], sets[max_mutations:]
    return [Write(space, (DeleteRange(None), *first)), *_in_writes(space, max_mutations, others)]


def _in_writes(space: int, max_mutations: int, mutations: Sequence[Mutation]) -> list[Write]:
    if len(mutations) <= max_mutations:
        return [Write(space, tuple(mutations))] if mutations else []
    return [Write(space, tuple(chunk)) for chunk in chunks(mutations, max_mutations)]


# -- replies --------------------------------------------------------------------------------------------------


def _counts(outcomes: Sequence[Outcome]) -> list[int]:
    return [count for outcome in outcomes if isinstance(outcome, Commit) for count in outcome.counts]


def _render_set(body: dict[str, Any], outcomes: Sequence[Outcome]) -> bytes:
    keys = body["keys"]
    if not keys:
        return encode({"KV_SET_RSP": {"tkn": body["tkn"]}})
    counts = zip(keys, _counts(outcomes), strict=True)
    statuses = {name: _UPDATED if count else _SET for name, count in counts}
    return encode({"KV_SET_RSP": {"tkn": body["tkn"], "keys": statuses}})


def _render_nothing(_: dict[str, Any], __: Sequence[Outcome]) -> None:
    return None


def _render_add(body: dict[str, Any], outcomes: Sequence[Outcome]) -> bytes:
    statuses = [_SET if isinstance(outcome, Commit) else Status.KEY_EXISTS for outcome in outcomes]
    return reply("KV_ADD", {"tkn": body["tkn"], "keys": dict(zip(body["keys"], statuses, strict=True))})


def _render_quiet_add(body: dict[str, Any], outcomes: Sequence[Outcome]) -> bytes | None:
    if not body["keys"]:
        return reply("KV_ADDQ", {"keys": {}})
    pairs = zip(body["keys"], outcomes, strict=True)
    existing = {name: Status.KEY_EXISTS for name, outcome in pairs if not isinstance(outcome, Commit)}
    return reply("KV_ADDQ", {"keys": existing, "tkn": body["tkn"]}) if existing else None


def _render_remove(body: dict[str, Any], outcomes: Sequence[Outcome]) -> bytes:
    # Flat, next to the token, as in NemesisDB: a key named "tkn" replaces it.
    answer: dict[str, Any] = {"tkn": body["tkn"]}
    for name, count in zip(strings(body["keys"]), _counts(outcomes), strict=True):
        answer[name] = Status.KEY_REMOVED if count else Status.KEY_NOT_EXIST
    return reply("KV_RMV", answer)


def _render_clear(body: dict[str, Any], outcomes: Sequence[Outcome]) -> bytes:
    return reply("KV_CLEAR", {"st": Status.OK, "cnt": _counts(outcomes)[0], "tkn": body["tkn"]})


def _render_clear_set(body: dict[str, Any], outcomes: Sequence[Outcome]) -> bytes:
    keys = dict.fromkeys(body["keys"], Status.KEY_SET)
    return reply("KV_CLEAR_SET", {"tkn": body["tkn"], "st": Status.OK, "cnt": _counts(outcomes)[0], "keys": keys})


def _render_get(body: dict[str, Any], names: list[str], entries: list[Entry | None]) -> bytes:
    if not names:
        return encode({"KV_GET_RSP": {"tkn": body["tkn"]}})
    if len(names) == 1:  # the most frequent reply of all
        value = b"null" if entries[0] is None else entries[0].value
        return b'{"KV_GET_RSP":{"tkn":%b,"keys":{%b:%b}}}' % (encode(body["tkn"]), encode(names[0]), value)
    values = [None if entry is None else Raw(entry.value) for entry in entries]
    return encode({"KV_GET_RSP": {"tkn": body["tkn"], "keys": dict(zip(names, values, strict=True))}})


def _render_contains(body: dict[str, Any], names: list[str], entries: list[Entry | None]) -> bytes:
    answer: dict[str, Any] = {"st": Status.OK, "tkn": body["tkn"]}
    if names:
        answer["keys"] = {name: entry is not None for name, entry in zip(names, entries, strict=True)}
    return reply("KV_CONTAINS", answer)


# -- KV_COUNT, KV_KEYS ----------------------------------------------------------------------------------------


async def _count(context: CommandContext, body: dict[str, Any]) -> bytes:
    count = await context.store.count(context.principal, await context.session_of(body))
    return reply("KV_COUNT", {"st": Status.OK, "cnt": count, "tkn": body["tkn"]})


async def key_names(context: CommandContext, space: Space) -> list[str]:
    """All keys of a space that have a name in this API, oldest first. Raises `TooLarge`."""
    names: list[str] = []
    size = 0
    after = None
    while True:
        query = Query(order="oldest", limit=_PAGE, after=after, values=False)
        page = await context.store.page(context.principal, space, query)
        for entry in page.entries:
            size += len(entry.key)
            name = name_of(entry.key)
            if name is not None:
                names.append(name)
        if size > context.limits.reply_bytes:
            raise context.reply_too_long()
        if not page.more:
            return names
        after = page.entries[-1].sequence


async def _keys(context: CommandContext, body: dict[str, Any]) -> bytes:
    if len(body) > 1:
        return refused("KV_KEYS", Refusal(Status.COMMAND_SYNTAX))
    names = await key_names(context, await context.session_of(body))
    return reply("KV_KEYS", {"tkn": body["tkn"], "st": Status.OK, "keys": names})


COMMANDS: tuple[Command, ...] = (
    WriteCommand("KV_SET", _OBJECT, set_all, _render_set),
    WriteCommand("KV_SETQ", _OBJECT, set_all, _render_nothing),
    ReadCommand("KV_GET", _ARRAY, _render_get),
    WriteCommand("KV_ADD", _OBJECT, add_all, _render_add),
    WriteCommand("KV_ADDQ", _OBJECT, add_all, _render_quiet_add),
    WriteCommand("KV_RMV", _ARRAY, remove_all, _render_remove),
    ReadCommand("KV_CONTAINS", _CONTAINS, _render_contains),
    OtherCommand("KV_COUNT", Shape(token(bare=True)), _count),
    OtherCommand("KV_KEYS", Shape(token()), _keys),
    WriteCommand("KV_CLEAR", Shape(token(bare=True)), clear, _render_clear),
    WriteCommand("KV_CLEAR_SET", _OBJECT, clear_and_set, _render_clear_set),
)
