"""What stands between a listener and the dialects of HTTP: strikes requests with faults, and writes the journal.

Each API tells its own failures; how is in `kvasir.testbed.forms`. The NemesisDB API is in `kvasir.testbed.nemesis`.
"""

from __future__ import annotations

import asyncio
import time

from kvasir.dialects.http import Disconnected, HttpDialect, Request, Response
from kvasir.engines.numbering import wall_clock
from kvasir.testbed.calls import Call
from kvasir.testbed.faults import COMMIT_THEN_DROP, DELAY, DROP, FAILURES, Faults, Strike
from kvasir.testbed.forms import HttpForm
from kvasir.testbed.journal import Journal

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
