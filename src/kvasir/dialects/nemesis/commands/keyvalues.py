"""The KV_ commands of the session profile, but for those that look into values (see `find`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Raw

from kvasir.dialects.nemesis.commands.context import Command, Talk, sliced
from kvasir.dialects.nemesis.frames import Refusal, Shape, encode, refused, reply, required, token, value_text
from kvasir.dialects.nemesis.statuses import Status
from kvasir.engine import Outcome
from kvasir.errors import Invalid
from kvasir.keys import pack, unpack
from kvasir.model import Check, Commit, Delete, DeleteRange, Entry, Mutation, Query, Set, Write

_OBJECT = Shape(required("keys", dict, Status.PARAM_MISSING), token())
_ARRAY = Shape(required("keys", list, Status.PARAM_MISSING), token())
_CONTAINS = Shape(required("keys", list, Status.PARAM_MISSING, message=""), token(bare=True))

# A member of an enumeration takes its time; every write needs these.
_SET, _UPDATED = int(Status.KEY_SET), int(Status.KEY_UPDATED)

#: Keys fetched at a time for KV_KEYS.
_PAGE = 1_000


def strings(items: list[Any]) -> list[str]:
    """The texts among the items; the others are skipped without a word, as NemesisDB did."""
    return [item for item in items if item.__class__ is str]


def setter(name: str, value: Any) -> Set:
    """The mutation that stores a value. Raises `Invalid` for a number beyond a double."""
    try:
        return Set(pack((name,)), value_text(value))
    except ValueError:
        raise Invalid(f"the value of {name[:100]!r} holds a number beyond a double") from None


def _counts(outcomes: Sequence[Outcome]) -> list[int]:
    return [count for outcome in outcomes if isinstance(outcome, Commit) for count in outcome.counts]


def _in_writes(space: int, slice: int, mutations: Sequence[Mutation]) -> list[Write]:
    if len(mutations) <= slice:
        return [Write(space, tuple(mutations))] if mutations else []
    return [Write(space, tuple(some)) for some in sliced(mutations, slice)]


def _set(space: int, slice: int, body: dict[str, Any]) -> list[Write]:
    return _in_writes(space, slice, [setter(name, value) for name, value in body["keys"].items()])


def _told_set(body: dict[str, Any], outcomes: Sequence[Outcome]) -> bytes:
    keys = body["keys"]
    if not keys:
        return encode({"KV_SET_RSP": {"tkn": body["tkn"]}})
    counts = zip(keys, _counts(outcomes), strict=True)
    statuses = {name: _UPDATED if count else _SET for name, count in counts}
    return encode({"KV_SET_RSP": {"tkn": body["tkn"], "keys": statuses}})


def _told_nothing(_: dict[str, Any], __: Sequence[Outcome]) -> None:
    return None


def _add(space: int, _: int, body: dict[str, Any]) -> list[Write]:
    """Each key is a write of its own: those that are there already do not keep the others out."""
    sets = [setter(name, value) for name, value in body["keys"].items()]
    return [Write(space, (mutation,), (Check(mutation.key, None),)) for mutation in sets]


def _told_add(body: dict[str, Any], outcomes: Sequence[Outcome]) -> bytes:
    statuses = [_SET if isinstance(outcome, Commit) else Status.KEY_EXISTS for outcome in outcomes]
    return reply("KV_ADD", {"tkn": body["tkn"], "keys": dict(zip(body["keys"], statuses, strict=True))})


def _told_add_quietly(body: dict[str, Any], outcomes: Sequence[Outcome]) -> bytes | None:
    if not body["keys"]:
        return reply("KV_ADDQ", {"keys": {}})
    pairs = zip(body["keys"], outcomes, strict=True)
    kept = {name: Status.KEY_EXISTS for name, outcome in pairs if not isinstance(outcome, Commit)}
    return reply("KV_ADDQ", {"keys": kept, "tkn": body["tkn"]}) if kept else None


def _remove(space: int, slice: int, body: dict[str, Any]) -> list[Write]:
    return _in_writes(space, slice, [Delete(pack((name,))) for name in strings(body["keys"])])


def _told_remove(body: dict[str, Any], outcomes: Sequence[Outcome]) -> bytes:
    # Flat, beside the token: a key named "tkn" takes its place, as it always did.
    answer: dict[str, Any] = {"tkn": body["tkn"]}
    for name, count in zip(strings(body["keys"]), _counts(outcomes), strict=True):
        answer[name] = Status.KEY_REMOVED if count else Status.KEY_NOT_EXIST
    return reply("KV_RMV", answer)


def _clear(space: int, _: int, __: dict[str, Any]) -> list[Write]:
    return [Write(space, (DeleteRange(None),))]


def _told_clear(body: dict[str, Any], outcomes: Sequence[Outcome]) -> bytes:
    return reply("KV_CLEAR", {"st": Status.OK, "cnt": _counts(outcomes)[0], "tkn": body["tkn"]})


def clear_and_set(space: int, slice: int, body: dict[str, Any]) -> list[Write]:
    """Writes that empty a space and store keys; the first commits both, up to the bound on a batch."""
    sets = [setter(name, value) for name, value in body["keys"].items()]
    return _in_writes(space, slice, [DeleteRange(None), *sets])


def _told_clear_set(body: dict[str, Any], outcomes: Sequence[Outcome]) -> bytes:
    keys = dict.fromkeys(body["keys"], Status.KEY_SET)
    return reply("KV_CLEAR_SET", {"tkn": body["tkn"], "st": Status.OK, "cnt": _counts(outcomes)[0], "keys": keys})


def _shown(body: dict[str, Any], names: list[str], entries: list[Entry | None]) -> bytes:
    if not names:
        return encode({"KV_GET_RSP": {"tkn": body["tkn"]}})
    if len(names) == 1:  # the most frequent answer of all
        value = b"null" if entries[0] is None else entries[0].value
        return b'{"KV_GET_RSP":{"tkn":%b,"keys":{%b:%b}}}' % (encode(body["tkn"]), encode(names[0]), value)
    values = [None if entry is None else Raw(entry.value) for entry in entries]
    return encode({"KV_GET_RSP": {"tkn": body["tkn"], "keys": dict(zip(names, values, strict=True))}})


def _shown_contains(body: dict[str, Any], names: list[str], entries: list[Entry | None]) -> bytes:
    answer: dict[str, Any] = {"st": Status.OK, "tkn": body["tkn"]}
    if names:
        answer["keys"] = {name: entry is not None for name, entry in zip(names, entries, strict=True)}
    return reply("KV_CONTAINS", answer)


async def _count(talk: Talk, body: dict[str, Any]) -> bytes:
    count = await talk.store.count(talk.principal, await talk.space(body["tkn"]))
    return reply("KV_COUNT", {"st": Status.OK, "cnt": count, "tkn": body["tkn"]})


async def key_names(talk: Talk, space: Any) -> list[str]:
    """All keys of a space that this API can name, oldest first. Raises `TooLarge`."""
    names: list[str] = []
    size = 0
    after = None
    while True:
        query = Query(order="oldest", limit=_PAGE, after=after, values=False)
        page = await talk.store.page(talk.principal, space, query)
        for entry in page.entries:
            size += len(entry.key)
            name = name_of(entry.key)
            if name is not None:
                names.append(name)
        if size > talk.limits.reply_bytes:
            raise talk.too_much()
        if not page.more:
            return names
        after = page.entries[-1].sequence


def name_of(key: bytes) -> str | None:
    """The name of a one-part key; None for a longer one, which only other APIs can make and use."""
    parts = unpack(key)
    return parts[0] if len(parts) == 1 else None


async def _keys(talk: Talk, body: dict[str, Any]) -> bytes:
    if len(body) > 1:
        return refused("KV_KEYS", Refusal(Status.COMMAND_SYNTAX))
    names = await key_names(talk, await talk.space(body["tkn"]))
    return reply("KV_KEYS", {"tkn": body["tkn"], "st": Status.OK, "keys": names})


COMMANDS = (
    Command("KV_SET", _OBJECT, writes=_set, told=_told_set),
    Command("KV_SETQ", _OBJECT, writes=_set, told=_told_nothing),
    Command("KV_GET", _ARRAY, shown=_shown),
    Command("KV_ADD", _OBJECT, writes=_add, told=_told_add),
    Command("KV_ADDQ", _OBJECT, writes=_add, told=_told_add_quietly),
    Command("KV_RMV", _ARRAY, writes=_remove, told=_told_remove),
    Command("KV_CONTAINS", _CONTAINS, shown=_shown_contains),
    Command("KV_COUNT", Shape(token(bare=True)), run=_count),
    Command("KV_KEYS", Shape(token()), run=_keys),
    Command("KV_CLEAR", Shape(token(bare=True)), writes=_clear, told=_told_clear),
    Command("KV_CLEAR_SET", _OBJECT, writes=clear_and_set, told=_told_clear_set),
)
