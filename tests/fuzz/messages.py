"""Messages of the NemesisDB API: however they arrive, together or one by one, they get the same replies.

Each line of an input is a message. Tokens of sessions are "1", "2", and so on. Nobody can make a conversation fail, or
leave a message without its reply.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence

import msgspec

from kvasir.dialects.nemesis.app import NemesisDialect
from kvasir.dialects.nemesis.commands import sessions
from kvasir.engines.memory import MemoryEngine
from kvasir.limits import Limits, NemesisLimits
from kvasir.model import Principal
from kvasir.store.store import Store
from tests.fuzz import Ears
from tests.support.clock import START
from tests.support.organisations import ORGANISATION

LIMITS = Limits(json_depth=20, batch_keys=20, value_bytes=2_000)
COMMANDS = NemesisLimits(reply_bytes=4_000, path_steps=2_000)

EARS = Ears()
LOOP = asyncio.new_event_loop()

#: What every frame is
FRAME = msgspec.json.Decoder(dict[str, msgspec.Raw])


def check(data: bytes) -> None:
    messages = data.split(b"\n")[:20]
    for path in ("/session", "/0.9"):
        together = LOOP.run_until_complete(replies(path, [messages]))
        one_by_one = LOOP.run_until_complete(replies(path, [[message] for message in messages]))
        assert together == one_by_one, (together, one_by_one)
        for frame in together[0]:
            assert len(FRAME.decode(frame)) == 1
    EARS.check()


async def replies(path: str, reads: Sequence[Sequence[bytes]]) -> tuple[list[bytes], int | None]:
    """The frames that are sent for these reads, and the code with which the conversation ends, if it does."""
    frames: list[bytes] = []
    ends: list[int] = []
    dialect = new_dialect()
    try:
        conversation = dialect.converse(path, None, frames.extend, lambda code, _: ends.append(code))
        for read in reads:
            if not ends:
                conversation.feed(read)
                await conversation.settled()
        assert ends or not conversation.unanswered
    finally:
        dialect.close()
    return frames, ends[0] if ends else None


def new_dialect() -> NemesisDialect:
    """One over an empty store, at an instant that does not pass, with tokens that are numbers."""
    numbers = itertools.count(1)
    vars(sessions)["new_token"] = lambda: str(next(numbers))
    store = Store(MemoryEngine(lambda: START), LIMITS, lambda: START)
    caller = Principal(ORGANISATION, "developer", "fuzz")
    return NemesisDialect(store, caller, limits=COMMANDS, default_profile="session")
