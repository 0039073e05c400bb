"""Runs the asynchronous client like the blocking one, so that one test tries both."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any, cast

from kvasir_client import AsyncClient, AsyncStore, AsyncTransaction, Client


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(120)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Blocking:
    """Something asynchronous whose methods block: coroutines are awaited, what is asynchronous is wrapped, too."""

    def __init__(self, inner: Any, loop: Loop) -> None:
        self._inner = inner
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            return self._wrap(found(*arguments, **options))

        return call

    def _wrap(self, found: Any) -> Any:
        if asyncio.iscoroutine(found):
            return self._loop.run(found)
        if isinstance(found, AsyncStore | AsyncTransaction):
            return Blocking(found, self._loop)
        return self._items(found) if isinstance(found, AsyncIterator) else found

    def _items(self, found: Any) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(found, StopIteration)

        try:
            while (item := self._loop.run(following())) is not StopIteration:
                yield item
        finally:
            self._loop.run(found.aclose())

    def __enter__(self) -> Blocking:
        self._loop.run(self._inner.__aenter__())
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.run(self._inner.__aexit__(*error))


def blocking_client(loop: Loop, *arguments: Any, **options: Any) -> Client:
    """An `AsyncClient` to be used like a `Client`."""

    async def make() -> AsyncClient:
        return AsyncClient(*arguments, **options)

    return cast("Client", Blocking(loop.run(make()), loop))
