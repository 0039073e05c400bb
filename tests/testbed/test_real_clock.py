"""The stories of `test_clock.py` again with the machine's own clock and short lives: a test bed that nobody moves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from kvasir.testing import Server
from tests.support.testbed import KINDS, LIVES, opened

LASTS_MS = 2_000


def now_ms() -> int:
    """As the server sees it, too: they are on one machine."""
    return time.time_ns() // 1_000_000


class Life:
    """Something that begins now. To the millisecond: it is there before its end, and not there from its end on."""

    def __init__(self, name: str, door: Any, begin: Callable[[], object], lasts: int) -> None:
        self.name = name
        self._door = door
        self._lasts = lasts
        self._began(now_ms(), begin())

    def _began(self, earliest: int, _: object) -> None:
        """It ends between two instants: when it has begun is known no better."""
        self.ends = earliest + self._lasts, now_ms() + self._lasts

    def is_over(self) -> bool:
        """Look at it."""
        asked = now_ms()
        there = self._door.get() == "v"
        answered = now_ms()
        assert there or answered >= self.ends[0], f"{self.name}: gone {self.ends[0] - answered} ms before its end"
        assert not there or asked < self.ends[1], f"{self.name}: there {asked - self.ends[1]} ms after its end"
        return not there


class Sliding(Life):
    """One that begins afresh three times, when it is looked at in its middle."""

    looks = 0

    def is_over(self) -> bool:
        asked = now_ms()
        if asked < (self.ends[1] if self.looks == 3 else self.ends[0] - self._lasts // 2):
            return False
        self.looks += 1
        over = super().is_over()
        self._began(asked, None)
        return over


def lives(server: Server, stack: ExitStack) -> Iterator[Life]:
    """Each kind of life in each API."""
    for name, (api, life, _) in LIVES.items():
        door = stack.enter_context(opened(server, api))
        now = now_ms()
        began = Life(name, door, partial(door.set, "v", **life(now, LASTS_MS)), LASTS_MS)
        if "absolute" in name:
            end = now + LASTS_MS
            began.ends = (end, end) if api != "voximplant" else (end // 1_000 * 1_000,) * 2
        yield began
    slides: dict[str, dict[str, Any]] = {
        "versori": {"expireIn": 1_000, "refreshOnAccess": True},
        "native": {"ttl": "1s", "refresh": "true"},
    }
    for api, options in slides.items():
        door = stack.enter_context(opened(server, api))
        yield Sliding(f"{api} sliding", door, partial(door.set, "v", **options), 1_000)
    for name, delete in (("session end", True), ("periodic clear", False)):
        door = stack.enter_context(opened(server, "nemesis"))
        yield Life(f"nemesis {name}", door, partial(_short_session, door, delete), LASTS_MS)


def _short_session(door: Any, delete: bool) -> None:
    expiry = {"duration": LASTS_MS // 1_000, "deleteSession": delete}
    door.token = door.ask("SH_NEW", name="short", expiry=expiry)["tkn"]
    door.set("v")


def test_all_lives_end_by_the_real_clock_as_by_that_of_a_test(kvasir_server: Server) -> None:
    with ExitStack() as stack:
        left = list(lives(kvasir_server, stack))
        assert {life.name.split()[0] for life in left} == set(KINDS)
        while left:
            left = [life for life in left if not life.is_over()]
