"""Work that would hold the event loop for long, in a thread beside it: one piece at a time, in the order asked.

The interpreter lets the loop have its turn every few milliseconds, except while a single function written in C is at
work; so what is handed over is cut into pieces of which none is for long in such a function. Between two pieces the
loop has a whole turn of its own, or it would meet such a function again and again: it asks for the interpreter's lock
anew behind every call of the system.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from weakref import WeakKeyDictionary

from kvasir.model import Entry

T = TypeVar("T")

# Its thread starts with the first piece of work, so after a server has forked its workers.
_thread = ThreadPoolExecutor(1, "kvasir-aside")

#: Whose turn it is, for each event loop.
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


#: An answer about no more entries, and no more bytes of their values, is made in a millisecond.
LIGHT_ENTRIES, LIGHT_BYTES = 256, 1 << 20


async def aside(work: Callable[[], T]) -> T:
    """The result of `work`, done in the thread. What has not begun when the caller is cancelled is not done."""
    loop = asyncio.get_running_loop()
    turn = _turns.get(loop)
    if turn is None:
        turn = _turns[loop] = asyncio.Lock()
    await turn.acquire()
    working = loop.run_in_executor(_thread, work)
    # Not before the thread is free, even if the caller leaves. The next in line learns of it a turn of the loop later.
    working.add_done_callback(lambda _: turn.release())
    try:
        return await asyncio.shield(working)
    finally:
        del working  # with a failure it would be a cycle, which keeps whatever its callers hold


async def rendered(about: Sequence[object], render: Callable[[], bytes]) -> bytes:
    """The answer that `render` makes about entries or outcomes; beside the event loop if that may take long."""
    light = len(about) <= LIGHT_ENTRIES
    if light and sum([len(each.value) for each in about if isinstance(each, Entry)]) <= LIGHT_BYTES:
        return render()
    return await aside(render)
