"""The NemesisDB API as a whole: its profiles, and what all its connections share. Owns no socket and no clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from msgspec import Struct

from kvasir.auth import Auth
from kvasir.dialects.nemesis import current, find, keyvalues, saving, sessions, wire
from kvasir.dialects.nemesis.talk import Bounds, Command, Saves, Talk
from kvasir.model import Principal, Space
from kvasir.store import Store

#: (dialect, operation, outcome, seconds): counts one command.
Observe = Callable[[str, str, str, float], None]

#: What a message without a usable command counts as.
NO_COMMAND = "none"


class Profile(Struct, frozen=True):
    """A set of commands and the words for refusing others."""

    commands: dict[str, Command]
    command_of: Callable[[Any, Callable[[str], bool]], tuple[str, dict[str, Any]] | bytes]
    refused: Callable[[str, wire.Refusal], bytes]
    error: Callable[..., bytes]
    #: The space a command is about, and the same if nobody need be asked for it.
    space: Callable[[Talk, dict[str, Any]], Awaitable[Space]]
    cached: Callable[[Talk, dict[str, Any]], Space | None]


def _table(*families: tuple[Command, ...]) -> dict[str, Command]:
    return {command.name: command for family in families for command in family}


PROFILES: dict[str, Profile] = {
    "session": Profile(
        _table(sessions.COMMANDS, saving.COMMANDS, keyvalues.COMMANDS, find.COMMANDS),
        wire.command_of,
        wire.refused,
        wire.error,
        lambda talk, body: talk.space(body["tkn"]),
        lambda talk, body: talk.cached(body["tkn"]),
    ),
    "0.9": Profile(
        _table(current.COMMANDS),
        current.command_of,
        current.refused,
        current.error,
        lambda talk, _: current.keyspace(talk),
        lambda talk, _: current.cached_keyspace(talk),
    ),
}


class NemesisDialect:
    """What all conversations of one server share."""

    name: ClassVar[str] = "nemesis"
    #: Every operation name that is observed.
    operations: ClassVar[tuple[str, ...]] = (
        *dict.fromkeys(name for profile in PROFILES.values() for name in profile.commands),
        NO_COMMAND,
    )

    def __init__(
        self,
        store: Store,
        caller: Principal | Auth,
        *,
        bounds: Bounds | None = None,
        saves: Saves | None = None,
        observe: Observe = lambda *_: None,
    ) -> None:
        """`caller` is who everybody is taken for, or what knows them by their access key."""
        self.store = store
        self.caller = caller
        self.bounds = bounds or Bounds()
        self.saves = saves
        self.observe = observe
        #: One, so that long searches take turns with each other and leave the rest of the machine alone.
        self.threads = ThreadPoolExecutor(1, "nemesis-find")

    @property
    def needs_key(self) -> bool:
        """Whether a connection must bring an access key."""
        return isinstance(self.caller, Auth)

    def close(self) -> None:
        """Let go of the thread."""
        self.threads.shutdown(wait=False, cancel_futures=True)
