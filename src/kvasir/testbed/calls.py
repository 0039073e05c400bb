"""What a request asks for, as rules of faults and the journal name it: API, operation, space and keys."""

from __future__ import annotations

from msgspec import Struct


class Call(Struct, frozen=True):
    """One request."""

    #: "versori", "voximplant", "nemesis" or "native"
    api: str
    #: As metrics name it: "SetKV", "SetKeyValueItem", "KV_SET" …
    operation: str
    #: ULID, if the request names a space that exists
    space: str | None = None
    keys: tuple[tuple[str, ...], ...] = ()
