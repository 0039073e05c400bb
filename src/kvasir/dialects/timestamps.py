"""RFC 3339 date-times <-> Unix milliseconds. Pure."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Annotated

import msgspec

#: The last millisecond that RFC 3339 can express.
LATEST = 253_402_300_799_999

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_DateTime = Annotated[datetime, msgspec.Meta(tz=True)]


def parse(text: str, *, up: bool = False) -> int:
    """Unix milliseconds of a date-time; a fraction is cut off, or with `up` rounded up. Raises ValueError."""
    if text[-1:] not in ("Z", "z") and text[-3:-2] != ":":
        raise ValueError("the offset is not one of RFC 3339")
    leap = text[17:19] == "60"
    when = msgspec.convert(text[:17] + "59" + text[19:] if leap else text, _DateTime)
    milliseconds = -((_EPOCH - when) // _MILLISECOND) if up else (when - _EPOCH) // _MILLISECOND
    if leap:
        # Unix time gives a leap second the number of the second after it.
        milliseconds += 1000
        if milliseconds // 1000 % 86_400:
            raise ValueError("a leap second is only possible at the end of a day in UTC")
    return milliseconds


@lru_cache(maxsize=4096)
def render(milliseconds: int) -> bytes:
    """The date-time in UTC with milliseconds and Z, as "2026-06-01T00:00:00.000Z"."""
    return b"%b%02d.%03dZ" % (_minute(milliseconds // 60_000), milliseconds // 1000 % 60, milliseconds % 1000)


# Entries that are read together were mostly written together: in one batch, or at least within a few days.
@lru_cache(maxsize=4096)
def _minute(minutes: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:", time.gmtime(minutes * 60)).encode()
