"""The JSON bodies of requests: what they may have, as types, and how they are read. Pure."""

from __future__ import annotations

import re
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

from kvasir import jsontext
from kvasir.errors import Invalid
from kvasir.limits import Limits

T = TypeVar("T")


class Body(Struct, frozen=True, forbid_unknown_fields=True):
    """Members with these names and no others."""


class NewSpace(Body, frozen=True):
    """A store or an application to make, unless there is one of this name."""

    name: str
    kind: Literal["store", "application"] = "store"


class NewName(Body, frozen=True):
    """What to call a store or an application from now on."""

    name: str


_at = re.compile(r"(.*?)(?: - at `\$\.?(.*)`)?", re.DOTALL)


def read(text: bytes, kind: type[T], limits: Limits) -> T:
    """The body as a value of this type. Raises `Invalid` for what is not strictly valid JSON, or has other members."""
    text = text.removeprefix(jsontext.BYTE_ORDER_MARK)
    jsontext.decode(text, limits.json_depth)
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        found = _at.fullmatch(str(error))
        what, field = (found[1], found[2]) if found else (str(error), None)
        what = what.replace("Object ", "the object ").replace("Expected ", "expected ")
        raise Invalid(f"{field or 'the body'}: {what}", fields=((field, what),) if field else ()) from None
