"""What all commands do with arguments that are not text, with durations and with dates."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kvasir.cli.common import LAST_MS, date_text, duration_ms
from kvasir.errors import Invalid
from tests.support.cli import run


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (("key", "create", "--role", "viewer", "--name", "\udcff"), 6),
        (("store", "create", "a\udcffb"), 3),
        (("application", "create", "--name=\udcff"), 3),
    ],
)
def test_an_argument_that_is_not_text(tmp_path: Path, arguments: tuple[str, ...], place: int) -> None:
    done = run(*arguments, status=2, cwd=tmp_path)
    assert done.stderr == f"kvasir: argument {place} is not UTF-8 text\n"


def test_durations_end_with_the_year_9999(monkeypatch: pytest.MonkeyPatch) -> None:
    assert duration_ms("30d") == 30 * 86_400_000
    monkeypatch.setattr(time, "time", lambda: (LAST_MS - 90_000) / 1_000)
    assert duration_ms("90s") == 90_000
    with pytest.raises(Invalid, match="year 9999"):
        duration_ms("91s")
    monkeypatch.undo()
    with pytest.raises(Invalid, match="year 9999"):
        duration_ms("999999999d")


@pytest.mark.parametrize("given", ["", "d", "0d", "1000000000d", "9" * 5_000 + "d", "1.5h", "-1d", "5"])
def test_what_is_not_a_duration(given: str) -> None:
    with pytest.raises(Invalid, match="30d"):
        duration_ms(given)


def test_dates_after_the_year_9999_are_shown_as_its_end() -> None:
    assert date_text(None) is None
    assert date_text(0) == "1970-01-01T00:00:00.000Z"
    for milliseconds in (LAST_MS, LAST_MS + 1, 86_399_999_913_600_000_000):
        assert date_text(milliseconds) == "9999-12-31T23:59:59.999Z"


def test_a_key_that_expires_after_the_year_9999_is_refused(tmp_path: Path) -> None:
    key = ("key", "create", "--name", "a", "--role", "viewer", "--expires-in", "999999999d")
    assert "year 9999" in run(*key, status=2, cwd=tmp_path).stderr
