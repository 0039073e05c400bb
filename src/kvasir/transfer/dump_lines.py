"""The lines of a dump, one JSON object each, and what they stand for. Pure. docs/dump-format.md describes them."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from kvasir.engine import LOADED_BELOW
from kvasir.errors import KvasirError
from kvasir.keys import pack, parse_versionstamp, unpack, versionstamp_text
from kvasir.model import Alias, Entry, Space

FORMAT = "kvasir-dump"
#: Version 1 called the aliases of a space doors; the rest is the same.
VERSION = 2

#: JSON readers that know only doubles keep whole numbers exact up to here; larger ones are written as texts.
EXACT = 1 << 53


class Line(Struct, tag_field="line", omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """What all lines have."""


class Header(Line, tag="dump"):
    """The first line."""

    format: str
    version: int
    origin: str


class Raw(Struct, forbid_unknown_fields=True):
    """Bytes that are no text of the form expected."""

    base64: bytes


class SpaceLine(Line, tag="space"):
    """Begins a space."""

    id: str
    organisation: str
    kind: str
    name: str
    created_at: int | str
    attributes: str | Raw
    aliases: list[Alias]
    expires_at: int | str | None = None
    clear_every: int | str | None = None


class SpaceLine1(Line, tag="space"):
    """The same in version 1."""

    id: str
    organisation: str
    kind: str
    name: str
    created_at: int | str
    attributes: str | Raw
    doors: list[Alias]
    expires_at: int | str | None = None
    clear_every: int | str | None = None


class EntryLine(Line, tag="entry"):
    """An entry of the space begun last."""

    key: list[str] | Raw
    value: str | Raw
    versionstamp: str
    sequence: str
    created_at: int | str
    expires_at: int | str | None = None
    refresh: int | str | None = None
    metadata: str | Raw | None = None


class EndLine(Line, tag="end"):
    """Ends a space: its entries, and the SHA-256 of its lines before this one, line ends included."""

    space: str
    entries: int
    sha256: str


class LastLine(Line, tag="last"):
    """Ends the dump: the SHA-256 is that of everything before it."""

    spaces: int
    entries: int
    sha256: str


AnyLine = Header | SpaceLine | EntryLine | EndLine | LastLine

_decoder: msgspec.json.Decoder[AnyLine] = msgspec.json.Decoder(AnyLine)
_decoder_1: msgspec.json.Decoder[Header | SpaceLine1 | EntryLine | EndLine | LastLine] = msgspec.json.Decoder(
    Header | SpaceLine1 | EntryLine | EndLine | LastLine
)
_first = msgspec.json.Decoder(dict[str, object])


def encode(line: AnyLine) -> bytes:
    """The line with its end."""
    return msgspec.json.encode(line) + b"\n"


def decode(text: bytes, version: int = VERSION) -> AnyLine:
    """A line of a dump of this version. Raises ValueError with words that complete "line 7: …", without its content."""
    try:
        if version >= VERSION:
            return _decoder.decode(text)
        line = _decoder_1.decode(text)
        if not isinstance(line, SpaceLine1):
            return line
        facts = msgspec.structs.asdict(line)
        return SpaceLine(aliases=facts.pop("doors"), **facts)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ValueError("it is no line of a dump: altered, or cut off") from None


def check_header(text: bytes) -> Header:
    """The first line. Raises ValueError for what this program cannot read."""
    try:
        facts = _first.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        facts = {}
    version = facts.get("version")
    if facts.get("format") != FORMAT or not isinstance(version, int):
        raise ValueError("this is no dump of Kvasir")
    if not 1 <= version <= VERSION:
        raise ValueError(
            f"the dump has version {version}, and this Kvasir reads versions 1 to {VERSION}: load it with a newer one"
        )
    line = decode(text)
    if not isinstance(line, Header):
        raise ValueError("this is no dump of Kvasir")
    return line


def of_space(space: Space, aliases: list[Alias]) -> SpaceLine:
    """The line that begins a space."""
    return SpaceLine(
        id=space.id,
        organisation=space.organisation,
        kind=space.kind,
        name=space.name,
        created_at=_number(space.created_at),
        attributes=_text(space.attributes),
        aliases=sorted(aliases),
        expires_at=_perhaps(space.expires_at),
        clear_every=_perhaps(space.clear_every),
    )


def space_of(line: SpaceLine) -> Space:
    """The space without its number, which the engine gives. Raises ValueError."""
    return Space(
        line.id,
        0,
        line.organisation,
        line.kind,
        line.name,
        _whole(line.created_at),
        None if line.expires_at is None else _whole(line.expires_at),
        None if line.clear_every is None else _whole(line.clear_every),
        _json(line.attributes),
    )


def of_entry(entry: Entry) -> EntryLine:
    """The line of an entry."""
    return EntryLine(
        key=_parts(entry.key),
        value=_text(entry.value),
        versionstamp=versionstamp_text(entry.versionstamp),
        sequence=str(entry.sequence),
        created_at=_number(entry.created_at),
        expires_at=_perhaps(entry.expires_at),
        refresh=_perhaps(entry.refresh),
        metadata=None if entry.metadata is None else _text(entry.metadata),
    )


def entry_of(line: EntryLine) -> Entry:
    """The entry. Raises ValueError."""
    stamp, sequence = parse_versionstamp(line.versionstamp), _whole(line.sequence)
    if not 0 <= stamp < LOADED_BELOW:
        raise ValueError("its versionstamp is none: 20 lower-case hex digits, below 2^62")
    if not 0 <= sequence < LOADED_BELOW:
        raise ValueError("its sequence is none: decimal digits, below 2^62")
    return Entry(
        _key(line.key),
        _json(line.value),
        stamp,
        sequence,
        _whole(line.created_at),
        None if line.expires_at is None else _whole(line.expires_at),
        None if line.refresh is None else _whole(line.refresh),
        None if line.metadata is None else _json(line.metadata),
    )


def _number(value: int) -> int | str:
    return value if -EXACT <= value <= EXACT else str(value)


def _perhaps(value: int | None) -> int | str | None:
    return None if value is None else _number(value)


def _whole(given: int | str) -> int:
    digits = str(given)
    if digits.isascii() and digits.removeprefix("-").isdigit() and len(digits) <= 20:
        number = int(digits)
        if number >> 63 in (0, -1):
            return number
    raise ValueError("one of its numbers is no whole number of 63 bits")


def _text(given: bytes) -> str | Raw:
    try:
        return given.decode()
    except UnicodeDecodeError:
        return Raw(given)


def _json(given: str | Raw) -> bytes:
    text = given.encode() if isinstance(given, str) else given.base64
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ValueError("its value, metadata or attributes are no JSON") from None
    return text


def _parts(key: bytes) -> list[str] | Raw:
    try:
        parts = unpack(key)
    except ValueError:
        return Raw(key)
    return parts if pack(parts) == key else Raw(key)


def _key(given: list[str] | Raw) -> bytes:
    if isinstance(given, Raw):
        return given.base64
    try:
        return pack(given)
    except KvasirError as error:
        raise ValueError(error.message) from None
