"""A backend for Django's cache: `pip install kvasir-client[django]`.

    CACHES = {
        "default": {
            "BACKEND": "kvasir_client.django.KvasirCache",
            "LOCATION": "http://127.0.0.1:8901",
            "OPTIONS": {"KEY": "kv_…", "STORE": "cache"},
        }
    }

KEY and STORE are by default what the variables KVASIR_KEY and KVASIR_STORE say; PREFIX ("django-cache") is the first
part of every key, below which `clear` removes everything. Values are JSON: what JSON cannot express is refused, a tuple
comes back as a list, and the names in a dict come back as texts. `add` and `incr` are atomic.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from itertools import islice
from typing import Any

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django.core.exceptions import ImproperlyConfigured

from kvasir_client.client import Client, Store
from kvasir_client.entries import Entry
from kvasir_client.errors import ConditionNotMet, Invalid, TooLarge
from kvasir_client.times import LONGEST

#: The most keys that one transaction, and one reading of many, may have.
BATCH = 1_000


@functools.lru_cache
def _client(url: str | None, key: str | None) -> Client:
    """One for all threads: Django makes a cache for each."""
    return Client(url, key=key)


class KvasirCache(BaseCache):
    """See Django's documentation of its cache API."""

    def __init__(self, server: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        options = params.get("OPTIONS", {})
        if not isinstance(server, str):
            raise ImproperlyConfigured("LOCATION of a KvasirCache is the URL of one server")
        self._url = server or None
        self._access_key: str | None = options.get("KEY")
        self._name: str | None = options.get("STORE")
        self._prefix: str = options.get("PREFIX", "django-cache")

    @property
    def _store(self) -> Store:
        return _store(self._url, self._access_key, self._name)

    def _key(self, key: str, version: int | None) -> tuple[str, str]:
        return self._prefix, self.make_and_validate_key(key, version=version)

    def _ttl(self, timeout: Any) -> timedelta | None:
        """None: for ever. Not above nothing: the entry is not to live at all."""
        seconds = self.default_timeout if timeout is DEFAULT_TIMEOUT else timeout
        # The server takes lives of up to a hundred years; what is to live longer lives for ever.
        return None if seconds is None or seconds * 1_000 > LONGEST else timedelta(seconds=float(seconds))

    def add(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Set a key that is absent, whoever else tries at the time; whether it was absent."""
        whole, ttl = self._key(key, version), self._ttl(timeout)
        if _over(ttl):
            return self._store.get(whole, extend=False) is None
        try:
            self._store.set(whole, value, ttl=ttl, if_absent=True)
        except ConditionNotMet:
            return False
        return True

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        """The value of a key."""
        entry = self._store.get(self._key(key, version))
        return default if entry is None else entry.value

    def set(self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> None:
        """Set a key."""
        whole, ttl = self._key(key, version), self._ttl(timeout)
        if _over(ttl):
            self._store.delete(whole)
        else:
            self._store.set(whole, value, ttl=ttl)

    def touch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Change when a key expires; whether it was there."""
        whole, ttl = self._key(key, version), self._ttl(timeout)
        return self._store.delete(whole) if _over(ttl) else self._store.touch(whole, ttl=ttl)

    def delete(self, key: str, version: int | None = None) -> bool:
        """Remove a key; whether it was there."""
        return self._store.delete(self._key(key, version))

    def has_key(self, key: str, version: int | None = None) -> bool:
        """Whether a key is there."""
        return self._store.get(self._key(key, version), extend=False) is not None

    def incr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        """Add to a whole number, exactly. Raises ValueError if there is none, TypeError if it is no whole number."""
        try:
            return self._store.increment(self._key(key, version), delta, if_present=True)
        except ConditionNotMet:
            raise ValueError(f"Key {key!r} not found") from None
        except Invalid as error:
            raise TypeError(error.message) from None

    def get_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        """The values of the keys that are there, in one snapshot for each thousand, or fewer of long values."""
        found: dict[str, Any] = {}
        for names in _batches(keys):
            entries = self._entries([self._key(name, version) for name in names])
            found |= {name: entry.value for name, entry in zip(names, entries, strict=True) if entry is not None}
        return found

    def _entries(self, keys: list[tuple[str, str]]) -> list[Entry | None]:
        """All in one snapshot, unless their values are too long for one answer."""
        try:
            return self._store.get_many(keys)
        except TooLarge:
            if len(keys) == 1:
                raise
        half = len(keys) // 2
        return self._entries(keys[:half]) + self._entries(keys[half:])

    def set_many(
        self, data: Mapping[str, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> list[str]:
        """Set keys, a thousand, or 8 MiB of them, at one instant; no key fails alone."""
        ttl = self._ttl(timeout)
        if _over(ttl):
            self.delete_many(data, version)
            return []
        transaction = self._store.transaction()
        for name, value in data.items():
            transaction.set(self._key(name, version), value, ttl=ttl)
            if transaction.full:
                transaction.commit()
                transaction = self._store.transaction()
        if len(transaction):
            transaction.commit()
        return []

    def delete_many(self, keys: Iterable[str], version: int | None = None) -> None:
        """Remove keys, a thousand at one instant."""
        for names in _batches(keys):
            with self._store.transaction() as transaction:
                for name in names:
                    transaction.delete(self._key(name, version))

    # Django's own versions of these ask key by key, and add in two steps.

    async def aincr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        """See `incr`."""
        return await sync_to_async(self.incr)(key, delta, version)

    async def aget_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        """See `get_many`."""
        return await sync_to_async(self.get_many)(keys, version)

    async def aset_many(
        self,
        data: Mapping[str, Any],
        timeout: Any = DEFAULT_TIMEOUT,  # noqa: ASYNC109 - the entries', not the call's
        version: int | None = None,
    ) -> list[str]:
        """See `set_many`."""
        return await sync_to_async(self.set_many)(data, timeout, version)

    async def adelete_many(self, keys: Iterable[str], version: int | None = None) -> None:
        """See `delete_many`."""
        await sync_to_async(self.delete_many)(keys, version)

    def clear(self) -> None:
        """Remove everything below the prefix, of all versions."""
        self._store.delete_prefix(self._prefix)


@functools.lru_cache
def _store(url: str | None, key: str | None, name: str | None) -> Store:
    return _client(url, key).store(name)


def _over(ttl: timedelta | None) -> bool:
    return ttl is not None and ttl <= timedelta(0)


def _batches(names: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(names)
    while batch := list(islice(rest, BATCH)):
        yield batch
