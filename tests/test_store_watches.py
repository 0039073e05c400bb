"""Watches end within a second when their reader may no longer see what they tell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from kvasir.engine import Watch
from kvasir.engines.memory import MemoryEngine
from kvasir.errors import Forbidden, KvasirError, NotFound, Unauthenticated
from kvasir.keys import prefix_range, under
from kvasir.limits import Limits
from kvasir.model import SYSTEM_SPACE, KeyRange, Principal, Set, Space, Write
from kvasir.store.store import Store
from tests.support.clock import ManualClock
from tests.support.lab import k
from tests.support.organisations import ORGANISATION

OWNER = Principal(ORGANISATION, "owner", "test")
WHOLE = KeyRange(b"", b"\xff")


class Bench:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.engine = MemoryEngine(self.clock)
        self.store = Store(self.engine, Limits(), self.clock)
        self.space: Space

    def run(self, story: Callable[[], Awaitable[None]], *, lives: int | None = None) -> None:
        async def told() -> None:
            expires_at = None if lives is None else self.clock.now + lives
            wanted = Space("", 0, ORGANISATION, "store", "s", 0, expires_at)
            self.space = await self.store.create(OWNER, wanted, [])
            await story()

        asyncio.run(told())


async def begun(watch: Watch) -> Watch:
    assert (await anext(watch)).changes == []
    return watch


async def end_of(watch: Watch) -> KvasirError:
    with pytest.raises(KvasirError) as ended:
        await asyncio.wait_for(anext(watch), 1)
    watch.close()
    return ended.value


def test_a_watch_ends_with_its_space() -> None:
    bench = Bench()

    async def story() -> None:
        watch = await begun(await bench.store.watch(OWNER, bench.space, [WHOLE]))
        await bench.store.end(OWNER, bench.space)
        assert isinstance(await end_of(watch), NotFound)

    bench.run(story)


def test_a_watch_ends_when_its_space_expires() -> None:
    bench = Bench()

    async def story() -> None:
        watch = await begun(await bench.store.watch(OWNER, bench.space, [WHOLE]))
        bench.clock.now += 5
        assert isinstance(await end_of(watch), NotFound)

    bench.run(story, lives=5)


def test_a_watch_ends_when_its_access_key_expires_or_is_revoked() -> None:
    bench = Bench()
    short = msgspec.structs.replace(OWNER, expires_at=bench.clock.now + 5)

    async def revoked() -> Principal:
        raise Unauthenticated("the access key has been revoked")

    async def expired() -> Principal:
        if bench.clock.now >= (short.expires_at or 0):
            raise Unauthenticated("the access key has expired")
        return short

    async def limited() -> Principal:
        return msgspec.structs.replace(OWNER, keys=prefix_range(["elsewhere"]))

    async def story() -> None:
        expiring = await begun(await bench.store.watch(short, bench.space, [WHOLE], recheck=expired))
        gone = await begun(await bench.store.watch(OWNER, bench.space, [WHOLE], recheck=revoked))
        narrowed = await begun(await bench.store.watch(OWNER, bench.space, [under(k("a"))], recheck=limited))
        kept = await begun(await bench.store.watch(OWNER, bench.space, [WHOLE]))
        bench.clock.now += 5
        await bench.engine.write([Write(SYSTEM_SPACE, (Set(k("access-key"), b"1"),))])
        assert isinstance(await end_of(expiring), Unauthenticated)
        assert isinstance(await end_of(gone), Unauthenticated)
        assert isinstance(await end_of(narrowed), Forbidden)
        await bench.store.write(OWNER, bench.space, Set(k("a"), b"1"))
        assert [change.key for change in (await asyncio.wait_for(anext(kept), 1)).changes] == [k("a")]
        kept.close()

    bench.run(story)


def test_what_fails_for_once_does_not_keep_watches_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite may raise anything while the guard asks whether something was revoked."""
    bench = Bench()
    refresh, asked, failing, failed = bench.store.refresh, 0, True, False

    async def fails() -> int:
        nonlocal asked
        asked += 1
        if failing:
            raise OSError("planted")
        return await refresh()

    async def revoked() -> Principal:
        nonlocal failed
        if not failed:
            failed = True
            raise OSError("planted")
        raise Unauthenticated("the access key has been revoked")

    async def story() -> None:
        nonlocal failing
        monkeypatch.setattr(bench.store, "refresh", fails)
        watch = await begun(await bench.store.watch(OWNER, bench.space, [WHOLE], recheck=revoked))
        async with asyncio.timeout(10):
            while asked < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        failing = False
        with pytest.raises(Unauthenticated):
            await asyncio.wait_for(anext(watch), 10)
        watch.close()
        assert failed

    bench.run(story)


def test_watches_are_looked_at_together() -> None:
    """One after the other, ten thousand would take a round trip to PostgreSQL each."""
    bench = Bench()
    both = asyncio.Barrier(2)

    async def revoked() -> Principal:
        await both.wait()
        raise Unauthenticated("the access key has been revoked")

    async def story() -> None:
        watches = [await begun(await bench.store.watch(OWNER, bench.space, [WHOLE], recheck=revoked)) for _ in range(2)]
        for watch in watches:
            assert isinstance(await end_of(watch), Unauthenticated)

    bench.run(story)


def test_a_watch_outside_the_keys_of_the_principal_is_refused() -> None:
    bench = Bench()

    async def story() -> None:
        limited = msgspec.structs.replace(OWNER, keys=prefix_range(["mine"]))
        (await bench.store.watch(limited, bench.space, [under(k("mine", "1"))])).close()
        for refused in (WHOLE, under(k("other")), under(k("mine2"))):
            with pytest.raises(Forbidden):
                await bench.store.watch(limited, bench.space, [under(k("mine")), refused])
        with pytest.raises(Forbidden):
            bench.store.scan(limited, bench.space, None)
        with pytest.raises(Forbidden):
            await bench.store.children(limited, bench.space, b"")

    bench.run(story)
