"""Lengths of time as texts: `1500ms`, `90s`, `15m`, `24h`, `30d`. Pure."""

from __future__ import annotations

import re

#: A hundred years, in milliseconds.
LONGEST = 3_155_760_000_000

UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

PATTERN = r"[0-9]{1,15}(ms|s|m|h|d)"

_match = re.compile(PATTERN).fullmatch


def parse(text: str) -> int:
    """Milliseconds, from 1 to a hundred years. Raises ValueError with words that complete "must be …"."""
    found = _match(text)
    if found is None:
        raise ValueError("a whole number with a unit: 1500ms, 90s, 15m, 24h or 30d")
    milliseconds = int(text[: -len(found[1])]) * UNITS[found[1]]
    if not 0 < milliseconds <= LONGEST:
        raise ValueError("more than 0 and at most 36525d (100 years)")
    return milliseconds
