"""The two sets of commands, and how each refuses what it does not know. Nothing but tables."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container
from typing import Any

from msgspec import Struct

from kvasir.dialects.ignored import Tables
from kvasir.dialects.nemesis import frames
from kvasir.dialects.nemesis.commands import find, keyvalues, profile_09, saves, sessions, update
from kvasir.dialects.nemesis.commands.context import Command, CommandContext
from kvasir.model import Space

#: What a message without a usable command counts as.
NO_COMMAND = "none"


class Profile(Struct, frozen=True):
    """A set of commands, the frames that refuse everything else, and the space that the commands are about."""

    name: str
    commands: dict[str, Command]
    #: (message, known commands) -> the frame that refuses a message without a usable command
    refuse_message: Callable[[Any, Container[str]], bytes]
    refused: Callable[[str, frames.Refusal], bytes]
    error: Callable[..., bytes]
    #: (context, parameters) -> the space of a command
    space: Callable[[CommandContext, dict[str, Any]], Awaitable[Space]]
    #: The same if it is cached; otherwise None.
    space_nowait: Callable[[CommandContext, dict[str, Any]], Space | None]
    #: The parameters of the commands
    known: Tables


def _table(*families: tuple[Command, ...]) -> dict[str, Command]:
    return {command.name: command for family in families for command in family}


def _known(commands: dict[str, Command]) -> Tables:
    return Tables({name: command.shape.known for name, command in commands.items()})


_SESSION = _table(sessions.COMMANDS, saves.COMMANDS, keyvalues.COMMANDS, find.COMMANDS, update.COMMANDS)
_KEYSPACE = _table(profile_09.COMMANDS)

_ALL = (
    Profile(
        "session",
        _SESSION,
        frames.refuse_message,
        frames.refused,
        frames.error,
        CommandContext.session_of,
        CommandContext.session_of_nowait,
        _known(_SESSION),
    ),
    Profile(
        "0.9",
        _KEYSPACE,
        profile_09.refuse_message,
        profile_09.refused,
        profile_09.error,
        profile_09.keyspace,
        profile_09.keyspace_nowait,
        _known(_KEYSPACE),
    ),
)

PROFILES: dict[str, Profile] = {profile.name: profile for profile in _ALL}
