"""Work on what the server holds already, such as rendering it, in a thread: one piece at a time, in the order asked.

The interpreter lets the event loop have its turn all the while, except while a single function written in C is at work;
so no piece is for long in such a function. Between two pieces the loop has a whole turn of its own, or it would meet
such a function again and again: it asks for the interpreter's lock anew behind every call of the system.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import TypeVar
from weakref import WeakKeyDictionary

from kvasir.model import Entry

T = TypeVar("T")

#: An answer about no more entries, and no more bytes of their values, is made in a millisecond.
LIGHT_ENTRIES, LIGHT_BYTES = 256, 1 << 20

#: Answers about more whose entries are in memory at once, as copies of what is in the database.
LARGE_ANSWERS = 2

Entries = Sequence[Entry | None]


class Line:
    """A thread, and who waits for it. It starts with the first piece of work, so after a server has forked."""

    def __init__(self, name: str) -> None:
        self.executor: Executor = ThreadPoolExecutor(1, name)
        #: Whose turn it is, for each event loop
        self._turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()

    async def do(self, work: Callable[[], T]) -> T:
        """The result of `work`. What has not begun when the caller is cancelled is not done, and not kept."""
        loop = asyncio.get_running_loop()
        turn = self._turns.get(loop)
        if turn is None:
            turn = self._turns[loop] = asyncio.Lock()
        await turn.acquire()
        working = loop.run_in_executor(self.executor, work)
        # Not before the thread is free, even if the caller leaves. The next learns of it a turn of the loop later.
        working.add_done_callback(lambda _: turn.release())
        try:
            return await asyncio.shield(working)
        finally:
            del working  # with a failure it would be a cycle, which keeps whatever its callers hold


_line = Line("kvasir-beside")
_places: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


async def in_thread(work: Callable[[], T]) -> T:
    """The result of `work`, done in the thread: see `Line.do`."""
    return await _line.do(work)


def is_light(about: Sequence[object]) -> bool:
    """Whether an answer about these entries or outcomes is made in a millisecond."""
    few = len(about) <= LIGHT_ENTRIES
    return few and sum([len(each.value) for each in about if isinstance(each, Entry)]) <= LIGHT_BYTES


async def rendered(about: Sequence[object], render: Callable[[], bytes]) -> bytes:
    """The answer that `render` makes about entries or outcomes; beside the event loop if that may take long."""
    return render() if is_light(about) else await in_thread(render)


async def read_and_rendered(read: Callable[[], Awaitable[Entries]], render: Callable[[Entries], bytes]) -> bytes:
    """The answer that `render` makes about the entries that `read` gives.

    If they are many or long, and so are those of `LARGE_ANSWERS` others which are not rendered yet, they are let go of,
    and read once more when those are done: else whatever is asked for at once would be in memory at once.
    """
    entries = await read()
    if is_light(entries):
        return render(entries)
    loop = asyncio.get_running_loop()
    places = _places.get(loop)
    if places is None:
        places = _places[loop] = asyncio.Semaphore(LARGE_ANSWERS)
    if places.locked():
        del entries
        async with places:
            return await in_thread(partial(render, await read()))
    async with places:
        return await in_thread(partial(render, entries))
