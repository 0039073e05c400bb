"""What stands between a listener and the dialects: strikes requests with faults, and writes the journal.

Each API tells its own failures; how is in `kvasir.testbed.forms`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence

from kvasir.dialects.http import Disconnected, HttpDialect, Request, Response
from kvasir.dialects.nemesis.commands.context import Shared
from kvasir.dialects.nemesis.conversation.conversation import Conversation
from kvasir.engines.numbering import wall_clock
from kvasir.errors import KvasirError
from kvasir.testbed.calls import Call
from kvasir.testbed.faults import CLOSE, COMMIT_THEN_DROP, DELAY, DROP, FAILURES, Faults, Strike
from kvasir.testbed.forms import HttpForm, NemesisForm
from kvasir.testbed.journal import Journal

#: Ends a WebSocket without a close frame (RFC 6455, section 7.1.5).
ABNORMAL = 1006

ORDERED = "this failure was ordered from the test bed"


class InterceptedHttp:
    """An `HttpDialect` around another."""

    def __init__(self, inner: HttpDialect, form: HttpForm, faults: Faults, journal: Journal) -> None:
        self.name = inner.name
        self.operations = inner.operations
        self.serves = inner.serves
        self.too_much = inner.too_much
        self._inner = inner
        self._form = form
        self._faults = faults
        self._journal = journal

    def answer_nowait(self, request: Request) -> bool:  # noqa: ARG002
        """Nothing is answered without a look at the faults."""
        return False

    async def __call__(self, request: Request) -> Response:
        at, started = wall_clock(), time.perf_counter()
        call = await self._form.call(request)
        strike = self._faults.strike(call)
        outcome = "internal"
        try:
            response = await (self._inner(request) if strike is None else self._struck(request, call, strike))
            outcome = response.outcome
        except Disconnected:
            outcome = DROP
            raise
        finally:
            if strike is not None and strike.outcome != DELAY:
                outcome = strike.outcome
            self._journal.add(call, at, outcome, (time.perf_counter() - started) * 1000, fault=strike is not None)
        return response

    async def _struck(self, request: Request, call: Call, strike: Strike) -> Response:
        await asyncio.sleep(strike.delay_ms / 1000)
        response = await self._inner(request) if strike.happens else None
        if strike.outcome in (DROP, COMMIT_THEN_DROP):
            raise Disconnected
        if strike.outcome == DELAY and response is not None:
            return response
        if failure := FAILURES.get(strike.outcome):
            return self._form.failure(failure(ORDERED), call.operation, request)
        return self._form.refusal(strike.code, call.operation)


class InterceptedConversation:
    """A `kvasir.dialects.websocket.Conversation` around one of the NemesisDB API: one message at a time."""

    def __init__(
        self,
        make: Callable[[Shared, Callable[[list[bytes]], None]], Conversation],
        shared: Shared,
        form: NemesisForm,
        faults: Faults,
        journal: Journal,
        emit: Callable[[list[bytes]], None],
        finish: Callable[[int, str], None],
    ) -> None:
        self._form = form
        self._faults = faults
        self._journal = journal
        self._emit = emit
        self._finish = finish
        self._observe = shared.observe
        self._outcome = "ok"
        #: Whether what the conversation answers is lost
        self._muted = False
        self._queue: list[bytes | None] = []
        self._working: asyncio.Task[None] | None = None
        self._inner = make(dataclasses.replace(shared, observe=self._observed), self._pass_on)

    @property
    def unanswered(self) -> int:
        return self._inner.unanswered + len(self._queue)

    def _observed(self, dialect: str, operation: str, outcome: str, seconds: float, requests: int) -> None:
        self._outcome = outcome
        self._observe(dialect, operation, outcome, seconds, requests)

    def look_after(self) -> None:
        self._inner.look_after()

    def feed(self, messages: Sequence[bytes | None]) -> None:
        self._queue += messages
        if self._working is None:
            self._working = asyncio.get_running_loop().create_task(self._work())

    async def settled(self) -> None:
        if self._working is not None:
            await asyncio.wait([self._working])
        await self._inner.settled()

    def drop(self) -> None:
        self._queue.clear()
        self._inner.drop()

    def _pass_on(self, frames: list[bytes]) -> None:
        if not self._muted:
            self._emit(frames)

    async def _work(self) -> None:
        try:
            while self._queue:
                await self._answer(self._queue[0])
                if self._queue:
                    del self._queue[0]
        finally:
            self._working = None

    async def _answer(self, message: bytes | None) -> None:
        at, started = wall_clock(), time.perf_counter()
        call = await self._form.call(message)
        strike = self._faults.strike(call)
        if strike is not None and strike.delay_ms:
            await asyncio.sleep(strike.delay_ms / 1000)
        if strike is None or strike.happens:
            self._muted = strike is not None and strike.outcome != DELAY
            self._inner.feed([message])
            await self._inner.settled()
            self._muted = False
        outcome = self._outcome
        if strike is not None and strike.outcome != DELAY:
            outcome = strike.outcome
            self._tell(message, strike)
        self._journal.add(call, at, outcome, (time.perf_counter() - started) * 1000, fault=strike is not None)

    def _tell(self, message: bytes | None, strike: Strike) -> None:
        if strike.outcome in (DROP, COMMIT_THEN_DROP):
            self._finish(ABNORMAL, "")
        elif strike.outcome == CLOSE:
            self._finish(strike.code, ORDERED)
        else:
            failure: type[KvasirError] | None = FAILURES.get(strike.outcome)
            self._emit([self._form.failure(message, failure(ORDERED) if failure else None)])
