"""Replies in the order of their requests, whichever is known first, and work on them that starts without a task.

Owns no socket: frames leave through a callback.
"""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from msgspec import Struct


class Slot(Struct):
    """The place of replies that are not known yet."""

    ready: bool = False
    frames: list[bytes] = []


class Replies:
    """A queue of frames with slots for those to come."""

    __slots__ = ("_emit", "_frames", "_settling", "_slots")

    def __init__(self, emit: Callable[[list[bytes]], None]) -> None:
        """`emit` gets frames to send, in order; an empty list says that a request without a reply is done."""
        self._emit = emit
        self._frames: list[bytes] = []
        self._slots: deque[Slot] = deque()
        self._settling: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> bool:
        """Whether a slot is reserved."""
        return bool(self._slots)

    def put(self, frame: bytes) -> None:
        """Append a frame."""
        if self._slots:
            self._slots.append(Slot(True, [frame]))
        else:
            self._frames.append(frame)

    def put_all(self, frames: list[bytes]) -> None:
        """Append frames while no slot is reserved."""
        self._frames += frames

    def reserve(self) -> Slot:
        """Append a slot."""
        slot = Slot()
        self._slots.append(slot)
        return slot

    def fill(self, slot: Slot) -> None:
        """The frames of a slot are known now."""
        slot.ready = True
        slots = self._slots
        while slots and slots[0].ready:
            self._frames += slots.popleft().frames
        if not slots and self._settling is not None:
            if not self._settling.done():
                self._settling.set_result(None)
            self._settling = None

    def flush(self) -> None:
        """Emit every frame that has none unknown before it."""
        frames, self._frames = self._frames, []
        self._emit(frames)

    async def settled(self) -> None:
        """Return when no slot is reserved any more. One caller at a time."""
        if self._slots:
            self._settling = asyncio.get_running_loop().create_future()
            await self._settling

    def stop(self) -> None:
        """Emit nothing from now on, since the client is gone."""
        self._emit = _discard


def _discard(_: list[bytes]) -> None:
    """Where frames go after `Replies.stop`."""


def start(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None] | None:
    """Run a coroutine up to where it has to wait; a task for the rest of it, or None if it has run to its end.

    Most work never has to wait, and a task would cost more than the work does. `loop` is the running one, which
    Python 3.11 finds by a system call.
    """
    try:
        waits_for = work.send(None)
    except StopIteration:
        return None
    return loop.create_task(_resume(work, waits_for))


async def _resume(work: Coroutine[Any, Any, None], waits_for: Any) -> None:
    await _rest(work, waits_for)


@types.coroutine
def _rest(work: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    while True:
        try:
            try:
                sent = yield waits_for
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:
                waits_for = work.throw(error)
            else:
                waits_for = work.send(sent)
        except StopIteration:
            return
