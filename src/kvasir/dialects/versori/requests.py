"""Request bodies -> what the store is asked for. Pure; the names of all members are those of the Versori platform
OpenAPI document. What it leaves open and Kvasir decided is in docs/dialects/versori.md.
"""

from __future__ import annotations

import math
from typing import Any, cast

import msgspec
from msgspec import Raw, Struct

from kvasir import jsontext
from kvasir.dialects.versori import cursor
from kvasir.dialects.versori.members import blame, key, member, moment, positive_number, prefix
from kvasir.errors import Invalid, KvasirError
from kvasir.keys import pack, parse_versionstamp, under, unpack
from kvasir.limits import Limits
from kvasir.model import Check, Delete, DeleteRange, KeyRange, Query, Set

#: The longest life that `expireIn` may ask for: a hundred years.
LONGEST_MS = 3_155_760_000_000

#: A longer `timeout` is as good as none: no client waits that long.
LONGEST_TIMEOUT_MS = 3_600_000

#: The API's own bound; a setting may only lower it.
PAGE_ENTRIES = 100


_BATCH_PATH = "this path is the batch form"

# Values and metadata are kept byte for byte. These types cut their texts out of a body that `jsontext` has decoded and
# found valid, and skip the rest of it.

#: What may stand in place of an object; it is refused later, in our own words.
_Other = list[Raw] | str | float | bool | None


class _Metadata(Struct):
    metadata: Raw = Raw()


class _Cut(Struct):
    value: Raw = Raw()
    options: _Metadata | _Other = None


class _Batch(Struct):
    entries: list[_Cut | _Other]


class _Selector(Struct):
    filter: _Metadata


class _Listing(Struct):
    selector: _Selector


_cut = msgspec.json.Decoder(_Cut).decode
_cut_batch = msgspec.json.Decoder(_Batch).decode
_cut_listing = msgspec.json.Decoder(_Listing).decode

#: How a body begins that has nothing but a value, if it has a single member.
_VALUE_ALONE = b'{"value":'


class Put(Struct, frozen=True):
    """One entry to set, on conditions."""

    set: Set
    conditions: tuple[Check, ...]


class Refused(Struct, frozen=True):
    """One entry of a batch that cannot be set, and why; the others can."""

    key: list[str]
    why: str


class Removal(Struct, frozen=True):
    """Keys to delete, alone or with all that is under them, on conditions."""

    mutations: tuple[Delete | DeleteRange, ...]
    conditions: tuple[Check, ...]


def read_object(text: bytes, limits: Limits) -> dict[str, Any]:
    """The members of a body. Raises `Invalid` for anything but a strictly valid JSON object."""
    body = jsontext.decode(text, limits.json_depth)
    if body.__class__ is not dict:
        raise Invalid("the body must be a JSON object")
    return body


# -- set --------------------------------------------------------------------------------------------------


def read_set(text: bytes, packed: bytes, limits: Limits) -> Put:
    """The body of SetKV for a packed key."""
    body = read_object(text, limits)
    if len(body) == 1 and text.startswith(_VALUE_ALONE) and text.endswith(b"}"):
        return Put(Set(packed, text[len(_VALUE_ALONE) : -1].strip()), ())
    return _put(body, _cut(text), packed, "")


def read_batch_set(text: bytes, limits: Limits) -> list[Put | Refused]:
    """The body of BatchSetKV. Raises `Invalid` for a malformed request; a malformed entry is `Refused` by itself."""
    body = read_object(text, limits)
    entries = member(body, "entries", list, "", needed=True)
    if entries is None:
        raise blame("entries", f'is missing; {_BATCH_PATH}, also to set the key ["batch"]')
    _check_count(entries, "entries", limits)
    return [
        _put_or_refuse(entry, cut, f"entries[{index}]")
        for index, (entry, cut) in enumerate(zip(entries, _cut_batch(text).entries, strict=True))
    ]


def _put_or_refuse(entry: Any, cut: Any, field: str) -> Put | Refused:
    packed = b""
    try:
        if entry.__class__ is not dict:
            raise blame(field, "must be an object")
        if "key" not in entry:
            raise blame(f"{field}.key", "is missing")
        packed = key(entry["key"], f"{field}.key")
        return _put(entry, cut, packed, f"{field}.")
    except KvasirError as refusal:
        return Refused(unpack(packed) or _as_given(entry), refusal.message)


def _as_given(entry: Any) -> list[str]:
    """The key of an entry whose key is no good, if a response can name it: never the key of another one."""
    parts = entry.get("key") if entry.__class__ is dict else None
    return parts if parts.__class__ is list and all(part.__class__ is str for part in parts) else []


def _put(body: dict[str, Any], cut: _Cut, packed: bytes, at: str) -> Put:
    if "value" not in body:
        raise blame(f"{at}value", "is missing; null is a value too")
    options = member(body, "options", dict, at) if "options" in body else None
    value = bytes(cut.value)
    if not options:
        return Put(Set(packed, value), ())
    at += "options."
    metadata = None
    if member(options, "metadata", dict, at) is not None:
        metadata = bytes(cast("_Metadata", cut.options).metadata)
    ttl, expires_at = _expiry(options, at)
    refresh = member(options, "refreshOnAccess", bool, at) is True
    return Put(Set(packed, value, metadata, ttl, expires_at, refresh), _set_conditions(options, packed, at))


def _expiry(options: dict[str, Any], at: str) -> tuple[int | None, int | None]:
    """(milliseconds of life, moment of death), at most one of them."""
    expire_in = positive_number(options, "expireIn", at)
    expires_at = moment(options, "expireAt", at)
    if expire_in is None:
        return None, expires_at
    if expires_at is not None:
        raise _contradiction(at, "expireIn", "expireAt", "are both given; give one of them")
    if expire_in > LONGEST_MS:
        raise blame(f"{at}expireIn", f"must be at most {LONGEST_MS} (100 years); leave it out for an entry that stays")
    return math.ceil(expire_in), None


def _set_conditions(options: dict[str, Any], packed: bytes, at: str) -> tuple[Check, ...]:
    stamp = member(options, "ifVersionstamp", str, at)
    if_not_exists = member(options, "ifNotExists", bool, at)
    overwrite = member(options, "overwrite", bool, at)
    if if_not_exists and overwrite:
        raise _contradiction(at, "ifNotExists", "overwrite", "contradict each other; give one of them")
    absent = "ifNotExists" if if_not_exists else "overwrite" if overwrite is False else None
    if stamp and absent:
        raise _contradiction(at, "ifVersionstamp", absent, "contradict each other; give one of them")
    if stamp is None and absent is None:
        return ()
    return (Check(packed, _versionstamp(stamp or "")),)


def _versionstamp(text: str) -> int | None:
    """What a condition expects. "" is the versionstamp of a key that is not there, as BatchSetKV and SetKV tell it."""
    return parse_versionstamp(text) if text else None


def _contradiction(at: str, one: str, other: str, what: str) -> Invalid:
    return Invalid(
        f"{at}{one} and {at}{other} {what}",
        fields=((f"{at}{one}", f"contradicts {other}"), (f"{at}{other}", f"contradicts {one}")),
    )


# -- get and delete ---------------------------------------------------------------------------------------


def read_batch_get(text: bytes, limits: Limits) -> tuple[list[list[str]], list[bytes], int | None]:
    """(keys, the same packed, whole milliseconds of patience or None) of BatchGetKV."""
    body = read_object(text, limits)
    packed = _keys(body, limits)
    limits.check_keys(packed)
    timeout = positive_number(member(body, "options", dict, "") or {}, "timeout", "options.")
    return body.get("keys", []), packed, None if timeout is None else math.ceil(min(timeout, LONGEST_TIMEOUT_MS))


def read_delete(text: bytes, packed: bytes, limits: Limits) -> Removal:
    """The body of DeleteKV for one packed key. A client that sends none means no options."""
    return _removal([packed], read_object(text, limits) if text else {})


def read_batch_delete(text: bytes, limits: Limits) -> Removal:
    """The body of BatchDeleteKV; its options hold for every key."""
    body = read_object(text, limits) if text else {}
    if "keys" not in body:
        raise blame("keys", f'is missing; {_BATCH_PATH}, also to delete the key ["batch"]')
    return _removal(_keys(body, limits, needed=True), body)


def _removal(keys: list[bytes], body: dict[str, Any]) -> Removal:
    options = member(body, "options", dict, "") or {}
    cascade = member(options, "cascade", bool, "options.")
    stamp = member(options, "ifVersionstamp", str, "options.")
    return Removal(
        tuple([DeleteRange(under(packed)) if cascade else Delete(packed) for packed in keys]),
        () if stamp is None else tuple([Check(packed, _versionstamp(stamp)) for packed in keys]),
    )


def _keys(body: dict[str, Any], limits: Limits, *, needed: bool = False) -> list[bytes]:
    keys = member(body, "keys", list, "", needed=needed) or []
    _check_count(keys, "keys", limits)
    packed = _packed(keys)
    return [key(parts, f"keys[{index}]") for index, parts in enumerate(keys)] if packed is None else packed


def _packed(keys: list[Any]) -> list[bytes] | None:
    """The packed keys, or None if one of them is to blame. Half the cost of asking each."""
    try:
        packed = [pack(parts) for parts in keys if parts.__class__ is list]
    except TypeError:
        return None
    return packed if len(packed) == len(keys) and all(packed) else None


def _check_count(items: list[Any], field: str, limits: Limits) -> None:
    if len(items) > limits.batch_keys:
        what = f"has {len(items):,} items; at most {limits.batch_keys:,} are allowed, send the rest in another request"
        raise Invalid(f"{field} {what}", fields=((field, what),), code="too_large")


# -- list and count ---------------------------------------------------------------------------------------


def read_listing(text: bytes, space: str, limits: Limits) -> Query:
    """The body of ListKV for the store with this ULID."""
    body = read_object(text, limits)
    options = member(body, "options", dict, "") or {}
    selector = member(body, "selector", dict, "") or {}
    created_from, created_to, metadata = _filters(member(selector, "filter", dict, "selector.") or {}, text)
    after, before = (_position(selector, name, space) for name in ("after", "before"))
    if after is not None and before is not None:
        raise _contradiction("selector.", "after", "before", "are both given; give one of them")
    return Query(
        range=_prefix(selector, limits),
        order="oldest" if member(options, "reverse", bool, "options.") else "newest",
        limit=_limit(options, min(PAGE_ENTRIES, limits.page_entries)),
        after=after,
        before=before,
        created_from=created_from,
        created_to=created_to,
        metadata=metadata,
    )


def read_count(text: bytes, limits: Limits) -> KeyRange | None:
    """The range of keys that CountKV asks for; None: the whole store."""
    return _prefix(member(read_object(text, limits), "selector", dict, "") or {}, limits)


def _prefix(selector: dict[str, Any], limits: Limits) -> KeyRange | None:
    packed = prefix(selector.get("prefix", []), "selector.prefix")
    if not packed:
        return None
    limits.check_key(packed)
    return under(packed)


def _position(selector: dict[str, Any], name: str, space: str) -> int | None:
    """Where a cursor points; "", the cursor of no page, means that none is given."""
    text = member(selector, name, str, "selector.")
    return cursor.decode(space, text, f"selector.{name}") if text else None


def _filters(given: dict[str, Any], text: bytes) -> tuple[int | None, int | None, bytes | None]:
    """(createdAfter, createdBefore, text of the metadata), the bounds inclusive."""
    at = "selector.filter."
    metadata = member(given, "metadata", dict, at)
    return (
        moment(given, "createdAfter", at, up=True),
        moment(given, "createdBefore", at),
        bytes(_cut_listing(text).selector.filter.metadata) if metadata else None,
    )


def _limit(options: dict[str, Any], most: int) -> int:
    limit = options.get("limit", most)
    if limit.__class__ is float and limit.is_integer():
        limit = int(limit)  # JSON knows one kind of number: 10.0 is the integer 10
    if limit.__class__ is not int or not 1 <= limit <= most:
        raise blame("options.limit", f"must be a whole number from 1 to {most}")
    return int(limit)


# -- stores -----------------------------------------------------------------------------------------------


def read_store_name(text: bytes, limits: Limits) -> str:
    """The name that CreateStore gives, whatever its length; "" if there is none."""
    return member(read_object(text, limits), "name", str, "", needed=True) or ""
