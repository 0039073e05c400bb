"""A store for py-key-value-aio, in which FastMCP and others keep their state: `pip install kvasir-client[key-value]`.

A collection is the first part of a key below the prefix, the key in it the second. The value is the entry's own value,
and the life is the entry's own: every program that reads the store sees both as they are.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime, timedelta

from key_value.aio.errors import SerializationError
from key_value.aio.stores.base import (
    BaseContextManagerStore,
    BaseDestroyCollectionStore,
    BaseDestroyStore,
    BaseEnumerateCollectionsStore,
    BaseEnumerateKeysStore,
    ManagedEntry,
)

from kvasir_client.aio import AsyncClient, AsyncStore, AsyncTransaction
from kvasir_client.entries import Entry, Raw
from kvasir_client.errors import TooLarge
from kvasir_client.keys import Key, prefix_of
from kvasir_client.times import LONGEST
from kvasir_client.wire import dumps

#: The most keys that one transaction of deletions, and one reading of many, may have.
BATCH = 1_000


class KvasirStore(
    BaseDestroyStore,
    BaseDestroyCollectionStore,
    BaseEnumerateCollectionsStore,
    BaseEnumerateKeysStore,
    BaseContextManagerStore,
):
    """Keeps collections below a prefix of a store.

    `client` stays open when this store is closed; without one it is made of `url` and `key`, or of the variables
    KVASIR_URL and KVASIR_KEY. `store` is a name or ULID, by default what KVASIR_STORE says.
    """

    def __init__(
        self,
        *,
        url: str | None = None,
        key: str | None = None,
        client: AsyncClient | None = None,
        store: str | None = None,
        prefix: Key = (),
        default_collection: str | None = None,
    ) -> None:
        self._client = client or AsyncClient(url, key=key)
        self._store: AsyncStore = self._client.store(store)
        self._prefix = prefix_of(prefix)
        super().__init__(
            client_provided_by_user=client is not None, default_collection=default_collection, stable_api=True
        )

    async def _setup(self) -> None:
        if not self._client_provided_by_user:
            self._exit_stack.push_async_callback(self._client.close)

    def _key(self, collection: str, key: str) -> tuple[str, ...]:
        return (*self._prefix, collection, key)

    async def _get_managed_entry(self, *, collection: str, key: str) -> ManagedEntry | None:
        return _managed(await self._store.get(self._key(collection, key)))

    async def _get_managed_entries(self, *, collection: str, keys: Sequence[str]) -> list[ManagedEntry | None]:
        found: list[ManagedEntry | None] = []
        for begin in range(0, len(keys), BATCH):
            found += await self._get_many([self._key(collection, key) for key in keys[begin : begin + BATCH]])
        return found

    async def _get_many(self, keys: list[tuple[str, ...]]) -> list[ManagedEntry | None]:
        """All in one snapshot, unless their values are too long for one answer."""
        try:
            return list(map(_managed, await self._store.get_many(keys)))
        except TooLarge:
            if len(keys) == 1:
                raise
        half = len(keys) // 2
        return await self._get_many(keys[:half]) + await self._get_many(keys[half:])

    async def _put_managed_entry(self, *, collection: str, key: str, managed_entry: ManagedEntry) -> None:
        await self._store.set(self._key(collection, key), _text(managed_entry), ttl=_ttl(managed_entry.ttl))

    async def _put_managed_entries(
        self,
        *,
        collection: str,
        keys: Sequence[str],
        managed_entries: Sequence[ManagedEntry],
        ttl: float | None,
        created_at: datetime,  # noqa: ARG002 - the server has a clock of its own
        expires_at: datetime | None,  # noqa: ARG002
    ) -> None:
        transaction = self._store.transaction()
        for key, entry in zip(keys, managed_entries, strict=True):
            transaction.set(self._key(collection, key), _text(entry), ttl=_ttl(ttl))
            if transaction.full:
                await transaction.commit()
                transaction = self._store.transaction()
        if len(transaction):
            await transaction.commit()

    async def _delete_managed_entry(self, *, key: str, collection: str) -> bool:
        return await self._store.delete(self._key(collection, key))

    async def _delete_managed_entries(self, *, keys: Sequence[str], collection: str) -> int:
        removed = 0
        for begin in range(0, len(keys), BATCH):
            transaction: AsyncTransaction = self._store.transaction()
            for key in keys[begin : begin + BATCH]:
                transaction.delete(self._key(collection, key))
            removed += sum(number or 0 for number in (await transaction.commit()).results)
        return removed

    async def _get_collection_keys(self, *, collection: str, limit: int | None = None) -> list[str]:
        children = self._store.children((*self._prefix, collection))
        return await _first(limit, (child.part async for child in children if child.entry))

    async def _get_collection_names(self, *, limit: int | None = None) -> list[str]:
        children = self._store.children(self._prefix)
        return await _first(limit, (child.part async for child in children if child.below))

    async def _delete_collection(self, *, collection: str) -> bool:
        return await self._store.delete_prefix((*self._prefix, collection)) > 0

    async def _delete_store(self) -> bool:
        return await self._store.delete_prefix(self._prefix, everything=True) > 0


async def _first(limit: int | None, parts: AsyncGenerator[str, None]) -> list[str]:
    """So many of them; None: all."""
    found: list[str] = []
    async with contextlib.aclosing(parts):
        async for part in parts:
            if limit is not None and len(found) >= limit:
                break
            found.append(part)
    return found


def _managed(entry: Entry | None) -> ManagedEntry | None:
    if entry is None or not isinstance(entry.value, dict):
        return None
    return ManagedEntry(value=entry.value, created_at=entry.created_at, expires_at=entry.expires_at)


def _text(entry: ManagedEntry) -> Raw:
    try:
        return Raw(dumps(entry.value_as_dict))
    except (TypeError, ValueError) as error:
        raise SerializationError(f"the value is nothing that JSON can express: {error}") from error


def _ttl(seconds: float | None) -> timedelta | None:
    """From now on, by the server's clock; at least a millisecond. Beyond what it keeps, for ever."""
    if seconds is None or seconds * 1_000 > LONGEST:
        return None
    return max(timedelta(seconds=seconds), timedelta(milliseconds=1))
