"""Messages to requests, and requests to results: at once where that takes no waiting, by themselves, or joined.

Most reads take no waiting, nor do writes where nothing is made durable; a coroutine for each of those would cost as
much as they do. No order of replies.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from msgspec import Struct

from kvasir import jsontext
from kvasir.beside.process import aside
from kvasir.beside.thread import in_thread
from kvasir.dialects.ignored import Notes, log_once
from kvasir.dialects.nemesis.commands.context import (
    Command,
    CommandContext,
    HeavyPlaces,
    OtherCommand,
    ReadCommand,
    WriteCommand,
    raise_failure,
)
from kvasir.dialects.nemesis.commands.profiles import NO_COMMAND, PROFILES, Profile
from kvasir.dialects.nemesis.frames import Malformed, Refusal, parse
from kvasir.dialects.nemesis.statuses import OF_ERROR, Status
from kvasir.engine import Outcome
from kvasir.errors import Invalid, KvasirError, NotFound, TooLarge
from kvasir.keys import pack
from kvasir.limits import Limits
from kvasir.model import Entry, Space, Write

log = logging.getLogger(__name__)

#: A reply about more keys is made beside the event loop.
LIGHT_KEYS = 1_000

#: Commands that change nothing, or that are gone on with by the next of their kind: when the client leaves, they end.
ABANDONED = frozenset(
    {"KV_GET", "KV_CONTAINS", "KV_COUNT", "KV_KEYS", "KV_FIND", "SH_EXISTS", "SH_INFO", "SH_INFO_ALL"}
    | {"SH_SAVE", "SH_LOAD", "KV_SAVE", "KV_LOAD"}
)

#: Commands that spend their time on looking into values, in a thread of their own
SEARCHES = frozenset({"KV_FIND"})

#: In place of the number of a space: that there are no writes yet, or that nobody knows it yet.
_NOT_PREPARED, _UNKNOWN = -1, -2

#: Whose members are ignored, for the log
_API = "NemesisDB API"

#: How a request went, for metrics, and its reply, if it has one.
Result = tuple[str, bytes | None]


class BaseRequest(Struct, gc=False):  # never part of a cycle, and one is made for every message
    """A message that has been parsed."""

    #: Of its command, for metrics
    name: str
    body: dict[str, Any]
    #: A stopwatch's seconds
    started: float

    def answer_nowait(self, context: CommandContext, profile: Profile, may_write: bool) -> Result | None:  # noqa: ARG002
        """Carry it out if that takes no waiting. None: nothing was done."""
        return None


class RefusedRequest(BaseRequest, gc=False):
    """A request that failed before it was carried out."""

    result: Result

    def answer_nowait(self, context: CommandContext, profile: Profile, may_write: bool) -> Result:  # noqa: ARG002
        return self.result


class OtherRequest(BaseRequest, gc=False):
    """A request that runs by itself."""

    command: OtherCommand


class KeysRequest(BaseRequest, gc=False):
    """A request on keys, which may share a call to the store with others of its kind."""


class ReadRequest(KeysRequest, gc=False):
    """A request that reads some keys."""

    command: ReadCommand
    names: list[str]

    def answer_nowait(self, context: CommandContext, profile: Profile, may_write: bool) -> Result | None:  # noqa: ARG002
        try:
            names = self.names
            space = profile.space_nowait(context, self.body)
            if space is None:
                return None
            if len(names) == 1:  # as in most requests
                entries = context.store.get_nowait(context.principal, space, (pack(names),))
                return None if entries is None else ("ok", self.command.render(self.body, names, entries))
            if not names or len(names) > context.store.limits.batch_keys:
                return None
            entries = context.store.get_nowait(context.principal, space, [pack((name,)) for name in names])
        except Exception:
            return None  # It fails again where failures are rendered.
        return None if entries is None else self.render(context, profile, entries)

    async def carry_out(self, context: CommandContext, profile: Profile, space: Space) -> Result:
        """Carry it out by itself."""
        try:
            entries = await context.get(space, self.names) if self.names else []
        except Exception as error:
            return render_failure(profile, self, error)
        if len(self.names) > LIGHT_KEYS:
            return await in_thread(lambda: self.render(context, profile, entries))
        return self.render(context, profile, entries)

    def render(self, context: CommandContext, profile: Profile, entries: list[Entry | None]) -> Result:
        """The result of reading these entries, one for each name."""
        try:
            if len(entries) > 1 and sum([len(e.value) for e in entries if e is not None]) > context.limits.reply_bytes:
                raise context.reply_too_long()
            return "ok", self.command.render(self.body, self.names, entries)
        except Exception as error:
            return render_failure(profile, self, error)


class WriteRequest(KeysRequest, gc=False):
    """A request that only writes."""

    command: WriteCommand
    #: Filled in when its space, which has this number, is known
    writes: list[Write] = []
    prepared_for: int = _NOT_PREPARED

    def answer_nowait(self, context: CommandContext, profile: Profile, may_write: bool) -> Result | None:
        max_keys = context.store.limits.batch_keys
        try:
            space = profile.space_nowait(context, self.body) if may_write else None
            if space is None or self.prepare(space, max_keys) > max_keys:
                return None
            outcomes = context.store.write_many_nowait(context.principal, space, self.writes)
        except Exception as error:
            return render_failure(profile, self, error)
        return None if outcomes is None else self.render(profile, outcomes)

    def prepare(self, space: Space, max_keys: int) -> int:
        """Fill in `writes`; how many mutations they have. Raises `KvasirError` for a request that makes no sense."""
        if self.prepared_for == _NOT_PREPARED:
            self.writes = self.command.make_writes(space.number, max_keys, self.body)
        elif self.prepared_for != space.number:
            self.writes = [Write(space.number, write.mutations, write.conditions) for write in self.writes]
        self.prepared_for = space.number
        writes = self.writes
        return len(writes[0].mutations) if len(writes) == 1 else sum([len(write.mutations) for write in writes])

    async def carry_out(self, context: CommandContext, profile: Profile, space: Space) -> Result:
        """Carry it out by itself."""
        try:
            outcomes = await context.write(space, self.writes)
        except Exception as error:
            return render_failure(profile, self, error)
        return await in_thread(lambda: self.render(profile, outcomes))  # for many keys: others have joined

    def render(self, profile: Profile, outcomes: Sequence[Outcome]) -> Result:
        """The result of these outcomes, one for each write."""
        try:
            return "ok", self.command.render(self.body, raise_failure(outcomes))
        except Exception as error:
            return render_failure(profile, self, error)


Request = RefusedRequest | OtherRequest | ReadRequest | WriteRequest


class JoinedReads(Struct):
    """Reads of one space that are carried out together."""

    space: Space
    requests: list[ReadRequest]

    async def carry_out(self, context: CommandContext, profile: Profile) -> AsyncIterator[tuple[ReadRequest, Result]]:
        """Make as few calls to the store as its bound on keys allows; each request, and its result."""
        for group in self._groups(context.store.limits.batch_keys):
            keys = [pack((name,)) for request in group for name in request.names]
            try:
                most = context.limits.reply_bytes
                entries = await context.store.get(context.principal, self.space, keys, max_bytes=most) if keys else []
            except Exception:
                # Perhaps only some of them ask for too much, or for keys that the caller may not read.
                for request in group:
                    yield request, await request.carry_out(context, profile, self.space)
                continue
            position = 0
            for request in group:
                end = position + len(request.names)
                yield request, request.render(context, profile, entries[position:end])
                position = end

    def _groups(self, max_keys: int) -> Iterator[list[ReadRequest]]:
        group: list[ReadRequest] = []
        count = 0
        for request in self.requests:
            if group and count + len(request.names) > max_keys:
                yield group
                group, count = [], 0
            group.append(request)
            count += len(request.names)
        yield group


def is_light(message: bytes | None) -> bool:
    """Whether a message is parsed in a moment."""
    return message is None or jsontext.is_light(message)


@contextlib.asynccontextmanager
async def held(
    profile: Profile, context: CommandContext, places: HeavyPlaces, message: bytes, started: float, strict: bool
) -> AsyncIterator[Request]:
    """A request that takes long to parse, while it is carried out; only so many are in memory at a time.

    A search may take long for other reasons, so it has a place of its own and leaves that of the others. If there is
    none, it is let go of, and parsed once more when there is: a place is never waited for in another one.
    """
    async with contextlib.AsyncExitStack() as place:
        request: Request | None = None
        async with places.requests:
            request = await parse_heavy(profile, context, message, started, strict=strict)
            if request.name not in SEARCHES:
                yield request
                return
            if places.searches.locked():
                request = None
            else:
                await place.enter_async_context(places.searches)
        if request is None:
            await place.enter_async_context(places.searches)
            async with places.requests:
                request = await parse_heavy(profile, context, message, started, strict=strict)
        yield request


async def parse_heavy(
    profile: Profile, context: CommandContext, message: bytes, started: float, *, strict: bool
) -> Request:
    """What `parse_request` gives, parsed beside the event loop, with its writes if it only writes."""
    parsed = await aside(_parse_apart, message, profile.name, context.store.limits, started, strict)
    request = parsed.request
    log_once(parsed.ignored, _API)
    if isinstance(request, RefusedRequest):
        return request
    request.command = profile.commands[request.name]
    if not isinstance(request, WriteRequest):
        return request
    try:
        space = await profile.space(context, request.body)
        if parsed.refusal is not None:
            raise parsed.refusal
        await in_thread(lambda: request.prepare(space, context.store.limits.batch_keys))
    except KvasirError as failure:
        result = render_failure(profile, request, failure)
        return RefusedRequest(request.name, request.body, request.started, result)
    return request


class _Parsed(Struct):
    """A request without its command, which cannot be pickled, and with no more of its parameters than are needed."""

    request: Request
    #: What it has that is ignored
    ignored: list[str]
    #: Why its writes make no sense
    refusal: KvasirError | None = None


def _parse_apart(message: bytes, profile: str, limits: Limits, started: float, strict: bool) -> _Parsed:
    ignored: list[str] = []
    request = parse_request(PROFILES[profile], message, limits, started, strict=strict, ignored=ignored)
    parsed = _Parsed(request, ignored)
    if isinstance(request, RefusedRequest):
        return parsed
    if isinstance(request, ReadRequest):
        del request.body["keys"]  # it has their names
    elif isinstance(request, WriteRequest):
        try:
            request.writes = request.command.make_writes(_UNKNOWN, limits.batch_keys, request.body)
            request.prepared_for = _UNKNOWN
        except KvasirError as refusal:
            parsed.refusal = refusal
        if request.body.get("keys").__class__ is dict:
            request.body["keys"] = dict.fromkeys(request.body["keys"])  # without the values
    request.command = None  # type: ignore[assignment]  # until it is back
    return parsed


def parse_request(
    profile: Profile,
    message: bytes | None,
    limits: Limits,
    started: float,
    *,
    strict: bool = False,
    ignored: list[str] | None = None,
) -> Request:
    """Parse a message; None stands for a binary one. Raises `frames.NotText`.

    `strict`: refuse members that a command does not know; otherwise they are logged, or added to `ignored`.
    """
    if message is None:
        return RefusedRequest(NO_COMMAND, {}, started, ("invalid", profile.error(Status.OP_CODE_INVALID)))
    try:
        if len(message) > limits.json_containers:
            jsontext.check_containers(message, limits.json_containers)
        value = parse(message, limits.json_depth)
    except TooLarge as error:
        return RefusedRequest(NO_COMMAND, {}, started, (error.code, profile.error(Status.VALUE_SIZE, error.message)))
    except Malformed:
        return RefusedRequest(NO_COMMAND, {}, started, ("invalid", profile.error(Status.JSON_INVALID)))
    if value.__class__ is dict and len(value) == 1:
        ((name, body),) = value.items()
        command = profile.commands.get(name)
        if command is not None and body.__class__ is dict:
            fault = command.shape.fault(body)
            if fault is None and len(body) > command.shape.usual:
                fault = _unknown_members(profile, command, body, ignored, strict=strict)
            if fault is not None:
                return RefusedRequest(name, body, started, ("invalid", profile.refused(name, fault)))
            if type(command) is ReadCommand:
                keys = body["keys"]  # one in most requests
                is_one = len(keys) == 1 and keys[0].__class__ is str
                names = keys if is_one else [key for key in keys if key.__class__ is str]
                return ReadRequest(name, body, started, command, names)
            if type(command) is WriteCommand:
                return WriteRequest(name, body, started, command)
            if type(command) is OtherCommand:
                return OtherRequest(name, body, started, command)
    refusal = profile.refuse_message(value, profile.commands)
    return RefusedRequest(NO_COMMAND, {}, started, ("invalid", refusal))


def _unknown_members(
    profile: Profile, command: Command, body: dict[str, Any], ignored: list[str] | None, *, strict: bool
) -> Refusal | None:
    """How members that a command does not know are refused, if they are."""
    notes = Notes(profile.known, command.name, strict=strict)
    try:
        notes.look(body, command.shape.known, "")
        for name, below in command.shape.known.items():
            if below is not None and body.get(name).__class__ is dict:
                notes.look(body[name], below, f"{name}.")
    except Invalid as refusal:
        return Refusal(Status.COMMAND_SYNTAX, refusal.message)
    if ignored is None:
        log_once(notes.found, _API)
    else:
        ignored += notes.found
    return None


def render_failure(profile: Profile, request: BaseRequest, error: Exception) -> Result:
    """The result of a request that raised this. Whatever is not a `KvasirError` is a bug of ours, and logged."""
    if not isinstance(error, KvasirError):
        log.error("%s failed", request.name, exc_info=error)
        return "internal", profile.refused(request.name, Refusal(Status.UNKNOWN))
    message = str(request.body.get("tkn", error.message)) if isinstance(error, NotFound) else error.message
    status = OF_ERROR.get(type(error), Status.UNKNOWN)
    return error.code, profile.refused(request.name, Refusal(status, message))
