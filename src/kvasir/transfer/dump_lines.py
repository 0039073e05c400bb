"""The lines of a dump, one JSON object each, and what they stand for. Pure. docs/dump-format.md describes them."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from kvasir.errors import KvasirError
from kvasir.keys import pack, parse_versionstamp, unpack, versionstamp_text
from kvasir.model import Alias, Entry, Space

FORMAT = "kvasir-dump"
#: Version 1 called a space's aliases doors; the rest is the same.
VERSION = 2

#: JSON readers that only know doubles keep integers exact up to here; larger ones are written as strings.
EXACT_INTEGERS = 1 << 53

#: Versionstamps and sequences stay below this: new ones are above all existing ones and need room up to 2^63.
NUMBERS_END = 1 << 62


class Line(Struct, tag_field="line", omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """What all lines share."""


class Header(Line, tag="dump"):
    """The first line."""

    format: str
    version: int
    origin: str


class Raw(Struct, forbid_unknown_fields=True):
    """Bytes that are not text of the expected form."""

    base64: bytes


class SpaceLine(Line, tag="space"):
    """Starts a space."""

    id: str
    organisation: str
    kind: str
    name: str
    created_at: int | str
    attributes: str | Raw
    aliases: list[Alias]
    expires_at: int | str | None = None
    clear_every: int | str | None = None


class SpaceLineV1(SpaceLine, tag="space"):
    """The same in version 1."""

    aliases: list[Alias] = msgspec.field(name="doors")


class EntryLine(Line, tag="entry"):
    """An entry of the space that was started last."""

    key: list[str] | Raw
    value: str | Raw
    versionstamp: str
    sequence: str
    created_at: int | str
    expires_at: int | str | None = None
    refresh: int | str | None = None
    metadata: str | Raw | None = None


class EndLine(Line, tag="end"):
    """Ends a space: the number of its entries, and the SHA-256 of its lines before this one, line feeds included."""

    space: str
    entries: int
    sha256: str


class LastLine(Line, tag="last"):
    """Ends the dump: the SHA-256 is that of everything before this line."""

    spaces: int
    entries: int
    sha256: str


AnyLine = Header | SpaceLine | EntryLine | EndLine | LastLine

_decoder: msgspec.json.Decoder[AnyLine] = msgspec.json.Decoder(AnyLine)
_decoder_v1: msgspec.json.Decoder[Header | SpaceLineV1 | EntryLine | EndLine | LastLine] = msgspec.json.Decoder(
    Header | SpaceLineV1 | EntryLine | EndLine | LastLine
)
_any_object = msgspec.json.Decoder(dict[str, object])


def encode(line: AnyLine) -> bytes:
    """The line with its line feed."""
    return msgspec.json.encode(line) + b"\n"


def decode(text: bytes, version: int = VERSION) -> AnyLine:
    """A line of a dump of this version. Raises ValueError with text that completes "line 7: …" and quotes no data."""
    try:
        return (_decoder if version >= VERSION else _decoder_v1).decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ValueError("this is not a line of a dump; it was altered or cut off") from None


def check_header(text: bytes) -> Header:
    """The first line. Raises ValueError for what this program cannot read."""
    try:
        fields = _any_object.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        fields = {}
    version = fields.get("version")
    if fields.get("format") != FORMAT or not isinstance(version, int):
        raise ValueError("this is not a Kvasir dump")
    if not 1 <= version <= VERSION:
        raise ValueError(
            f"the dump has version {version}, and this Kvasir reads versions 1 to {VERSION}: load it with a newer one"
        )
    line = decode(text)
    if not isinstance(line, Header):
        raise ValueError("this is not a Kvasir dump")
    return line


def space_line(space: Space, aliases: list[Alias]) -> SpaceLine:
    """The line that starts a space."""
    return SpaceLine(
        id=space.id,
        organisation=space.organisation,
        kind=space.kind,
        name=space.name,
        created_at=_encode_integer(space.created_at),
        attributes=_encode_text(space.attributes),
        aliases=sorted(aliases),
        expires_at=_encode_optional(space.expires_at),
        clear_every=_encode_optional(space.clear_every),
    )


def space_of(line: SpaceLine) -> Space:
    """The space, without the number that the engine will give it. Raises ValueError."""
    return Space(
        line.id,
        0,
        line.organisation,
        line.kind,
        line.name,
        _decode_integer(line.created_at),
        _decode_optional(line.expires_at),
        _decode_optional(line.clear_every),
        _decode_json(line.attributes),
    )


def entry_line(entry: Entry) -> EntryLine:
    """The line of an entry."""
    return EntryLine(
        key=_encode_key(entry.key),
        value=_encode_text(entry.value),
        versionstamp=versionstamp_text(entry.versionstamp),
        sequence=str(entry.sequence),
        created_at=_encode_integer(entry.created_at),
        expires_at=_encode_optional(entry.expires_at),
        refresh=_encode_optional(entry.refresh),
        metadata=None if entry.metadata is None else _encode_text(entry.metadata),
    )


def entry_of(line: EntryLine) -> Entry:
    """The entry. Raises ValueError."""
    versionstamp, sequence = parse_versionstamp(line.versionstamp), _decode_integer(line.sequence)
    if not 0 <= versionstamp < NUMBERS_END:
        raise ValueError("its versionstamp is not 20 lower-case hex digits below 2^62")
    if not 0 <= sequence < NUMBERS_END:
        raise ValueError("its sequence is not a decimal number below 2^62")
    return Entry(
        _decode_key(line.key),
        _decode_json(line.value),
        versionstamp,
        sequence,
        _decode_integer(line.created_at),
        _decode_optional(line.expires_at),
        _decode_optional(line.refresh),
        None if line.metadata is None else _decode_json(line.metadata),
    )


def _encode_integer(value: int) -> int | str:
    return value if -EXACT_INTEGERS <= value <= EXACT_INTEGERS else str(value)


def _encode_optional(value: int | None) -> int | str | None:
    return None if value is None else _encode_integer(value)


def _decode_integer(value: int | str) -> int:
    digits = str(value)
    if digits.isascii() and digits.removeprefix("-").isdigit() and len(digits) <= 20:
        number = int(digits)
        if number >> 63 in (0, -1):
            return number
    raise ValueError("one of its numbers is not an integer of 63 bits")


def _decode_optional(value: int | str | None) -> int | None:
    return None if value is None else _decode_integer(value)


def _encode_text(text: bytes) -> str | Raw:
    try:
        return text.decode()
    except UnicodeDecodeError:
        return Raw(text)


def _decode_json(value: str | Raw) -> bytes:
    text = value.encode() if isinstance(value, str) else value.base64
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise ValueError("its value, metadata or attributes are not JSON") from None
    return text


def _encode_key(key: bytes) -> list[str] | Raw:
    try:
        parts = unpack(key)
    except ValueError:
        return Raw(key)
    return parts if pack(parts) == key else Raw(key)


def _decode_key(key: list[str] | Raw) -> bytes:
    if isinstance(key, Raw):
        return key.base64
    try:
        return pack(key)
    except KvasirError as error:
        raise ValueError(error.message) from None
