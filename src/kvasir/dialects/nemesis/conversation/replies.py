"""Replies in the order of their requests, whatever is known first. Owns no socket: frames go out by a callback."""

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
    """A queue of frames with places held for those to come."""

    __slots__ = ("_emit", "_out", "_settling", "_slots")

    def __init__(self, emit: Callable[[list[bytes]], None]) -> None:
        """`emit` is given frames to send, in order, or none at all when there is only progress to tell."""
        self._emit = emit
        self._out: list[bytes] = []
        self._slots: deque[Slot] = deque()
        self._settling: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> bool:
        """Whether a place is held."""
        return bool(self._slots)

    def put(self, frame: bytes) -> None:
        """Append a frame."""
        if self._slots:
            self._slots.append(Slot(True, [frame]))
        else:
            self._out.append(frame)

    def put_all(self, frames: list[bytes]) -> None:
        """Append frames while no place is held."""
        self._out += frames

    def reserve(self) -> Slot:
        """Hold a place here."""
        slot = Slot()
        self._slots.append(slot)
        return slot

    def fill(self, slot: Slot) -> None:
        """The frames of a place are known."""
        slot.ready = True
        slots = self._slots
        while slots and slots[0].ready:
            self._out += slots.popleft().frames
        if not slots and self._settling is not None:
            if not self._settling.done():
                self._settling.set_result(None)
            self._settling = None

    def flush(self) -> None:
        """Emit what can be."""
        frames, self._out = self._out, []
        self._emit(frames)

    async def settled(self) -> None:
        """Return when no place is held any more. One caller at a time."""
        if self._slots:
            self._settling = asyncio.get_running_loop().create_future()
            await self._settling

    def stop(self) -> None:
        """Emit nothing from now on: nobody is there."""
        self._emit = _nowhere


def _nowhere(_: list[bytes]) -> None:
    """Where replies go then."""
