"""Sessions of the NemesisDB API: spaces with a token and, if they are shared, a name; and stores shared as sessions."""

from __future__ import annotations

import secrets

import msgspec
from msgspec import Struct

from kvasir.control.stores import check_name
from kvasir.engine import Engine
from kvasir.errors import Conflicting, NotFound
from kvasir.limits import Limits
from kvasir.model import Alias, Space

TOKEN_ALIAS = "session-token"  # noqa: S105  # the name of an alias
NAME_ALIAS = "session-name"


class Attributes(Struct, omit_defaults=True):
    """What a session's space remembers of its making."""

    token: str = ""
    shared: bool = False
    #: Seconds; 0: it never expires
    duration: int = 0


_attributes = msgspec.json.Decoder(Attributes)


def by_token(token: str) -> Alias:
    """The alias of the session with this token; tokens are unique in the database."""
    return (TOKEN_ALIAS, "", token)


def by_name(name: str) -> Alias:
    """The alias of the shared session with this name; such names are unique in the database."""
    return (NAME_ALIAS, "", name)


def token_among(aliases: list[Alias]) -> str | None:
    """The token among a space's aliases; None: it has none."""
    return next((handle for kind, _, handle in aliases if kind == TOKEN_ALIAS), None)


def new_token() -> str:
    """64 random bits as a decimal text."""
    return str(secrets.randbits(64))


def attributes_of(space: Space) -> Attributes:
    """A session's attributes; of a store that was shared under a name, only that it is shared."""
    if space.kind != "session":
        return Attributes(shared=True)
    return _attributes.decode(space.attributes)


async def find(engine: Engine, organisation: str, given: str) -> Space:
    """The session with this token, shared name or ULID; never a store. Raises `NotFound`."""
    found = [
        await engine.resolve(by_token(given)),
        await engine.resolve(by_name(given)),
        await engine.get_space(given.upper()),
    ]
    for space in found:
        if space is not None and space.kind == "session" and space.organisation == organisation:
            return space
    raise NotFound("there is no such session; `kvasir session list` shows them")


async def share(engine: Engine, limits: Limits, space: Space, name: str) -> str:
    """Let clients open a store or an application as the shared session of this name. Returns its token.

    Raises `Invalid` for a bad name, `Conflicting` for one that is taken, `NotFound` for a space that is gone.
    """
    check_name(name, limits)
    token = token_among(await engine.aliases(space.id)) or new_token()
    altered = await engine.alter_space(space.id, add=[by_name(name), by_token(token)])
    if altered is None:
        raise NotFound("the store is gone")
    if altered.id != space.id:
        raise Conflicting(f"there is a shared session {name!r} already; choose another name")
    return token


async def unshare(engine: Engine, space: Space, name: str) -> None:
    """Undo `share`; with the last name the token goes, too. Raises `NotFound` if it is not shared under this name."""
    aliases = await engine.aliases(space.id)
    names = [alias for alias in aliases if alias[0] == NAME_ALIAS]
    if by_name(name) not in names:
        raise NotFound(f"{space.name!r} is not shared as {name!r}")
    tokens = [alias for alias in aliases if alias[0] == TOKEN_ALIAS] if len(names) == 1 else []
    await engine.alter_space(space.id, remove=[by_name(name), *tokens])
