"""The two sets of commands, and how each refuses what it does not know. Nothing but tables."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from kvasir.dialects.nemesis import frames
from kvasir.dialects.nemesis.commands import find, keyvalues, profile_09, saves, sessions
from kvasir.dialects.nemesis.commands.context import Command, Talk
from kvasir.model import Space

#: What a message without a usable command counts as.
NO_COMMAND = "none"


class Profile(Struct, frozen=True):
    """A set of commands and the words for refusing others."""

    commands: dict[str, Command]
    command_of: Callable[[Any, Callable[[str], bool]], tuple[str, dict[str, Any]] | bytes]
    refused: Callable[[str, frames.Refusal], bytes]
    error: Callable[..., bytes]
    #: The space a command is about, and the same if nobody need be asked for it.
    space: Callable[[Talk, dict[str, Any]], Awaitable[Space]]
    cached: Callable[[Talk, dict[str, Any]], Space | None]


def _table(*families: tuple[Command, ...]) -> dict[str, Command]:
    return {command.name: command for family in families for command in family}


PROFILES: dict[str, Profile] = {
    "session": Profile(
        _table(sessions.COMMANDS, saves.COMMANDS, keyvalues.COMMANDS, find.COMMANDS),
        frames.command_of,
        frames.refused,
        frames.error,
        lambda talk, body: talk.space(body["tkn"]),
        lambda talk, body: talk.cached(body["tkn"]),
    ),
    "0.9": Profile(
        _table(profile_09.COMMANDS),
        profile_09.command_of,
        profile_09.refused,
        profile_09.error,
        lambda talk, _: profile_09.keyspace(talk),
        lambda talk, _: profile_09.cached_keyspace(talk),
    ),
}
