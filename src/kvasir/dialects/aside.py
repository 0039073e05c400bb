"""Work that would hold the event loop for long, in a thread beside it: one piece at a time, in the order asked.

The interpreter lets the loop have its turn every few milliseconds, except while a single function written in C is at
work; so what is handed over is cut into pieces of which none is for long in such a function.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

# Its thread starts with the first piece of work, so after a server has forked its workers.
_thread = ThreadPoolExecutor(1, "kvasir-aside")


async def aside(work: Callable[[], T]) -> T:
    """The result of `work`, done in the thread. What has not begun when the caller is cancelled is not done."""
    return await asyncio.get_running_loop().run_in_executor(_thread, work)
