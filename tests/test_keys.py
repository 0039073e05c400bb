"""Packed keys: there and back, in order, and no prefix that is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvasir.errors import Invalid
from kvasir.keys import pack, parse_versionstamp, prefix_range, text_range, unpack, versionstamp_text
from kvasir.model import KeyRange

#: Few characters, so that parts often begin alike; those at the edges of UTF-8's lengths, and the escape's own.
TEXT = st.text(alphabet="\x00\x01\x02ab\x7f\x80\xff\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff", max_size=6)
PARTS = st.lists(TEXT, min_size=1, max_size=4)


def inside(key: bytes, key_range: KeyRange | None) -> bool:
    return key_range is None or key_range.start <= key < key_range.end


@given(PARTS)
def test_a_key_comes_back(parts: list[str]) -> None:
    assert unpack(pack(parts)) == parts


@given(PARTS, PARTS)
def test_packed_keys_sort_like_their_parts(one: list[str], other: list[str]) -> None:
    assert (pack(one) < pack(other)) == (one < other)
    assert (pack(one) == pack(other)) == (one == other)


@given(PARTS, st.lists(TEXT, max_size=3))
def test_a_prefix_range_holds_exactly_the_keys_that_begin_with_its_parts(key: list[str], prefix: list[str]) -> None:
    assert inside(pack(key), prefix_range(prefix)) == (key[: len(prefix)] == prefix)
    assert inside(pack(prefix + key), prefix_range(prefix))


@given(PARTS, TEXT)
def test_a_text_range_holds_exactly_the_keys_whose_first_part_begins_so(key: list[str], text: str) -> None:
    assert inside(pack(key), text_range(text)) == key[0].startswith(text)
    assert inside(pack([text + key[0], *key[1:]]), text_range(text))


@given(st.binary(max_size=12) | PARTS.map(pack).flatmap(lambda key: st.integers(0, len(key)).map(lambda n: key[:n])))
def test_what_unpacks_is_a_packed_key(key: bytes) -> None:
    try:
        parts = unpack(key)
    except ValueError:
        return
    assert pack(parts) == key


@pytest.mark.parametrize(
    ("parts", "packed"),
    [
        ([], b""),
        ([""], b"\x02\x00"),
        (["a"], b"\x02a\x00"),
        (["a", "b"], b"\x02a\x00\x02b\x00"),
        (["a\x00b"], b"\x02a\x00\xffb\x00"),
        (["", ""], b"\x02\x00\x02\x00"),
        (["\x00", "é"], b"\x02\x00\xff\x00\x02\xc3\xa9\x00"),
        (["a\x00\x02b", "c"], b"\x02a\x00\xff\x02b\x00\x02c\x00"),
    ],
)
def test_the_packed_form(parts: list[str], packed: bytes) -> None:
    assert pack(parts) == packed
    assert unpack(packed) == parts


@pytest.mark.parametrize("parts", [["\ud800"], ["a", "\udfff"], ["\x00\ud800"], ["a\x00", "b\udc80c"]])
def test_a_lone_surrogate_is_no_text(parts: list[str]) -> None:
    with pytest.raises(Invalid, match="lone surrogate"):
        pack(parts)


@given(st.integers(0, (1 << 63) - 1))
def test_a_versionstamp_comes_back(stamp: int) -> None:
    text = versionstamp_text(stamp)
    assert len(text) == 20
    assert parse_versionstamp(text) == stamp
    assert versionstamp_text(stamp + 1) > text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0" * 19,
        "0" * 21,
        "0" * 19 + "A",
        "0" * 19 + "g",
        " " + "0" * 19,
        "-" + "0" * 19,
        "+" + "0" * 19,
        "0x" + "0" * 18,
        "0" * 10 + "_" + "0" * 9,
        "٠" * 20,
    ],
)
def test_what_is_no_versionstamp_equals_none(text: str) -> None:
    assert parse_versionstamp(text) == -1
