"""How strict Kvasir is with JSON, and when two JSON texts say the same."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvasir import jsontext
from kvasir.errors import Invalid, TooLarge
from kvasir.jsontext import check_containers, contains, decode, equal

DEPTH = 512

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_valid_texts_pass(value: Any) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert equal(decode(text.encode("utf-8", "surrogatepass"), DEPTH), value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "ends too early"),
        (b" \n", "ends too early"),
        (b'{"a":1', "ends too early"),
        (b'"abc', "ends too early"),
        (b"[1,]", "trailing comma"),
        (b"{} {}", "trailing characters"),
        (b"NaN", "invalid character"),
        (b"Infinity", "invalid character"),
        (b"-Infinity", "invalid"),
        (b"[NaN]", "invalid character"),
        (b"01", "invalid number"),
        (b"+1", "invalid character"),
        (b".5", "invalid character"),
        (b"1e999", "out of range"),
        (b"-1e999", "out of range"),
        (b"1" * 100_000, "out of range"),
        (b"\xff", "invalid"),
        (b'"\xff"', "UTF-8"),
        (b'"\xc3"', "UTF-8"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b'{"\xff":1}', "UTF-8"),
        (b'"\\ud800"', "invalid"),
        (b'"\\udc00\\ud800"', "invalid"),
        (b'{"a":"\\ud800"}', "half of a surrogate pair"),
        (b'"\\x"', "invalid"),
        (b'"\n"', "invalid character"),
        (b'"\x00"', "invalid character"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        ("{}".encode("utf-16"), "UTF-16"),
        (b"'a'", "invalid character"),
        (b"{a:1}", "invalid"),
        (b"/* */1", "invalid character"),
        (b"tru", "invalid|ends too early"),
        (b'{"a":1,"a":1}', '"a" occurs twice'),
        (b'[{"b":{"a":1,"c":2,"\\u0061":3}}]', '"a" occurs twice'),
        (b'{"x:y":1,"a":":","a":2}', '"a" occurs twice'),
        (b'{"":1,"":2}', '"" occurs twice'),
        (b"[" * 513 + b"]" * 513, "deeper than 512"),
        (b'{"a":' * 513 + b"1" + b"}" * 513, "deeper than 512"),
        (b"[" * 10_000 + b"]" * 10_000, "deeper than 512"),
        (b"[" * 1_000_000, "deeper than 512"),
        (b'{"a":' * 10_000, "deeper than 512"),
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: bytes, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        decode(text, DEPTH)


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 512 + b"]" * 512,
        b'{"a":' * 512 + b"1" + b"}" * 512,
        b'{"a:":1,"b":' + b"[" * 511 + b"]" * 511 + b"}",
        b'[' + b"[]," * 2_000 + b"[]]",
        b'["' + b"[{" * 1_000 + b'"]',
        b'{"a":{"a":{"a":1}},"b":[{"a":1},{"a":1}]}',
        b'{"a":"\\u0000","\\u0000":1}',
        b'"\\ud83d\\ude00"',
        b"1" * 4_000,
        b"1e-999",
        b"0.1000000000000000055511151231257827021181583404541015625",
        b" \t\r\n 1 ",
    ],
)  # fmt: skip
def test_what_is_within_the_bounds_passes(text: bytes) -> None:
    decode(text, DEPTH)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (3, 3.0, True),
        (True, 1, False),
        (False, 0, False),
        (0, False, False),
        (None, False, False),
        (None, None, True),
        ("1", 1, False),
        ([], {}, False),
        ([1, [2]], [1.0, [2]], True),
        ([1, 2], [2, 1], False),
        ([1], [1, 2], False),
        ([True], [1], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 1, "b": None}, False),
        ({"a": [True]}, {"a": [1]}, False),
        (9_007_199_254_740_993, 9_007_199_254_740_992.0, False),
        (1, [1], False),
        ("a", None, False),
    ],
)
def test_equality(a: Any, b: Any, same: bool) -> None:
    assert equal(a, b) is same
    assert equal(b, a) is same


@pytest.mark.parametrize("end", [b"", b"\\", b"[", b'\\"'])
def test_a_string_without_an_end_is_searched_for_it_once(end: bytes) -> None:
    """Not once for each of its escaped quotes: a message of a megabyte would take hours."""
    text = b'["a' + b'\\"[' * 100 + end
    assert [found.span() for found in jsontext._STRING.finditer(text)] == [(1, len(text))]
    assert [found.span() for found in jsontext._STRINGS.finditer(text)] == [(0, len(text))]


@pytest.mark.parametrize(
    ("text", "containers"),
    [
        (b"[]", 1),
        (b'[[],{"a":[]}]', 4),
        (b'["[","{","\\"[",[]]', 2),
        (b'[{"a[":"[' + b"[" * 100 + b'"}]', 2),
        (b"[" + b'"[",' * 1_200 + b"[],[]]", 3),
        (b"[" + b'["["],' * 1_200 + b"[]]", 1_202),
        (b"[[", 2),
        (b'[["[', 2),
        (b"1", 0),
    ],
)
def test_containers_are_counted_outside_of_strings(text: bytes, containers: int) -> None:
    check_containers(text, containers)
    if containers:
        with pytest.raises(TooLarge, match="more than"):
            check_containers(text, containers - 1)


def test_what_differs_is_not_walked_through_step_by_step() -> None:
    """A filter by metadata is compared with each entry that a listing passes."""
    steps = 0

    def count(_frame: object, event: str, _argument: object) -> Any:
        nonlocal steps
        steps += event == "line"
        return count

    def traced(a: Any, b: Any) -> bool:
        sys.settrace(count)
        try:
            return equal(a, b)
        finally:
            sys.settrace(None)

    assert not traced([[]] * 5_000 + [0], [[]] * 5_000 + [1])
    assert steps < 50
    deep: Any = []
    for _ in range(5_000):
        deep = [deep]
    assert equal(deep, [deep]) is False


@pytest.mark.parametrize(
    ("whole", "part", "inside"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2}}, True),
        ({"a": {"x": 1}}, {"a": {}}, True),
        ({"a": [{"x": 1, "y": 2}]}, {"a": [{"x": 1}]}, False),
        ({"a": None}, {"a": None}, True),
        ({}, {"a": None}, False),
        ({"a": 1}, {"a": {}}, False),
        ({"a": True}, {"a": 1}, False),
        ({}, {}, True),
    ],
)
def test_containment(whole: Any, part: Any, inside: bool) -> None:
    assert contains(whole, part) is inside


@given(JSON)
def test_everything_equals_and_contains_itself(value: Any) -> None:
    again = json.loads(json.dumps(value))
    assert equal(value, again)
    assert contains(value, again)


def test_depth_is_no_matter_to_comparison() -> None:
    deep = decode(b'{"a":' * 256 + b"[" * 256 + b"]" * 256 + b"}" * 256, DEPTH)
    other = decode(b'{"a":' * 256 + b"[" * 255 + b"1" + b"]" * 255 + b"}" * 256, DEPTH)
    assert contains(deep, deep)
    assert not contains(deep, other)
