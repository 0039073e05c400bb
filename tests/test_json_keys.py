"""Many packed keys as JSON give what each gives by itself."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvasir.dialects.json_keys import arrays
from kvasir.keys import pack

TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\x00\x01\x02\x7f"\\u0,[]'), max_size=6)


@given(st.lists(st.lists(TEXTS, min_size=1, max_size=4), max_size=5))
def test_any_keys(keys: list[list[str]]) -> None:
    assert [json.loads(text) for text in arrays([pack(parts) for parts in keys])] == keys


@pytest.mark.parametrize(
    "key",
    [["a"], [""], ["", ""], ["\x00"], ["\x00\x02"], ["\x00\x7f\x02", "b"], ["\x7f"], ["\\"], ["\\u0000\\u0002"], ['"']],
)
def test_a_key_beside_plain_ones(key: list[str]) -> None:
    keys = [["a", "b"], key, ["c"]]
    assert [json.loads(text) for text in arrays([pack(parts) for parts in keys])] == keys


def test_none() -> None:
    assert arrays([]) == []
