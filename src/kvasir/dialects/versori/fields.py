"""Fields of the JSON objects in a request, each with its type; and refusals that name the field to blame. Pure.

`at` is the path to the object with a dot at its end, or "": "entries[3].options.".
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

from kvasir.dialects import timestamps
from kvasir.errors import Invalid
from kvasir.keys import pack

T = TypeVar("T", bool, str, dict[str, Any], list[Any])

_ABSENT = object()
_KINDS = {bool: "must be true or false", str: "must be a string", dict: "must be an object", list: "must be an array"}


def blame(field: str, what: str) -> Invalid:
    """The refusal of one field."""
    return Invalid(f"{field} {what}", fields=((field, what),))


def get(holder: dict[str, Any], name: str, kind: type[T], at: str, *, needed: bool = False) -> T | None:
    """The field, None if it is absent. Raises `Invalid` if it is of another type; null is of none.

    `needed`: the caller refuses a request without it, so the refusal does not advise to leave it out.
    """
    value = holder.get(name, _ABSENT)
    if value is _ABSENT:
        return None
    if value.__class__ is not kind:
        raise blame(f"{at}{name}", _KINDS[kind] + ("" if needed else "; leave it out if you do not need it"))
    return value


def positive_number(holder: dict[str, Any], name: str, at: str) -> float | None:
    """A field that must be a number above 0, None if it is absent."""
    value = holder.get(name, _ABSENT)
    if value is _ABSENT:
        return None
    if (value.__class__ is not int and value.__class__ is not float) or not 0 < value < math.inf:
        raise blame(f"{at}{name}", "must be a number of milliseconds above 0; leave it out if you do not need it")
    return value


def timestamp(holder: dict[str, Any], name: str, at: str, *, up: bool = False) -> int | None:
    """A date-time field in Unix milliseconds, None if it is absent; a fraction is cut off, or with `up` rounded up."""
    text = get(holder, name, str, at)
    if text is None:
        return None
    try:
        milliseconds = timestamps.parse(text, up=up)
    except ValueError:
        raise blame(f"{at}{name}", "must be a date-time of RFC 3339, as 2026-06-01T12:00:00Z") from None
    if milliseconds > timestamps.LATEST:
        raise blame(f"{at}{name}", "must not be after the year 9999 in UTC")
    return milliseconds


def key(parts: Any, field: str) -> bytes:
    """The packed key of an array of strings. Raises `Invalid`."""
    if parts.__class__ is list and not parts:
        raise blame(field, "must have at least one part: an empty array is no key")
    return prefix(parts, field)


def prefix(parts: Any, field: str) -> bytes:
    """Like `key`, but an empty array is b"", the prefix of every key."""
    if parts.__class__ is not list:
        raise blame(field, "must be an array of strings")
    try:
        return pack(parts)
    except TypeError:
        index = next(index for index, part in enumerate(parts) if part.__class__ is not str)
        raise blame(f"{field}[{index}]", "must be a string") from None
