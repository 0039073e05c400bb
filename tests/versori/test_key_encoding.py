"""The vectors of docs/key-encoding.md."""

from __future__ import annotations

import json
import re
from pathlib import Path

from kvasir.keys import pack, prefix_range, unpack
from kvasir.model import KeyRange

TEXT = (Path(__file__).parents[2] / "docs" / "key-encoding.md").read_text(encoding="utf-8")


def rows(columns: int) -> list[list[str]]:
    """The rows of the tables with this many columns, without their heads."""
    found = [re.findall(r"`([^`]*)`|``", line) for line in TEXT.splitlines() if line.startswith("| `")]
    return [cells for cells in found if len(cells) == columns]


def test_packing_and_unpacking() -> None:
    vectors = [(json.loads(parts), bytes.fromhex(packed)) for parts, packed in rows(2)]
    assert len(vectors) == 22
    for parts, packed in vectors:
        assert pack(parts) == packed
        assert unpack(packed) == parts
    assert vectors == sorted(vectors, key=lambda vector: vector[1]) == sorted(vectors, key=lambda vector: vector[0])


def test_prefixes() -> None:
    vectors = rows(3)
    assert len(vectors) == 3
    for parts, start, end in vectors:
        assert prefix_range(json.loads(parts)) == KeyRange(bytes.fromhex(start), bytes.fromhex(end))
