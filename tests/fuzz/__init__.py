"""Fuzzers of what reads strangers' bytes, one module a parser: `python -m tests.fuzz NAME`, see `__main__`.

A module has a function `check`, which raises for bytes that make its parser break a promise. Those in `seeds/NAME` are
where the fuzzer begins, among them every input that has ever broken one.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar, cast

T = TypeVar("T")

SEEDS = Path(__file__).with_name("seeds")

NAMES = tuple(sorted(folder.name for folder in SEEDS.iterdir()))


def done(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing but its next turn, without an event loop."""
    try:
        while True:
            assert work.send(None) is None, "it waits for something"
    except StopIteration as finished:
        return cast("T", finished.value)


class Ears(logging.Handler):
    """Hears what is logged as an error, which strangers must not be able to cause."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._heard: list[str] = []
        logging.getLogger().addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._heard.append(self.format(record))

    def check(self) -> None:
        """Raises AssertionError if anything was heard since the last time."""
        heard, self._heard = self._heard, []
        assert not heard, "\n".join(heard)
