"""What a query may say: one row for each parameter, with its parser and what it means. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

from msgspec import Struct

from kvasir import jsontext
from kvasir.dialects import timestamps
from kvasir.dialects.native import durations, keytext
from kvasir.errors import Invalid

#: Entries of a page that no limit is given for, and the most that may be asked for.
PAGE_DEFAULT, PAGE_ENTRIES = 100, 1_000

#: Objects and arrays of a metadata filter may be nested so deep.
FILTER_DEPTH = 64


class Parameter(Struct, frozen=True):
    """One row. `parse` raises ValueError with words that complete "must be …", or `Invalid`."""

    parse: Callable[[str], Any]
    #: JSON Schema of the text, for the API's document
    schema: dict[str, Any]
    description: str


def one_of(*choices: str) -> Callable[[str], str]:
    """A parser of one of these words."""

    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError(f"one of: {', '.join(choices)}")
        return text

    return parse


def flag(text: str) -> bool:
    """true or false."""
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return text == "true"


def whole(least: int, most: int) -> Callable[[str], int]:
    """A parser of a whole number in this range."""

    def parse(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 19 or not least <= int(text) <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return int(text)

    return parse


def timestamp(text: str, *, up: bool = False) -> int:
    """Unix milliseconds of a date-time."""
    try:
        milliseconds = timestamps.parse(text, up=up)
    except ValueError:
        raise ValueError("a date-time of RFC 3339, as 2026-06-01T12:00:00Z (a + is written %2B)") from None
    if milliseconds > timestamps.LATEST:
        raise ValueError("a date-time before the year 10000")
    return milliseconds


def filter_object(text: str) -> bytes:
    """The text of a JSON object."""
    if jsontext.decode(text.encode(), FILTER_DEPTH).__class__ is not dict:
        raise ValueError("a JSON object")
    return text.encode()


def _words(*choices: str) -> Callable[[str], frozenset[str]]:
    def parse(text: str) -> frozenset[str]:
        given = text.split(",")
        words = frozenset(given)
        if not words <= set(choices) or len(given) > len(choices):
            raise ValueError(f"one or more of {', '.join(choices)}, separated by commas")
        return words

    return parse


_BOOLEAN: dict[str, Any] = {"type": "boolean"}
_DATE_TIME: dict[str, Any] = {"type": "string", "format": "date-time"}
_TEXT: dict[str, Any] = {"type": "string"}

PARAMETERS: dict[str, Parameter] = {
    "key": Parameter(
        str,
        _TEXT | {"examples": ['["products","1"]']},
        'A key: a JSON array of strings, as `["products","1"]`. A watch takes a text written like a path, too.',
    ),
    "extend": Parameter(flag, _BOOLEAN | {"default": True}, "`false`: reading does not extend a sliding life."),
    "form": Parameter(
        one_of("value", "entry"),
        _TEXT | {"enum": ["value", "entry"], "default": "value"},
        "`entry`: the whole entry as JSON, with its metadata, instead of the value itself.",
    ),
    "ttl": Parameter(
        durations.parse,
        _TEXT | {"pattern": f"^{durations.PATTERN}$", "examples": ["24h"]},
        "Life from the commit on: `1500ms`, `90s`, `15m`, `24h` or `30d`, at most 100 years.",
    ),
    "expires_at": Parameter(timestamp, _DATE_TIME, "End of the entry's life; it must be in the future."),
    "refresh": Parameter(
        flag, _BOOLEAN | {"default": False}, "`true`: reading starts the life afresh (a sliding life)."
    ),
    "keep": Parameter(
        _words("expiry", "metadata"),
        _TEXT | {"pattern": "^(expiry|metadata)(,(expiry|metadata))?$"},
        "What stays as it is when a value is replaced: `expiry`, `metadata` or `expiry,metadata`.",
    ),
    "prefix": Parameter(
        str,
        _TEXT,
        "Only keys that begin with these parts, the exact key included: a JSON array of strings, or a text written "
        "like a path. An empty prefix needs `all=true`.",
    ),
    "all": Parameter(flag, _BOOLEAN | {"default": False}, "`true`: an empty prefix is meant and stands for every key."),
    "order": Parameter(
        one_of("key", "newest", "oldest"),
        _TEXT | {"enum": ["key", "newest", "oldest"], "default": "key"},
        "By key, or by creation.",
    ),
    "limit": Parameter(
        whole(1, PAGE_ENTRIES),
        {"type": "integer", "minimum": 1, "maximum": PAGE_ENTRIES, "default": PAGE_DEFAULT},
        "The most that one page has; it may have fewer, since its size in bytes is bounded, too.",
    ),
    "cursor": Parameter(str, _TEXT, "Where the page begins: `next` of the page before it."),
    "after": Parameter(str, _TEXT, "Begins behind this one: `next` of the page before it."),
    "from": Parameter(str, _TEXT, "Begins at this part, or at the first one behind its place."),
    "values": Parameter(flag, _BOOLEAN | {"default": True}, "`false`: leaves the values out."),
    "created_from": Parameter(
        lambda text: timestamp(text, up=True), _DATE_TIME, "Only entries created at this instant or later."
    ),
    "created_to": Parameter(timestamp, _DATE_TIME, "Only entries created at this instant or before."),
    "metadata": Parameter(
        filter_object,
        _TEXT | {"contentMediaType": "application/json", "examples": ['{"colour":"red"}']},
        "A JSON object; only entries whose metadata contains all of it.",
    ),
    "kind": Parameter(
        one_of("store", "application", "session"),
        _TEXT | {"enum": ["store", "application", "session"]},
        "Only spaces of this kind.",
    ),
    "mode": Parameter(
        one_of("replace", "keep", "fail"),
        _TEXT | {"enum": ["replace", "keep", "fail"], "default": "replace"},
        "What to do with a key that exists: replace it, keep it, or stop there.",
    ),
    "dry_run": Parameter(flag, _BOOLEAN | {"default": False}, "`true`: says what would be done, and does nothing."),
    "window": Parameter(
        whole(5, 900),
        {"type": "integer", "minimum": 5, "maximum": 900, "default": 900},
        "Only samples that reach into so many seconds before the end of the last one.",
    ),
    "expect": Parameter(
        whole(0, 2**53),
        {"type": "integer", "minimum": 0, "maximum": 2**53},
        "Deletes only if there are exactly so many; 412 otherwise. Counting and deleting are one step.",
    ),
}


def read(query: str, allowed: tuple[str, ...], repeated: str = "") -> dict[str, Any]:
    """The parameters of a query by name. Raises `Invalid` for one that is unknown, repeated or unfit.

    The one that may be repeated has a list for its value.
    """
    if not query:
        return {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError:
        raise Invalid("the query does not decode to UTF-8") from None
    found: dict[str, Any] = {}
    for name, text in pairs:
        if name not in allowed:
            known = f"the parameters here are: {', '.join(allowed)}" if allowed else "there are no parameters here"
            raise _blame(name[:100], f"is no parameter of this request; {known}")
        row = PARAMETERS[name]
        if name == repeated:
            found.setdefault(name, []).append(_parsed(name, row, text))
        elif name in found:
            raise _blame(name, "is there twice")
        else:
            found[name] = _parsed(name, row, text)
    return found


def _parsed(name: str, row: Parameter, text: str) -> Any:
    try:
        return row.parse(text)
    except ValueError as error:
        raise _blame(name, f"must be {error}") from None
    except Invalid as refusal:
        raise _blame(name, f"must be a JSON object: {refusal.message}") from None


def _blame(name: str, what: str) -> Invalid:
    return Invalid(f"{name} {what}", fields=((name, what),))


def key(query: dict[str, Any]) -> list[str]:
    """The key that a query must name, in the general form. Raises `Invalid`."""
    if "key" not in query:
        raise _blame("key", 'is missing: a JSON array of strings, as key=["products","1"]')
    parts = keytext.of_array(query["key"], "key")
    if not parts:
        raise _blame("key", "must have at least one part: an empty array is no key")
    return parts


def prefix(query: dict[str, Any], *, needed: bool = False) -> list[str]:
    """The parts of the prefix that a query names; [] for every key. Raises `Invalid` for an empty one by accident.

    `needed`: every key is meant only by `all=true`, not by naming no prefix.
    """
    parts = keytext.of_query(query.get("prefix", ""), "prefix")
    if parts and query.get("all"):
        raise _blame("all", "contradicts prefix; give one of them")
    if not parts and ("prefix" in query or needed) and not query.get("all"):
        raise _blame("prefix", "is empty, which stands for every key; say all=true if you mean that")
    return parts
