"""JSON, and the JSON bodies of the Versori API and of /v1.

A text is valid for Kvasir if it is for the standard library, or is refused for a reason of Kvasir's. A value is kept
byte for byte. A batch read item by item, as large ones are, gives what it gives read whole.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any
from unittest.mock import patch

from kvasir import jsontext
from kvasir.dialects.ignored import Known, Look
from kvasir.dialects.native import bodies
from kvasir.dialects.versori import batches, requests
from kvasir.dialects.versori.requests import Put, Refused
from kvasir.errors import Invalid, KvasirError, TooLarge
from kvasir.keys import pack
from kvasir.limits import Limits
from tests.fuzz import done

LIMITS = Limits(json_depth=20, batch_keys=20, value_bytes=500, metadata_bytes=200)

KEY = pack(["key"])

SPACE = "01JZX0W7M2Q4T8V6B3N5C9D1EF"

#: Why a text is refused that the standard library takes
STRICTER = (
    "occurs twice",
    "nested deeper",
    "surrogate",
    "out of range",
    "at most",
    "too early",
    "not UTF-8",
    "invalid",
)


def look(members: Mapping[str, Any], _known: Known, _at: str) -> None:
    """Looks at every object of a body."""
    assert all(name.__class__ is str for name in members)


def check(data: bytes) -> None:
    check_json(data)
    check_bodies(data)
    for whole, cut in BATCHES:
        check_batch(data, whole, cut)


def check_json(text: bytes) -> None:
    try:
        value = jsontext.decode(text, LIMITS.json_depth)
    except Invalid as refusal:
        assert refusal.message
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(text.decode(), parse_constant=not_json)
            assert not plainly_valid(text, value), (text, refusal.message)
        return
    again = json.loads(text.decode(), parse_constant=not_json)
    assert jsontext.equal(value, again)
    assert jsontext.equal(again, value)
    assert jsontext.contains(value, again)


def not_json(_: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


def plainly_valid(text: bytes, value: Any) -> bool:
    """Whether a text has none of what Kvasir is stricter about."""
    if b"\\u" in text or b"{" in text or text.count(b"[") >= LIMITS.json_depth:
        return False
    numbers = [value] if not isinstance(value, list) else value
    return all(not isinstance(each, float) or math.isfinite(each) for each in numbers) and len(text) < 300


def check_bodies(text: bytes) -> None:
    try:
        put = requests.read_set(text, KEY, LIMITS, look)
    except (Invalid, TooLarge):
        pass
    else:
        given = json.loads(text)
        assert jsontext.equal(json.loads(put.set.value), given["value"])
        assert put.set.value in text
        if put.set.metadata is not None:
            assert jsontext.equal(json.loads(put.set.metadata), given["options"]["metadata"])
    readers: list[Callable[[], object]] = [
        lambda: requests.read_delete(text, KEY, LIMITS, look),
        lambda: requests.read_listing(text, SPACE, LIMITS, look),
        lambda: requests.read_count(text, LIMITS, look),
        lambda: requests.read_store_name(text, LIMITS, look),
        lambda: done(bodies.read(text, bodies.NewSpace, LIMITS)),
    ]
    for read in readers:
        with contextlib.suppress(Invalid, TooLarge):
            read()


BATCHES: list[tuple[Callable[[bytes, Limits, Look], Any], Callable[[bytes, Limits, Look], Any]]] = [
    (requests.read_batch_get, batches.read_batch_get),
    (requests.read_batch_delete, batches.read_batch_delete),
    (requests.read_batch_set, batches.read_batch_set),
]


def check_batch(text: bytes, whole: Any, cut: Any) -> None:
    found = outcome(lambda: whole(text, LIMITS, look))
    with patch.object(jsontext, "is_sparse", lambda _: False):
        in_items = outcome(lambda: cut(text, LIMITS, look))
    assert same(found, in_items), (found, in_items)


def outcome(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (Invalid, TooLarge) as refusal:
        return refusal


def same(whole: Any, cut: Any) -> bool:
    """Whether two ways of reading agree; reasons may be worded in two ways."""
    if isinstance(whole, KvasirError) or isinstance(cut, KvasirError):
        return isinstance(whole, KvasirError) and isinstance(cut, KvasirError)
    if isinstance(whole, list) and whole and isinstance(whole[0], Put | Refused):
        return len(whole) == len(cut) and all(
            one == other or (isinstance(one, Refused) and isinstance(other, Refused))
            for one, other in zip(whole, cut, strict=True)
        )
    return bool(whole == cut)
