"""Puts our store through the tests that every store of py-key-value-aio has to pass. The server is in KVASIR_URL."""

from __future__ import annotations

import itertools

import pytest
from typing_extensions import override

from key_value.aio.stores.base import BaseStore
from kvasir_client.key_value import KvasirStore
from tests.stores.base import BaseStoreTests, ContextManagerStoreTestMixin

_numbers = itertools.count()


class TestKvasirStore(ContextManagerStoreTestMixin, BaseStoreTests):
    @override
    @pytest.fixture
    async def store(self) -> KvasirStore:
        return KvasirStore(prefix=("test", str(next(_numbers))))

    @pytest.mark.skip(reason="distributed stores are unbounded")
    @override
    async def test_not_unbounded(self, store: BaseStore): ...

    async def test_keys_collections_and_the_end_of_them(self, store: KvasirStore):
        for collection in ("one", "two"):
            await store.put_many(["a", "b/c", ""], [{"n": n} for n in range(3)], collection=collection, ttl=60)
        assert sorted(await store.keys("one")) == ["", "a", "b/c"]
        assert await store.keys("one", limit=1) == [""]
        assert await store.collections() == ["one", "two"]
        assert await store.destroy_collection("one") is True
        assert await store.destroy_collection("one") is False
        assert await store.collections() == ["two"]
        assert await store.destroy() is True
        assert await store.get("a", collection="two") is None

    async def test_more_than_fit_in_one_transaction(self, store: KvasirStore):
        keys = [str(n) for n in range(1_001)]
        await store.put_many(keys, [{"n": n} for n in range(1_001)], collection="c")
        assert (await store.get_many(keys, collection="c"))[-1] == {"n": 1_000}
        assert await store.delete_many([*keys, "no"], collection="c") == 1_001
