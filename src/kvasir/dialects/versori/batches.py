"""Bodies of batch requests that are too large to be decoded as a whole: cut into their items first, which makes no
objects of what is inside, then read item by item, so that strings by the million are never there at once. Small ones
are left to `requests`; both give the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw

from kvasir import jsontext
from kvasir.dialects.ignored import Look
from kvasir.dialects.versori import fields, requests
from kvasir.dialects.versori.fields import blame
from kvasir.dialects.versori.members import BODIES
from kvasir.dialects.versori.requests import Put, Refused, Removal
from kvasir.errors import Invalid, TooLarge
from kvasir.limits import Limits

#: Bytes by whose look the items are looked for.
_SAMPLE_BYTES = 64
#: Up to this many items a type of its own stops the decoder at the first one too many.
MOST_PLACES = 4_096


def read_batch_get(text: bytes, limits: Limits, look: Look) -> tuple[list[bytes], int | None]:
    """See `requests.read_batch_get`."""
    if jsontext.is_sparse(text):
        return requests.read_batch_get(text, limits, look)
    body, keys = _cut(text, "keys", limits)
    packed = _packed(keys, limits)
    limits.check_keys(packed)
    return packed, requests.read_timeout(body, look)


def read_batch_delete(text: bytes, limits: Limits, look: Look) -> tuple[Removal, bool]:
    """See `requests.read_batch_delete`."""
    if not text or jsontext.is_sparse(text):
        return requests.read_batch_delete(text, limits, look)
    body, keys = _cut(text, "keys", limits)
    if keys is None:
        return requests.read_batch_delete(text, limits, look)  # without keys it is short
    look(body, BODIES["BatchDeleteKV"], "")
    return requests.removal(_packed(keys, limits), body, look), True


def read_batch_set(text: bytes, limits: Limits, look: Look) -> list[Put | Refused] | Put:
    """See `requests.read_batch_set`."""
    if jsontext.is_sparse(text):
        return requests.read_batch_set(text, limits, look)
    if len(text) <= limits.set_body_bytes and requests.is_for_one_key(text):
        return requests.read_batch_set(text, limits, look)
    body, entries = _cut(text, "entries", limits)
    if entries is None:
        raise blame("entries", requests.IS_MISSING)
    look(body, BODIES["BatchSetKV"], "")
    return [_entry(index, bytes(entry), limits, look) for index, entry in enumerate(entries)]


def _cut(text: bytes, name: str, limits: Limits) -> tuple[dict[str, Any], Sequence[Raw] | None]:
    """(the body with null in the place of its items, the texts of the items; None: there is no such member)"""
    holder, items_of, cut = _cutters(name, limits.batch_keys)
    try:
        items_of(text)  # which stops at an item too many
        items = memoryview(getattr(holder(text), name))
        body = _around(text, items, name, limits)
        if name not in body:
            return body, None
        if items[0] != ord("["):
            raise blame(name, "must be an array")
        return body, cut(items)
    except msgspec.ValidationError as error:
        if "length" in str(error):
            raise requests.too_many(name, f"more than {limits.batch_keys:,}", limits) from None
        if f"$.{name}" in str(error):
            raise blame(name, "must be an array") from None
        raise Invalid("the body must be a JSON object") from None
    except (msgspec.MsgspecError, RecursionError):
        jsontext.check_containers(text, limits.json_containers)
        jsontext.decode(text, limits.json_depth)  # which says what is wrong, and where
        raise


def _around(text: bytes, items: memoryview, name: str, limits: Limits) -> dict[str, Any]:
    """The body with null in the place of its items."""
    at = _place(text, items, limits.query_body_bytes)
    # What is left is decoded as strictly as any body, so it also says whether a member is there twice.
    rest = text[:at] + b"null" + text[at + len(items) :] if items else text
    if at < 0 or len(rest) > limits.query_body_bytes:
        raise TooLarge(f"the body has more than {limits.query_body_bytes:,} bytes besides its {name}")
    return requests.read_object(rest, limits)


def _place(text: bytes, items: memoryview, most: int) -> int:
    """Where the items begin; -1: not within the first `most` bytes.

    To look for megabytes that repeat themselves would take the standard library's search a second.
    """
    whole, start = bytes(items), bytes(items[:_SAMPLE_BYTES])
    at = text.find(start, 0, most + len(start))
    while at >= 0 and not text.startswith(whole, at):
        at = text.find(start, at + 1, most + len(start))
    return at


@lru_cache(maxsize=8)
def _cutters(
    name: str, most: int
) -> tuple[Callable[[bytes], Any], Callable[[bytes], Any], Callable[[memoryview], Sequence[Raw]]]:
    """Decoders: of a body, with its items as one text; of the same, to see whether they are too many; and of the items.

    They make no objects of what is inside an item.
    """
    holder = msgspec.json.Decoder(msgspec.defstruct("Holder", [(name, Raw, Raw())])).decode
    if most > MOST_PLACES:
        counted = msgspec.json.Decoder(list[Raw]).decode

        def bounded(text: memoryview) -> Sequence[Raw]:
            if len(items := counted(text)) > most:
                raise msgspec.ValidationError("length")
            return items

        return holder, lambda _: None, bounded
    places = [(f"item{index}", Raw, Raw()) for index in range(most)]
    items = msgspec.defstruct("Items", places, array_like=True, forbid_unknown_fields=True)
    counting = msgspec.json.Decoder(msgspec.defstruct("Counted", [(name, items | None, None)])).decode
    items_of = msgspec.json.Decoder(items).decode
    return holder, counting, lambda text: [item for item in msgspec.structs.astuple(items_of(text)) if memoryview(item)]


def _packed(keys: Sequence[Raw] | None, limits: Limits) -> list[bytes]:
    return [_key(index, bytes(item), limits) for index, item in enumerate(keys or ())]


def _key(index: int, text: bytes, limits: Limits) -> bytes:
    if len(text) > limits.key_text_bytes:
        message = f"the key is {len(text):,} bytes of JSON; at most {limits.key_bytes:,} bytes packed are allowed"
        raise TooLarge(message, subject="key", index=index)
    return fields.key(_decode(index, text, "keys", limits), f"keys[{index}]")


def _entry(index: int, text: bytes, limits: Limits, look: Look) -> Put | Refused:
    if len(text) > limits.entry_text_bytes:
        what = f"is {len(text):,} bytes of JSON; at most {limits.entry_text_bytes:,} are allowed"
        return Refused([], f"entries[{index}] {what}")
    try:
        decoded = _decode(index, text, "entries", limits)
    except TooLarge as refusal:
        return Refused([], refusal.message)
    return requests.put_or_refuse(decoded, requests.cut_entry(text), f"entries[{index}]", look)


def _decode(index: int, text: bytes, name: str, limits: Limits) -> Any:
    try:
        return jsontext.decode(text, limits.json_depth - 2, limits.json_containers)
    except (Invalid, TooLarge) as error:
        error.message = f"{name}[{index}]: {error.message}"
        raise
