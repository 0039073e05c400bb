"""Order-preserving packed keys, ranges over them, and what the numbers of entries say. Pure.

The packing is that of the FoundationDB tuple layer's text element: 0x02, UTF-8 with 00 as 00 FF, 00. Packed keys
compare bytewise like their parts compare by code points, and a part never is a prefix of another part.
Vectors: docs/key-encoding.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvasir.errors import Invalid
from kvasir.model import KeyRange

#: The lower bits of a sequence or versionstamp, which tell apart the numbers of one millisecond.
COUNTER_BITS = 20


def pack(parts: Sequence[str]) -> bytes:
    """The packed key of text parts (of none: b"", the start of every key). Raises `Invalid` on a lone surrogate."""
    if not parts:
        return b""
    joined = "\x00\x02".join(parts)
    try:
        if joined.count("\x00") == len(parts) - 1:
            return f"\x02{joined}\x00".encode()
        return b"".join([b"\x02" + part.encode().replace(b"\x00", b"\x00\xff") + b"\x00" for part in parts])
    except UnicodeEncodeError:
        raise Invalid("a key part holds a lone surrogate, which is no text") from None


def unpack(key: bytes) -> list[str]:
    """The parts of a packed key. Raises ValueError if the bytes are none."""
    if not key:
        return []
    if key[0] != 2 or key[-1] != 0:
        raise ValueError("not a packed key")
    # Every 00 that is no escape ends a part, so after setting escapes aside the bytes split cleanly.
    # F8 never occurs in UTF-8, which makes it a safe stand-in.
    if b"\x00\xff" not in key:
        parts = key[1:-1].decode().split("\x00\x02")
        if key.count(b"\x00") != len(parts):
            raise ValueError("not a packed key")
        return parts
    pieces = key.replace(b"\x00\xff", b"\xf8")[1:-1].split(b"\x00\x02")
    parts = [piece.replace(b"\xf8", b"\x00").decode() for piece in pieces]
    if pack(parts) != key:
        raise ValueError("not a packed key")
    return parts


def prefix_range(parts: Sequence[str]) -> KeyRange | None:
    """The keys that begin with these parts, part by part, the exact key included; None for no parts: every key."""
    return under(pack(parts)) if parts else None


def under(key: bytes) -> KeyRange:
    """A packed key and every key below it."""
    # The byte after a complete part is 02 (another part), never FF: that would be an escaped 00 inside a longer part.
    return KeyRange(key, key + b"\xff")


def child_of(prefix: bytes, key: bytes) -> bytes:
    """The packed prefix of a key that has one part more than `prefix`, under which the key is."""
    # Inside a part, FF follows every 00.
    end = key.find(b"\x00\x02", len(prefix))
    return key if end < 0 else key[: end + 1]


def text_range(text: str) -> KeyRange:
    """The keys whose first part begins with `text`, whatever follows, other parts included."""
    packed = pack([text])[:-1]
    # FF occurs in a packed key only behind 00, so everything that continues the text sorts below it.
    return KeyRange(packed, packed + b"\xff")


def versionstamp_text(stamp: int) -> str:
    """The 20 lower-case hex digits of a versionstamp."""
    return f"{stamp:020x}"


def parse_versionstamp(text: str) -> int:
    """The number behind a versionstamp text; -1, which no entry has, for any other text."""
    if len(text) != 20 or text.strip("0123456789abcdef"):
        return -1
    stamp = int(text, 16)
    # Versionstamps have 63 bits; an engine need not know what to do with more.
    return -1 if stamp >> 63 else stamp


def millisecond_of(number: int) -> int:
    """The Unix millisecond that a sequence or versionstamp stands for (see `kvasir.engine`)."""
    return number >> COUNTER_BITS


def first_number_of(millisecond: int) -> int:
    """The lowest sequence or versionstamp that stands for this Unix millisecond."""
    return millisecond << COUNTER_BITS
