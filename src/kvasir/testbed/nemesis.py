"""The NemesisDB API in a test bed: its conversations go through faults and the journal.

Imported only where the API is served: that takes a quarter of the time that a test bed needs to start.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Callable, Sequence

import msgspec

from kvasir.control import sessions, stores
from kvasir.dialects.nemesis.app import NemesisDialect
from kvasir.dialects.nemesis.commands import profile_09
from kvasir.dialects.nemesis.commands.context import Shared
from kvasir.dialects.nemesis.commands.profiles import NO_COMMAND, PROFILES, Profile
from kvasir.dialects.nemesis.conversation.conversation import Conversation
from kvasir.dialects.nemesis.conversation.requests import parse_request, render_failure
from kvasir.dialects.nemesis.frames import NotText
from kvasir.engines.numbering import wall_clock
from kvasir.errors import KvasirError, Unavailable
from kvasir.limits import Limits
from kvasir.model import Alias
from kvasir.testbed.bed import TestBed
from kvasir.testbed.calls import Call
from kvasir.testbed.faults import CLOSE, COMMIT_THEN_DROP, DELAY, DROP, FAILURES, Faults, Strike
from kvasir.testbed.forms import RATE_LIMITED, Named, items_of, keys_of
from kvasir.testbed.interception import ORDERED
from kvasir.testbed.journal import Journal

#: Ends a WebSocket without a close frame (RFC 6455, section 7.1.5).
ABNORMAL = 1006


class NemesisForm:
    """The NemesisDB API, for connections with one set of commands."""

    def __init__(self, named: Named, profile: Profile, store_name: Alias | None, limits: Limits) -> None:
        """`store_name`: of the one store that all commands are about; None: each names its session."""
        self._named = named
        self._profile = profile
        self._store_name = store_name
        self._limits = limits

    async def call(self, message: bytes | None) -> Call:
        """What a message asks for."""
        try:
            value = msgspec.json.decode(message or b"")
            ((name, body),) = value.items()
        except (AttributeError, ValueError, RecursionError):
            return Call("nemesis", NO_COMMAND)
        if name not in self._profile.commands or not isinstance(body, dict):
            return Call("nemesis", NO_COMMAND)
        alias = self._store_name or sessions.by_token(str(body.get("tkn", "")))
        named = body.get("keys", ())
        return Call("nemesis", name, await self._named.by_alias(alias), keys_of([each] for each in items_of(named)))

    def failure(self, message: bytes | None, error: KvasirError | None) -> bytes:
        """The frame that tells a failure; None: a rate limit, which this API has no word for but its message."""
        try:
            request = parse_request(self._profile, message, self._limits, 0.0)
        except NotText:
            request = parse_request(self._profile, None, self._limits, 0.0)
        return render_failure(self._profile, request, error or Unavailable(RATE_LIMITED))[1] or b""


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


class InterceptedNemesis:
    """A `kvasir.dialects.websocket.Dialect` around the one of the NemesisDB API."""

    def __init__(self, bed: TestBed, inner: NemesisDialect) -> None:
        self._bed = bed
        self._inner = inner
        self.needs_key = inner.needs_key
        store = bed.store
        named = Named(bed)
        alias = stores.by_name(bed.operator.organisation, profile_09.STORE)
        self._forms = {
            "session": NemesisForm(named, PROFILES["session"], None, store.limits),
            "0.9": NemesisForm(named, PROFILES["0.9"], alias, store.limits),
        }

    def converse(
        self,
        path: str,
        authorization: str | None,
        emit: Callable[[list[bytes]], None],
        finish: Callable[[int, str], None],
        header: Callable[[str], str | None],  # noqa: ARG002  # nobody watches in a test bed
    ) -> InterceptedConversation:
        shared = self._inner.shared
        name = path.strip("/") if path.strip("/") in PROFILES else shared.default_profile

        def make(shared: Shared, emit: Callable[[list[bytes]], None]) -> Conversation:
            return Conversation(shared, PROFILES[name], authorization, emit, finish)

        return InterceptedConversation(
            make, shared, self._forms[name], self._bed.faults, self._bed.journal, emit, finish
        )

    def close(self) -> None:
        self._inner.close()
