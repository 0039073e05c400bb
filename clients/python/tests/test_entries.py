"""Values in answers: their text is cut out, never parsed and printed again. Without a server."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kvasir_client.entries import entries_in, entry_in, entry_with_text

AROUND = '"versionstamp":"0a","created_at":"2026-01-01T00:00:00.000Z","expires_at":null,"refresh":null,"metadata":null}'

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def rendered(text: str, key: str = '["a"]') -> str:
    return f'{{"key":{key},"value":{text},{AROUND}'


@given(JSON, st.sampled_from([None, 1]), st.sampled_from(["", " ", "\n\t"]))
def test_a_value_is_what_is_stored(value: object, indent: int | None, space: str) -> None:
    text = space + json.dumps(value, indent=indent) + space
    entry = entry_in(rendered(text))
    assert entry.raw == text.encode()
    assert entry.value == value


@given(st.lists(st.none() | JSON))
def test_many_values_are_what_is_stored(values: list[object]) -> None:
    texts = [None if value is None else json.dumps(value) for value in values]
    page = ",".join("null" if text is None else rendered(text) for text in texts)
    found, following = entries_in(f'{{"entries":[{page}],"next":"c"}}')
    assert [entry and entry.raw.decode() for entry in found] == texts
    assert following == "c"


def test_digits_survive() -> None:
    entry = entry_in(rendered("9.50"))
    assert (entry.raw, entry.value) == (b"9.50", 9.5)
    long = "1" * 5_000
    assert entry_in(rendered(f'{{"n": {long}}}')).value == {"n": Decimal(long)}
    assert entry_in(rendered(str(2**64 + 1))).value == 2**64 + 1


def test_a_listing_of_keys_has_no_values() -> None:
    (entry,), following = entries_in('{"entries":[{"key":["a","b"],' + AROUND + '],"next":null}')
    assert entry is not None
    assert (entry.key, entry.raw, entry.value, following) == (("a", "b"), b"", None, None)


def test_an_event_has_the_text_as_a_string() -> None:
    entry = entry_with_text(rendered('"\\n9.50 "').replace('"value"', '"text"'))
    assert (entry.raw, entry.value) == (b"\n9.50 ", 9.5)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"entries":[1]}', rendered("1")[:-5], rendered("x"), "<html>"])
def test_what_is_no_entry_is_told(text: str) -> None:
    with pytest.raises((ValueError, KeyError, TypeError, IndexError)):
        entry_in(text)
    with pytest.raises((ValueError, KeyError, TypeError, IndexError)):
        entries_in(text)
