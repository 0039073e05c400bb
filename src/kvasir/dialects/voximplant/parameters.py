"""The parameters of a request: what each may be, and the error if it is not. Pure; knows no store and no clock.

The rules are those of the KeyValueStorage section of the Voximplant Management API reference, unless another source is
named.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

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

#: The documented expression; ёЁ are outside the range а-я. "" matches, too, but is refused where a key is required.
KEY = re.compile(r"[a-zA-Z0-9а-яА-ЯёЁ_\-:;.#+]*")
INTEGER = re.compile(r"-?[0-9]{1,100}")
VERSION = re.compile(r"[0-9a-f]{20}")
FLAGS = {"1": True, "true": True, "0": False, "false": False}

INT64 = 2**63
#: Nesting of a JSON body; the deepest one with a meaning has three levels.
JSON_DEPTH = 16

T = TypeVar("T", dict[str, Any], str)

_string = msgspec.json.Decoder(str).decode
_cut_array = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


class Cursor(Struct, frozen=True):
    """Where a page of a listing ended, and how many items there were when the listing started."""

    total: int
    key: str

    def text(self) -> str:
        """The form for clients: opaque, and safe in a query."""
        return base64.urlsafe_b64encode(f"{self.total}:{self.key}".encode()).decode()


class Parameters:
    """The parameters of one request, or of one item of a bulk request. Each method checks what it returns.

    All raise `ApiError`: 134 for a missing parameter, 496 for a malformed one, 497 for one outside its range, 477 for
    one that is too long, 458 for two that exclude each other.
    """

    __slots__ = ("_path", "_settings", "_texts")

    def __init__(self, texts: Mapping[str, str], settings: Settings, path: str = "") -> None:
        self._texts = texts
        self._settings = settings
        #: Which item of a bulk request this is, for `field_name`, as in "items[3].".
        self._path = path

    @property
    def texts(self) -> Mapping[str, str]:
        """What is given, by name."""
        return self._texts

    def has(self, *names: str) -> bool:
        """Whether the request has one of these."""
        return any(name in self._texts for name in names)

    def required(self, name: str) -> str:
        """A text that must not be empty."""
        if not (text := self._texts.get(name)):
            raise ApiError(EMPTY, field=self._path + name)
        return text

    def only_one(self, *names: str) -> None:
        """Refuse parameters that exclude each other."""
        if sum(name in self._texts for name in names) > 1:
            raise ApiError(ONE_OF, ", ".join(names), field=self._path + names[-1])

    def key(self) -> str:
        """A key: 1 to 200 characters of the documented expression."""
        text = self._texts.get("key")
        if text and len(text) <= self._settings.key_characters and KEY.fullmatch(text) is not None:
            return text
        return self._expression("key", self.required("key"))  # raises, with the reason

    def pattern(self, name: str, *, required: bool) -> str:
        """A prefix of keys; where it may be left out, "" stands for every key."""
        return self._expression(name, self.required(name) if required else self._texts.get(name, ""))

    def value(self) -> str:
        """A value: up to 2,000 characters (not bytes). It may be empty but not missing."""
        if (value := self._texts.get("value")) is None:
            raise ApiError(EMPTY, field=f"{self._path}value")
        if len(value) > self._settings.value_characters:
            raise self._too_long("value", self._settings.value_characters)
        return value

    def integer(self, name: str, low: int, high: int, default: int, *, clamped: bool = False) -> int:
        """A decimal integer in this range; one above it is refused, or counts as `high` if it is `clamped`."""
        if (text := self._texts.get(name)) is None:
            return default
        if INTEGER.fullmatch(text) is None:
            raise self.invalid(name)
        number = min(int(text), high) if clamped else int(text)
        if not low <= number <= high:
            raise ApiError(RANGE, name, low, high, field=self._path + name)
        return number

    def expiry(self, now: int) -> int:
        """When the item expires, in Unix milliseconds, by `ttl` or `expires_at`; without both, by the default ttl.

        `now` is in Unix milliseconds. With a `ttl` of 0 the item expires at once.
        """
        longest = self._settings.ttl_maximum_seconds
        if "expires_at" not in self._texts:
            return now + 1000 * self.integer("ttl", 0, longest, self._settings.ttl_default_seconds)
        self.only_one("ttl", "expires_at")
        second = now // 1000
        return 1000 * self.integer("expires_at", second, second + longest, second)

    def conditions(self, packed: bytes) -> tuple[Check, ...]:
        """What `if_version` and `if_absent` require of this packed key."""
        self.only_one("if_version", "if_absent")
        if (absent := self._texts.get("if_absent")) is not None:
            if (flag := FLAGS.get(absent.lower())) is None:
                raise self.invalid("if_absent")
            return (Check(packed, None),) if flag else ()
        if (version := self._texts.get("if_version")) is None:
            return ()
        if VERSION.fullmatch(version) is None:
            raise self.invalid("if_version")
        return (Check(packed, keys.parse_versionstamp(version)),)

    def count(self) -> int:
        """The number of items on a page; more than the maximum means the maximum."""
        most = self._settings.page_maximum
        return self.integer("count", 0, most, min(self._settings.page_default, most), clamped=True)

    def offset(self) -> int:
        """The number of items to skip."""
        return self.integer("offset", 0, INT64 - 1, 0)

    def cursor(self) -> Cursor | None:
        """Where the page before ended; None for the first page, and for paging by `offset`."""
        self.only_one("cursor", "offset")
        if (text := self._texts.get("cursor")) is None:
            return None
        try:
            total, key = base64.b64decode(text, altchars=b"-_", validate=True).decode().split(":", 1)
            cursor = Cursor(int(total), key)
        except ValueError:
            cursor = None
        if cursor is None or cursor.total < 0:
            raise self.invalid("cursor", "it must be the next_cursor of an earlier page")
        return cursor

    def items(self, name: str, max_items: int) -> list[Parameters]:
        """The objects of a bulk request; the request's ttl or expires_at applies to items that have neither."""
        shared = {field: self._texts[field] for field in EXPIRY if field in self._texts}
        objects = self._array(name, dict, max_items)
        items = texts(objects, lambda: _cut_array(self._texts[name]))
        return [
            Parameters(item if EXPIRY & item.keys() else shared | item, self._settings, f"{name}[{index}].")
            for index, item in enumerate(items)
        ]

    def keys(self, name: str, max_items: int) -> list[str]:
        """The keys of a bulk request."""
        items = ({"key": key} for key in self._array(name, str, max_items))
        return [Parameters(item, self._settings, f"{name}[{index}].").key() for index, item in enumerate(items)]

    def unmet(self, conflict: Conflict) -> ApiError:
        """The error for an unmet condition; `version` is the key's actual one, null if the key does not exist."""
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

    def _too_long(self, name: str, max_characters: int) -> ApiError:
        return ApiError(LENGTH, self._path + name, max_characters, field=self._path + name)

    def _array(self, name: str, kind: type[T], max_items: int) -> list[T]:
        """The elements of a parameter that is the text of a JSON array of objects (`dict`) or strings."""
        text = self.required(name).encode()
        try:
            elements = msgspec.convert(jsontext.decode(text, JSON_DEPTH), list[kind])  # type: ignore[valid-type]
        except (Invalid, msgspec.ValidationError) as error:
            raise self.invalid(name, str(error)) from None
        if not 1 <= len(elements) <= max_items:
            raise ApiError(RANGE, f"the number of {name}", 1, max_items, field=name)
        return elements


EXPIRY = frozenset({"ttl", "expires_at"})


def texts(
    objects: Sequence[dict[str, Any]], cut: Callable[[], Sequence[dict[str, msgspec.Raw]]]
) -> list[dict[str, str]]:
    """The fields of decoded JSON objects as a form would have them: without null, numbers with their original digits.

    Only where a field is neither a string nor null, `cut` is called for the JSON texts of the fields of all objects.
    """
    if all(value.__class__ is str or value is None for fields in objects for value in fields.values()):
        return [{name: value for name, value in fields.items() if value is not None} for fields in objects]
    return [{name: text_of(bytes(raw)) for name, raw in fields.items() if bytes(raw) != b"null"} for fields in cut()]


def text_of(raw: bytes) -> str:
    """A JSON text as this API shows it: the content of a string, otherwise the JSON text itself."""
    return _string(raw) if raw[:1] == b'"' else raw.decode()
