"""SH_SAVE and SH_LOAD: sessions to the records of a save, and back. The files belong to `Saves`.

A record is what NemesisDB wrote, `{"sh":{…},"keys":{…}}`, with the name of a shared session added. A session of many
keys takes several records in a row, so that no session is ever held in memory as a whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from msgspec import Raw, Struct

from kvasir.control.sessions import Attributes, attributes_of
from kvasir.dialects.nemesis.commands.context import Command, CommandContext, OtherCommand, chunks, raise_failure
from kvasir.dialects.nemesis.commands.keyvalues import name_of, strings
from kvasir.dialects.nemesis.commands.sessions import LONGEST, Expiry, blank
from kvasir.dialects.nemesis.frames import Shape, encode, reply, value_text
from kvasir.dialects.nemesis.statuses import Status
from kvasir.errors import KvasirError, NotFound
from kvasir.keys import pack
from kvasir.model import Alias, Query, Set, Space, Write
from kvasir.store.permissions import WRITERS, require

log = logging.getLogger(__name__)

#: Sessions listed at a time.
_SESSIONS = 1_000
#: Entries in memory at a time while saving, each as large as a value may be.
_ENTRIES = 64


#: The alias of a session that is being loaded, which gets its token and its name when it is whole. One that still has
#: it was loaded only partly: no client can reach it, and the next load continues with it.
_LOADING_ALIAS = "session-loading"


class Head(Struct, omit_defaults=True):
    """Member `sh`: the session. In old saves its token is a number."""

    tkn: str | int
    shared: bool = False
    name: str = ""
    expiry: Expiry = msgspec.field(default_factory=Expiry)


class Record(Struct, omit_defaults=True):
    """A session, or some of its keys."""

    sh: Head | None = None
    keys: dict[str, Any] = msgspec.field(default_factory=dict)


#: What reading a file may raise if it is not a save
UNREADABLE = (OSError, ValueError, msgspec.MsgspecError, RecursionError)
read_record = msgspec.json.Decoder(Record).decode


async def _save(context: CommandContext, body: dict[str, Any]) -> bytes:
    name = body.get("name")
    if context.saves is None:
        return encode({"SH_SAVE_RSP": {"st": Status.COMMAND_DISABLED, "m": ""}})
    if name.__class__ is not str:
        return encode({"SH_SAVE_RSP": {"st": Status.COMMAND_SYNTAX, "m": ""}})
    tokens = body.get("tkns", [])
    if tokens.__class__ is not list:
        return encode({"SH_SAVE_RSP": {"st": Status.VALUE_TYPE_INVALID, "m": "tkns"}})
    if not await prepared(context, name):
        return reply("SH_SAVE", {"name": name, "st": Status.SAVE_DIR_WRITE_FAIL})
    started = context.store.clock()
    context.send(reply("SH_SAVE", {"name": name, "st": Status.SAVE_START}))
    spaces = _named(context, strings(tokens)) if tokens else _all(context)
    try:
        await context.saves.save(context.principal.organisation, name, _records(context, spaces), started)
    except OSError:
        return reply("SH_SAVE", {"name": name, "st": Status.SAVE_ERROR})
    took = context.store.clock() - started
    return reply("SH_SAVE", {"name": name, "st": Status.SAVE_COMPLETE, "duration": took})


async def prepared(context: CommandContext, name: str) -> bool:
    """Create the directory of a save; whether that worked. Raises `Forbidden` for a caller who may not write."""
    require(context.principal, WRITERS)
    if context.saves is None or not context.saves.is_name(name):
        return False
    try:
        await context.saves.prepare(context.principal.organisation, name)
    except OSError as error:
        log.warning("cannot create the directory of the save %r: %s", name, error)
        return False
    return True


async def _all(context: CommandContext) -> AsyncIterator[Space]:
    after = ""
    while spaces := await context.store.list_spaces(context.principal, "session", after=after, limit=_SESSIONS):
        async for space in _named(context, [attributes_of(space).token for space in spaces]):
            yield space
        after = spaces[-1].id


async def _named(context: CommandContext, tokens: list[str]) -> AsyncIterator[Space]:
    for tkn in dict.fromkeys(tokens):
        await asyncio.sleep(0)
        try:
            space = await context.session(tkn)
        except NotFound:
            continue
        if space.kind == "session":
            yield space


async def _records(context: CommandContext, spaces: AsyncIterator[Space]) -> AsyncIterator[bytes]:
    async for space in spaces:
        attributes = attributes_of(space)
        head = Head(
            tkn=attributes.token,
            shared=attributes.shared,
            name=space.name,
            expiry=Expiry(attributes.duration, space.expires_at is not None),
        )
        async for keys in pages(context, space):
            yield encode({"sh": head, "keys": keys})


async def pages(context: CommandContext, space: Space) -> AsyncIterator[dict[str, Raw]]:
    """The keys and values of a space in batches, oldest first; a single empty batch for an empty space."""
    after = None
    more = True
    while more:
        page = await context.store.page(context.principal, space, Query(order="oldest", limit=_ENTRIES, after=after))
        named = [(name_of(entry.key), entry.value) for entry in page.entries]
        yield {name: Raw(value) for name, value in named if name is not None}
        more = page.more
        if more:
            after = page.entries[-1].sequence
            # An engine that answers without waiting would leave no turn to other connections.
            await asyncio.sleep(0)


async def _load(context: CommandContext, body: dict[str, Any]) -> bytes:
    name = body.get("name")
    if name.__class__ is not str:
        return encode({"SH_LOAD_RSP": {"st": Status.COMMAND_SYNTAX, "m": ""}})
    loading = _Loading(context)
    try:
        records = None if context.saves is None else await context.saves.load(context.principal.organisation, name)
        if records is None:
            return reply("SH_LOAD", {"st": Status.LOAD_ERROR, "name": name})
        async for text in records:
            await loading.add(read_record(text))
        await loading.finish()
    except UNREADABLE:
        await loading.give_up()
        return reply("SH_LOAD", {"st": Status.LOAD_ERROR, "name": name})
    except KvasirError:
        await loading.give_up()
        raise
    loaded = {"sessions": loading.sessions, "keys": loading.keys}
    return reply("SH_LOAD", {"name": name, "st": Status.LOAD_COMPLETE, **loaded})


class _Loading:
    """Loads sessions, one after the other; those that exist already are left as they are."""

    def __init__(self, context: CommandContext) -> None:
        self._context = context
        self._token = ""
        #: The session that is being filled, and the aliases that it is to have. None: it existed before, or belongs to
        #: others, so its records are skipped.
        self._space: Space | None = None
        self._aliases: list[Alias] = []
        self._filled = 0
        self.sessions = 0
        self.keys = 0

    async def add(self, record: Record) -> None:
        """Load a record. Raises `KvasirError`, and ValueError for a record without a session."""
        if record.sh is None or record.sh.expiry.duration < 0:
            raise ValueError("not a save of sessions")
        if str(record.sh.tkn) != self._token:
            await self.finish()
            self._token = str(record.sh.tkn)
            self._space = await self._open(record.sh)
            self._filled = 0
        if self._space is not None:
            self._filled += await fill(self._context, self._space, record.keys)

    @property
    def _loading(self) -> Alias:
        return (_LOADING_ALIAS, self._context.principal.organisation, self._token)

    async def finish(self) -> None:
        """All records of the session have been loaded: let clients reach it."""
        space, self._space = self._space, None
        if space is None:
            return
        store, principal = self._context.store, self._context.principal
        try:
            whole = await store.alter(principal, space, space.name, add=self._aliases, remove=[self._loading])
        except NotFound:  # it has been ended meanwhile
            whole = None
        if whole is None or whole.id != space.id:
            await store.end(principal, space)
            return
        self.sessions += 1
        self.keys += self._filled

    async def _open(self, head: Head) -> Space | None:
        # Saves of the original have no names, so only its token leads to a shared session.
        # The original also allowed longer durations.
        duration = min(head.expiry.duration, LONGEST)
        attributes = Attributes(self._token, head.shared and bool(head.name), duration)
        space, self._aliases = blank(self._context, head.name, attributes, delete=head.expiry.delete_session)
        store, principal = self._context.store, self._context.principal
        for alias in self._aliases:
            with contextlib.suppress(NotFound):
                await store.resolve(principal, alias)
                return None
        return await store.create(principal, space, [self._loading])

    async def give_up(self) -> None:
        """Delete a session that is only partly loaded, unless another load has completed it."""
        if self._space is not None:
            with contextlib.suppress(NotFound):
                partly = await self._context.store.resolve(self._context.principal, self._loading)
                await self._context.store.end(self._context.principal, partly)


async def fill(context: CommandContext, space: Space, keys: dict[str, Any]) -> int:
    """Store saved keys, in batches; how many. Raises `KvasirError`, and ValueError for a number no double can hold."""
    for names in chunks(list(keys), context.store.limits.batch_keys):
        sets = tuple(Set(pack((name,)), value_text(keys[name])) for name in names)
        raise_failure(await context.store.write_many(context.principal, space, [Write(space.number, sets)]))
    return len(keys)


COMMANDS: tuple[Command, ...] = (
    OtherCommand("SH_SAVE", Shape(optional={"name": None, "tkns": None}), _save),
    OtherCommand("SH_LOAD", Shape(optional={"name": None}), _load),
)
