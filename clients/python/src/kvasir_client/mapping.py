"""A store, or what is below a prefix of it, as a `MutableMapping`.

Keys are tuples of what follows the prefix, values what JSON can express. Each operation asks the server, so several
programs may share a mapping; `setdefault`, `pop` and `popitem` hold even then. Order is that of the keys.
"""

from __future__ import annotations

import contextlib
from collections.abc import ItemsView, Iterator, MutableMapping, ValuesView
from typing import Any

from kvasir_client.client import Store
from kvasir_client.entries import Entry
from kvasir_client.errors import ConditionNotMet, Invalid, TooLarge
from kvasir_client.keys import Key, parts_of, prefix_of
from kvasir_client.operations import MISSING


class StoreMapping(MutableMapping[Key, Any]):
    """The entries below a prefix. An entry whose key is the prefix itself is no part of it."""

    def __init__(self, store: Store, prefix: Key = ()) -> None:
        self._store = store
        self._prefix = prefix_of(prefix)

    def _whole(self, key: Key) -> tuple[str, ...]:
        return (*self._prefix, *parts_of(key))

    def _get(self, key: Key, *, extend: bool) -> Entry | None:
        """The entry of a key; None also of one that no entry can have."""
        whole = self._possible(key)
        try:
            return None if whole is None else self._store.get(whole, extend=extend)
        except TooLarge:
            return None

    def _possible(self, key: Key) -> tuple[str, ...] | None:
        """The whole key; None: no entry can have it. A failure to ask the server is no such answer."""
        try:
            return self._whole(key)
        except Invalid:
            return None

    def __getitem__(self, key: Key) -> Any:
        entry = self._get(key, extend=True)
        if entry is None:
            raise KeyError(key)
        return entry.value

    def __setitem__(self, key: Key, value: Any) -> None:
        self._store.set(self._whole(key), value)

    def __delitem__(self, key: Key) -> None:
        whole = self._possible(key)
        try:
            there = whole is not None and self._store.delete(whole)
        except TooLarge:
            there = False
        if not there:
            raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        try:
            return self._get(key, extend=False) is not None  # type: ignore[arg-type]
        except TypeError:
            return False

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        for key, _ in self._scan(values=False):
            yield key

    def __len__(self) -> int:
        own = bool(self._prefix) and self._store.get(self._prefix, extend=False) is not None
        return self._store.count(self._prefix) - own

    def __repr__(self) -> str:
        return f"StoreMapping({self._store!r}, {self._prefix!r})"

    def items(self) -> ItemsView[Key, Any]:
        """The keys with their values, page by page."""
        return _Items(self)

    def values(self) -> ValuesView[Any]:
        """The values, page by page."""
        return _Values(self)

    def setdefault(self, key: Key, default: Any = None) -> Any:
        """The value of a key; if it is absent, it becomes `default` first."""
        whole = self._whole(key)
        while (entry := self._store.get(whole)) is None:
            try:
                self._store.set(whole, default, if_absent=True)
            except ConditionNotMet:
                continue
            return default
        return entry.value

    def pop(self, key: Key, default: Any = MISSING) -> Any:
        """Remove a key; the value that was removed. An absent key is `default`, or KeyError without one."""
        while (entry := self._get(key, extend=False)) is not None:
            try:
                self._store.delete(entry.key, if_version=entry.versionstamp)
            except ConditionNotMet:
                continue
            return entry.value
        if default is MISSING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[tuple[str, ...], Any]:
        """Remove the first key. Raises KeyError if there is none."""
        # Of the first two entries, one may have the prefix itself as its key.
        while found := list(self._scan(values=False, limit=2)):
            key = found[0][0]
            with contextlib.suppress(KeyError):  # somebody else was faster
                return key, self.pop(key)
        raise KeyError("the mapping is empty")

    def clear(self) -> None:
        """Remove every key: at once, unless there is an entry whose key is the prefix, which is not ours to remove."""
        if not self._prefix:
            self._store.delete_prefix((), everything=True)
            return
        try:
            with self._store.transaction() as transaction:
                transaction.check(self._prefix)
                transaction.delete_prefix(self._prefix)
        except ConditionNotMet:
            self._delete_each()

    def _delete_each(self) -> None:
        transaction = self._store.transaction()
        for key in self:
            transaction.delete(self._whole(key))
            if transaction.full:
                transaction.commit()
                transaction = self._store.transaction()
        if len(transaction):
            transaction.commit()

    def _scan(self, *, values: bool, limit: int | None = None) -> Iterator[tuple[tuple[str, ...], Any]]:
        for entry in self._store.scan(self._prefix, values=values, limit=limit):
            if len(entry.key) > len(self._prefix):
                yield entry.key[len(self._prefix) :], entry.value


class _Items(ItemsView[Key, Any]):
    def __init__(self, mapping: StoreMapping) -> None:
        super().__init__(mapping)
        self._of = mapping

    def __iter__(self) -> Iterator[tuple[tuple[str, ...], Any]]:
        return self._of._scan(values=True)


class _Values(ValuesView[Any]):
    def __init__(self, mapping: StoreMapping) -> None:
        super().__init__(mapping)
        self._of = mapping

    def __iter__(self) -> Iterator[Any]:
        return (value for _, value in self._of._scan(values=True))
