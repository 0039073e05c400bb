"""Strangers' text for people and their terminals: no name can fake a row, a log line or a colour. Pure.

Escaped is what moves the cursor, ends a line or reorders what is beside it: control characters, the two separators of
lines and paragraphs, and the marks of bidirectional text. Everything else is shown as it is.
"""

from __future__ import annotations

import re

_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
#: The same, without what every JSON text has escaped already or may have between its values.
_UNFIT_IN_JSON = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_NOT_ASCII = re.compile("[^\x00-\x7e]")


def printable(text: str) -> str:
    r"""The text in one line, with escapes as in `\x1b` and `\u202e`."""
    return text if text.isascii() and text.isprintable() else _UNFIT.sub(lambda found: ascii(found[0])[1:-1], text)


def printable_lines(text: str) -> str:
    """The same for a text of our own that has several lines."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(text: str) -> str:
    """A JSON text that means exactly the same."""
    return text if text.isascii() and "\x7f" not in text else _UNFIT_IN_JSON.sub(_escape, text)


def ascii_json(text: str) -> str:
    """The same, in ASCII."""
    return _NOT_ASCII.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
