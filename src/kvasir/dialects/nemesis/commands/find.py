"""KV_FIND, KV_UPDATE and KV_APPEND: the commands that look into values, the first two of them in two forms.

The first form, of version 0.3.0, takes a JSON Pointer, the second, of its successors, a JSONPath. The second form is a
KV_FIND with `rsp`, or a KV_UPDATE with `path` and `value` next to its key. What may take long runs in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from kvasir.beside.thread import in_thread
from kvasir.dialects.nemesis import json_pointer
from kvasir.dialects.nemesis.commands.context import INLINE_BYTES, Command, CommandContext, OtherCommand, chunks
from kvasir.dialects.nemesis.commands.keyvalues import name_of, setter, strings
from kvasir.dialects.nemesis.frames import Malformed, Refusal, Shape, error, parse, refused, reply, token
from kvasir.dialects.nemesis.jsonpath import compiler
from kvasir.dialects.nemesis.jsonpath.compiler import Budget, TooMuch
from kvasir.dialects.nemesis.statuses import Status
from kvasir.errors import TooLarge
from kvasir.keys import pack
from kvasir.model import Entry, Mutation, Query, Set, Space

_decode = msgspec.json.decode

#: Entries evaluated before other connections get their turn
_PAGE = 32
#: How often all entries are read anew to get keys and values of the same moment; then those of different ones will do.
_ATTEMPTS = 20
#: An evaluation of more steps, or more bytes of values, runs in a thread.
_INLINE_STEPS = 2_000

T = TypeVar("T")


def _syntax(command: str, message: str = "") -> bytes:
    return refused(command, Refusal(Status.COMMAND_SYNTAX, message))


def _wrong_type(command: str, name: str) -> bytes:
    return refused(command, Refusal(Status.VALUE_TYPE_INVALID, name))


async def _evaluate(context: CommandContext, size: int, budget: Budget, work: Callable[[Budget], T]) -> T:
    """The result of `work`, computed here if that is quick, else in a thread. Raises `TooLarge` beyond the budget."""
    if size <= INLINE_BYTES and budget.left >= _INLINE_STEPS:
        inline = Budget(_INLINE_STEPS)
        try:
            result = work(inline)
        except TooMuch:
            pass
        else:
            budget.left -= _INLINE_STEPS - inline.left
            return result
    try:
        budget.spend(size // 64)
        return await asyncio.get_running_loop().run_in_executor(context.threads, work, budget)
    except asyncio.CancelledError:
        budget.left = -(2**62)  # which ends it at its next step
        raise
    except TooMuch:
        message = f"the path takes more than {context.limits.path_steps:,} steps; search fewer keys or be more specific"
        raise TooLarge(message) from None


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
        return _syntax("KV_FIND")
    if "path" not in body:
        return refused("KV_FIND", Refusal(Status.FIND_NO_PATH))
    if body["path"].__class__ is not str:
        return _wrong_type("KV_FIND", "path")
    ((operator, operand),) = conditions.items()
    if operator not in json_pointer.OPERATORS:
        return refused("KV_FIND", Refusal(Status.FIND_INVALID_OPERATOR))
    space = await context.session(body["tkn"])
    try:
        parts = json_pointer.parts_of(body["path"])
    except json_pointer.BadPointer:
        return error(Status.UNKNOWN)
    test = json_pointer.OPERATORS[operator]
    budget = Budget(context.limits.path_steps)
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
                if test(json_pointer.order(value, operand)):
                    found.append(name)
            return found

        names += await _evaluate(context, _size(batch), budget, matching)
    return reply("KV_FIND", {"tkn": body["tkn"], "keys": names})


def _size(batch: list[tuple[str, Entry]]) -> int:
    return sum(len(entry.value) for _, entry in batch)


def _path_fault(body: dict[str, Any]) -> bytes | None:
    """The reply to parameters of the second form that are wrong, in its order of checks."""
    if not 3 <= len(body) <= 4:
        return _syntax("KV_FIND")
    path, rsp = body.get("path"), body["rsp"]
    if "path" not in body:
        return refused("KV_FIND", Refusal(Status.PATH_NOT_EXIST))
    if path.__class__ is not str:
        return _wrong_type("KV_FIND", "path")
    if not path:
        return refused("KV_FIND", Refusal(Status.VALUE_SIZE, "path"))
    if rsp.__class__ is not str:
        return _wrong_type("KV_FIND", "rsp")
    if rsp not in ("keys", "kv", "paths"):
        return _syntax("KV_FIND", "rsp")
    if body.get("keys", []).__class__ is not list:
        return _wrong_type("KV_FIND", "keys")
    return None


async def _find_by_path(context: CommandContext, body: dict[str, Any]) -> bytes:
    if fault := _path_fault(body):
        return fault
    space = await context.session(body["tkn"])
    try:
        path = compiler.compile(body["path"])
    except compiler.BadPath:
        return reply("KV_FIND", {"tkn": body["tkn"], "st": Status.PATH_INVALID})
    budget = Budget(context.limits.path_steps)
    room = context.limits.reply_bytes
    names: list[str] = []
    values: dict[str, Raw] = {}
    paths: list[str] = []
    rsp = body["rsp"]
    names_given = body.get("keys")  # missing or empty: all
    async for batch in _batches(context, space, strings(names_given) if names_given else None):

        def matching(budget: Budget, batch: list[tuple[str, Entry]] = batch) -> list[tuple[str, Entry, list[str]]]:
            found = []
            for name, entry in batch:
                nodes = compiler.find(path, _decode(entry.value), budget)
                if nodes:
                    texts = [node.path for node in nodes] if rsp == "paths" else []
                    budget.spend(sum(len(text) // 64 for text in texts))
                    found.append((name, entry, texts))
            return found

        for name, entry, texts in await _evaluate(context, _size(batch), budget, matching):
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
        return _syntax("KV_UPDATE")
    if "key" not in body:
        return refused("KV_UPDATE", Refusal(Status.PARAM_MISSING))
    name = body["key"]
    if name.__class__ is not str:
        return _wrong_type("KV_UPDATE", "key")
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
        return _syntax("KV_UPDATE")
    if "key" not in body:
        return refused("KV_UPDATE", Refusal(Status.PARAM_MISSING, "key"))
    for member in ("key", "path"):
        if body[member].__class__ is not str:
            return _wrong_type("KV_UPDATE", member)
    space = await context.session(body["tkn"])
    try:
        path = compiler.compile(body["path"])
    except compiler.BadPath:
        return error(Status.UNKNOWN)
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
                return compiler.replace(path, _decode(text), body["value"], budget)

            with context.preparing():
                value, count = await _evaluate(context, len(entry.value), budget, replacing)
                if not count:
                    break
                new = await in_thread(partial(_rewritten, context, name, value, entry))
            if await context.put_if_unchanged(space, [entry.key], [entry], [new]):
                break
    return reply("KV_UPDATE", {"tkn": body["tkn"], "st": status, "cnt": count})


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


_FIND = dict.fromkeys(("path", "rsp", "keys", *json_pointer.OPERATORS))

COMMANDS: tuple[Command, ...] = (
    OtherCommand("KV_FIND", Shape(token(), optional=_FIND), _find),
    OtherCommand("KV_UPDATE", Shape(token(), any_names=True), _update),
    OtherCommand("KV_APPEND", Shape(token(), any_names=True), _append),
)
