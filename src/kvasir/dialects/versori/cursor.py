"""Positions in a listing <-> the opaque cursors of the API. Pure.

A cursor is base64url of a version byte, the position (8 bytes) and a check (6 bytes) over both and the store, so that
one of another store or a mangled one is refused. It is no secret: it gives no access.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b

from kvasir.errors import Invalid

_VERSION = b"\x01"
_LAST = (1 << 63) - 1
_CHECK_BYTES = 6  # with the other 9 a multiple of 3: no padding, and every cursor has one spelling


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
    # Sequences have 63 bits. Whoever makes up a number beyond must not reach an engine with it, nor its neighbour.
    if not 0 < position < _LAST or encode(space, position) != text:
        what = "is no cursor of this store; pass nextCursor or prevCursor back exactly as they came"
        raise Invalid(f"{field} {what}", fields=((field, what),), code="invalid_cursor")
    return position
