"""What the store has, as Python values: entries, events, spaces; and the JSON that they are made from. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal

from kvasir_client.times import instant


class Raw(bytes):
    """JSON text to be stored as it is, byte for byte: `kv.set(key, Raw(b"9.50"))`."""


@dataclass(frozen=True)
class Entry:
    """A key with its value, as one snapshot of the store shows it."""

    key: tuple[str, ...]
    #: What the JSON text says. Integers are exact; `raw` has all digits of other numbers. None in listings of keys.
    value: Any
    versionstamp: str
    created_at: datetime
    #: None: it does not expire.
    expires_at: datetime | None
    metadata: dict[str, Any] | None
    #: By how much reading extends its life; None: not at all.
    refresh: timedelta | None
    #: The JSON text, byte for byte as it is stored; b"" in listings of keys.
    raw: bytes
    #: The JSON text of `metadata`, as it is stored; b"" if there is none.
    raw_metadata: bytes = b""


@dataclass(frozen=True)
class Child:
    """A part that follows a prefix."""

    part: str
    #: Whether the prefix with this part is a key.
    entry: bool
    #: Whether there are keys below it.
    below: bool


@dataclass(frozen=True)
class Space:
    """A store, an application or a session."""

    id: str
    kind: str
    name: str
    created_at: datetime
    expires_at: datetime | None = None
    #: Number of entries; None where it was not counted.
    entries: int | None = None


@dataclass(frozen=True)
class Committed:
    """A transaction that has happened."""

    versionstamp: str
    #: One for each mutation: the number after an increment, how many entries a deletion or touch met, None for a set.
    results: tuple[int | None, ...]


@dataclass(frozen=True)
class Refusal:
    """A line that an import has refused."""

    #: From 1
    line: int
    reason: str


@dataclass(frozen=True)
class Loaded:
    """What an import has done; of a dry run, what it would have done."""

    set: int
    kept: int
    refused: int
    #: The first of the refused lines
    refusals: tuple[Refusal, ...]
    #: Whether there are as many entries as the last line of an export says; None: there was no such line.
    whole: bool | None
    #: Members of lines that an import makes anew, such as "created_at"
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class Event:
    """Something that has happened to what is watched.

    * "ready": from `versionstamp` on nothing is missed. The first event, and again after a connection was lost.
    * "set": `key` has `entry`; None: its value is too long for an event and must be read.
    * "delete": `key` is gone. "delete_prefix": every key below `key`, which may be (), is gone.
    * "expiry": only the end of the life of `key` has changed, to `expires_at`.
    * "resync": something may have been missed; read again what matters.
    """

    kind: Literal["ready", "set", "delete", "delete_prefix", "expiry", "resync"]
    key: tuple[str, ...] = ()
    entry: Entry | None = None
    versionstamp: str | None = None
    expires_at: datetime | None = None


# -- from the wire ------------------------------------------------------------------------------------------------
#
# A value stands in the JSON of an entry as it is stored, so its text is cut out of it: parsing and printing it again
# would change digits and spaces. The server adds no space of its own around it.


def _long_whole(text: str) -> Any:
    # Python refuses to make integers of more than 4,300 digits.
    return int(text) if len(text) <= 4_300 else Decimal(text)


_scan = json.JSONDecoder().raw_decode
_scan_long = json.JSONDecoder(parse_int=_long_whole).raw_decode


def entry_in(text: str) -> Entry:
    """The entry in an answer. Raises ValueError, KeyError or TypeError for another text."""
    return _entry(text, 0)[0]


def entries_in(text: str) -> tuple[list[Entry | None], str | None]:
    """The entries in an answer of many, null being None, and its `next`. Raises what `entry_in` does."""
    found: list[Entry | None] = []
    rest: dict[str, Any] = {}
    at = _expect(text, 0, "{")
    while True:
        name, at = _name(text, at)
        if name != "entries":
            rest[name], at = _value(text, at)
        elif text.startswith("[]", at):
            at += 2
        else:
            at = _expect(text, at, "[")
            while True:
                entry, at = (None, at + 4) if text.startswith("null", at) else _entry(text, at)
                found.append(entry)
                if text[at] == "]":
                    break
                at = _expect(text, at, ",")
            at += 1
        if text[at] == "}":
            return found, rest.get("next")
        at = _expect(text, at, ",")


def entry_with_text(found: str) -> Entry:
    """The entry in an event, whose value is a text within the JSON. Raises what `entry_in` does."""
    members, texts, _ = _object(found, 0)
    text = members["text"]
    return _assemble(members, texts, _value(text.strip(), 0)[0], text)


def _entry(text: str, at: int) -> tuple[Entry, int]:
    members, texts, at = _object(text, at)
    return _assemble(members, texts, members.get("value"), texts.get("value", "")), at


def _object(text: str, at: int) -> tuple[dict[str, Any], dict[str, str], int]:
    """The members of an object, the texts of those whose digits count, and where what follows it begins."""
    members: dict[str, Any] = {}
    texts: dict[str, str] = {}
    at = _expect(text, at, "{")
    while True:
        name, at = _name(text, at)
        begin = at
        members[name], at = _value(text, at)
        if name in ("value", "metadata"):
            texts[name] = text[begin:at]
        if text[at] == "}":
            return members, texts, at + 1
        at = _expect(text, at, ",")


def _assemble(members: dict[str, Any], texts: dict[str, str], value: Any, raw: str) -> Entry:
    expires_at, refresh, metadata = members.get("expires_at"), members.get("refresh"), members.get("metadata")
    return Entry(
        tuple(members["key"]),
        value,
        members["versionstamp"],
        instant(members["created_at"]),
        instant(expires_at) if expires_at else None,
        metadata,
        timedelta(milliseconds=refresh) if refresh else None,
        raw.encode(),
        b"" if metadata is None else texts["metadata"].encode(),
    )


def _expect(text: str, at: int, sign: str) -> int:
    if not text.startswith(sign, at):
        raise ValueError(f"expected {sign} at {at}")
    return at + 1


def _name(text: str, at: int) -> tuple[str, int]:
    """The name of a member, and where its value begins."""
    name, at = _scan(text, at)
    return str(name), _expect(text, at, ":")


def _value(text: str, at: int) -> tuple[Any, int]:
    """A JSON value, and where what follows it begins. Spaces around it, which are stored, belong to it."""
    at = _skip(text, at)
    try:
        value, at = _scan(text, at)
    except json.JSONDecodeError:
        raise
    except ValueError:
        value, at = _scan_long(text, at)
    return value, _skip(text, at)


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] in (" ", "\n", "\t", "\r"):
        at += 1
    return at
