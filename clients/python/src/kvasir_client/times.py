"""Lives and instants: how Python has them, how the wire has them. Pure.

A life is a text such as "1500ms", "90s", "15m", "24h" or "30d", or a timedelta. An instant is an aware datetime, exact
to the millisecond.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from kvasir_client.errors import Invalid

Ttl = str | timedelta

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_LIFE = re.compile(r"([0-9]{1,15})(ms|s|m|h|d)")
_MILLISECOND = timedelta(milliseconds=1)

#: The longest life, in milliseconds
LONGEST = 36_525 * _UNITS["d"]


def milliseconds(ttl: Ttl) -> int:
    """Milliseconds of a life, at least 1. Raises `Invalid`, and TypeError for a bare number, which has no unit."""
    if isinstance(ttl, timedelta):
        life = ttl // _MILLISECOND + bool(ttl % _MILLISECOND)
        if life < 1:
            raise Invalid("a ttl must be longer than nothing")
        return _bounded(life)
    if not isinstance(ttl, str):
        raise TypeError(f'a ttl is a text such as "90s" or a timedelta, not {type(ttl).__name__}')
    found = _LIFE.fullmatch(ttl)
    if not found or not int(found[1]):
        raise Invalid(f"{ttl!r} is no life: write a whole number and ms, s, m, h or d, as 90s or 24h")
    return _bounded(int(found[1]) * _UNITS[found[2]])


def _bounded(life: int) -> int:
    if life > LONGEST:
        raise Invalid("a ttl is at most 36525d (100 years); without one, an entry lives for ever")
    return life


def ttl_text(ttl: Ttl) -> str:
    """A life as the wire has it. Raises what `milliseconds` does."""
    return f"{milliseconds(ttl)}ms"


def instant(text: str) -> datetime:
    """The datetime of an RFC 3339 text. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} names no time zone")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{text!r} is before the year 1, or after the year 9999, in UTC") from None


def instant_text(moment: datetime, *, up: bool = True) -> str:
    """RFC 3339 in UTC with milliseconds. Raises `Invalid` for a datetime without a time zone.

    Rounded up: an entry lives at least as long as it was asked to, and nothing older is listed. `up` false: rounded
    down, for the last instant of a listing.
    """
    if moment.tzinfo is None:
        raise Invalid("a datetime needs a time zone, as datetime.now(UTC) + timedelta(hours=1) has it")
    beyond = moment.microsecond % 1_000
    try:
        rounded = moment.astimezone(UTC) + timedelta(microseconds=-moment.microsecond % 1_000 if up else -beyond)
    except OverflowError:
        raise Invalid("the instant is beyond the year 9999") from None
    return rounded.isoformat(timespec="milliseconds").replace("+00:00", "Z")
