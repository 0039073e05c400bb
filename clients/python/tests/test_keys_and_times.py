"""Keys and times: what people write, what goes over the wire. Without a server."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kvasir_client import Invalid, keys, times

FIRST, LAST = datetime(1, 1, 2), datetime(9999, 12, 30)  # noqa: DTZ001
PARTS = st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4).map(tuple)


@given(PARTS)
def test_a_key_that_is_shown_can_be_typed(parts: tuple[str, ...]) -> None:
    shown = keys.show(parts)
    assert keys.parse(shown) == parts
    assert shown.isprintable()


@given(PARTS)
def test_a_key_that_is_shown_can_be_typed_as_a_prefix(parts: tuple[str, ...]) -> None:
    assert keys.parse_prefix(keys.show(parts)) == parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [("a", ("a",)), ("a/b", ("a", "b")), ('["a/b",""]', ("a/b", "")), ("a%2Fb", ("a%2Fb",)), ("../x", ("..", "x"))],
)
def test_keys_as_people_write_them(text: str, parts: tuple[str, ...]) -> None:
    assert keys.parse(text) == parts


@pytest.mark.parametrize("text", ["", "/", "a/", "/a", "a//b", "[", "[]", "[1]", '"a"]'[1:] + "/"])
def test_what_is_no_key_is_refused_with_the_form_that_takes_any_key(text: str) -> None:
    with pytest.raises(Invalid, match=r"JSON array"):
        keys.parse(text)


def test_a_key_of_too_many_brackets_is_none() -> None:
    with pytest.raises(Invalid, match=r"JSON array"):
        keys.parse("[" * 100_000)


def test_an_instant_that_is_another_year_in_utc() -> None:
    for text in ("0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00"):
        with pytest.raises(ValueError, match="in UTC"):
            times.instant(text)


def test_a_prefix_may_be_empty_and_may_end_with_a_slash() -> None:
    assert keys.parse_prefix("") == keys.parse_prefix("/") == ()
    assert keys.parse_prefix("a/b/") == ("a", "b")


def test_one_text_is_one_part() -> None:
    """And not the sequence of its letters, which is what Python would make of it."""
    assert keys.parts_of("a/b") == ("a/b",)


@pytest.mark.parametrize("key", [(), []])
def test_a_key_needs_a_part(key: list[str]) -> None:
    with pytest.raises(Invalid, match="at least one part"):
        keys.parts_of(key)


def test_a_part_is_a_text() -> None:
    with pytest.raises(TypeError, match="int"):
        keys.parts_of(("a", 1))  # type: ignore[arg-type]
    with pytest.raises(Invalid, match="surrogate"):
        keys.parts_of(("\ud800",))


@pytest.mark.parametrize(
    ("ttl", "text"),
    [("1500ms", "1500ms"), ("90s", "90000ms"), ("30d", "2592000000ms"), (timedelta(microseconds=1), "1ms")],
)
def test_lives(ttl: str | timedelta, text: str) -> None:
    assert times.ttl_text(ttl) == text


@pytest.mark.parametrize("ttl", ["", "1", "0s", "-1s", "1.5h", "1w", "1 s", timedelta(0), timedelta(seconds=-1)])
def test_what_is_no_life(ttl: str | timedelta) -> None:
    with pytest.raises(Invalid):
        times.ttl_text(ttl)


def test_a_bare_number_is_no_life() -> None:
    """Seconds or milliseconds? Both are common."""
    with pytest.raises(TypeError, match="90s"):
        times.ttl_text(90)  # type: ignore[arg-type]


@given(st.datetimes(FIRST, LAST, timezones=st.just(timezone(timedelta(hours=5)))))
def test_instants_are_exact_and_never_earlier_than_asked(moment: datetime) -> None:
    read = times.instant(times.instant_text(moment))
    assert timedelta(0) <= read - moment < timedelta(milliseconds=1)
    assert timedelta(0) <= moment - times.instant(times.instant_text(moment, up=False)) < timedelta(milliseconds=1)


def test_what_no_server_takes() -> None:
    with pytest.raises(Invalid, match="100 years"):
        times.ttl_text("36526d")
    with pytest.raises(Invalid, match="100 years"):
        times.ttl_text(timedelta.max)
    assert times.ttl_text("36525d") == times.ttl_text(timedelta(days=36_525))
    with pytest.raises(Invalid, match="9999"):
        times.instant_text(datetime.max.replace(tzinfo=UTC))


def test_an_instant_needs_a_time_zone() -> None:
    with pytest.raises(Invalid, match="time zone"):
        times.instant_text(FIRST)
    assert times.instant_text(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00.000Z"


def test_keys_go_out_as_json() -> None:
    assert json.loads(keys.json_text(("a/b", "", "é"))) == ["a/b", "", "é"]
