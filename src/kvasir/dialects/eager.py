"""Work that starts without a task. Pure asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any


def start(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None] | None:
    """Run a coroutine up to where it has to wait; a task for the rest of it, or None if it has run to its end.

    Most work never has to wait, and a task would cost more than the work does. `loop` is the running one, which
    Python 3.11 finds by a system call.
    """
    try:
        waits_for = work.send(None)
    except StopIteration:
        return None
    return loop.create_task(_Begun(work, waits_for))


class _Begun(Coroutine[Any, Any, None]):
    """The rest of a coroutine that waits for something, for a task.

    Not a coroutine around it: what cancels a task before its first step is thrown into what the task was given, and a
    coroutine that has not begun would pass nothing on.
    """

    def __init__(self, work: Coroutine[Any, Any, None], waits_for: Any) -> None:
        self._work = work
        self._waits_for = waits_for
        self._told = False

    def send(self, value: Any) -> Any:
        if self._told:
            return self._work.send(value)
        self._told = True
        return self._waits_for

    def throw(self, *error: Any) -> Any:
        self._told = True
        return self._work.throw(*error)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, None]:
        return self._work.__await__()
