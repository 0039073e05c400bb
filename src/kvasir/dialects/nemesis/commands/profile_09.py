"""Profile 0.9: the commands of NemesisDB's last version on a single keyspace, the organisation's store `nemesis`.

Its clients match replies to requests by order alone, so every command gets exactly one reply. An error is a status and
nothing else; the members of a reply are sorted.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Container, Sequence
from typing import Any

from msgspec import Raw

from kvasir.control import stores
from kvasir.dialects.nemesis.commands.context import Command, CommandContext, OtherCommand, ReadCommand, WriteCommand
from kvasir.dialects.nemesis.commands.keyvalues import add_all, clear, clear_and_set, key_names, remove_all, set_all
from kvasir.dialects.nemesis.commands.saves import UNREADABLE, fill, pages, prepared, read_record
from kvasir.dialects.nemesis.frames import Parameter, Refusal, Shape, encode, reply
from kvasir.dialects.nemesis.statuses import SAVE_COMPLETE_09, SAVE_DIR_WRITE_FAIL_09, SAVE_ERROR_09, Status
from kvasir.engine import Outcome
from kvasir.model import Commit, Entry, Space

#: Name of the store that is the keyspace
STORE = "nemesis"
VERSION = "0.9"
#: What precedes the underscore in that version's commands; an unknown command of another family is refused differently.
FAMILIES = frozenset({"KV", "SV", "OARR", "IARR", "STRARR", "SIARR", "SSTRARR", "OLST"})


def _required(name: str, type: type, *, empty: bool = True) -> Parameter:
    missing, wrong = Refusal(Status.PARAM_MISSING), Refusal(Status.VALUE_TYPE_INVALID)
    return Parameter(name, type, missing, wrong, None if empty else Refusal(Status.VALUE_SIZE))


def refuse_message(message: Any, _: Container[str]) -> bytes:
    """The reply that refuses a message without a usable command."""
    if message.__class__ is not dict or len(message) != 1:
        return error(Status.COMMAND_SYNTAX)
    ((name, body),) = message.items()
    if body.__class__ is not dict or "_" not in name:
        return reply(name, {"st": Status.COMMAND_SYNTAX})
    known_family = name.partition("_")[0] in FAMILIES
    return error(Status.COMMAND_NOT_EXIST) if known_family else reply(name, {"st": Status.COMMAND_NOT_EXIST})


def refused(command: str, refusal: Refusal) -> bytes:
    """The reply that refuses a command."""
    return reply(command, {"st": refusal.status})


def error(status: Status, message: str = "") -> bytes:  # noqa: ARG001  (only the other profile sends it)
    """The reply to a message without a usable command."""
    return encode({"ERR": {"st": status}})


def keyspace_nowait(context: CommandContext, _: dict[str, Any]) -> Space | None:
    """The store of this profile if it is cached; otherwise None."""
    return context.store.resolve_nowait(context.principal, stores.by_name(context.principal.organisation, STORE))


async def keyspace(context: CommandContext, _: dict[str, Any]) -> Space:
    """The store of this profile, created when it is first used."""
    return await stores.resolve_or_create(context.store, context.principal, STORE)


def _render_ok(command: str) -> Any:
    frame = reply(command, {"st": Status.OK})
    return lambda _, __: frame


def _render_clear(command: str) -> Any:
    def render(_: dict[str, Any], outcomes: Sequence[Outcome]) -> bytes:
        first = outcomes[0]
        return reply(command, {"cnt": first.counts[0] if isinstance(first, Commit) else 0, "st": Status.OK})

    return render


def _render_get(_: dict[str, Any], names: list[str], entries: list[Entry | None]) -> bytes:
    found = {name: Raw(entry.value) for name, entry in zip(names, entries, strict=True) if entry is not None}
    return reply("KV_GET", {"keys": found, "st": Status.OK})


def _render_contains(_: dict[str, Any], names: list[str], entries: list[Entry | None]) -> bytes:
    existing = [name for name, entry in zip(names, entries, strict=True) if entry is not None]
    return reply("KV_CONTAINS", {"contains": existing, "st": Status.OK})


async def _count(context: CommandContext, body: dict[str, Any]) -> bytes:
    count = await context.store.count(context.principal, await keyspace(context, body))
    return reply("KV_COUNT", {"cnt": count, "st": Status.OK})


async def _keys(context: CommandContext, body: dict[str, Any]) -> bytes:
    return reply("KV_KEYS", {"keys": await key_names(context, await keyspace(context, body)), "st": Status.OK})


async def _info(context: CommandContext, _: dict[str, Any]) -> bytes:
    return reply("SV_INFO", {"persistEnabled": context.saves is not None, "serverVersion": VERSION, "st": Status.OK})


async def _save(context: CommandContext, body: dict[str, Any]) -> bytes:
    name = body["name"]
    if context.saves is None:
        return reply("KV_SAVE", {"st": Status.COMMAND_DISABLED})
    if not await prepared(context, name):
        return reply("KV_SAVE", {"name": name, "st": SAVE_DIR_WRITE_FAIL_09})
    started = context.store.clock()
    try:
        await context.saves.save(
            context.principal.organisation, name, _records(context, await keyspace(context, body)), started
        )
    except OSError:
        return reply("KV_SAVE", {"name": name, "st": SAVE_ERROR_09})
    return reply("KV_SAVE", {"duration": context.store.clock() - started, "name": name, "st": SAVE_COMPLETE_09})


async def _records(context: CommandContext, space: Space) -> AsyncIterator[bytes]:
    async for keys in pages(context, space):
        yield encode({"keys": keys})


async def _load(context: CommandContext, body: dict[str, Any]) -> bytes:
    name = body["name"]
    failed = reply("KV_LOAD", {"name": name, "st": Status.LOAD_ERROR})
    started = context.store.clock()
    count = 0
    try:
        records = None if context.saves is None else await context.saves.load(context.principal.organisation, name)
        if records is None:
            return failed
        space = await keyspace(context, body)
        async for text in records:
            record = read_record(text)
            if record.sh is not None:
                return failed
            count += await fill(context, space, record.keys)
    except UNREADABLE:
        return failed
    took = context.store.clock() - started
    return reply("KV_LOAD", {"duration": took, "keys": count, "name": name, "sessions": 0, "st": Status.LOAD_COMPLETE})


_OBJECT = Shape(_required("keys", dict))
_ARRAY = Shape(_required("keys", list))
_NAME = Shape(_required("name", str))

COMMANDS: tuple[Command, ...] = (
    WriteCommand("KV_SET", _OBJECT, set_all, _render_ok("KV_SET")),
    WriteCommand("KV_ADD", _OBJECT, add_all, _render_ok("KV_ADD")),
    ReadCommand("KV_GET", _ARRAY, _render_get),
    WriteCommand("KV_RMV", Shape(_required("keys", list, empty=False)), remove_all, _render_ok("KV_RMV")),
    OtherCommand("KV_COUNT", Shape(), _count),
    WriteCommand("KV_CLEAR", Shape(), clear, _render_clear("KV_CLEAR")),
    OtherCommand("KV_KEYS", Shape(), _keys),
    ReadCommand("KV_CONTAINS", _ARRAY, _render_contains),
    WriteCommand("KV_CLEAR_SET", _OBJECT, clear_and_set, _render_clear("KV_CLEAR_SET")),
    OtherCommand("KV_SAVE", _NAME, _save),
    OtherCommand("KV_LOAD", _NAME, _load),
    OtherCommand("SV_INFO", Shape(), _info),
)
