"""A connection's conversation: its commands in order, its replies in order, its writes together.

Every command starts after those before it, but a write need not wait for the commit of the one before: the store's
queue keeps their order. Everything else waits for the writes before it. Owns no socket and no clock.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from kvasir.access.authenticator import Authenticator
from kvasir.dialects.eager import start
from kvasir.dialects.nemesis.commands.context import CommandContext, Shared
from kvasir.dialects.nemesis.commands.profiles import Profile
from kvasir.dialects.nemesis.conversation.replies import Replies
from kvasir.dialects.nemesis.conversation.requests import (
    ABANDONED,
    JoinedReads,
    KeysRequest,
    OtherRequest,
    ReadRequest,
    RefusedRequest,
    Request,
    Result,
    WriteRequest,
    held,
    is_light,
    parse_request,
    render_failure,
)
from kvasir.dialects.nemesis.conversation.writes import Writes
from kvasir.dialects.nemesis.frames import NotText
from kvasir.dialects.nemesis.turn import LARGE_REPLY_BYTES, Turn
from kvasir.errors import KvasirError, Unauthenticated
from kvasir.jsontext import LIGHT_BYTES
from kvasir.model import Principal, Space

log = logging.getLogger(__name__)

#: Close codes of RFC 6455 that a conversation ends with.
NOT_UTF8, POLICY, INTERNAL, TRY_LATER = 1007, 1008, 1011, 1013

_NOBODY = Principal("", "none", "nobody")


class Conversation:
    """One connection, from its first message to its last."""

    def __init__(
        self,
        shared: Shared,
        profile: Profile,
        authorization: str | None,
        emit: Callable[[list[bytes]], None],
        finish: Callable[[int, str], None],
    ) -> None:
        """`emit` gets frames to send, in order (none when requests without replies are done); `finish` a close code
        and the reason, after which nothing is answered."""
        principal = shared.caller if isinstance(shared.caller, Principal) else _NOBODY
        self._context = CommandContext(shared, principal, self._send, self._may_end)
        self._store = shared.store
        self._auth = shared.caller if isinstance(shared.caller, Authenticator) else None
        self._profile, self._authorization = profile, authorization
        self._observe, self._heavy = shared.observe, shared.heavy
        self._limits, self._strict = shared.store.limits, shared.strict
        self._max_keys = shared.store.limits.batch_keys
        self._replies = Replies(emit)
        self._finish = finish
        self._loop = asyncio.get_running_loop()
        #: The epoch of the store's caches when a silent caller was last authenticated.
        self._epoch: int | None = -1
        self._queue: list[bytes | None] = []
        #: The first message of the queue, if it has been parsed already.
        self._parsed: Request | None = None
        self._reads: JoinedReads | None = None
        self._writes = Writes(self._context, profile, self._replies, shared.observe, self._done)
        #: The work in progress, if it had to wait for something.
        self._working: asyncio.Task[None] | None = None
        self._its_turn = Turn(shared.large)
        #: Whether what is being carried out ends when the client leaves, and whether it has left.
        self._abandons = self._dropped = False
        #: Messages received and not done with.
        self.unanswered = 0

    def look_after(self) -> None:
        """At the start and from time to time: check that a silent caller's access key is still valid."""
        if self._auth is not None and self._working is None and not self._queue:
            epoch = self._store.refresh_nowait()
            if epoch != self._epoch and (epoch is not None or self._epoch == -1):
                self._epoch = epoch
                self._go_on()

    def feed(self, messages: Sequence[bytes | None]) -> None:
        """Receive what arrived together, in order; None stands for a binary message.

        What takes no waiting is answered before this returns.
        """
        self.unanswered += len(messages)
        if self._working is None:
            self._its_turn.begin()
        if self._working is None and self._auth is None and not self._queue:
            if not self._replies.waiting:
                messages = self._answer_nowait(messages)
            if messages:
                messages = self._write_nowait(messages)
        self._queue += messages
        if self._working is None and self._queue:
            self._go_on()

    def _answer_nowait(self, messages: Sequence[bytes | None]) -> Sequence[bytes | None]:
        """Answer the messages at the head that take no waiting; returns the rest."""
        if self._store.refresh_nowait() is None:
            return messages
        started = time.perf_counter()
        context, profile, limits, strict = self._context, self._profile, self._limits, self._strict
        # Writes that arrive together share a call to the store.
        may_write = len(messages) == 1 and not self._store.writes_wait
        clock, its_turn, done = time.perf_counter, self._its_turn, 0
        frames: list[bytes] = []
        succeeded: dict[str, int] = {}
        for message in messages:
            # `is_over` and `is_light` without calls, which would cost a read a hundredth each
            if clock() > its_turn.until or (message and len(message) > LIGHT_BYTES and not is_light(message)):
                break
            try:
                request = parse_request(profile, message, limits, started, strict=strict)
            except NotText:
                break
            result = request.answer_nowait(context, profile, may_write)
            if result is None:
                self._parsed = request
                break
            outcome, frame = result
            if frame is not None:
                frames.append(frame)
                if len(frame) > LARGE_REPLY_BYTES:
                    its_turn.replied(frame)
            if outcome == "ok":
                succeeded[request.name] = succeeded.get(request.name, 0) + 1
            else:
                self._observe("nemesis", request.name, outcome, time.perf_counter() - started, 1)
            done += 1
        if not done:
            return messages
        seconds = time.perf_counter() - started
        for name, count in succeeded.items():
            self._observe("nemesis", name, "ok", seconds, count)
        self.unanswered -= done
        self._replies.put_all(frames)
        if done < len(messages):
            return messages[done:]
        self._replies.flush()
        return ()

    def _write_nowait(self, messages: Sequence[bytes | None]) -> Sequence[bytes | None]:
        """Begin the writes at the head, as far as that takes no waiting; returns the rest."""
        if self._store.refresh_nowait() is None:
            return messages
        started = time.perf_counter()
        done = 0
        try:
            for message in messages:
                if self._parsed is None:
                    if self._its_turn.is_over() or not is_light(message):
                        break
                    self._parsed = parse_request(self._profile, message, self._limits, started, strict=self._strict)
                request = self._parsed
                if not isinstance(request, WriteRequest):
                    break
                space = self._profile.space_nowait(self._context, request.body)
                if space is None or not self._writes.join(request, space):
                    break
                self._parsed = None
                done += 1
        except Exception:  # noqa: S110  # It fails again where failures are told.
            pass
        self._writes.submit()
        if done == len(messages):
            self._replies.flush()
        return messages[done:]

    def _go_on(self) -> None:
        try:
            self._working = start(self._work(), self._loop)
        except Exception:
            log.exception("a conversation failed")
            self._end(INTERNAL, "")
            return
        if self._working is not None:
            self._working.add_done_callback(self._rested)
        self._replies.flush()

    def _rested(self, task: asyncio.Task[None]) -> None:
        self._working = None
        if not task.cancelled() and task.exception() is not None:
            log.error("a conversation failed", exc_info=task.exception())
            self._end(INTERNAL, "")
        elif self._queue:
            self._its_turn.begin()
            self._go_on()

    async def settled(self) -> None:
        """Return when all messages received are done with."""
        while self._working is not None or self._replies.waiting:
            if self._working is not None:
                await asyncio.wait([self._working])
            await self._replies.settled()
            # Let the callbacks of those tasks, which may start others, run first.
            await asyncio.sleep(0)

    def drop(self) -> None:
        """The connection is gone: forget what has not started and end what only reads; the rest goes on to its end."""
        self._dropped = True
        self._queue.clear()
        if self._abandons and self._working is not None:
            self._working.cancel()
        self._replies.stop()
        self._finish = lambda _code, _why: None

    def _may_end(self, may: bool) -> None:
        """Whether what is being carried out ends if the client leaves; if it has left, it ends now."""
        self._abandons = may
        if may and self._dropped:
            raise asyncio.CancelledError

    # -- commands -----------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            messages, self._queue = self._queue, []
            try:
                await self._answer_all(messages)
            except Unauthenticated as refusal:
                return await self._stop(POLICY, refusal.message)
            except NotText:
                if self._reads is not None:
                    await self._read(self._reads)
                return await self._stop(NOT_UTF8, "a message is not UTF-8")
            except KvasirError as failure:
                return await self._stop(TRY_LATER, failure.message)
            self._writes.submit()
            if self._working is not None:
                self._replies.flush()
            if not self._queue:
                return None

    async def _answer_all(self, messages: Sequence[bytes | None]) -> None:
        started = time.perf_counter()
        await self._refresh()
        outdated = False
        for message in messages:
            if self._its_turn.is_over():
                await self._pause()
            if self._dropped:
                return
            if outdated or self._working is not None:
                # Time has passed since the caches were refreshed, or a command may have changed what they hold.
                await self._refresh()
            if self._parsed is None and message is not None and not is_light(message):
                await self._run_heavy(message, started)
                outdated = True
                continue
            request = self._join_next(message, started)
            outdated = request is not None
            if request is not None:
                await self._run(request)
        if self._reads is not None:
            await self._read(self._reads)

    async def _pause(self) -> None:
        """Send the replies so far, and let others have their turn."""
        self._replies.flush()
        await self._its_turn.others()

    async def _run_heavy(self, message: bytes, started: float) -> None:
        """Run a request that takes long to parse: beside the event loop, and few of them at a time."""
        if self._reads is not None:
            await self._read(self._reads)
        with self._context.preparing():
            async with held(self._profile, self._context, self._heavy, message, started, self._strict) as request:
                await self._run(request)
                await self._settle_writes()

    def _refresh(self) -> Awaitable[object]:
        """Refresh what is cached; with access keys, also who the caller is."""
        return self._store.refresh() if self._auth is None else self._authenticate(self._auth)

    async def _authenticate(self, auth: Authenticator) -> None:
        self._context.principal = await auth.authenticate(self._authorization, None)

    async def _stop(self, code: int, why: str) -> None:
        """Answer what has started, then end the conversation."""
        await self._settle_writes()
        self._end(code, why)

    def _end(self, code: int, why: str) -> None:
        self._writes.submit()
        self._queue.clear()
        self._replies.flush()
        self._finish(code, why)

    def _join_next(self, message: bytes | None, started: float) -> Request | None:
        """Let the next request join those before it if that takes no waiting; otherwise it is returned, to be run."""
        request, self._parsed = self._parsed, None
        if request is None:
            request = parse_request(self._profile, message, self._limits, started, strict=self._strict)
        if isinstance(request, KeysRequest):
            try:
                space = self._profile.space_nowait(self._context, request.body)
                if space is not None and self._join(request, space):
                    return None
            except KvasirError as failure:
                result = render_failure(self._profile, request, failure)
                return RefusedRequest(request.name, request.body, request.started, result)
        return request

    async def _run(self, request: Request) -> None:
        """Run a request that may have to wait."""
        if self._reads is not None:
            await self._read(self._reads)
        self._abandons = request.name in ABANDONED
        try:
            if isinstance(request, RefusedRequest):
                result = request.result
            elif isinstance(request, OtherRequest):
                await self._settle_writes()
                result = "ok", await request.command.run(self._context, request.body)
            else:
                space = await self._profile.space(self._context, request.body)
                if self._join(request, space):
                    return
                await self._settle_writes()
                result = await request.carry_out(self._context, self._profile, space)
        except Exception as error:
            result = render_failure(self._profile, request, error)
        finally:
            self._abandons = False
        self._answer(request, result)

    def _answer(self, request: Request, result: Result) -> None:
        outcome, frame = result
        if frame is not None:
            self._put(frame)
            self._its_turn.replied(frame)
        self.unanswered -= 1
        self._observe("nemesis", request.name, outcome, time.perf_counter() - request.started, 1)

    def _send(self, frame: bytes) -> None:
        """Send a frame of a command that is still running."""
        self._put(frame)
        self._replies.flush()

    def _put(self, frame: bytes) -> None:
        """Append a frame to the replies before it."""
        self._writes.submit()
        self._replies.put(frame)

    def _join(self, request: ReadRequest | WriteRequest, space: Space) -> bool:
        """Let a request join those before it that it can be carried out with; False if it cannot.

        Raises `KvasirError` for a request that makes no sense.
        """
        if isinstance(request, ReadRequest):
            reads = self._reads
            if len(request.names) > self._max_keys or (reads is not None and reads.space is not space):
                return False
            self._writes.submit()
            if reads is None:
                self._reads = JoinedReads(space, [request])
            else:
                reads.requests.append(request)
            return True
        if self._reads is not None:
            return False
        return self._writes.join(request, space)

    async def _read(self, reads: JoinedReads) -> None:
        """Carry out the reads that have joined."""
        self._reads = None
        await self._settle_writes()
        self._abandons = True
        async for request, result in reads.carry_out(self._context, self._profile):
            self._answer(request, result)
            if self._its_turn.is_over():
                await self._pause()
        self._abandons = False

    def _done(self, requests: int) -> None:
        self.unanswered -= requests

    async def _settle_writes(self) -> None:
        """Return when every write before this command is committed."""
        self._writes.submit()
        if self._replies.waiting:
            self._replies.flush()
            await self._replies.settled()
