"""Profile 0.9: the commands of NemesisDB's last version on one keyspace, the organisation's store `nemesis`.

Its clients match replies by order alone, so every command is answered exactly once. Errors carry a status and nothing
else; the members of a reply are sorted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from kvasir.control import stores
from kvasir.dialects.nemesis.commands.context import Command, Talk, sliced
from kvasir.dialects.nemesis.commands.keyvalues import clear_and_set, key_names, setter, strings
from kvasir.dialects.nemesis.commands.saves import UNREADABLE, fill, pages, prepared, read_record
from kvasir.dialects.nemesis.frames import Parameter, Refusal, Shape, encode, reply
from kvasir.dialects.nemesis.statuses import SAVE_COMPLETE_09, SAVE_DIR_WRITE_FAIL_09, SAVE_ERROR_09, Status
from kvasir.engine import Outcome
from kvasir.errors import NotFound
from kvasir.keys import pack
from kvasir.model import Check, Commit, Delete, DeleteRange, Entry, Space, Write

#: Name of the store that is the one keyspace.
STORE = "nemesis"
VERSION = "0.9"
#: What comes before the underscore in a command of that version; others are answered another way.
FAMILIES = frozenset({"KV", "SV", "OARR", "IARR", "STRARR", "SIARR", "SSTRARR", "OLST"})


def _required(name: str, type: type, *, empty: bool = True) -> Parameter:
    missing, wrong = Refusal(Status.PARAM_MISSING), Refusal(Status.VALUE_TYPE_INVALID)
    return Parameter(name, type, missing, wrong, None if empty else Refusal(Status.VALUE_SIZE))


def command_of(message: Any, known: Any) -> tuple[str, dict[str, Any]] | bytes:
    """(command, parameters) of a parsed message, or the frame that refuses it."""
    if message.__class__ is not dict or len(message) != 1:
        return encode({"ERR": {"st": Status.COMMAND_SYNTAX}})
    name, body = next(iter(message.items()))
    family, underscore, _ = name.partition("_")
    if body.__class__ is not dict or not underscore:
        return reply(name, {"st": Status.COMMAND_SYNTAX})
    if not known(name):
        unknown = {"st": Status.COMMAND_NOT_EXIST}
        return encode({"ERR": unknown}) if family in FAMILIES else reply(name, unknown)
    return name, body


def refused(command: str, refusal: Refusal) -> bytes:
    """The frame that refuses a command."""
    return reply(command, {"st": refusal.status})


def error(status: Status, message: str = "") -> bytes:  # noqa: ARG001  (the other profile tells it)
    """The frame that answers a message without a usable command."""
    return encode({"ERR": {"st": status}})


def cached_keyspace(talk: Talk) -> Space | None:
    """The store behind this profile, if nobody need be asked for it."""
    return talk.store.cached(talk.principal, stores.by_name(talk.principal.organisation, STORE))


async def keyspace(talk: Talk) -> Space:
    """The store behind this profile, created when it is first used."""
    alias = stores.by_name(talk.principal.organisation, STORE)
    try:
        return await talk.store.resolve(talk.principal, alias)
    except NotFound:
        blueprint = stores.unmade(talk.principal.organisation, STORE)
        # Whoever may write may have this one store made.
        maker = msgspec.structs.replace(talk.principal, role="admin") if _may_write(talk) else talk.principal
        made = await talk.store.create(maker, blueprint, [alias])
        return await talk.store.open(talk.principal, made.id)


def _may_write(talk: Talk) -> bool:
    return talk.principal.role == "developer"


def _set(space: int, slice: int, body: dict[str, Any]) -> list[Write]:
    sets = [setter(name, value) for name, value in body["keys"].items()]
    return [Write(space, tuple(some)) for some in sliced(sets, slice)]


def _add(space: int, _: int, body: dict[str, Any]) -> list[Write]:
    sets = [setter(name, value) for name, value in body["keys"].items()]
    return [Write(space, (mutation,), (Check(mutation.key, None),)) for mutation in sets]


def _remove(space: int, slice: int, body: dict[str, Any]) -> list[Write]:
    deletes = [Delete(pack((name,))) for name in strings(body["keys"])]
    return [Write(space, tuple(some)) for some in sliced(deletes, slice)]


def _clear(space: int, _: int, __: dict[str, Any]) -> list[Write]:
    return [Write(space, (DeleteRange(None),))]


def _done(command: str) -> Any:
    frame = reply(command, {"st": Status.OK})
    return lambda _, __: frame


def _cleared(command: str) -> Any:
    def told(_: dict[str, Any], outcomes: Sequence[Outcome]) -> bytes:
        first = outcomes[0]
        return reply(command, {"cnt": first.counts[0] if isinstance(first, Commit) else 0, "st": Status.OK})

    return told


def _shown(_: dict[str, Any], names: list[str], entries: list[Entry | None]) -> bytes:
    found = {name: Raw(entry.value) for name, entry in zip(names, entries, strict=True) if entry is not None}
    return reply("KV_GET", {"keys": found, "st": Status.OK})


def _shown_contains(_: dict[str, Any], names: list[str], entries: list[Entry | None]) -> bytes:
    there = [name for name, entry in zip(names, entries, strict=True) if entry is not None]
    return reply("KV_CONTAINS", {"contains": there, "st": Status.OK})


async def _count(talk: Talk, _: dict[str, Any]) -> bytes:
    count = await talk.store.count(talk.principal, await keyspace(talk))
    return reply("KV_COUNT", {"cnt": count, "st": Status.OK})


async def _keys(talk: Talk, _: dict[str, Any]) -> bytes:
    return reply("KV_KEYS", {"keys": await key_names(talk, await keyspace(talk)), "st": Status.OK})


async def _info(talk: Talk, _: dict[str, Any]) -> bytes:
    return reply("SV_INFO", {"persistEnabled": talk.saves is not None, "serverVersion": VERSION, "st": Status.OK})


async def _save(talk: Talk, body: dict[str, Any]) -> bytes:
    name = body["name"]
    if talk.saves is None:
        return reply("KV_SAVE", {"st": Status.COMMAND_DISABLED})
    if not await prepared(talk, name):
        return reply("KV_SAVE", {"name": name, "st": SAVE_DIR_WRITE_FAIL_09})
    started = talk.store.clock()
    try:
        await talk.saves.save(talk.principal.organisation, name, _records(talk, await keyspace(talk)), started)
    except OSError:
        return reply("KV_SAVE", {"name": name, "st": SAVE_ERROR_09})
    return reply("KV_SAVE", {"duration": talk.store.clock() - started, "name": name, "st": SAVE_COMPLETE_09})


async def _records(talk: Talk, space: Space) -> AsyncIterator[bytes]:
    async for keys in pages(talk, space):
        yield encode({"keys": keys})


async def _load(talk: Talk, body: dict[str, Any]) -> bytes:
    name = body["name"]
    failed = reply("KV_LOAD", {"name": name, "st": Status.LOAD_ERROR})
    started = talk.store.clock()
    count = 0
    try:
        records = None if talk.saves is None else await talk.saves.load(talk.principal.organisation, name)
        if records is None:
            return failed
        space = await keyspace(talk)
        async for text in records:
            record = read_record(text)
            if record.sh is not None:
                return failed
            count += await fill(talk, space, record.keys)
    except UNREADABLE:
        return failed
    took = talk.store.clock() - started
    return reply("KV_LOAD", {"duration": took, "keys": count, "name": name, "sessions": 0, "st": Status.LOAD_COMPLETE})


_OBJECT = Shape(_required("keys", dict))
_ARRAY = Shape(_required("keys", list))
_NAME = Shape(_required("name", str))

COMMANDS = (
    Command("KV_SET", _OBJECT, writes=_set, told=_done("KV_SET")),
    Command("KV_ADD", _OBJECT, writes=_add, told=_done("KV_ADD")),
    Command("KV_GET", _ARRAY, shown=_shown),
    Command("KV_RMV", Shape(_required("keys", list, empty=False)), writes=_remove, told=_done("KV_RMV")),
    Command("KV_COUNT", Shape(), run=_count),
    Command("KV_CLEAR", Shape(), writes=_clear, told=_cleared("KV_CLEAR")),
    Command("KV_KEYS", Shape(), run=_keys),
    Command("KV_CONTAINS", _ARRAY, shown=_shown_contains),
    Command("KV_CLEAR_SET", _OBJECT, writes=clear_and_set, told=_cleared("KV_CLEAR_SET")),
    Command("KV_SAVE", _NAME, run=_save),
    Command("KV_LOAD", _NAME, run=_load),
    Command("SV_INFO", Shape(), run=_info),
)
