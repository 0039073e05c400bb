"""Positions in a listing <-> the opaque cursors of the API. Pure.

A cursor is the base64url form of a version byte, the position (8 bytes) and a checksum (6 bytes) over both and the
store, so that a mangled cursor or one of another store is refused. It is no secret: it gives no access.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b

from kvasir.errors import Invalid

_VERSION = b"\x01"
_LAST = (1 << 63) - 1
_CHECK_BYTES = 6  # with the other 9 a multiple of 3: no padding, so every cursor has only one spelling


def encode(space: str, position: int) -> str:
    """The cursor of a position, a sequence, in the listing of the store with this ULID."""
    body = _VERSION + position.to_bytes(8, "big")
    check = blake2b(body + space.encode(), digest_size=_CHECK_BYTES, person=b"kvasir cursor").digest()
    return urlsafe_b64encode(body + check).decode()


def decode(space: str, text: str, field: str) -> int:
    """The position of a cursor. Raises `Invalid` with the code "invalid_cursor"."""
    try:
        position = int.from_bytes(urlsafe_b64decode(text)[1:9], "big")
    except ValueError:
        position = 0
    # Sequences have 63 bits. Neither a made-up number beyond that nor the one beside it may reach an engine.
    if not 0 < position < _LAST or encode(space, position) != text:
        what = "is not a cursor of this store; pass nextCursor or prevCursor back exactly as you got them"
        raise Invalid(f"{field} {what}", fields=((field, what),), code="invalid_cursor")
    return position
