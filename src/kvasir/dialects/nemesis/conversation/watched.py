"""A conversation whose commands are watched: tells how long each took, with its parts. Owns no socket."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from kvasir.dialects.nemesis.conversation.conversation import Conversation
from kvasir.dialects.nemesis.conversation.requests import (
    JoinedReads,
    KeysRequest,
    ReadRequest,
    Request,
    Result,
    WriteRequest,
)
from kvasir.dialects.nemesis.conversation.writes import JoinedWrites, Writes
from kvasir.errors import KvasirError
from kvasir.keys import pack
from kvasir.model import DeleteRange
from kvasir.timing import AUTH, Finished, Timed, Watcher, current


class WatchedConversation(Conversation):
    """Like `Conversation`. Commands that are carried out together have their parts in common."""

    def __init__(self, *parts: Any, watcher: Watcher, header: Callable[[str], str | None]) -> None:
        """`parts`: those of `Conversation`. `header`: of the request that opened the connection."""
        super().__init__(*parts)
        self._writes = WatchedWrites(
            self._context, self._profile, self._replies, self._observe, self._done, conversation=self
        )
        self._watcher = watcher
        self._header = header
        self._ids = map((secrets.token_hex(6) + "-%x").__mod__, itertools.count(1))
        #: What belongs to all messages that are being answered: who the caller is
        self._turn = Timed()

    # -- which command is the current one -----------------------------------------------------------------

    def begin(self) -> None:
        """What is carried out from now on is another command, or several together."""
        timed = Timed()
        if self._turn.phases is not None and (auth := self._turn.phases.get(AUTH)):
            timed.phases = {AUTH: msgspec.structs.replace(auth)}  # that of the turn may go on growing
        current.set(timed)

    def _go_on(self) -> None:
        super()._go_on()
        current.set(None)

    async def _answer_all(self, messages: Sequence[bytes | None]) -> None:
        self._turn = Timed()
        await super()._answer_all(messages)

    def _refresh(self) -> Any:
        current.set(self._turn)
        return super()._refresh()

    async def _run(self, request: Request) -> None:
        if self._reads is not None:
            await self._read(self._reads)
        self.begin()
        await super()._run(request)

    async def _read(self, reads: JoinedReads) -> None:
        await self._settle_writes()
        self.begin()
        await super()._read(reads)

    def _write_nowait(self, messages: Sequence[bytes | None]) -> Sequence[bytes | None]:
        self._turn = Timed()
        return super()._write_nowait(messages)

    # -- what is told -------------------------------------------------------------------------------------

    def _answer_nowait(self, messages: Sequence[bytes | None]) -> Sequence[bytes | None]:
        timed, observe = Timed(), self._observe

        def told(api: str, name: str, outcome: str, seconds: float, count: int) -> None:
            observe(api, name, outcome, seconds, count)
            if len(messages) > 1:
                timed.key, timed.keys = None, 0  # that of another command, perhaps
            for _ in range(count if seconds >= self._watcher.seconds else 0):
                self._tell(name, outcome, time.perf_counter() - seconds, timed)

        self._observe = told
        current.set(timed)
        try:
            return super()._answer_nowait(messages)
        finally:
            self._observe = observe
            current.set(None)

    def _answer(self, request: Request, result: Result) -> None:
        super()._answer(request, result)
        self.consider(request, result[0], current.get() or Timed())

    def consider(self, request: Request, outcome: str, timed: Timed) -> None:
        """Tell of a command if it took long enough."""
        if time.perf_counter() - request.started < self._watcher.seconds:
            return
        if isinstance(request, KeysRequest):
            timed = self._alone(request, timed)
        self._tell(request.name, outcome, request.started, timed)

    def _alone(self, request: ReadRequest | WriteRequest, together: Timed) -> Timed:
        """What is to be told of a request that may have been carried out together with others."""
        timed = Timed()
        timed.phases = together.phases
        try:
            timed.space = self._profile.space_nowait(self._context, request.body)
        except KvasirError:
            return timed
        if isinstance(request, ReadRequest):
            keys = [pack((name,)) for name in request.names[:1]]
            timed.keys = len(request.names)
        else:
            mutations = [mutation for write in request.writes for mutation in write.mutations]
            keys = [mutation.key for mutation in mutations if not isinstance(mutation, DeleteRange)]
            timed.keys = len(keys)
        timed.key = keys[0] if keys else None
        return timed

    def _tell(self, name: str, outcome: str, started: float, timed: Timed) -> None:
        now = time.perf_counter()
        self._watcher.tell(
            Finished(next(self._ids), "nemesis", name, outcome, None, None, started, now, timed, self._header)
        )


class WatchedWrites(Writes):
    """Those of a `WatchedConversation`."""

    def __init__(self, *parts: Any, conversation: WatchedConversation) -> None:
        """`parts`: those of `Writes`."""
        super().__init__(*parts)
        self._conversation = conversation
        #: The writes that wait for their commit, by `id`, as they are timed
        self._timed: dict[int, Timed] = {}

    def submit(self) -> None:
        if (joined := self._joined) is not None:
            running = current.get()
            self._conversation.begin()
            self._timed[id(joined)] = current.get() or Timed()
            super().submit()
            current.set(running)

    def _reply(self, joined: JoinedWrites, results: list[Result]) -> None:
        super()._reply(joined, results)
        timed = self._timed.pop(id(joined))
        for request, (outcome, _) in zip(joined.requests, results, strict=True):
            self._conversation.consider(request, outcome, timed)
