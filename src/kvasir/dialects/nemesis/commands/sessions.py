"""The SH_ commands. A session is a space with a token as its alias and, if it is shared, its name as another."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from msgspec import Struct

from kvasir.control.sessions import Attributes, attributes_of, by_name, by_token, new_token, token_among
from kvasir.dialects.nemesis.commands.context import Command, CommandContext, OtherCommand
from kvasir.dialects.nemesis.commands.keyvalues import strings
from kvasir.dialects.nemesis.frames import Refusal, Shape, refused, reply, required, token
from kvasir.dialects.nemesis.statuses import Status
from kvasir.errors import Forbidden, NotFound
from kvasir.model import Alias, Space
from kvasir.store.clearing import next_clear

#: Longest duration in seconds: three thousand years, whose milliseconds fit every engine
LONGEST = 10**11
_END_AT_ONCE = 256
#: Tokens looked up before others have their turn
_TURN = 100

_EXPIRY = Refusal(Status.COMMAND_SYNTAX, "expiry")
_SHARED = Refusal(Status.COMMAND_SYNTAX, "shared")
_NAME = required("name", str, Status.VALUE_MISSING, empty=False)


class Expiry(Struct):
    """The member `expiry`, in seconds."""

    duration: int = 0
    delete_session: bool = msgspec.field(default=False, name="deleteSession")


def blank(context: CommandContext, name: str, attributes: Attributes, *, delete: bool) -> tuple[Space, list[Alias]]:
    """A session that is to be created now, and its aliases."""
    lasts = attributes.duration * 1000 or None
    space = Space(
        id="",
        number=0,
        organisation=context.principal.organisation,
        kind="session",
        name=name,
        created_at=0,
        expires_at=context.store.clock() + lasts if lasts and delete else None,
        clear_every=lasts if lasts and not delete else None,
        attributes=msgspec.json.encode(attributes),
    )
    aliases = [by_token(attributes.token)]
    return space, [*aliases, by_name(name)] if attributes.shared else aliases


# -- SH_NEW, SH_OPEN -------------------------------------------------------------------------------------------


def _expiry_of(body: dict[str, Any]) -> Expiry | None:
    """The expiry among the parameters; None if it is invalid."""
    expiry = body.get("expiry", {"duration": 0, "deleteSession": False})
    if expiry.__class__ is not dict:
        return None
    duration, delete = expiry.get("duration"), expiry.get("deleteSession")
    if duration.__class__ is not int or delete.__class__ is not bool or not 0 <= duration <= LONGEST:
        return None
    return Expiry(duration, delete)


async def _new(context: CommandContext, body: dict[str, Any]) -> bytes:
    expiry = _expiry_of(body)
    if expiry is None:
        return refused("SH_NEW", _EXPIRY)
    shared = body.get("shared", False)
    if shared.__class__ is not bool:
        return refused("SH_NEW", _SHARED)
    name = body["name"]
    if len(name) > context.store.limits.store_name_characters:
        return refused("SH_NEW", Refusal(Status.VALUE_SIZE, "name"))
    if not context.may_create_session():
        message = f"at most {context.limits.sessions_per_second:,} sessions per second on one connection"
        return refused("SH_NEW", Refusal(Status.SESSION_NEW_FAIL, message))
    attributes = Attributes(new_token(), shared, expiry.duration)
    space, aliases = blank(context, name, attributes, delete=expiry.delete_session)
    created = await context.store.create(context.principal, space, aliases)
    try:
        tkn = await _token_of(context, created, attributes.token)
    except NotFound:
        # The name belongs to a session that this caller must not learn of.
        return refused("SH_NEW", Refusal(Status.SESSION_NEW_FAIL))
    return reply("SH_NEW", {"st": Status.OK, "name": name, "tkn": tkn})


async def _token_of(context: CommandContext, space: Space, fresh: str = "") -> str:
    """The token of a space, if the caller may use it. Raises `NotFound`."""
    known = attributes_of(space).token
    if fresh and known == fresh:
        return fresh
    await context.store.open(context.principal, space.id)
    if known:
        return known
    shared_as = token_among(await context.store.aliases(context.principal, space))
    if shared_as is None:
        raise NotFound("the store is no longer shared")
    return shared_as


async def _open(context: CommandContext, body: dict[str, Any]) -> bytes:
    try:
        space = await context.store.resolve(context.principal, by_name(body["name"]))
        return reply("SH_OPEN", {"tkn": await _token_of(context, space), "st": Status.OK})
    except NotFound:
        return reply("SH_OPEN", {"tkn": None, "st": Status.SESSION_OPEN_FAIL})


# -- SH_END, SH_END_ALL, SH_EXISTS -------------------------------------------------------------------------------


async def _ended(context: CommandContext, space: Space) -> bool:
    """End a session; whether it still existed."""
    try:
        return await context.store.end(context.principal, space)
    except NotFound:
        return False


async def _end(context: CommandContext, body: dict[str, Any]) -> bytes:
    try:
        space = await context.session(body["tkn"])
        if space.kind != "session":
            raise Forbidden("this is a store that is shared as a session; delete it with `kvasir store delete`")
        ended = await context.store.end(context.principal, space)
    except NotFound:
        ended = False
    return reply("SH_END", {"st": Status.OK if ended else Status.SESSION_NOT_EXIST, "tkn": body["tkn"]})


async def _end_all(context: CommandContext, _: dict[str, Any]) -> bytes:
    count = 0
    after = ""
    while spaces := await context.store.list_spaces(context.principal, "session", after=after, limit=_END_AT_ONCE):
        count += sum(await asyncio.gather(*[_ended(context, space) for space in spaces]))
        after = spaces[-1].id
    return reply("SH_END_ALL", {"st": Status.OK, "cnt": count})


async def _exists(context: CommandContext, body: dict[str, Any]) -> bytes:
    found: dict[str, bool] = {}
    for index, tkn in enumerate(strings(body["tkns"])):
        if index % _TURN == _TURN - 1:
            await asyncio.sleep(0)  # an engine that answers without waiting would leave no turn to others
        try:
            await context.session(tkn)
            found[tkn] = True
        except NotFound:
            found[tkn] = False
    return reply("SH_EXISTS", {"st": Status.OK, "tkns": found} if found else {"st": Status.OK})


# -- SH_INFO, SH_INFO_ALL ----------------------------------------------------------------------------------------


async def _info(context: CommandContext, body: dict[str, Any]) -> bytes:
    tkn = body["tkn"]
    try:
        space = await context.session(tkn)
    except NotFound:
        nothing = {"st": Status.SESSION_NOT_EXIST, "tkn": tkn, "shared": None, "keyCnt": None}
        return reply("SH_INFO", nothing)
    attributes = attributes_of(space)
    end = space.expires_at or next_clear(space, context.store.now(space))
    expiry = {
        "expires": end is not None,
        "duration": attributes.duration,
        "time": (end or 0) // 1000,
        "remaining": max(0, end - context.store.now(space)) // 1000 if end else 0,
        "deleteSession": space.expires_at is not None,
    }
    count = await context.store.count(context.principal, space)
    info = {"st": Status.OK, "tkn": tkn, "shared": attributes.shared, "keyCnt": count, "expiry": expiry}
    return reply("SH_INFO", info)


async def _info_all(context: CommandContext, _: dict[str, Any]) -> bytes:
    sessions, keys = await context.store.count_spaces(context.principal, "session")
    return reply("SH_INFO_ALL", {"totalSessions": sessions, "totalKeys": keys})


_NEW = {"shared": None, "expiry": {"duration": None, "deleteSession": None}}

COMMANDS: tuple[Command, ...] = (
    OtherCommand("SH_NEW", Shape(_NAME, min_members=1, max_members=3, optional=_NEW), _new),
    OtherCommand("SH_OPEN", Shape(_NAME, min_members=1, max_members=1), _open),
    OtherCommand("SH_END", Shape(token(bare=True)), _end),
    OtherCommand("SH_END_ALL", Shape(max_members=0), _end_all),
    OtherCommand("SH_EXISTS", Shape(required("tkns", list, Status.PARAM_MISSING)), _exists),
    OtherCommand("SH_INFO", Shape(token(bare=True), min_members=1, max_members=1), _info),
    OtherCommand("SH_INFO_ALL", Shape(max_members=0), _info_all),
)
