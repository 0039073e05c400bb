"""The blocking client. Threads may share it."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Generator, Iterable, Iterator
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


class Client:
    """A server and who asks it. Close it, or use it in a `with` statement.

    `url` and `key` are by default what the variables KVASIR_URL and KVASIR_KEY say. `timeout`: seconds to wait for a
    part of an answer. `attempts`: how often a request may be sent if it is certain that sending it again is right.
    `verify`: the TLS settings to check the server's certificate by.
    """

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
            lambda connections: httpx2.Client(**self._address.options(timeout, verify, connections))
        )
        #: All that are open, of whatever operation
        self._streams: set[httpx2.Response] = set()

    def store(self, name: str | None = None) -> Store:
        """The store, or application, with this name or ULID; by default the one that KVASIR_STORE names.

        Asks the server nothing: a store that is not there is told by the first operation on it.
        """
        given = name or os.environ.get("KVASIR_STORE")
        if not given:
            raise Invalid("name a store, or set KVASIR_STORE")
        return Store(self, Operations(spaces.Reference(given), self._retries))

    def about(self) -> dict[str, Any]:
        """What the server says of itself and of the access key."""
        return self._run(spaces.about(self._retries))

    def spaces(self, kind: Kind | None = None) -> Generator[Space, None, None]:
        """The spaces that the access key may use, of all kinds or of one."""
        return self._iterate(spaces.list_all(kind, self._retries))

    def create_store(self, name: str, kind: Kind = "store") -> Space:
        """Make a store, or an application, unless there is one of this name already."""
        return self._run(spaces.create(name, kind, self._retries))

    def console_link(self) -> str:
        """An address by which one browser, within a minute, signs in to the console with the key's own rights."""
        return f"{self._address.url}{self._run(spaces.console_link(self._retries))}"

    def close(self) -> None:
        """Close all connections. What other threads are reading ends with `Invalid`, a watch among it."""
        ours = self._connections.end()
        for response in self._streams.copy() if ours else ():
            transport.cut(response)
        for http in ours:
            http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({str(self._address)!r})"

    # -- the driver: it takes the steps of the core, and decides nothing ----------------------------------------

    def _run(self, steps: Steps[T]) -> T:
        """The result of an operation."""
        taker = _Taker(self)
        try:
            step = next(steps)
            while True:
                step = advance(steps, taker.outcome(step))
        except StopIteration as done:
            result: T = done.value
            return result
        finally:
            taker.close()

    def _iterate(self, steps: Steps[None]) -> Generator[Any, None, None]:
        """The items that an operation gives."""
        taker = _Taker(self)
        try:
            step = next(steps)
            while True:
                if isinstance(step, Give):
                    yield step.item
                    step = next(steps)
                else:
                    step = advance(steps, taker.outcome(step))
        except StopIteration:
            return
        finally:
            taker.close()


class _Taker:
    """Takes the steps of one operation; keeps its stream."""

    def __init__(self, client: Client) -> None:
        self._connections, self._address, self._streams = client._connections, client._address, client._streams
        self._response: httpx2.Response | None = None
        self._pieces: Iterator[Any] = iter(())

    def outcome(self, step: Step) -> Any:
        """Take a step; what it yields, or the `NotSent` or `Lost` that it fails with."""
        try:
            if isinstance(step, Send):
                return self._send(step)
            if isinstance(step, Read):
                return next(self._pieces, None)
            if isinstance(step, Open):
                return self._open(step)
            if isinstance(step, Pause):
                return time.sleep(step.seconds)
        except transport.FAILURES as error:
            return self._address.failure(error)
        raise TypeError(f"no step of its own: {step!r}")

    def _send(self, step: Send) -> Answer:
        request, http = step.request, self._connections.requests()
        method, url, headers = self._address.request(request)
        timeout = http.timeout if step.silence is None else transport.answered_within(step.silence, http.timeout)
        content = request.body() if callable(request.body) else request.body
        response = http.request(method, url, headers=headers, content=content, timeout=timeout)
        return transport.answer(response, response.content)

    def _open(self, step: Open) -> Answer:
        self.close()
        method, url, headers = self._address.request(step.request)
        http = self._connections.streams()
        request = http.build_request(method, url, headers=headers)
        self._response = response = http.send(request, stream=True)
        self._streams.add(response)
        if response.status_code != 200:
            return transport.answer(response, response.read())
        transport.let_be_silent(request, step.silence)
        self._pieces = iter(httpx2.EventSource(response)) if step.events else response.iter_raw()
        return transport.answer(response, b"")

    def close(self) -> None:
        if self._response is not None:
            self._streams.discard(self._response)
            self._response.close()
            self._response = None


class Store:
    """The entries of one store, application or session. Made by `Client.store`."""

    def __init__(self, client: Client, operations: Operations) -> None:
        self._client = client
        self._do = operations

    def __repr__(self) -> str:
        return f"Store({self._do.space.given!r})"

    # -- one key ----------------------------------------------------------------------------------------------

    def get(self, key: Key, *, extend: bool = True) -> Entry | None:
        """The entry of a key; None: there is none. It extends a sliding life, unless `extend` is false."""
        return self._client._run(self._do.get(key, extend=extend))

    def set(
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
        """Replace value, metadata and expiry of a key as one; returns the new versionstamp.

        `value` is what JSON can express, or `Raw` with JSON text; so is `metadata`, an object. `ttl` is a text such as
        "24h", or a timedelta; with `refresh`, reading starts the life afresh. `keep` names what stays as it is:
        "expiry", "metadata".
        Raises `ConditionNotMet`, `UnknownOutcome`.
        """
        return self._client._run(
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

    def delete(self, key: Key, *, if_version: str | None = None) -> bool:
        """Remove a key; whether it was there. Raises `ConditionNotMet`, `UnknownOutcome`."""
        return self._client._run(self._do.delete(key, if_version=if_version))

    def touch(
        self, key: Key, *, ttl: Ttl | None = None, expires_at: datetime | None = None, extend: bool = False
    ) -> bool:
        """Change when a key expires, and nothing else; whether it was there.

        Without `ttl` and `expires_at` it no longer expires. `extend`: never to an earlier end than the present one.
        Raises `UnknownOutcome`.
        """
        return self._client._run(self._do.touch(key, ttl=ttl, expires_at=expires_at, extend=extend))

    def increment(
        self,
        key: Key,
        by: int = 1,
        *,
        initial: int = 0,
        ttl: Ttl | None = None,
        expires_at: datetime | None = None,
        if_present: bool = False,
    ) -> int:
        """Add to a whole number, exactly, whoever else does so at the time; returns the new number.

        An absent key begins with `initial`, to which `by` is added, and with this life; a present one keeps its life
        and metadata. Raises `ConditionNotMet` with `if_present`, `Invalid` if the value is no whole number or would
        have more than 63 bits, `UnknownOutcome`.
        """
        return self._client._run(
            self._do.increment(key, by, initial=initial, ttl=ttl, expires_at=expires_at, if_present=if_present)
        )

    def update(self, key: Key, change: Callable[[Any], T], *, default: Any = MISSING) -> T:
        """Set a key to what `change` makes of its value, which is called anew if somebody else was faster.

        Expiry and metadata stay as they are. Returns the new value. An absent key raises `NotFound`, unless there is a
        `default` to begin with. Raises `ConditionNotMet` if others are always faster, `UnknownOutcome`.
        """
        return self._client._run(self._do.update(key, change, default=default))

    # -- many keys --------------------------------------------------------------------------------------------

    def get_many(self, keys: Iterable[Key], *, extend: bool = True) -> list[Entry | None]:
        """The entries of these keys in one snapshot, in this order; None where there is none."""
        return self._client._run(self._do.get_many(keys, extend=extend))

    def transaction(self) -> Transaction:
        """For a `with` statement: its checks and mutations are sent as one at the end, unless an exception ends it."""
        return Transaction(self)

    def count(self, prefix: Key = ()) -> int:
        """How many keys begin with these parts; of no parts: how many there are."""
        return self._client._run(self._do.count(prefix))

    def delete_prefix(self, prefix: Key, *, expect: int | None = None, everything: bool = False) -> int:
        """Remove every key that begins with these parts, as one; returns how many there were.

        `expect`: only if there are exactly so many; otherwise raises `ConditionNotMet`. No parts at all are refused
        without `everything`. Raises `UnknownOutcome`.
        """
        return self._client._run(self._do.delete_prefix(prefix, expect=expect, everything=everything))

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
    ) -> Generator[Entry, None, None]:
        """The entries whose keys begin with these parts, page by page; each page is one snapshot.

        `metadata`: only those whose metadata contains all of this object. `values` false leaves the values out.
        """
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

    def children(self, prefix: Key = (), *, limit: int | None = None) -> Generator[Child, None, None]:
        """The parts that follow a prefix, in order, whatever the number of keys below them."""
        return self._client._iterate(self._do.children(prefix, limit=limit))

    def watch(self, prefix: Key = (), *, keys: Iterable[Key] | None = None) -> Generator[Event, None, None]:
        """What happens to the keys below a prefix, or to these keys, from now on and without end.

        It comes back by itself after a lost connection. See `Event`; an event may come twice.
        """
        return self._client._iterate(self._do.watch(prefix, keys))

    # -- the whole --------------------------------------------------------------------------------------------

    def export(self, target: str | Path | BinaryIO, prefix: Key = ()) -> int:
        """Write the entries below a prefix to a file as NDJSON, in one snapshot; returns how many.

        A path is only there if the export is whole. Raises `Unavailable` if it was cut.
        """
        with written(target) as file:
            for piece in self.export_pieces(prefix):
                file.write(piece)
            return file.entries

    def export_pieces(self, prefix: Key = ()) -> Generator[bytes, None, None]:
        """The NDJSON of `export`, in pieces of any size. Raises `Unavailable` at the end if it was cut."""
        return self._client._iterate(self._do.export(prefix))

    def load(
        self, source: str | Path | BinaryIO | Iterable[bytes], *, mode: Mode = "replace", dry_run: bool = False
    ) -> Loaded:
        """Set the entries in NDJSON, as `export` writes it or with `value` in the place of `text`.

        `mode` says what becomes of keys that exist: "replace", "keep", or "fail" at the first. Batches are durable one
        by one: what an import has set before it failed stays. Raises `UnknownOutcome`.
        """
        return self._client._run(self._do.load(lambda: pieces_of(source), mode=mode, dry_run=dry_run))

    def show(self) -> Space:
        """The store itself, with the number of its entries."""
        return self._client._run(spaces.show(self._do.space, self._do.retries))

    def end(self) -> None:
        """End the store with all its entries. This cannot be undone."""
        self._client._run(spaces.end(self._do.space, self._do.retries))


class Transaction(Changes):
    """See `Store.transaction`. After its `with` statement, `committed` has the versionstamp and the results."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store
        self.committed: Committed | None = None

    def commit(self) -> Committed:
        """Send it, once: what is done anew is another transaction.

        Raises `ConditionNotMet` with every check that failed, `UnknownOutcome`, and `Invalid` if it has been sent.
        """
        self.committed = self._store._client._run(self._store._do.atomic(self))
        return self.committed

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and len(self) and not self.sent:
            self.commit()


__all__ = ["Client", "Store", "Transaction"]
