"""Rounds on the event loop: a budget for each round, shared by all who have more to do than one thing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest
import uvloop

from kvasir.dialects import rounds as module
from kvasir.dialects.rounds import ROUND_SECONDS, SHARE_SECONDS, Rounds, rounds


class Stopwatch:
    """A clock that goes on only when somebody works."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def work(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> Stopwatch:
    return Stopwatch(monkeypatch)


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work)


def test_a_loop_has_one_set_of_turns() -> None:
    found = []

    async def look() -> None:
        found.append(rounds())
        assert rounds() is found[-1]

    run(look())
    run(look())
    assert found[0] is not found[1]
    assert module._latest is found[1]  # and that of a loop that is gone is not kept


def test_who_is_alone_has_the_whole_round_and_then_nothing_until_the_next(stopwatch: Stopwatch) -> None:
    async def story() -> None:
        each = Rounds(asyncio.get_running_loop())
        end = each.begin()
        assert end == stopwatch.now + ROUND_SECONDS
        stopwatch.work(ROUND_SECONDS / 2)
        assert each.begin() == end
        stopwatch.work(ROUND_SECONDS)
        assert each.begin() == 0
        await asyncio.sleep(0)
        assert each.begin() == stopwatch.now + ROUND_SECONDS

    run(story())


def test_those_in_line_share_a_round_and_go_on_in_the_next(stopwatch: Stopwatch) -> None:
    async def story() -> None:
        each = Rounds(asyncio.get_running_loop())
        rounds: list[list[int]] = [[]]
        left = dict.fromkeys(range(20), 3)

        def work(who: int, end: float) -> None:
            assert end <= stopwatch.now + SHARE_SECONDS
            stopwatch.work(SHARE_SECONDS)
            rounds[-1].append(who)
            left[who] -= 1
            if left[who]:
                each.line_up(lambda end: work(who, end))

        for who in left:
            each.line_up(lambda end, who=who: work(who, end))  # type: ignore[misc]
        while any(left.values()):
            await asyncio.sleep(0)
            rounds.append([])
        most = round(ROUND_SECONDS / SHARE_SECONDS)
        assert max(map(len, rounds)) <= most + 1
        order = [who for each_round in rounds for who in each_round]
        assert order == [*range(20)] * 3  # nobody twice before everybody once

    run(story())
