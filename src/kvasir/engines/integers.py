"""What every engine takes for an integer, and how it counts. Pure."""

from __future__ import annotations

import re

from kvasir.errors import Invalid

LEAST, MOST = -(1 << 63), (1 << 63) - 1

#: A JSON number without fraction and exponent, as a value may have it.
INTEGER = re.compile(rb"[ \t\n\r]*(-?(?:0|[1-9][0-9]{0,18}))[ \t\n\r]*")


def incremented(value: bytes | None, delta: int, initial: int) -> int:
    """The sum for a key with this value; None: it is absent. Raises `Invalid`."""
    number = initial
    if value is not None:
        found = INTEGER.fullmatch(value)
        if found is None or not LEAST <= (number := int(found[1])) <= MOST:
            raise not_incremented()
    if not LEAST <= number + delta <= MOST:
        raise not_incremented()
    return number + delta


def not_incremented() -> Invalid:
    """The outcome of a write with such an increment."""
    return Invalid(
        "a key to be incremented holds no integer, or the sum would be beyond 63 bits; nothing was written",
        code="not_incremented",
    )
