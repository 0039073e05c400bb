"""Messages to commands, and outcomes to frames, by a profile's tables. Pure."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

from msgspec import Struct

from kvasir.dialects.nemesis import frames
from kvasir.dialects.nemesis.commands.context import Command, raised
from kvasir.dialects.nemesis.commands.profiles import Profile
from kvasir.dialects.nemesis.statuses import OF_ERROR, Status
from kvasir.engine import Outcome
from kvasir.errors import KvasirError, NotFound
from kvasir.model import Write

log = logging.getLogger(__name__)


class Begun(Struct):
    """A message that has been taken in."""

    #: None: it has no command of the profile.
    command: Command | None
    body: dict[str, Any]
    #: A stopwatch's seconds
    started: float
    #: The refusal, if it is one already, and how it counts.
    answer: bytes | None = None
    outcome: str = "invalid"
    #: What a command that only writes, or only reads, wants.
    writes: list[Write] = []
    names: list[str] = []


def take_in(profile: Profile, message: bytes | None, max_depth: int, started: float) -> Begun:
    """Read a message; None stands for a binary one. Raises `wire.NotText`."""
    if message is None:
        return Begun(None, {}, started, profile.error(Status.OP_CODE_INVALID))
    try:
        value = frames.parse(message, max_depth)
    except frames.Malformed:
        return Begun(None, {}, started, profile.error(Status.JSON_INVALID))
    return begin(profile, value, started)


def begin(profile: Profile, value: Any, started: float) -> Begun:
    """The command that a parsed message is, or its refusal."""
    if value.__class__ is dict and len(value) == 1:
        name, body = next(iter(value.items()))
        command = profile.commands.get(name)
        if command is not None and body.__class__ is dict:
            fault = command.shape.fault(body)
            return Begun(command, body, started, None if fault is None else profile.refused(name, fault))
    refusal = profile.command_of(value, profile.commands.__contains__)
    return Begun(None, {}, started, cast("bytes", refusal))


def failed(profile: Profile, name: str, body: dict[str, Any], failure: KvasirError) -> bytes:
    """The frame that tells a failure."""
    message = str(body.get("tkn", failure.message)) if isinstance(failure, NotFound) else failure.message
    return profile.refused(name, frames.Refusal(OF_ERROR.get(type(failure), Status.UNKNOWN), message))


def told(profile: Profile, begun: Begun, outcomes: Sequence[Outcome]) -> tuple[str, bytes | None]:
    """How a command that only writes went, for metrics and for the client."""
    command = cast("Command", begun.command)
    try:
        return "ok", command.told(begun.body, raised(outcomes))  # type: ignore[misc]
    except KvasirError as failure:
        return failure.code, failed(profile, command.name, begun.body, failure)
    except Exception:
        return "internal", broken(profile, command.name)


def broken(profile: Profile, name: str) -> bytes:
    """The frame for a bug of ours, which is being handled."""
    log.exception("%s failed", name)
    return profile.refused(name, frames.Refusal(Status.UNKNOWN))
