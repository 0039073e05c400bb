"""The client for asyncio: the same words as in `client`, which says what they mean."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TypeVar

import httpx2

from kvasir_client import spaces, transport
from kvasir_client.answers import Retries
from kvasir_client.entries import Child, Committed, Entry, Event, Loaded, Raw, Space
from kvasir_client.errors import Invalid
from kvasir_client.files import pieces_of, written
from kvasir_client.keys import Key
from kvasir_client.operations import MISSING, Keep, Mode, Operations, Order
from kvasir_client.spaces import Kind
from kvasir_client.times import Ttl
from kvasir_client.transactions import Changes
from kvasir_client.wire import Answer, Give, Open, Pause, Read, Send, Step, Steps, advance

T = TypeVar("T")


class AsyncClient:
    """See `Client`. Close it, or use it in an `async with` statement, in the event loop that it is used in."""

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        timeout: float = 30.0,
        attempts: int = 4,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self._address = transport.Address(url, key)
        self._retries = Retries(attempts)
        self._connections = transport.Connections(
            lambda connections: httpx2.AsyncClient(**self._address.options(timeout, verify, connections))
        )

    def store(self, name: str | None = None) -> AsyncStore:
        """See `Client.store`."""
        given = name or os.environ.get("KVASIR_STORE")
        if not given:
            raise Invalid("name a store, or set KVASIR_STORE")
        return AsyncStore(self, Operations(spaces.Reference(given), self._retries))

    async def about(self) -> dict[str, Any]:
        """See `Client.about`."""
        return await self._run(spaces.about(self._retries))

    async def console_link(self) -> str:
        """See `Client.console_link`."""
        return f"{self._address.url}{await self._run(spaces.console_link(self._retries))}"

    def spaces(self, kind: Kind | None = None) -> AsyncGenerator[Space, None]:
        """See `Client.spaces`."""
        return self._iterate(spaces.list_all(kind, self._retries))

    async def create_store(self, name: str, kind: Kind = "store") -> Space:
        """See `Client.create_store`."""
        return await self._run(spaces.create(name, kind, self._retries))

    async def close(self) -> None:
        """See `Client.close`."""
        for http in self._connections.end():
            await http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({str(self._address)!r})"

    # -- the driver: it takes the steps of the core, and decides nothing ----------------------------------------

    async def _run(self, steps: Steps[T]) -> T:
        """The result of an operation."""
        taker = _Taker(self._connections, self._address)
        try:
            step = next(steps)
            while True:
                step = advance(steps, await taker.outcome(step))
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            await taker.close()

    async def _iterate(self, steps: Steps[None]) -> AsyncGenerator[Any, None]:
        """The items that an operation gives."""
        taker = _Taker(self._connections, self._address)
        try:
            step = next(steps)
            while True:
                if isinstance(step, Give):
                    yield step.item
                    step = next(steps)
                else:
                    step = advance(steps, await taker.outcome(step))
        except StopIteration:
            return
        finally:
            await taker.close()


class _Taker:
    """Takes the steps of one operation; keeps its stream."""

    def __init__(self, connections: transport.Connections[httpx2.AsyncClient], address: transport.Address) -> None:
        self._connections = connections
        self._address = address
        self._response: httpx2.Response | None = None
        self._pieces: AsyncIterator[Any] | None = None

    async def outcome(self, step: Step) -> Any:
        """Take a step; what it yields, or the `NotSent` or `Lost` that it fails with."""
        try:
            if isinstance(step, Send):
                return await self._send(step)
            if isinstance(step, Read):
                return None if self._pieces is None else await anext(self._pieces, None)
            if isinstance(step, Open):
                return await self._open(step)
            if isinstance(step, Pause):
                return await asyncio.sleep(step.seconds)
        except transport.FAILURES as error:
            return self._address.failure(error)
        raise TypeError(f"no step of its own: {step!r}")

    async def _send(self, step: Send) -> Answer:
        request, http = step.request, self._connections.requests()
        method, url, headers = self._address.request(request)
        timeout = http.timeout if step.silence is None else transport.answered_within(step.silence, http.timeout)
        content = _without_blocking(request.body()) if callable(request.body) else request.body
        response = await http.request(method, url, headers=headers, content=content, timeout=timeout)
        return transport.answer(response, response.content)

    async def _open(self, step: Open) -> Answer:
        await self.close()
        method, url, headers = self._address.request(step.request)
        http = self._connections.streams()
        request = http.build_request(method, url, headers=headers)
        self._response = response = await http.send(request, stream=True)
        if response.status_code != 200:
            return transport.answer(response, await response.aread())
        transport.let_be_silent(request, step.silence)
        self._pieces = aiter(httpx2.EventSource(response)) if step.events else response.aiter_raw()
        return transport.answer(response, b"")

    async def close(self) -> None:
        if self._response is not None:
            await self._response.aclose()
            self._response = self._pieces = None


async def _without_blocking(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """The pieces of a file, each read in a thread of its own."""
    source: Iterator[bytes] = iter(pieces)
    while (piece := await asyncio.to_thread(next, source, None)) is not None:
        yield piece


class AsyncStore:
    """The entries of one store, application or session. Made by `AsyncClient.store`."""

    def __init__(self, client: AsyncClient, operations: Operations) -> None:
        self._client = client
        self._do = operations

    def __repr__(self) -> str:
        return f"AsyncStore({self._do.space.given!r})"

    # -- one key ----------------------------------------------------------------------------------------------

    async def get(self, key: Key, *, extend: bool = True) -> Entry | None:
        """See `Store.get`."""
        return await self._client._run(self._do.get(key, extend=extend))

    async def set(
        self,
        key: Key,
        value: Any,
        *,
        ttl: Ttl | None = None,
        expires_at: datetime | None = None,
        refresh: bool = False,
        metadata: dict[str, Any] | Raw | None = None,
        keep: Iterable[Keep] = (),
        if_absent: bool = False,
        if_present: bool = False,
        if_version: str | None = None,
    ) -> str:
        """See `Store.set`."""
        return await self._client._run(
            self._do.set(
                key,
                value,
                ttl=ttl,
                expires_at=expires_at,
                refresh=refresh,
                metadata=metadata,
                keep=keep,
                if_absent=if_absent,
                if_present=if_present,
                if_version=if_version,
            )
        )

    async def delete(self, key: Key, *, if_version: str | None = None) -> bool:
        """See `Store.delete`."""
        return await self._client._run(self._do.delete(key, if_version=if_version))

    async def touch(
        self, key: Key, *, ttl: Ttl | None = None, expires_at: datetime | None = None, extend: bool = False
    ) -> bool:
        """See `Store.touch`."""
        return await self._client._run(self._do.touch(key, ttl=ttl, expires_at=expires_at, extend=extend))

    async def increment(
        self,
        key: Key,
        by: int = 1,
        *,
        initial: int = 0,
        ttl: Ttl | None = None,
        expires_at: datetime | None = None,
        if_present: bool = False,
    ) -> int:
        """See `Store.increment`."""
        return await self._client._run(
            self._do.increment(key, by, initial=initial, ttl=ttl, expires_at=expires_at, if_present=if_present)
        )

    async def update(self, key: Key, change: Callable[[Any], T], *, default: Any = MISSING) -> T:
        """See `Store.update`."""
        return await self._client._run(self._do.update(key, change, default=default))

    # -- many keys --------------------------------------------------------------------------------------------

    async def get_many(self, keys: Iterable[Key], *, extend: bool = True) -> list[Entry | None]:
        """See `Store.get_many`."""
        return await self._client._run(self._do.get_many(keys, extend=extend))

    def transaction(self) -> AsyncTransaction:
        """See `Store.transaction`."""
        return AsyncTransaction(self)

    async def count(self, prefix: Key = ()) -> int:
        """See `Store.count`."""
        return await self._client._run(self._do.count(prefix))

    async def delete_prefix(self, prefix: Key, *, expect: int | None = None, everything: bool = False) -> int:
        """See `Store.delete_prefix`."""
        return await self._client._run(self._do.delete_prefix(prefix, expect=expect, everything=everything))

    def scan(
        self,
        prefix: Key = (),
        *,
        order: Order = "key",
        limit: int | None = None,
        values: bool = True,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> AsyncGenerator[Entry, None]:
        """See `Store.scan`."""
        steps = self._do.scan(
            prefix,
            order=order,
            limit=limit,
            values=values,
            created_from=created_from,
            created_to=created_to,
            metadata=metadata,
        )
        return self._client._iterate(steps)

    def children(self, prefix: Key = (), *, limit: int | None = None) -> AsyncGenerator[Child, None]:
        """See `Store.children`."""
        return self._client._iterate(self._do.children(prefix, limit=limit))

    def watch(self, prefix: Key = (), *, keys: Iterable[Key] | None = None) -> AsyncGenerator[Event, None]:
        """See `Store.watch`."""
        return self._client._iterate(self._do.watch(prefix, keys))

    # -- the whole --------------------------------------------------------------------------------------------

    async def export(self, target: str | Path | BinaryIO, prefix: Key = ()) -> int:
        """See `Store.export`."""
        with written(target) as file:
            async for piece in self.export_pieces(prefix):
                await asyncio.to_thread(file.write, piece)
            return file.entries

    def export_pieces(self, prefix: Key = ()) -> AsyncGenerator[bytes, None]:
        """See `Store.export_pieces`."""
        return self._client._iterate(self._do.export(prefix))

    async def load(
        self, source: str | Path | BinaryIO | Iterable[bytes], *, mode: Mode = "replace", dry_run: bool = False
    ) -> Loaded:
        """See `Store.load`."""
        return await self._client._run(self._do.load(lambda: pieces_of(source), mode=mode, dry_run=dry_run))

    async def show(self) -> Space:
        """See `Store.show`."""
        return await self._client._run(spaces.show(self._do.space, self._do.retries))

    async def end(self) -> None:
        """See `Store.end`."""
        await self._client._run(spaces.end(self._do.space, self._do.retries))


class AsyncTransaction(Changes):
    """See `Store.transaction`. After its `with` statement, `committed` has the versionstamp and the results."""

    def __init__(self, store: AsyncStore) -> None:
        super().__init__()
        self._store = store
        self.committed: Committed | None = None

    async def commit(self) -> Committed:
        """See `Transaction.commit`."""
        self.committed = await self._store._client._run(self._store._do.atomic(self))
        return self.committed

    async def __aenter__(self) -> AsyncTransaction:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and len(self) and not self.sent:
            await self.commit()


__all__ = ["AsyncClient", "AsyncStore", "AsyncTransaction"]
