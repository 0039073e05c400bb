"""Cursors of listings, which clients give back: each has one spelling, and anything else is refused by name."""

from __future__ import annotations

import contextlib

from kvasir.dialects import timestamps
from kvasir.dialects.native import durations
from kvasir.dialects.versori import cursor
from kvasir.dialects.voximplant.errors import ApiError
from kvasir.dialects.voximplant.parameters import Parameters
from kvasir.errors import Invalid
from tests.support.voximplant import settings_with

SPACE, OTHER = "01JZX0W7M2Q4T8V6B3N5C9D1EF", "01JZX0W7M2Q4T8V6B3N5C9D1EG"
SETTINGS = settings_with()


def check(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    try:
        position = cursor.decode(SPACE, text, "selector.after")
    except Invalid as refusal:
        assert refusal.reason == "invalid_cursor"
    else:
        assert cursor.encode(SPACE, position) == text
    # A cursor with the position that these bytes say is good for one store alone.
    position = int.from_bytes(data[:8], "big") >> 1 or 1
    made = cursor.encode(SPACE, position)
    with contextlib.suppress(Invalid):
        assert cursor.decode(SPACE, made, "selector.after") == position
    with contextlib.suppress(Invalid):
        cursor.decode(OTHER, made, "selector.after")
        raise AssertionError("a cursor of another store")
    check_voximplant(text)
    check_times(text)


def check_voximplant(text: str) -> None:
    try:
        found = Parameters({"cursor": text}, SETTINGS).cursor()
    except ApiError:
        return
    assert found is None or Parameters({"cursor": found.text()}, SETTINGS).cursor() == found


def check_times(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert 0 < durations.parse(text) <= durations.LONGEST
    for up in (False, True):
        with contextlib.suppress(ValueError):
            milliseconds = timestamps.parse(text, up=up)
            if 0 <= milliseconds <= timestamps.LATEST:
                assert timestamps.parse(timestamps.render(milliseconds).decode()) == milliseconds
