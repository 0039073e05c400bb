"""How long a connection is answered before others have their turn."""

from __future__ import annotations

import asyncio
from collections import Counter

from kvasir.dialects.nemesis import turn
from kvasir.dialects.nemesis.turn import LargeReplies, Turn

MIB = 1 << 20


def test_large_replies_of_all_connections_are_spread_over_rounds_of_the_loop() -> None:
    connections, replies = 20, 5
    in_round: Counter[int] = Counter()
    finished: list[int] = []

    async def story() -> None:
        large = LargeReplies()
        number = 0

        async def rounds() -> None:
            nonlocal number
            while True:
                await asyncio.sleep(0)
                number += 1

        async def converse(name: int) -> None:
            its_turn = Turn(large)
            its_turn.begin()
            for _ in range(replies):
                if its_turn.is_over():
                    await its_turn.others()
                its_turn.replied(bytes(MIB))
                in_round[number] += MIB
            finished.append(name)

        counting = asyncio.create_task(rounds())
        await asyncio.wait_for(asyncio.gather(*map(converse, range(connections))), 30)
        counting.cancel()

    asyncio.run(story())
    assert sum(in_round.values()) == connections * replies * MIB
    assert max(in_round.values()) <= turn.ROUND_BYTES + MIB
    assert sorted(finished) == list(range(connections))


def test_who_has_left_keeps_nobody_from_a_turn() -> None:
    async def story() -> None:
        large = LargeReplies()
        large.add(turn.ROUND_BYTES)
        assert large.are_enough
        waiting = [asyncio.create_task(large.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.wait_for(asyncio.gather(*waiting[1:]), 30)

    asyncio.run(story())


def test_a_turn_ends_by_time_or_with_a_large_reply() -> None:
    async def story() -> None:
        its_turn = Turn(LargeReplies())
        its_turn.begin()
        its_turn.replied(bytes(turn.LARGE_REPLY_BYTES))
        its_turn.until += 60
        assert not its_turn.is_over()
        its_turn.replied(bytes(turn.LARGE_REPLY_BYTES + 1))
        assert its_turn.is_over()
        await its_turn.others()
        its_turn.until -= turn.SECONDS
        assert its_turn.is_over()

    asyncio.run(story())
