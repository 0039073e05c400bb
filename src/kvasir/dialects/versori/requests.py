"""Request bodies -> what to ask of the store. Pure; all fields have the names of the Versori platform OpenAPI document.

What that document leaves open, and how Kvasir decided, is in docs/dialects/versori.md.
"""

from __future__ import annotations

import math
from typing import Any, cast

import msgspec
from msgspec import Raw, Struct

from kvasir import jsontext
from kvasir.dialects.ignored import Look
from kvasir.dialects.versori import cursor, fields, members
from kvasir.dialects.versori.fields import blame
from kvasir.errors import Invalid, KvasirError
from kvasir.keys import pack, parse_versionstamp, under, unpack
from kvasir.limits import Limits
from kvasir.model import Check, Delete, DeleteRange, KeyRange, Query, Set

#: The longest life that `expireIn` may ask for: a hundred years.
MAX_LIFE_MS = 3_155_760_000_000

#: A longer `timeout` is as good as none: no client waits that long.
MAX_TIMEOUT_MS = 3_600_000

#: The API's own limit; a setting can only lower it.
PAGE_ENTRIES = 100

#: The key that the path of the batch form looks like. The service's command line means it by a body for one key.
_BATCH_KEY = pack(["batch"])
IS_MISSING = "is missing; this path is the batch form"

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


class _Either(Struct):
    entries: Raw = Raw()
    value: Raw = Raw()


class _Selector(Struct):
    filter: _Metadata


class _Listing(Struct):
    selector: _Selector


_cut = msgspec.json.Decoder(_Cut).decode
_cut_batch = msgspec.json.Decoder(_Batch).decode
_cut_either = msgspec.json.Decoder(_Either).decode
cut_entry = msgspec.json.Decoder(_Cut | _Other).decode
_cut_listing = msgspec.json.Decoder(_Listing).decode

#: How most bodies with a single field begin.
_VALUE_ALONE = b'{"value":'


class Put(Struct, frozen=True):
    """One entry to set, and the conditions for it."""

    set: Set
    conditions: tuple[Check, ...]


class Refused(Struct, frozen=True):
    """An entry of a batch that cannot be set, and why. The other entries are set all the same."""

    key: list[str]
    why: str


class Removal(Struct, frozen=True):
    """Keys to delete, perhaps with all keys under them, and the conditions for it."""

    mutations: tuple[Delete | DeleteRange, ...]
    conditions: tuple[Check, ...]


# All functions that read a body take `look`, which is told of every object in it, and may raise.


def read_object(text: bytes, limits: Limits) -> dict[str, Any]:
    """The fields of a body. Raises `Invalid` for anything but a strictly valid JSON object."""
    body = jsontext.decode(text, limits.json_depth, limits.json_containers)
    if body.__class__ is not dict:
        raise Invalid("the body must be a JSON object")
    return body


# -- set --------------------------------------------------------------------------------------------------


def read_set(text: bytes, packed: bytes, limits: Limits, look: Look) -> Put:
    """The body of SetKV for a packed key."""
    body = read_object(text, limits)
    if len(body) == 1 and text.startswith(_VALUE_ALONE) and text.endswith(b"}"):
        return Put(Set(packed, text[len(_VALUE_ALONE) : -1].strip()), ())
    look(body, members.SET, "")
    return _put(body, _cut(text), packed, "", look)


def read_batch_set(text: bytes, limits: Limits, look: Look) -> list[Put | Refused] | Put:
    """The body of BatchSetKV; one without entries, but with a value, is that of SetKV for the key ["batch"].

    Raises `Invalid` for a malformed request; a malformed entry becomes `Refused`.
    """
    body = read_object(text, limits)
    if "entries" not in body and "value" in body:
        look(body, members.SET, "")
        return _put(body, _cut(text), _BATCH_KEY, "", look)
    look(body, members.BODIES["BatchSetKV"], "")
    entries = fields.get(body, "entries", list, "", needed=True)
    if entries is None:
        raise blame("entries", IS_MISSING)
    _check_count(entries, "entries", limits)
    return [
        put_or_refuse(entry, cut, f"entries[{index}]", look)
        for index, (entry, cut) in enumerate(zip(entries, _cut_batch(text).entries, strict=True))
    ]


def is_for_one_key(text: bytes) -> bool:
    """Whether the body of BatchSetKV, of any length, is that of SetKV for the key ["batch"]; see `read_batch_set`."""
    try:
        found = _cut_either(text)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return not memoryview(found.entries) and bool(memoryview(found.value))


def put_or_refuse(entry: Any, cut: Any, field: str, look: Look) -> Put | Refused:
    """One entry of a batch, from its decoded text and what `cut_entry` makes of that; `field`: its place."""
    packed = b""
    try:
        if entry.__class__ is not dict:
            raise blame(field, "must be an object")
        if "key" not in entry:
            raise blame(f"{field}.key", "is missing")
        packed = fields.key(entry["key"], f"{field}.key")
        look(entry, members.ENTRY, f"{field}.")
        return _put(entry, cut, packed, f"{field}.", look)
    except KvasirError as refusal:
        return Refused(unpack(packed) or _as_given(entry), refusal.message)


def _as_given(entry: Any) -> list[str]:
    """The key of an entry whose key is invalid, if a response can name it without naming another key."""
    parts = entry.get("key") if entry.__class__ is dict else None
    return parts if parts.__class__ is list and all(part.__class__ is str for part in parts) else []


def _put(body: dict[str, Any], cut: _Cut, packed: bytes, at: str, look: Look) -> Put:
    if "value" not in body:
        raise blame(f"{at}value", "is missing; null is a value, too")
    options = fields.get(body, "options", dict, at) if "options" in body else None
    value = bytes(cut.value)
    if not options:
        return Put(Set(packed, value), ())
    at += "options."
    look(options, members.SET_OPTIONS, at)
    metadata = None
    if fields.get(options, "metadata", dict, at) is not None:
        metadata = bytes(cast("_Metadata", cut.options).metadata)
    ttl, expires_at = _expiry(options, at)
    refresh = fields.get(options, "refreshOnAccess", bool, at) is True
    return Put(Set(packed, value, metadata, ttl, expires_at, refresh), _set_conditions(options, packed, at))


def _expiry(options: dict[str, Any], at: str) -> tuple[int | None, int | None]:
    """(time to live in milliseconds, expiry in Unix milliseconds), at most one of them."""
    expire_in = fields.positive_number(options, "expireIn", at)
    expires_at = fields.timestamp(options, "expireAt", at)
    if expire_in is None:
        return None, expires_at
    if expires_at is not None:
        raise _contradiction(at, "expireIn", "expireAt", "are both given; give one of them")
    if expire_in > MAX_LIFE_MS:
        raise blame(
            f"{at}expireIn", f"must be at most {MAX_LIFE_MS} (100 years); leave it out for an entry that never expires"
        )
    return math.ceil(expire_in), None


def _set_conditions(options: dict[str, Any], packed: bytes, at: str) -> tuple[Check, ...]:
    stamp = fields.get(options, "ifVersionstamp", str, at)
    if_not_exists = fields.get(options, "ifNotExists", bool, at)
    overwrite = fields.get(options, "overwrite", bool, at)
    if if_not_exists and overwrite:
        raise _contradiction(at, "ifNotExists", "overwrite", "contradict each other; give one of them")
    absent = "ifNotExists" if if_not_exists else "overwrite" if overwrite is False else None
    if stamp and absent:
        raise _contradiction(at, "ifVersionstamp", absent, "contradict each other; give one of them")
    if stamp is None and absent is None:
        return ()
    return (Check(packed, _versionstamp(stamp or "")),)


def _versionstamp(text: str) -> int | None:
    """What a condition expects: None for "", which responses give as the versionstamp of a key that does not exist."""
    return parse_versionstamp(text) if text else None


def _contradiction(at: str, first: str, second: str, what: str) -> Invalid:
    return Invalid(
        f"{at}{first} and {at}{second} {what}",
        fields=((f"{at}{first}", f"contradicts {second}"), (f"{at}{second}", f"contradicts {first}")),
    )


# -- get and delete ---------------------------------------------------------------------------------------


def read_batch_get(text: bytes, limits: Limits, look: Look) -> tuple[list[bytes], int | None]:
    """(packed keys, timeout in whole milliseconds or None) of BatchGetKV."""
    body = read_object(text, limits)
    packed = _keys(body, limits)
    limits.check_keys(packed)
    return packed, read_timeout(body, look)


def read_timeout(body: dict[str, Any], look: Look) -> int | None:
    """The timeout of BatchGetKV in whole milliseconds; None for none."""
    look(body, members.BODIES["BatchGetKV"], "")
    options = fields.get(body, "options", dict, "") or {}
    look(options, members.GET_OPTIONS, "options.")
    timeout = fields.positive_number(options, "timeout", "options.")
    return None if timeout is None else math.ceil(min(timeout, MAX_TIMEOUT_MS))


def read_delete(text: bytes, packed: bytes, limits: Limits, look: Look) -> Removal:
    """The body of DeleteKV for one packed key. Without a body there are no options."""
    body = read_object(text, limits) if text else {}
    look(body, members.BODIES["DeleteKV"], "")
    return removal([packed], body, look)


def read_batch_delete(text: bytes, limits: Limits, look: Look) -> tuple[Removal, bool]:
    """The body of BatchDeleteKV, whose options apply to every key; and whether it really is one.

    A body without keys, but with options, is that of DeleteKV for the key ["batch"].
    """
    body = read_object(text, limits) if text else {}
    if "keys" not in body and "options" in body:
        look(body, members.BODIES["DeleteKV"], "")
        return removal([_BATCH_KEY], body, look), False
    look(body, members.BODIES["BatchDeleteKV"], "")
    if "keys" not in body:
        raise blame("keys", IS_MISSING)
    return removal(_keys(body, limits, needed=True), body, look), True


def removal(keys: list[bytes], body: dict[str, Any], look: Look) -> Removal:
    """The removal of packed keys, with the options of a body."""
    options = fields.get(body, "options", dict, "") or {}
    look(options, members.DELETE_OPTIONS, "options.")
    cascade = fields.get(options, "cascade", bool, "options.")
    stamp = fields.get(options, "ifVersionstamp", str, "options.")
    return Removal(
        tuple([DeleteRange(under(packed)) if cascade else Delete(packed) for packed in keys]),
        () if stamp is None else tuple([Check(packed, _versionstamp(stamp)) for packed in keys]),
    )


def _keys(body: dict[str, Any], limits: Limits, *, needed: bool = False) -> list[bytes]:
    keys = fields.get(body, "keys", list, "", needed=needed) or []
    _check_count(keys, "keys", limits)
    packed = _packed(keys)
    return [fields.key(parts, f"keys[{index}]") for index, parts in enumerate(keys)] if packed is None else packed


def _packed(keys: list[Any]) -> list[bytes] | None:
    """The packed keys, or None if one of them is invalid. Half the cost of examining each."""
    try:
        packed = [pack(parts) for parts in keys if parts.__class__ is list]
    except TypeError:
        return None
    return packed if len(packed) == len(keys) and all(packed) else None


def _check_count(items: list[Any], field: str, limits: Limits) -> None:
    if len(items) > limits.batch_keys:
        raise too_many(field, f"{len(items):,}", limits)


def too_many(field: str, number: str, limits: Limits) -> Invalid:
    """The refusal of a batch with so many keys or entries."""
    what = f"has {number} items; at most {limits.batch_keys:,} are allowed, send the rest in another request"
    return Invalid(f"{field} {what}", fields=((field, what),), code="too_large")


# -- list and count ---------------------------------------------------------------------------------------


def read_listing(text: bytes, space: str, limits: Limits, look: Look) -> Query:
    """The body of ListKV for the store with this ULID."""
    body = read_object(text, limits)
    look(body, members.BODIES["ListKV"], "")
    options = fields.get(body, "options", dict, "") or {}
    look(options, members.LIST_OPTIONS, "options.")
    selector = fields.get(body, "selector", dict, "") or {}
    look(selector, members.SELECTOR, "selector.")
    wanted = fields.get(selector, "filter", dict, "selector.") or {}
    look(wanted, members.FILTER, "selector.filter.")
    created_from, created_to, metadata = _filters(wanted, text, limits)
    after, before = (_position(selector, name, space) for name in ("after", "before"))
    if after is not None and before is not None:
        raise _contradiction("selector.", "after", "before", "are both given; give one of them")
    return Query(
        range=_prefix(selector, limits),
        order="oldest" if fields.get(options, "reverse", bool, "options.") else "newest",
        limit=_limit(options, min(PAGE_ENTRIES, limits.page_entries)),
        after=after,
        before=before,
        created_from=created_from,
        created_to=created_to,
        metadata=metadata,
    )


def read_count(text: bytes, limits: Limits, look: Look) -> KeyRange | None:
    """The range of keys that CountKV asks for; None: the whole store."""
    body = read_object(text, limits)
    look(body, members.BODIES["CountKV"], "")
    selector = fields.get(body, "selector", dict, "") or {}
    look(selector, members.COUNT_SELECTOR, "selector.")
    return _prefix(selector, limits)


def _prefix(selector: dict[str, Any], limits: Limits) -> KeyRange | None:
    packed = fields.prefix(selector.get("prefix", []), "selector.prefix")
    if not packed:
        return None
    limits.check_key(packed)
    return under(packed)


def _position(selector: dict[str, Any], name: str, space: str) -> int | None:
    """The position of a cursor; None for none and for "", which stands for a page that does not exist."""
    text = fields.get(selector, name, str, "selector.")
    return cursor.decode(space, text, f"selector.{name}") if text else None


def _filters(wanted: dict[str, Any], text: bytes, limits: Limits) -> tuple[int | None, int | None, bytes | None]:
    """(createdAfter, createdBefore, text of the metadata); both bounds are inclusive."""
    at = "selector.filter."
    metadata = fields.get(wanted, "metadata", dict, at)
    return (
        fields.timestamp(wanted, "createdAfter", at, up=True),
        fields.timestamp(wanted, "createdBefore", at),
        _bounded(bytes(_cut_listing(text).selector.filter.metadata), limits) if metadata else None,
    )


def _bounded(metadata: bytes, limits: Limits) -> bytes:
    limits.check_metadata(metadata)
    return metadata


def _limit(options: dict[str, Any], max_limit: int) -> int:
    limit = options.get("limit", max_limit)
    if limit.__class__ is float and limit.is_integer():
        limit = int(limit)  # JSON has one kind of number: 10.0 is the integer 10
    if limit.__class__ is not int or not 1 <= limit <= max_limit:
        raise blame("options.limit", f"must be a whole number from 1 to {max_limit}")
    return int(limit)


# -- stores -----------------------------------------------------------------------------------------------


def read_store_name(text: bytes, limits: Limits, look: Look) -> str:
    """The name in the body of CreateStore, of any length; "" if there is none."""
    body = read_object(text, limits)
    look(body, members.BODIES["CreateStore"], "")
    return fields.get(body, "name", str, "", needed=True) or ""
