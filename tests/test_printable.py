"""What names and messages of strangers may do to a terminal: nothing."""

from __future__ import annotations

import json
import logging
import sys
import unicodedata

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvasir.printable import printable, printable_json, printable_lines
from kvasir.server.logs import JsonLines, TextLines

FORGED = "x\n2026-01-01 00:00:00,000 INFO kvasir: all is well\r\x1b[31mred\x07\x9b31m"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, Привет, 猫, 👩\u200d🚀, a\xa0b", "plain, Привет, 猫, 👩\u200d🚀, a\xa0b"),
        ("a\x1b[2Kb", "a\\x1b[2Kb"),
        ("\x07\t\r\n\x00\x7f", "\\x07\\t\\r\\n\\x00\\x7f"),
        ("\x85\x9b", "\\x85\\x9b"),
        ("\u2028\u2029\u202e\u2066\u200f", "\\u2028\\u2029\\u202e\\u2066\\u200f"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable_lines(f"{text}\nb") == f"{printable_lines(text)}\nb"


@given(st.text())
def test_nothing_that_controls_is_left(text: str) -> None:
    assert not {"Cc", "Cs", "Zl", "Zp"} & {unicodedata.category(character) for character in printable(text)}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_json_stays_exact(text: str) -> None:
    shown = printable_json(msgspec.json.encode([text]).decode())
    assert json.loads(shown) == [text]
    assert printable(shown) == shown


def record(message: str, *, failed: bool = False) -> logging.LogRecord:
    found = None
    if failed:
        try:
            raise ValueError(message)
        except ValueError:
            found = sys.exc_info()
    return logging.LogRecord("kvasir", logging.WARNING, "", 0, "refused %s", (message,), found)


def test_a_line_of_the_log_is_one_line() -> None:
    line = TextLines().format(record(FORGED))
    assert line.endswith("WARNING kvasir: refused " + printable(FORGED))
    assert printable(line) == line


def test_a_traceback_fakes_no_line() -> None:
    head, *lines = TextLines().format(record(FORGED, failed=True)).split("\n")
    assert "WARNING kvasir: refused x" in head
    assert lines[0] == "  Traceback (most recent call last):"
    assert "  2026-01-01 00:00:00,000 INFO kvasir: all is well\\r\\x1b[31mred\\x07\\x9b31m" in lines
    assert all(line.startswith("  ") and printable(line) == line for line in lines)


def test_a_json_log_is_exact() -> None:
    line = JsonLines().format(record(FORGED))
    assert json.loads(line)["message"] == "refused " + FORGED
    assert printable(line) == line
