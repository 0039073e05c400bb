"""Work with a time limit that a client has asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import TypeVar

from kvasir.errors import Timeout

T = TypeVar("T")


async def within(deadline_ms: float | None, work: Awaitable[T]) -> T:
    """Await `work`, for at most this many milliseconds. Raises `Timeout`."""
    if deadline_ms is None:
        return await work
    deadline = time.monotonic() + deadline_ms / 1000
    # Not asyncio.timeout, which asks for a task: a request is begun without one.
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((task,), timeout=deadline_ms / 1000)
    finally:
        task.cancel()
    # Work that never waits cannot be interrupted, but it can be late.
    if task.done() and not task.cancelled() and time.monotonic() <= deadline:
        return task.result()
    raise Timeout(f"there was no answer within the {deadline_ms:g} ms asked for")
