"""KV_FIND, in two forms.

The first form, of version 0.3.0, takes a JSON Pointer, the second, of its successors, which has `rsp`, a JSONPath. What
may take long runs in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from kvasir.dialects.nemesis import json_pointer
from kvasir.dialects.nemesis.commands.context import Command, CommandContext, OtherCommand, chunks
from kvasir.dialects.nemesis.commands.evaluating import evaluate
from kvasir.dialects.nemesis.commands.keyvalues import name_of, strings
from kvasir.dialects.nemesis.frames import Refusal, Shape, error, refused, reply, token
from kvasir.dialects.nemesis.jsonpath import compiler
from kvasir.dialects.nemesis.jsonpath.compiler import Budget
from kvasir.dialects.nemesis.statuses import Status
from kvasir.errors import TooLarge
from kvasir.model import Entry, Query, Space

_decode = msgspec.json.decode

#: Entries evaluated before other connections get their turn
_PAGE = 32
#: How often all entries are read anew to get keys and values of the same moment; then those of different ones will do.
_ATTEMPTS = 20


def _syntax(message: str = "") -> bytes:
    return refused("KV_FIND", Refusal(Status.COMMAND_SYNTAX, message))


def _wrong_type(name: str) -> bytes:
    return refused("KV_FIND", Refusal(Status.VALUE_TYPE_INVALID, name))


async def _batches(
    context: CommandContext, space: Space, names: Sequence[str] | None
) -> AsyncIterator[list[tuple[str, Entry]]]:
    """The entries of these keys, or of all (None), in batches; other connections get their turn in between.

    They are of one snapshot if they fit into one batch of the store.
    """
    if names is not None:
        names = list(dict.fromkeys(names))
    try:
        together = await (_all_together(context, space) if names is None else _named_together(context, space, names))
    except TooLarge:
        together = None
    if together is not None:
        for chunk in chunks(together, _PAGE):
            yield chunk
            await asyncio.sleep(0)
    elif names is not None:
        for chunk in chunks(names, _PAGE):
            yield _existing(chunk, await context.get(space, chunk))
            await asyncio.sleep(0)
    else:
        after = None
        more = True
        while more:
            page = await context.store.page(context.principal, space, Query(order="oldest", limit=_PAGE, after=after))
            yield _existing([name_of(entry.key) for entry in page.entries], page.entries)
            more = page.more
            after = page.entries[-1].sequence if more else None
            await asyncio.sleep(0)


def _existing(names: Sequence[str | None], entries: Sequence[Entry | None]) -> list[tuple[str, Entry]]:
    pairs = zip(names, entries, strict=True)
    return [(name, entry) for name, entry in pairs if name is not None and entry is not None]


async def _named_together(
    context: CommandContext, space: Space, names: Sequence[str]
) -> list[tuple[str, Entry]] | None:
    """The entries of these keys in one snapshot; None if they are more than a batch may have. Raises `TooLarge`."""
    return _existing(names, await context.get(space, names)) if len(names) <= context.store.limits.batch_keys else None


async def _all_together(context: CommandContext, space: Space) -> list[tuple[str, Entry]] | None:
    """All entries, oldest first; None if there are more than a batch may have. Raises `TooLarge`.

    A listing with 1,000 values could take 1 GiB, so the values are read by a second call, which bounds their sum. If no
    versionstamp has changed in between, the entries are a snapshot of the moment of the first.
    """
    query = Query(order="oldest", limit=context.store.limits.batch_keys, values=False)
    found: list[tuple[str, Entry]] = []
    for _ in range(_ATTEMPTS):
        listed = await context.store.page(context.principal, space, query)
        if listed.more:
            return None
        keys = [entry.key for entry in listed.entries]
        entries = await context.store.get(context.principal, space, keys, extend=False) if keys else []
        found = _existing([name_of(key) for key in keys], entries)
        if [entry and entry.versionstamp for entry in entries] == [entry.versionstamp for entry in listed.entries]:
            break
    return found


# -- KV_FIND --------------------------------------------------------------------------------------------------


async def _find(context: CommandContext, body: dict[str, Any]) -> bytes:
    return await (_find_by_path if "rsp" in body else _find_by_pointer)(context, body)


async def _find_by_pointer(context: CommandContext, body: dict[str, Any]) -> bytes:
    conditions = {name: value for name, value in body.items() if name not in ("tkn", "path")}
    if len(body) != 3:
        return _syntax()
    if "path" not in body:
        return refused("KV_FIND", Refusal(Status.FIND_NO_PATH))
    if body["path"].__class__ is not str:
        return _wrong_type("path")
    ((operator, value),) = conditions.items()
    if operator not in json_pointer.OPERATORS:
        return refused("KV_FIND", Refusal(Status.FIND_INVALID_OPERATOR))
    space = await context.session(body["tkn"])
    try:
        parts = json_pointer.parts_of(body["path"])
    except json_pointer.BadPointer:
        return error(Status.UNKNOWN)
    test, operand = json_pointer.OPERATORS[operator], json_pointer.Operand(value)
    budget = Budget(context.limits.path_steps)
    room = context.limits.reply_bytes
    names: list[str] = []
    async for batch in _batches(context, space, None):

        def matching(budget: Budget, batch: list[tuple[str, Entry]] = batch) -> list[str]:
            found = []
            for name, entry in batch:
                budget.spend(1 + len(entry.value) // 64)
                try:
                    value = json_pointer.resolve(_decode(entry.value), parts)
                except LookupError:
                    continue
                if test(operand.order(value, budget.spend)):
                    found.append(name)
            return found

        found = await evaluate(context, _size(batch), budget, matching)
        room -= sum(map(len, found))
        if room < 0:
            raise context.reply_too_long()
        names += found
    return reply("KV_FIND", {"tkn": body["tkn"], "keys": names})


def _size(batch: list[tuple[str, Entry]]) -> int:
    return sum(len(entry.value) for _, entry in batch)


def _path_fault(body: dict[str, Any]) -> bytes | None:
    """The reply to parameters of the second form that are wrong, in its order of checks."""
    if not 3 <= len(body) <= 4:
        return _syntax()
    path, rsp = body.get("path"), body["rsp"]
    if "path" not in body:
        return refused("KV_FIND", Refusal(Status.PATH_NOT_EXIST))
    if path.__class__ is not str:
        return _wrong_type("path")
    if not path:
        return refused("KV_FIND", Refusal(Status.VALUE_SIZE, "path"))
    if rsp.__class__ is not str:
        return _wrong_type("rsp")
    if rsp not in ("keys", "kv", "paths"):
        return _syntax("rsp")
    if body.get("keys", []).__class__ is not list:
        return _wrong_type("keys")
    return None


async def _find_by_path(context: CommandContext, body: dict[str, Any]) -> bytes:
    if fault := _path_fault(body):
        return fault
    space = await context.session(body["tkn"])
    try:
        path = compiler.compile(body["path"])
    except compiler.BadPath as refusal:
        why = {"m": refusal.message} if refusal.message else {}  # NemesisDB said nothing
        return reply("KV_FIND", {"tkn": body["tkn"], "st": Status.PATH_INVALID, **why})
    budget = Budget(context.limits.path_steps)
    room = context.limits.reply_bytes
    names: list[str] = []
    values: dict[str, Raw] = {}
    paths: list[str] = []
    rsp = body["rsp"]
    names_given = body.get("keys")  # missing or empty: all
    async for batch in _batches(context, space, strings(names_given) if names_given else None):

        def matching(
            budget: Budget, batch: list[tuple[str, Entry]] = batch, room: int = room
        ) -> list[tuple[str, Entry, list[str]]]:
            found, used = [], 0
            for name, entry in batch:
                nodes = compiler.find(path, _decode(entry.value), budget)
                if nodes:
                    texts = _paths_of(context, nodes, room - used, budget) if rsp == "paths" else []
                    used += sum(map(len, texts))
                    found.append((name, entry, texts))
            return found

        for name, entry, texts in await evaluate(context, _size(batch), budget, matching):
            names.append(name)
            paths += texts
            if rsp == "kv":
                values[name] = Raw(entry.value)
                room -= len(entry.value)
            room -= len(name) + sum(map(len, texts))
        if room < 0:
            raise context.reply_too_long()
    results: dict[str, Any] = {"keys": names, "kv": values, "paths": paths}
    return reply("KV_FIND", {"tkn": body["tkn"], "st": Status.OK, "paths" if rsp == "paths" else "keys": results[rsp]})


def _paths_of(context: CommandContext, nodes: list[compiler.Node], room: int, budget: Budget) -> list[str]:
    """The normalized paths of these nodes; each is paid for before it is made, since it may be as long as a value.

    Raises `TooLarge` if they come to more characters than `room`.
    """
    texts = []
    for node in nodes:
        characters = node.path_characters
        budget.spend(characters // 64)
        room -= characters
        if room < 0:
            raise context.reply_too_long()
        texts.append(node.path)
    return texts


_FIND = dict.fromkeys(("path", "rsp", "keys", *json_pointer.OPERATORS))

COMMANDS: tuple[Command, ...] = (OtherCommand("KV_FIND", Shape(token(), optional=_FIND), _find),)
