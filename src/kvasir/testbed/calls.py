"""What a request asks for, as rules of faults and the journal name it: API, operation, space and keys."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Literal, get_args

from msgspec import Struct

Api = Literal["versori", "voximplant", "nemesis", "native"]
APIS: tuple[str, ...] = get_args(Api)


class Call(Struct, frozen=True):
    """One request."""

    #: "versori", "voximplant", "nemesis" or "native"
    api: str
    #: As metrics name it: "SetKV", "SetKeyValueItem", "KV_SET" …
    operation: str
    #: ULID, if the request names a space that exists
    space: str | None = None
    keys: tuple[tuple[str, ...], ...] = ()


def wrong_operation(operations: Mapping[str, tuple[str, ...]], api: str | None, operation: str) -> str | None:
    """Why no request can be of this operation, in words that follow "operation"; None: it is one.

    `operations`: those of the APIs that are served; `api`: None for any of them.
    """
    if api is not None and api not in operations:
        return f"is of {api}, which is not served: start `kvasir dev` with --{api}"
    known = [name for each, names in operations.items() if api in (None, each) for name in names]
    if operation in known:
        return None
    if api is not None:
        return f"must be one of: {', '.join(known)}"
    close = get_close_matches(operation, known)
    return "must be one that an API which is served has" + (f", such as {' or '.join(close)}" if close else "")
