"""Items and lists in the form of this API, and which entries of a space are items at all. Pure.

An application may also have entries from other APIs. An entry is an item here if its key has a single part, which
matches the documented expression, and its value is short enough; others do not exist for this API.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from msgspec import UNSET, Struct, UnsetType

from kvasir import keys
from kvasir.dialects.voximplant.errors import MISSING, ApiError, recoded
from kvasir.dialects.voximplant.parameters import KEY, Cursor, text_of
from kvasir.dialects.voximplant.settings import Settings
from kvasir.model import Entry

#: A character has at most 12 bytes of JSON text (an escaped surrogate pair), so longer texts need not be decoded.
MAX_BYTES_PER_CHARACTER = 12

_encode = msgspec.json.Encoder().encode


class Item(Struct, frozen=True, gc=False):
    """KeyValueItems and KeyValueKeys of the reference, and what Kvasir adds to them. Times are Unix seconds."""

    key: str
    value: str | UnsetType
    #: 0: never. Always an integer; the Go and Java clients read nothing else.
    expires_at: int
    version: str
    updated_at: int
    #: Left out if the item was written without being read.
    created_at: int | UnsetType = UNSET


def item(
    key: str, value: str | UnsetType, expires_at: int | None, versionstamp: int, created_at: int | None = None
) -> Item:
    """An item; the times given are in Unix milliseconds."""
    return Item(
        key,
        value,
        (expires_at or 0) // 1000,
        keys.versionstamp_text(versionstamp),
        keys.millisecond_of(versionstamp) // 1000,
        UNSET if created_at is None else created_at // 1000,
    )


def key_of(entry: Entry, settings: Settings) -> str | None:
    """The key of an entry that is an item here; None if it is none. Cheap: listings call it for every entry."""
    parts = keys.unpack(entry.key)
    key = parts[0]
    if len(parts) != 1 or not 0 < len(key) <= settings.key_characters or KEY.fullmatch(key) is None:
        return None
    # No text has more characters than bytes, so most values need not be decoded.
    is_short = len(entry.value) <= settings.value_characters or shown(entry.value, settings) is not None
    return key if is_short else None


def read(key: str, entry: Entry | None, settings: Settings, *, values: bool = True) -> Item | None:
    """The entry of a key as an item; None if there is none or its value is too long for this API."""
    if entry is None or (value := shown(entry.value, settings)) is None:
        return None
    return item(key, value if values else UNSET, entry.expires_at, entry.versionstamp, entry.created_at)


def found(key: str, entry: Entry | None, settings: Settings) -> bytes:
    """The response with an item. Raises `ApiError` if `read` gives none."""
    if entry is None or (value := shown(entry.value, settings)) is None:
        raise missing_key(settings)
    return result(item(key, value, entry.expires_at, entry.versionstamp, entry.created_at))


def shown(value: bytes, settings: Settings) -> str | None:
    """A stored JSON text as a value of this API; None if it is too long for one."""
    max_characters = settings.value_characters
    if len(value) <= max_characters:  # no text has more characters than bytes
        return text_of(value)
    if len(value) > MAX_BYTES_PER_CHARACTER * max_characters + 2:
        return None
    text = text_of(value)
    return text if len(text) <= max_characters else None


def matches(pattern: str, settings: Settings) -> Callable[[str], bool]:
    """Whether a pattern matches a key, of those that begin with it."""
    if settings.pattern == "prefix" or not pattern or pattern.endswith(":"):
        return lambda _: True
    return lambda key: key == pattern or key.startswith(f"{pattern}:")


def missing_key(settings: Settings) -> ApiError:
    """The error for a key that does not exist; `reason` distinguishes it from a malformed key."""
    failure = recoded(MISSING, settings.missing_key_code)
    return ApiError(failure, "key", field="key", reason="not_found")


def result(value: object) -> bytes:
    """The body of a successful response."""
    return b'{"result":%b}' % _encode(value)


def listing(items: Sequence[Item | None], total: int, following: Cursor | None) -> bytes:
    """The body of a list: `result` as documented.

    The Node client loses an array in `result` but keeps other fields, hence the same array again in `items`.
    """
    array = _encode(items)
    more = b"" if following is None else b',"next_cursor":' + _encode(following.text())
    counts = b',"count":%d,"total_count":%d' % (len(items), total)
    return b'{"result":' + array + b',"items":' + array + counts + more + b"}"
