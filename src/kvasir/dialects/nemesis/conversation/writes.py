"""The writes of one conversation: they join while they come in together, share a call to the store, and wait for it.

Without a coroutine where the store can do so. The order of replies is that of `Replies`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from msgspec import Struct

from kvasir.dialects.eager import start
from kvasir.dialects.nemesis.commands.context import CommandContext
from kvasir.dialects.nemesis.commands.profiles import Profile
from kvasir.dialects.nemesis.conversation.replies import Replies, Slot
from kvasir.dialects.nemesis.conversation.requests import Result, WriteRequest
from kvasir.engine import Outcome
from kvasir.errors import KvasirError
from kvasir.model import Space, Write

log = logging.getLogger(__name__)


class JoinedWrites(Struct):
    """Writes that are carried out together, to one space or to several (see `Store.write_many`)."""

    #: That of the first request
    space: Space
    requests: list[WriteRequest]
    #: Mutations of all requests
    weight: int
    #: The place of the replies
    slot: Slot
    #: Called with the outcomes of all writes
    told: Callable[[JoinedWrites, Sequence[Outcome]], None]

    def goes_with(self, space: Space) -> bool:
        """Whether a write to this space may join."""
        return space is self.space or (space.clear_every is None and self.space.clear_every is None)

    def all(self) -> list[Write]:
        """The writes of all requests, in their order."""
        if len(self.requests) == 1:
            return self.requests[0].writes
        return [write for request in self.requests for write in request.writes]

    async def carry_out(self, context: CommandContext) -> None:
        """Make one call to the store, and wait for it."""
        writes = self.all()
        try:
            self.set_result(await context.store.write_many(context.principal, self.space, writes) if writes else ())
        except KvasirError as failure:
            self.set_exception(failure)
        except Exception:
            log.exception("writing failed")
            self.set_exception(KvasirError(""))

    # It is a `kvasir.engine.Waiter`, too.

    def done(self) -> bool:
        return False

    def set_result(self, outcomes: Sequence[Outcome]) -> None:
        self.told(self, outcomes)

    def set_exception(self, error: KvasirError) -> None:
        self.told(self, [error] * len(self.all()))

    def results(self, profile: Profile, outcomes: Sequence[Outcome]) -> list[Result]:
        """One result per request."""
        results = []
        position = 0
        for request in self.requests:
            end = position + len(request.writes)
            results.append(request.render(profile, outcomes[position:end]))
            position = end
        return results


class Writes:
    """Those that have not been handed to the store yet, and those that wait for their commit."""

    def __init__(
        self,
        context: CommandContext,
        profile: Profile,
        replies: Replies,
        observe: Callable[[str, str, str, float, int], None],
        done: Callable[[int], None],
    ) -> None:
        """`done` is told how many requests have been replied to, before the replies are sent."""
        self._context, self._profile = context, profile
        self._replies, self._observe, self._done = replies, observe, done
        self._max_keys = context.store.limits.batch_keys
        self._joined: JoinedWrites | None = None
        self._committing: set[asyncio.Task[None]] = set()

    def join(self, request: WriteRequest, space: Space) -> bool:
        """Let a request join those before it; False if it is too large to. Raises `KvasirError` as `prepare` does."""
        weight = request.prepare(space, self._max_keys)
        if weight > self._max_keys:
            return False
        joined = self._joined
        if joined is not None and joined.goes_with(space) and joined.weight + weight <= self._max_keys:
            joined.requests.append(request)
            joined.weight += weight
        else:
            self.submit()
            self._joined = JoinedWrites(space, [request], weight, self._replies.reserve(), self._told)
        return True

    def submit(self) -> None:
        """Hand those that have joined to the store, and go on without waiting for their commit."""
        joined, self._joined = self._joined, None
        if joined is None:
            return
        store = self._context.store
        try:
            if joined.weight and store.submit(self._context.principal, joined.space, joined.all(), joined):
                return
        except KvasirError:  # nothing was done; each of them is told by itself
            pass
        except Exception:
            log.exception("writing failed")
            joined.set_exception(KvasirError(""))
            return
        task = start(joined.carry_out(self._context), asyncio.get_running_loop())
        if task is not None:
            self._committing.add(task)
            task.add_done_callback(self._committing.discard)

    def _told(self, joined: JoinedWrites, outcomes: Sequence[Outcome]) -> None:
        """Reply to writes that have their outcomes."""
        self._reply(joined, joined.results(self._profile, outcomes))

    def _reply(self, joined: JoinedWrites, results: list[Result]) -> None:
        now = time.perf_counter()
        frames = joined.slot.frames
        counts: dict[tuple[str, str, float], int] = {}
        for request, (outcome, frame) in zip(joined.requests, results, strict=True):
            if frame is not None:
                frames.append(frame)
            counted = request.name, outcome, request.started
            counts[counted] = counts.get(counted, 0) + 1
        for (name, outcome, started), count in counts.items():
            self._observe("nemesis", name, outcome, now - started, count)
        self._done(len(joined.requests))
        self._replies.fill(joined.slot)
        self._replies.flush()
