"""Keys and prefixes as paths and queries write them. Pure.

In a path the parts of a key are separated by plain slashes, and each part is percent-decoded after the split. In a
query a key is a JSON array of strings, or a text that is written like a path.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import msgspec

from kvasir.errors import Invalid

GENERAL_FORM = 'use the general form, which takes any key: /v1/spaces/{id}/entry?key=["part","part"]'

_broken_escape = re.compile(r"%(?![0-9A-Fa-f]{2})").search
_array = msgspec.json.Decoder(list[str])


def of_path(raw: str) -> list[str]:
    """The parts of a key in a path, as it came (each byte a character).

    Every key whose parts are not empty, "." or ".." has exactly one path, but for how much of it is percent-encoded.
    Raises `Invalid` for any other path.
    """
    parts = raw.split("/")
    if "%" in raw or not raw.isascii():
        parts = [_decoded(part) for part in parts]
    if "" in parts or "." in parts or ".." in parts:
        raise _unfit("has a part that is empty, `.` or `..`, which clients and proxies change")
    return parts


def _decoded(part: str) -> str:
    if _broken_escape(part):
        raise _unfit("has a % that is not followed by two hexadecimal digits")
    try:
        return unquote_to_bytes(part.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise _unfit("does not decode to UTF-8") from None


def _unfit(what: str) -> Invalid:
    return Invalid(f"the key in the path {what}; {GENERAL_FORM}", fields=(("key", what),))


def of_array(text: str, field: str) -> list[str]:
    """The parts in a JSON array of strings. Raises `Invalid`."""
    try:
        return _array.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        what = 'must be a JSON array of strings, as ["products","1"], percent-encoded like any value in a query'
        raise Invalid(f"{field} {what}", fields=((field, what),)) from None


def of_query(text: str, field: str) -> list[str]:
    """The parts of a key or prefix in a query, decoded once like any value there. Raises `Invalid`."""
    if text.startswith("["):
        return of_array(text, field)
    if not text:
        return []
    try:
        return of_path(text.encode().decode("latin-1"))
    except Invalid as refusal:
        what = refusal.fields[0][1]
        raise Invalid(
            f'{field} {what}; write it as a JSON array: {field}=["part","part"]', fields=((field, what),)
        ) from None
