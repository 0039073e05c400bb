"""A connection's conversation: its commands in order, its replies in order, its writes together.

Every command begins after those before it, but a write need not wait for the commit of the one before: the store's
queue keeps their order. Whatever is no write waits for the writes before it. Owns no socket and no clock.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

from kvasir.access.authenticator import Auth
from kvasir.dialects.nemesis.commands.context import Command, Shared, Talk
from kvasir.dialects.nemesis.commands.profiles import NO_COMMAND, Profile
from kvasir.dialects.nemesis.conversation import nowait
from kvasir.dialects.nemesis.conversation.eager import DONE, going_on, start
from kvasir.dialects.nemesis.conversation.replies import Replies, Slot
from kvasir.dialects.nemesis.conversation.requests import Begun, broken, failed, take_in, told
from kvasir.dialects.nemesis.frames import NotText
from kvasir.engine import Outcome
from kvasir.errors import KvasirError, Unauthenticated
from kvasir.keys import pack
from kvasir.model import Entry, Principal, Space

log = logging.getLogger(__name__)

#: Close codes of RFC 6455 that a conversation ends with.
NOT_UTF8, POLICY, INTERNAL, TRY_LATER = 1007, 1008, 1011, 1013

_NOBODY = Principal("", "none", "nobody")


class Conversation(Talk):
    """One connection, from its first message to its last."""

    def __init__(
        self,
        shared: Shared,
        profile: Profile,
        authorization: str | None,
        emit: Callable[[list[bytes]], None],
        finish: Callable[[int, str], None],
    ) -> None:
        """`emit` is given frames to send, in order (or none, when messages are done with that have no reply);
        `finish` a close code and the reason, after which nothing more is answered."""
        principal = shared.caller if isinstance(shared.caller, Principal) else _NOBODY
        super().__init__(shared.store, principal, shared.limits, shared.saves, shared.threads, self._say)
        self._auth = shared.caller if isinstance(shared.caller, Auth) else None
        self._profile = profile
        self._authorization = authorization
        self._observe = shared.observe
        self._max_depth = shared.store.limits.json_depth
        self._most = shared.store.limits.batch_keys
        self._replies = Replies(emit)
        self._finish = finish
        #: What the store's caches stood for when a silent caller was last recognised.
        self._epoch: int | None = -1
        self._loop = asyncio.get_running_loop()
        self._queue: list[bytes | None] = []
        #: The first message of the queue, if it was looked at already.
        self._taken: Begun | None = None
        self._reads: deque[Begun] = deque()
        self._reads_space: Space | None = None
        self._group: list[Begun] = []
        self._group_space: Space | None = None
        self._group_weight = 0
        #: The work in progress, if it had to wait for something.
        self._working: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        #: Messages taken in and not done with.
        self.unanswered = 0

    def look_after(self) -> None:
        """At the beginning, and once in a while: whether the access key of a silent caller is good."""
        if self._auth is not None and self._working is None and not self._queue:
            epoch = self.store.refresh_nowait()
            if epoch != self._epoch and (epoch is not None or self._epoch == -1):
                self._epoch = epoch
                self._go_on()

    def feed(self, messages: Sequence[bytes | None]) -> None:
        """Take in what arrived together, in order; None stands for a message that was binary.

        What needs no waiting is answered before this returns.
        """
        self.unanswered += len(messages)
        if self._working is None and self._auth is None and not self._queue and not self._replies.waiting:
            messages = self._answer_now(messages)
        self._queue += messages
        if self._working is None and self._queue:
            self._go_on()

    def _answer_now(self, messages: Sequence[bytes | None]) -> Sequence[bytes | None]:
        """Carry out what at their head needs no waiting; the rest is given back."""
        started = time.perf_counter()
        done, frames, counts, self._taken = nowait.answer(self, self._profile, messages, self._max_depth, started)
        if not done:
            return messages
        seconds = time.perf_counter() - started
        for (name, outcome), count in counts.items():
            self._observe("nemesis", name, outcome, seconds, count)
        self.unanswered -= done
        self._replies.put_all(frames)
        if done < len(messages):
            return messages[done:]
        self._replies.flush()
        return ()

    def _go_on(self) -> None:
        work = self._work()
        try:
            waits_for = start(work)
        except Exception:
            log.exception("a conversation broke off")
            self._end(INTERNAL, "")
            return
        if waits_for is not DONE:
            self._working = self._loop.create_task(going_on(work, waits_for))
            self._working.add_done_callback(self._rested)
        self._replies.flush()

    def _rested(self, task: asyncio.Task[None]) -> None:
        self._working = None
        if not task.cancelled() and task.exception() is not None:
            log.error("a conversation broke off", exc_info=task.exception())
            self._end(INTERNAL, "")
        elif self._queue:
            self._go_on()

    async def settled(self) -> None:
        """Return when everything taken in is done with."""
        while self._working is not None or self._tasks:
            waiting = [*self._tasks, *([self._working] if self._working else ())]
            await asyncio.wait(waiting)
            # The callbacks of the tasks, which may begin others, come first.
            await asyncio.sleep(0)

    def drop(self) -> None:
        """The connection is gone: forget what was not begun. What was begun goes on to its end."""
        self._queue.clear()
        self._replies.stop()
        self._finish = lambda _code, _why: None

    # -- commands -----------------------------------------------------------------------------------------

    async def _work(self) -> None:
        while True:
            messages, self._queue = self._queue, []
            started = time.perf_counter()
            try:
                await (self.store.refresh() if self._auth is None else self._recognise())
                for message in messages:
                    if self._working is not None:
                        # Time has passed since the caches were looked after.
                        await self._recognise()
                    begun = self._take(message, started)
                    if begun is not None:
                        await self._run(begun)
                if self._reads:
                    await self._read()
            except Unauthenticated as refusal:
                return await self._stop(POLICY, refusal.message)
            except NotText:
                return await self._stop(NOT_UTF8, "a message is not UTF-8")
            except KvasirError as failure:
                return await self._stop(TRY_LATER, failure.message)
            if self._group:
                self._submit()
            if self._working is not None:
                self._replies.flush()
            if not self._queue:
                return None

    async def _recognise(self) -> None:
        if self._auth is None:
            await self.store.refresh()
        else:
            self.principal = await self._auth.access_key(self._authorization, None)

    async def _stop(self, code: int, why: str) -> None:
        """Answer what was begun, then end the conversation."""
        await self._writes_first()
        self._end(code, why)

    def _end(self, code: int, why: str) -> None:
        if self._group:
            self._submit()
        self._queue.clear()
        self._replies.flush()
        self._finish(code, why)

    def _take(self, message: bytes | None, started: float) -> Begun | None:
        """Take in a message. What cannot be dealt with by joining others is returned, to be run."""
        begun, self._taken = self._taken, None
        if begun is None:
            begun = take_in(self._profile, message, self._max_depth, started)
        command = begun.command
        if begun.answer is None and command is not None and command.run is None:
            try:
                space = self._profile.cached(self, begun.body)
                if space is not None and self._join(begun, space):
                    return None
            except KvasirError as failure:
                begun.answer = failed(self._profile, command.name, begun.body, failure)
                begun.outcome = failure.code
        return begun

    async def _run(self, begun: Begun) -> None:
        """Run a command that may have to wait."""
        if self._reads:
            await self._read()
        command, body = begun.command, begun.body
        name = NO_COMMAND if command is None else command.name
        if command is None or begun.answer is not None:
            self._answer(name, begun.outcome, begun.answer, begun.started)
            return
        outcome = "ok"
        answer: bytes | None = None
        try:
            if command.run is not None:
                if self._group or self._replies.waiting:
                    await self._writes_first()
                answer = await command.run(self, body)
            else:
                space = await self._profile.space(self, body)
                if self._join(begun, space):
                    return
                answer = await self._alone(begun, space)
        except KvasirError as failure:
            outcome = failure.code
            answer = failed(self._profile, name, body, failure)
        except Exception:
            outcome = "internal"
            answer = broken(self._profile, name)
        self._answer(name, outcome, answer, begun.started)

    async def _alone(self, begun: Begun, space: Space) -> bytes | None:
        """Carry out a write or a read that is too heavy to share."""
        command, body = cast("Command", begun.command), begun.body
        await self._writes_first()
        if command.shown is not None:
            return self._showing(begun, await self.get(space, begun.names))
        outcomes = await self.write_slices(space, begun.writes)
        return command.told(body, outcomes)  # type: ignore[misc]

    def _answer(self, name: str, outcome: str, frame: bytes | None, started: float) -> None:
        if frame is not None:
            self._put(frame)
        self.unanswered -= 1
        self._observe("nemesis", name, outcome, time.perf_counter() - started, 1)

    # -- writes -------------------------------------------------------------------------------------------

    def _join(self, begun: Begun, space: Space) -> bool:
        """Let a write or a read join those before it that it may be carried out with; False if it cannot.

        Raises `KvasirError` for one that makes no sense.
        """
        command = cast("Command", begun.command)
        if command.shown is not None:
            names = begun.names = [name for name in begun.body["keys"] if name.__class__ is str]
            if len(names) > self._most or (self._reads and self._reads_space is not space):
                return False
            if self._group:
                self._submit()
            self._reads.append(begun)
            self._reads_space = space
            return True
        if self._reads:
            return False
        return self._join_writes(begun, command, space)

    def _join_writes(self, begun: Begun, command: Command, space: Space) -> bool:
        writes = begun.writes = command.writes(space.number, self._most, begun.body)  # type: ignore[misc]
        weight = len(writes[0].mutations) if len(writes) == 1 else sum(len(write.mutations) for write in writes)
        if weight > self._most:
            return False
        if self._group and (space is not self._group_space or self._group_weight + weight > self._most):
            self._submit()
        self._group.append(begun)
        self._group_space = space
        self._group_weight += weight
        return True

    # -- reads --------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        """Carry out the reads that came together, as far as they fit into one."""
        if len(self._reads) == 1 and not self._replies.waiting:
            await self._read_singly([self._reads.pop()])
        while self._reads:
            group: list[Begun] = []
            keys: list[bytes] = []
            while self._reads and len(keys) + len(self._reads[0].names) <= self._most:
                begun = self._reads.popleft()
                group.append(begun)
                keys += [pack((name,)) for name in begun.names]
            if self._replies.waiting:
                await self._writes_first()
            entries: list[Entry | None] = []
            try:
                if keys:
                    entries = await self.store.get(self.principal, cast("Space", self._reads_space), keys)
            except Exception:
                # Perhaps the caller may not read the keys of one of them.
                await self._read_singly(group)
                continue
            position = 0
            for begun in group:
                end = position + len(begun.names)
                self._show(begun, entries[position:end])
                position = end

    async def _read_singly(self, group: list[Begun]) -> None:
        for begun in group:
            name = cast("Command", begun.command).name
            try:
                entries = await self.get(cast("Space", self._reads_space), begun.names) if begun.names else []
            except KvasirError as failure:
                self._answer(name, failure.code, failed(self._profile, name, begun.body, failure), begun.started)
            except Exception:
                self._answer(name, "internal", broken(self._profile, name), begun.started)
            else:
                self._show(begun, entries)

    def _show(self, begun: Begun, entries: list[Entry | None]) -> None:
        name = cast("Command", begun.command).name
        outcome = "ok"
        try:
            frame = self._showing(begun, entries)
        except KvasirError as error:
            outcome = error.code
            frame = failed(self._profile, name, begun.body, error)
        self._answer(name, outcome, frame, begun.started)

    def _showing(self, begun: Begun, entries: list[Entry | None]) -> bytes:
        if len(entries) > 1 and sum(len(e.value) for e in entries if e is not None) > self.limits.reply_bytes:
            raise self.too_much()
        return begun.command.shown(begun.body, begun.names, entries)  # type: ignore[misc,union-attr]

    async def _writes_first(self) -> None:
        """Let every write before this command be committed."""
        if self._group:
            self._submit()
        if self._replies.waiting:
            self._replies.flush()
            await self._replies.settled()

    def _submit(self) -> None:
        """Hand the gathered writes to the store as one lot, and go on without waiting for their commit."""
        group, space = self._group, cast("Space", self._group_space)
        self._group, self._group_space, self._group_weight = [], None, 0
        slot = self._replies.reserve()
        work = self._commit(group, space, slot)
        waits_for = start(work)
        if waits_for is not DONE:
            task = self._loop.create_task(going_on(work, waits_for))
            self._tasks.add(task)
            task.add_done_callback(self._committed)

    def _committed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._replies.flush()

    async def _commit(self, group: list[Begun], space: Space, slot: Slot) -> None:
        outcomes: Sequence[Outcome]
        writes = [write for begun in group for write in begun.writes]
        try:
            outcomes = await self.store.write_many(self.principal, space, writes) if writes else ()
        except KvasirError as failure:
            outcomes = [failure] * len(writes)
        except Exception:
            log.exception("writing failed")
            outcomes = [KvasirError("")] * len(writes)
        position = 0
        now = time.perf_counter()
        for begun in group:
            end = position + len(begun.writes)
            outcome, frame = told(self._profile, begun, outcomes[position:end])
            if frame is not None:
                slot.frames.append(frame)
            self._observe("nemesis", cast("Command", begun.command).name, outcome, now - begun.started, 1)
            position = end
        self.unanswered -= len(group)
        self._replies.fill(slot)

    def _say(self, frame: bytes) -> None:
        """Send a frame of a command that is not at its end."""
        self._put(frame)
        self._replies.flush()

    def _put(self, frame: bytes) -> None:
        """Append a reply to those before it."""
        if self._group:
            self._submit()
        self._replies.put(frame)
