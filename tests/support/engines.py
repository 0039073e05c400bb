"""The engine under a dialect that is tried in the process of the tests: memory, or with `--engine` a durable one."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any, cast

from kvasir.engine import Clock, Engine, Outcome, Waiter
from kvasir.engines.memory import MemoryEngine
from kvasir.errors import KvasirError
from kvasir.model import Write

#: How an engine of a fresh database is made, not yet open; None: it is the memory engine.
make_durable: Callable[[Clock], Engine] | None = None

_elsewhere = contextlib.ExitStack()


def new_engine(clock: Clock) -> Engine:
    """An open engine without entries. A durable one is closed by `close_engines`, after the test."""
    if make_durable is None:
        return MemoryEngine(clock)
    return cast("Engine", _elsewhere.enter_context(Elsewhere(make_durable(clock))))


def close_engines() -> None:
    """Close what `new_engine` has opened."""
    _elsewhere.close()


class Elsewhere:
    """An engine in an event loop of its own, in a thread: it wants one for its life, tests make one for each call."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Elsewhere:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._engine.open(), self._loop).result(60)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._engine.close(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def submit(self, writes: Sequence[Write], waiter: Waiter) -> None:
        """See `Engine.submit`. Like a coroutine's caller, the waiter is told in the loop that this is called in."""

        async def written() -> list[Outcome]:
            return await self._engine.write(writes)

        def tell(future: asyncio.Future[list[Outcome]]) -> None:
            error = future.exception()
            if error is None:
                waiter.set_result(future.result())
            else:
                assert isinstance(error, KvasirError)
                waiter.set_exception(error)

        asyncio.wrap_future(asyncio.run_coroutine_threadsafe(written(), self._loop)).add_done_callback(tell)

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._engine, name)
        if not inspect.iscoroutinefunction(member):
            return member

        async def call(*arguments: Any, **named: Any) -> Any:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(member(*arguments, **named), self._loop))

        return call
