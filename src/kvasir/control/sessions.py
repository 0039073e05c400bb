"""Sessions of the NemesisDB API as records: spaces behind a token and, if they are shared, behind a name."""

from __future__ import annotations

import secrets

import msgspec
from msgspec import Struct

from kvasir.model import Space

TOKEN_ALIAS = "session-token"  # noqa: S105  # the name of an alias
NAME_ALIAS = "session-name"


class Attributes(Struct, omit_defaults=True):
    """What a session's space remembers of its making."""

    token: str = ""
    shared: bool = False
    #: Seconds; 0: it never expires
    duration: int = 0


_attributes = msgspec.json.Decoder(Attributes)


def new_token() -> str:
    """64 random bits as a decimal text."""
    return str(secrets.randbits(64))


def attributes_of(space: Space) -> Attributes:
    """A session's attributes; of a store that was shared under a name, only that it is shared."""
    if space.kind != "session":
        return Attributes(shared=True)
    return _attributes.decode(space.attributes)
