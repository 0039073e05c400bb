"""Stores and sessions by name: each name finds its own kind, in its own organisation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kvasir.control import sessions, stores
from kvasir.engines.memory import MemoryEngine
from kvasir.errors import Conflicting, Invalid, NotFound
from kvasir.limits import Limits
from kvasir.model import Principal, Space
from kvasir.store.store import Store
from tests.support.clock import ManualClock
from tests.support.lab import new_space
from tests.support.organisations import ORGANISATION, OTHER

OWNER = Principal(ORGANISATION, "owner", "test")
STRANGER = Principal(OTHER, "owner", "test")

Story = Callable[[MemoryEngine, Store], Coroutine[Any, Any, None]]


def run(story: Story) -> None:
    clock = ManualClock()
    engine = MemoryEngine(clock)
    asyncio.run(story(engine, Store(engine, Limits(), clock)))


async def session(engine: MemoryEngine, n: int, name: str, token: str) -> Space:
    aliases = [sessions.by_name(name), sessions.by_token(token)]
    return await new_space(engine, n, kind="session", aliases=aliases)


def test_a_store_is_found_by_its_name_and_its_ulid_in_its_organisation() -> None:
    async def story(engine: MemoryEngine, store: Store) -> None:
        mine = await stores.create(store, OWNER, "front")
        theirs = await stores.create(store, STRANGER, "front")
        assert mine.id != theirs.id
        for name_or_id in ("front", mine.id, mine.id.lower()):
            assert (await stores.find(store, OWNER, name_or_id)).id == mine.id
        for name_or_id in ("back", theirs.id):
            with pytest.raises(NotFound, match="kvasir store list"):
                await stores.find(store, OWNER, name_or_id)
        # The name of a store comes before the ULID of another.
        named = await stores.create(store, OWNER, mine.id)
        assert (await stores.find(store, OWNER, mine.id)).id == named.id

    run(story)


def test_a_store_of_a_name_is_made_once() -> None:
    async def story(engine: MemoryEngine, store: Store) -> None:
        assert (await stores.create(store, OWNER, "a")).id == (await stores.create(store, OWNER, "a")).id
        for name in ("", "x" * 256):
            with pytest.raises(Invalid, match="1 to 255 characters"):
                await stores.create(store, OWNER, name)
        await stores.create(store, OWNER, "x" * 255)
        assert len(await store.list_spaces(OWNER, "store")) == 2

    run(story)


def test_a_session_is_found_by_token_name_and_ulid_but_never_a_store() -> None:
    async def story(engine: MemoryEngine, store: Store) -> None:
        cart = await session(engine, 1, "cart", "42")
        for given in ("42", "cart", cart.id, cart.id.lower()):
            assert (await sessions.find(engine, ORGANISATION, given)).id == cart.id
            with pytest.raises(NotFound):
                await sessions.find(engine, OTHER, given)
        shop = await stores.create(store, OWNER, "shop")
        token = await sessions.share(engine, store.limits, shop, "shop")
        for given in ("shop", token, shop.id):
            with pytest.raises(NotFound):
                await sessions.find(engine, ORGANISATION, given)

    run(story)


def test_names_of_a_shared_store_have_one_token_and_the_last_takes_it_along() -> None:
    async def story(engine: MemoryEngine, store: Store) -> None:
        shop = await stores.create(store, OWNER, "shop")
        token = await sessions.share(engine, store.limits, shop, "front")
        assert await sessions.share(engine, store.limits, shop, "back") == token
        await sessions.unshare(engine, shop, "front")
        assert sessions.token_among(await engine.aliases(shop.id)) == token
        await sessions.unshare(engine, shop, "back")
        assert await engine.aliases(shop.id) == [stores.by_name(ORGANISATION, "shop")]
        with pytest.raises(NotFound, match="not shared as 'back'"):
            await sessions.unshare(engine, shop, "back")

    run(story)


def test_a_store_is_shared_only_under_a_name_that_is_free() -> None:
    async def story(engine: MemoryEngine, store: Store) -> None:
        await session(engine, 1, "cart", "42")
        shop = await stores.create(store, OWNER, "shop")
        with pytest.raises(Conflicting, match="'cart' already"):
            await sessions.share(engine, store.limits, shop, "cart")
        for name in ("", "x" * 256):
            with pytest.raises(Invalid, match="1 to 255 characters"):
                await sessions.share(engine, store.limits, shop, name)
        assert sessions.token_among(await engine.aliases(shop.id)) is None
        await store.end(OWNER, shop)
        with pytest.raises(NotFound):
            await sessions.share(engine, store.limits, shop, "free")

    run(story)
