"""KV_UPDATE and KV_APPEND: the commands that change something within values.

KV_UPDATE has two forms. The first, of version 0.3.0, takes a JSON Pointer, the second, of its successors, which has
`path` and `value` next to its key, a JSONPath. What may take long runs in a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from kvasir.beside.thread import in_thread
from kvasir.dialects.nemesis import json_pointer
from kvasir.dialects.nemesis.commands.context import Command, CommandContext, OtherCommand, chunks
from kvasir.dialects.nemesis.commands.evaluating import evaluate
from kvasir.dialects.nemesis.commands.keyvalues import setter
from kvasir.dialects.nemesis.frames import Malformed, Refusal, Shape, encode, error, parse, refused, reply, token
from kvasir.dialects.nemesis.jsonpath import compiler
from kvasir.dialects.nemesis.jsonpath.compiler import Budget
from kvasir.dialects.nemesis.statuses import Status
from kvasir.errors import TooLarge
from kvasir.keys import pack
from kvasir.limits import refused as count_refusal
from kvasir.model import Entry, Mutation, Set, Space

_decode = msgspec.json.decode


def _syntax() -> bytes:
    return refused("KV_UPDATE", Refusal(Status.COMMAND_SYNTAX))


def _wrong_type(name: str) -> bytes:
    return refused("KV_UPDATE", Refusal(Status.VALUE_TYPE_INVALID, name))


def _rewritten(context: CommandContext, name: str, value: Any, old: Entry) -> Set:
    """The mutation that replaces an entry's value and nothing else. Raises `Invalid` and `TooLarge`."""
    max_depth = context.store.limits.json_depth
    try:
        new = setter(name, value)
        # Neither value is too deep, but together they may be.
        parse(new.value, max_depth)
    except (Malformed, RecursionError):
        raise TooLarge(f"the value of {name[:100]!r} would be nested deeper than {max_depth} levels") from None
    if old.slides:  # reading it has extended its life
        return Set(new.key, new.value, old.metadata, ttl=old.refresh, refresh=True)
    return Set(new.key, new.value, old.metadata, expires_at=old.expires_at)


# -- KV_UPDATE ------------------------------------------------------------------------------------------------


async def _update(context: CommandContext, body: dict[str, Any]) -> bytes:
    # A command of three members is of the first form, even if its pointer is called "path".
    by_path = "path" in body and "value" in body and len(body) > 3
    return await (_update_by_path if by_path else _update_by_pointer)(context, body)


async def _update_by_pointer(context: CommandContext, body: dict[str, Any]) -> bytes:
    if len(body) != 3:
        return _syntax()
    if "key" not in body:
        return refused("KV_UPDATE", Refusal(Status.PARAM_MISSING))
    name = body["key"]
    if name.__class__ is not str:
        return _wrong_type("key")
    ((pointer, new),) = ((member, value) for member, value in body.items() if member not in ("tkn", "key"))
    space = await context.session(body["tkn"])
    status = Status.OK

    def change(entries: list[Entry | None]) -> list[Mutation]:
        nonlocal status
        entry, status = entries[0], Status.OK
        if entry is None:
            status = Status.KEY_NOT_EXIST
            return []
        try:
            replaced = json_pointer.replaced(_decode(entry.value), json_pointer.parts_of(pointer), new)
            return [_rewritten(context, name, replaced, entry)]
        except json_pointer.BadPointer:
            status = Status.PATH_INVALID
        except LookupError:
            status = Status.PATH_NOT_EXIST
        return []

    await context.change(space, [pack((name,))], change)
    return reply("KV_UPDATE", {"tkn": body["tkn"], "st": status})


async def _update_by_path(context: CommandContext, body: dict[str, Any]) -> bytes:
    if len(body) != 4:
        return _syntax()
    if "key" not in body:
        return refused("KV_UPDATE", Refusal(Status.PARAM_MISSING, "key"))
    for member in ("key", "path"):
        if body[member].__class__ is not str:
            return _wrong_type(member)
    space = await context.session(body["tkn"])
    try:
        path = compiler.compile(body["path"])
    except compiler.BadPath as refusal:
        return error(Status.UNKNOWN, refusal.message)
    name = body["key"]
    budget = Budget(context.limits.path_steps)
    status, count = Status.OK, 0
    async with context.alone(space, [pack((name,))]):
        while True:
            entry = (await context.get(space, [name]))[0]
            if entry is None:
                status, count = Status.KEY_NOT_EXIST, 0
                break

            def replacing(budget: Budget, text: bytes = entry.value) -> tuple[Any, int]:
                replaced, count = compiler.replace(path, _decode(text), body["value"], budget)
                if count > 1:
                    _check_size(context, replaced, count, body["value"])
                return replaced, count

            with context.preparing():
                value, count = await evaluate(context, len(entry.value), budget, replacing)
                if not count:
                    break
                new = await in_thread(partial(_rewritten, context, name, value, entry))
            if await context.put_if_unchanged(space, [entry.key], [entry], [new]):
                break
    return reply("KV_UPDATE", {"tkn": body["tkn"], "st": status, "cnt": count})


def _check_size(context: CommandContext, replaced: Any, count: int, new: Any) -> None:
    """Raises `TooLarge` if a value that has `new` at `count` places is too large for that alone: before it is encoded,
    it is hardly larger than the old one."""
    size = len(encode(new))
    most = context.store.limits.value_bytes
    # Some of the places may be within others, which have been replaced as well.
    if count * size > most and (least := _occurrences(new, replaced) * size) > most:
        count_refusal("value_bytes")
        message = f"the value would be more than {least:,} bytes of JSON; at most {most:,} are allowed"
        raise TooLarge(message, subject="value")


def _occurrences(new: Any, value: Any) -> int:
    """How often the very same object is in a value."""
    count, todo = 0, [value]
    while todo:
        here = todo.pop()
        if here is new:
            count += 1
        elif here.__class__ is dict:
            todo += here.values()
        elif here.__class__ is list:
            todo += here
    return count


# -- KV_APPEND ------------------------------------------------------------------------------------------------


async def _append(context: CommandContext, body: dict[str, Any]) -> bytes | None:
    """One reply per key, in order; the first value of another type ends the command."""
    space = await context.session(body["tkn"])
    additions = [(name, addition) for name, addition in body.items() if name != "tkn"]
    for chunk in chunks(additions, context.store.limits.batch_keys):
        statuses = await _append_all(context, space, chunk)
        for (name, _), status in zip(chunk, statuses, strict=False):
            context.send(reply("KV_APPEND", {"st": status, "k": name, "tkn": body["tkn"]}))
        if len(statuses) < len(chunk):
            return error(Status.UNKNOWN)
    return None


async def _append_all(context: CommandContext, space: Space, additions: Sequence[tuple[str, Any]]) -> list[Status]:
    """Append in one write, up to the first stored value that is of another type; the statuses of those before it."""
    statuses: list[Status] = []

    def change(entries: list[Entry | None]) -> list[Mutation]:
        statuses.clear()
        mutations: list[Mutation] = []
        for (name, addition), entry in zip(additions, entries, strict=True):
            if entry is None:
                statuses.append(Status.KEY_NOT_EXIST)
            elif addition.__class__ not in (str, list, dict):
                statuses.append(Status.VALUE_TYPE_INVALID)
            else:
                try:
                    mutations.append(
                        _rewritten(context, name, json_pointer.appended(_decode(entry.value), addition), entry)
                    )
                except json_pointer.Mismatch:
                    break
                statuses.append(Status.OK)
        return mutations

    await context.change(space, [pack((name,)) for name, _ in additions], change)
    return statuses


COMMANDS: tuple[Command, ...] = (
    OtherCommand("KV_UPDATE", Shape(token(), any_names=True), _update),
    OtherCommand("KV_APPEND", Shape(token(), any_names=True), _append),
)
