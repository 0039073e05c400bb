"""Lines of JSON: what comes in pieces -> lines, none longer than allowed; one line -> an entry to set. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Raw, Struct, field

from kvasir import jsontext
from kvasir.dialects.native import atomic, bodies, durations, parameters
from kvasir.dialects.native.bodies import blame
from kvasir.errors import Invalid
from kvasir.keys import pack
from kvasir.limits import Limits
from kvasir.model import Mutation, Set, Touch

#: That of an entry which was set to live to the end of the year 9999, in milliseconds since 1970
LONGEST_REFRESH = 253_402_300_799_999

#: Members of an exported line that an import has no use for: it makes them anew.
IGNORED = frozenset({"created_at", "versionstamp"})


class Line(bodies.Body, frozen=True):
    """What a line may have. `text` is that of an export, `value` is easier to write by hand."""

    key: bodies.Parts | None = None
    text: str | None = None
    value: Raw = field(default_factory=Raw)
    metadata: Raw = field(default_factory=Raw)
    ttl: str | None = None
    expires_at: str | None = None
    refresh: bool | int | None = None
    created_at: str | None = None
    versionstamp: str | None = None
    end: dict[str, int] | None = None


class Item(Struct, frozen=True):
    """An entry to set, in one write."""

    key: bytes
    mutations: tuple[Mutation, ...]
    #: The members that were passed over
    ignored: frozenset[str] = frozenset()


def longest(limits: Limits) -> int:
    """Bytes that a line may have: in `text`, every character of a value may be escaped."""
    return limits.key_text_bytes + 2 * limits.value_bytes + limits.metadata_bytes


class Splitter:
    """Cuts what comes into lines; of one that is too long it keeps nothing."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = b""
        self._passing_over = False

    def feed(self, piece: bytes) -> Iterator[bytes | None]:
        """The lines that end in this piece; None for one that was too long. b"" is the end of all."""
        *whole, rest = (self._rest + piece).split(b"\n")
        if not piece and (rest or self._passing_over):
            whole, rest = [rest], b""
        for line in whole:
            too_long = self._passing_over or len(line) > self._max_bytes
            self._passing_over = False
            yield None if too_long else line
        if len(rest) > self._max_bytes:
            self._passing_over, rest = True, b""
        self._rest = rest


def read(text: bytes, limits: Limits, now: int) -> Item | int:
    """The entry of a line, or the number of entries that the last line of an export tells. Raises `Invalid`."""
    line = bodies.parse(text, Line, limits)
    if line.end is not None:
        if not isinstance(count := line.end.get("entries"), int):
            raise blame("", "end", "must have the number of entries")
        return count
    if not line.key:
        raise blame("", "key", "is missing, or has no part")
    key = pack(line.key)
    limits.check_key(key)
    value = _value(line, limits)
    limits.check_value(value)
    metadata = atomic.metadata_of(line.metadata, "")
    if metadata is not None:
        limits.check_metadata(metadata)
    given: dict[str, Any] = {"created_at": line.created_at, "versionstamp": line.versionstamp}
    ignored = frozenset(name for name, member in given.items() if member is not None)
    return Item(key, _mutations(line, key, value, metadata, now), ignored)


def _value(line: Line, limits: Limits) -> bytes:
    value = bytes(line.value)
    if line.text is None:
        if not value:
            raise blame("", "text", "or value is missing")
        return value
    if value:
        raise blame("", "text", "contradicts value; give one of them")
    value = line.text.encode()
    try:
        jsontext.decode(value, limits.json_depth, limits.json_containers)
    except Invalid as refusal:
        raise blame("", "text", f"must hold JSON: {refusal.message}") from None
    return value


def _mutations(line: Line, key: bytes, value: bytes, metadata: bytes | None, now: int) -> tuple[Mutation, ...]:
    ttl = None if line.ttl is None else atomic.parsed(durations.parse, line.ttl, "", "ttl")
    expires_at = None
    if line.expires_at is not None:
        expires_at = atomic.parsed(parameters.timestamp, line.expires_at, "", "expires_at")
    if ttl is not None and expires_at is not None:
        raise blame("", "ttl", "contradicts expires_at; give one of them")
    if expires_at is not None and expires_at <= now:
        raise blame("", "expires_at", "is in the past")
    if isinstance(line.refresh, bool) or line.refresh is None:
        if line.refresh and ttl is None and expires_at is None:
            raise blame("", "refresh", "needs a ttl or expires_at")
        return (Set(key, value, metadata, ttl, expires_at, bool(line.refresh)),)
    if not 0 < line.refresh <= LONGEST_REFRESH:
        raise blame("", "refresh", f"must be true, or milliseconds from 1 to {LONGEST_REFRESH}")
    if ttl is not None:
        raise blame("", "refresh", "in milliseconds goes with expires_at, or with no end; with a ttl, write true")
    # The length of the sliding life is that of the line, its present end another.
    return (Set(key, value, metadata, line.refresh, None, True), Touch(key, expires_at))
