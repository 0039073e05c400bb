"""Replies in the order of their requests, whichever is known first. Owns no socket: frames leave through a callback."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

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
        self._settling: asyncio.Event | None = None

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
            self._settling.set()
            self._settling = None

    def flush(self) -> None:
        """Emit every frame that has none unknown before it."""
        frames, self._frames = self._frames, []
        self._emit(frames)

    async def settled(self) -> None:
        """Return when no slot is reserved any more."""
        if self._slots:
            self._settling = self._settling or asyncio.Event()
            await self._settling.wait()

    def stop(self) -> None:
        """Emit nothing from now on, since the client is gone."""
        self._emit = _discard


def _discard(_: list[bytes]) -> None:
    """Where frames go after `Replies.stop`."""
