"""Positions in a listing <-> the opaque cursors of the API. Pure.

A cursor is the base64url form of the order, the position and a checksum over both, the space and the prefix, so that a
mangled cursor, or one of another listing, is refused. It is no secret, and whoever wants to can make one: it gives no
access.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import blake2b
from typing import Literal

from kvasir.errors import Invalid

#: What a position is in: an order of entries, or the parts below a prefix.
Order = Literal["key", "newest", "oldest", "children"]

_LETTERS: dict[Order, bytes] = {"key": b"k", "newest": b"n", "oldest": b"o", "children": b"c"}
_CHECK_BYTES = 6
_LAST = (1 << 63) - 1


def encode(space: str, prefix: bytes, order: Order, position: int | bytes) -> str:
    """The cursor of a position below a packed prefix, in the space with this ULID.

    The position is a packed key, or a sequence in the orders of creation.
    """
    packed = position if isinstance(position, bytes) else position.to_bytes(8, "big")
    body = _LETTERS[order] + packed
    listing = b"%b %d %b" % (space.encode(), len(prefix), prefix)
    check = blake2b(listing + body, digest_size=_CHECK_BYTES, person=b"kvasir cursor").digest()
    return urlsafe_b64encode(body + check).decode().rstrip("=")


def decode(space: str, prefix: bytes, order: Order, text: str, field: str) -> int | bytes:
    """The position of a cursor. Raises `Invalid` with the code "invalid_cursor"."""
    position: int | bytes = b""
    try:
        position = urlsafe_b64decode(text + "=" * (-len(text) % 4))[1:-_CHECK_BYTES]
        if order in ("newest", "oldest"):
            position = int.from_bytes(position, "big")
        known = (isinstance(position, bytes) or 0 < position < _LAST) and encode(space, prefix, order, position) == text
    except (ValueError, OverflowError):
        known = False
    if not known:
        what = "is not a cursor of this listing; take `next` of its last page as it came"
        raise Invalid(f"{field} {what}", fields=((field, what),), code="invalid_cursor")
    return position
