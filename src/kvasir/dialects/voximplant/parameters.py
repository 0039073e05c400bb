"""The parameters of a request: what each may be, and the error for what it may not. Pure; knows no store and no clock.

Rules without another source are those of the KeyValueStorage section of the Voximplant Management API reference.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec
from msgspec import Struct

from kvasir import jsontext, keys
from kvasir.dialects.voximplant.errors import (
    EMPTY,
    LENGTH,
    NOT_UNIQUE,
    ONE_OF,
    OTHER_VERSION,
    RANGE,
    ApiError,
    invalid,
)
from kvasir.dialects.voximplant.settings import Settings
from kvasir.errors import Invalid
from kvasir.model import Check, Conflict

#: The documented expression; ёЁ stand outside the range а-я. It also matches "", which is refused where a key is named.
KEY = re.compile(r"[a-zA-Z0-9а-яА-ЯёЁ_\-:;.#+]*")
INTEGER = re.compile(r"-?[0-9]{1,100}")
VERSION = re.compile(r"[0-9a-f]{20}")
FLAGS = {"1": True, "true": True, "0": False, "false": False}

INT64 = 2**63
#: Nesting of a JSON body; the deepest that means something has three levels.
JSON_DEPTH = 16

T = TypeVar("T")

_string = msgspec.json.Decoder(str).decode


class Cursor(Struct, frozen=True):
    """Where a page of a listing ended, and how many items there were when the listing began."""

    total: int
    key: str

    def text(self) -> str:
        """As clients get it: opaque, and safe in a query."""
        return base64.urlsafe_b64encode(f"{self.total}:{self.key}".encode()).decode()


class Parameters:
    """The parameters of one request, or of one item of a bulk request. Each method checks what it gives out.

    All raise `ApiError`: 134 for a missing parameter, 496 for one that makes no sense, 497 for one outside its range,
    477 for one that is too long, 458 for two that exclude each other.
    """

    __slots__ = ("_given", "_path", "_settings")

    def __init__(self, given: Mapping[str, str], settings: Settings, path: str = "") -> None:
        self._given = given
        self._settings = settings
        #: Says in `field_name` which item of a bulk request is meant, as in "items[3].".
        self._path = path

    def has(self, *names: str) -> bool:
        """Whether one of these is given."""
        return any(name in self._given for name in names)

    def required(self, name: str) -> str:
        """A text that must not be empty."""
        if not (text := self._given.get(name)):
            raise ApiError(EMPTY, field=self._path + name)
        return text

    def only_one(self, *names: str) -> None:
        """Refuse parameters that exclude each other."""
        if sum(name in self._given for name in names) > 1:
            raise ApiError(ONE_OF, ", ".join(names), field=self._path + names[-1])

    def key(self) -> str:
        """A key: 1 to 200 characters of the documented expression."""
        text = self._given.get("key")
        if text and len(text) <= self._settings.key_characters and KEY.fullmatch(text) is not None:
            return text
        return self._expression("key", self.required("key"))  # which says what is wrong

    def pattern(self, name: str, *, required: bool) -> str:
        """The beginning of keys; "", which every key begins with, where it may be left out."""
        return self._expression(name, self.required(name) if required else self._given.get(name, ""))

    def value(self) -> str:
        """A value: up to 2,000 characters (not bytes). It may be empty, but not missing."""
        if (value := self._given.get("value")) is None:
            raise ApiError(EMPTY, field=f"{self._path}value")
        if len(value) > self._settings.value_characters:
            raise self._too_long("value", self._settings.value_characters)
        return value

    def integer(self, name: str, low: int, high: int, default: int) -> int:
        """A decimal integer of this range."""
        if (text := self._given.get(name)) is None:
            return default
        if INTEGER.fullmatch(text) is None:
            raise self.invalid(name)
        if not low <= (number := int(text)) <= high:
            raise ApiError(RANGE, name, low, high, field=self._path + name)
        return number

    def expiry(self, now: int) -> int:
        """When the item ends, in Unix milliseconds, from `ttl` or `expires_at`; with neither, the default ttl from now.

        `now` is in Unix milliseconds. A `ttl` of 0 ends the item at once.
        """
        longest = self._settings.ttl_maximum_seconds
        if "expires_at" not in self._given:
            return now + 1000 * self.integer("ttl", 0, longest, self._settings.ttl_default_seconds)
        self.only_one("ttl", "expires_at")
        second = now // 1000
        return 1000 * self.integer("expires_at", second, second + longest, second)

    def conditions(self, packed: bytes) -> tuple[Check, ...]:
        """What `if_version` and `if_absent` demand of this packed key."""
        self.only_one("if_version", "if_absent")
        if (absent := self._given.get("if_absent")) is not None:
            if (flag := FLAGS.get(absent.lower())) is None:
                raise self.invalid("if_absent")
            return (Check(packed, None),) if flag else ()
        if (version := self._given.get("if_version")) is None:
            return ()
        if VERSION.fullmatch(version) is None:
            raise self.invalid("if_version")
        return (Check(packed, keys.parse_versionstamp(version)),)

    def count(self) -> int:
        """How many items a list shows; more than the maximum means the maximum."""
        return min(self.integer("count", 0, 10**100, self._settings.page_default), self._settings.page_maximum)

    def offset(self) -> int:
        """How many items a list passes over."""
        return self.integer("offset", 0, INT64 - 1, 0)

    def cursor(self) -> Cursor | None:
        """Where the page before ended; None for the first page, and for paging by `offset`."""
        self.only_one("cursor", "offset")
        if (text := self._given.get("cursor")) is None:
            return None
        try:
            total, key = base64.b64decode(text, altchars=b"-_", validate=True).decode().split(":", 1)
            cursor = Cursor(int(total), key)
        except ValueError:
            cursor = None
        if cursor is None or cursor.total < 0:
            raise self.invalid("cursor", "it must be the next_cursor of an earlier page")
        return cursor

    def items(self, name: str, most: int) -> list[Parameters]:
        """The objects of a bulk request; ttl and expires_at stand in for those an item does not have."""
        shared = {} if not self.has("ttl", "expires_at") else {n: self._given[n] for n in EXPIRY if n in self._given}
        members = [texts(item) for item in self._array(name, dict[str, msgspec.Raw], most)]
        return [
            Parameters(item if EXPIRY & item.keys() else shared | item, self._settings, f"{name}[{index}].")
            for index, item in enumerate(members)
        ]

    def keys(self, name: str, most: int) -> list[str]:
        """The keys of a bulk request."""
        items = ({"key": key} for key in self._array(name, str, most))
        return [Parameters(item, self._settings, f"{name}[{index}].").key() for index, item in enumerate(items)]

    def unmet(self, conflict: Conflict) -> ApiError:
        """The answer for a condition that did not hold; `version` is what the key has instead, null if it is absent."""
        stamp = conflict.versionstamp
        version = None if stamp is None else keys.versionstamp_text(stamp)
        failure, name = (OTHER_VERSION, "if_version") if self.has("if_version") else (NOT_UNIQUE, "key")
        return ApiError(failure, self._path + name, field=self._path + name, reason="conflict", version=version)

    def invalid(self, name: str, detail: str | None = None) -> ApiError:
        """Error 496 for one of these parameters."""
        return invalid(self._path + name, detail)

    def _expression(self, name: str, text: str) -> str:
        if len(text) > self._settings.key_characters:
            raise self._too_long(name, self._settings.key_characters)
        # `match` with a "$" would let "a\n" through.
        if KEY.fullmatch(text) is None:
            raise self.invalid(name)
        return text

    def _too_long(self, name: str, most: int) -> ApiError:
        return ApiError(LENGTH, self._path + name, most, field=self._path + name)

    def _array(self, name: str, kind: type[T], most: int) -> list[T]:
        """The elements of a parameter that is a JSON array (text of one, in a form)."""
        text = self.required(name).encode()
        try:
            jsontext.decode(text, JSON_DEPTH)
            elements = msgspec.json.decode(text, type=list[kind])  # type: ignore[valid-type]
        except (Invalid, msgspec.MsgspecError) as error:
            raise self.invalid(name, str(error)) from None
        if not 1 <= len(elements) <= most:
            raise ApiError(RANGE, f"the number of {name}", 1, most, field=name)
        return elements


EXPIRY = frozenset({"ttl", "expires_at"})


def texts(members: Mapping[str, msgspec.Raw]) -> dict[str, str]:
    """The members of a JSON object as a form would have them: null left out, numbers with the digits they came with."""
    return {name: text_of(bytes(raw)) for name, raw in members.items() if bytes(raw) != b"null"}


def text_of(raw: bytes) -> str:
    """A JSON text as this API shows it: a string's content, anything else as its JSON text."""
    return _string(raw) if raw[:1] == b'"' else raw.decode()
