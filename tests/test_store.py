"""The way from dialects to engines: rights, scopes, limits, lives that reading extends, caches never stale."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from kvasir.engine import Outcome
from kvasir.engines.memory import MemoryEngine
from kvasir.engines.sqlite import SqliteEngine
from kvasir.errors import Forbidden, Invalid, KvasirError, NotFound, Timeout, TooLarge, Unavailable
from kvasir.keys import prefix_range
from kvasir.limits import Limits
from kvasir.model import (
    Alias,
    Check,
    Commit,
    Conflict,
    Delete,
    DeleteRange,
    Entry,
    Mutation,
    Present,
    Principal,
    Query,
    Set,
    Space,
    Touch,
    Write,
)
from kvasir.store.clearing import next_clear
from kvasir.store.deadline import within
from kvasir.store.store import Store
from tests.support.clock import START, ManualClock
from tests.support.lab import alias, k, put
from tests.support.organisations import ORGANISATION

A, B = k("a"), k("b")
INSIDE, OUTSIDE = k("mine", "1"), k("mine2")
OWNER = Principal(ORGANISATION, "owner", "test")
STRANGER = Principal("01HFZZZZZZZZZZZZZZZZZZZZZZ", "owner", "stranger")
LIMITED = Principal(ORGANISATION, "owner", "limited", keys=prefix_range(["mine"]))


class Bench:
    """A store on a memory engine, with one space in it."""

    def __init__(self, limits: Limits | None = None, engine: MemoryEngine | None = None) -> None:
        self.clock = ManualClock()
        self.engine = engine or MemoryEngine(self.clock)
        self.engine.clock = self.clock
        self.store = Store(self.engine, limits or Limits(), self.clock)
        self.space: Space

    def run(self, story: Callable[[], Awaitable[None]], **options: Any) -> None:
        async def told() -> None:
            self.space = await self.create("default", **options)
            await story()

        asyncio.run(told())

    async def create(self, name: str, *, kind: str = "store", **options: Any) -> Space:
        space = Space("", 0, ORGANISATION, kind, name, 0, **options)
        return await self.store.create(OWNER, space, [alias(name, kind)])

    async def commit(self, *mutations: Mutation, when: Sequence[Check | Present] = ()) -> Commit:
        outcome = await self.store.write(OWNER, self.space, *mutations, when=when)
        assert isinstance(outcome, Commit)
        return outcome

    async def entry(self, key: bytes, who: Principal = OWNER) -> Entry | None:
        return (await self.store.get(who, self.space, [key]))[0]


def role(name: str) -> Principal:
    return Principal(ORGANISATION, name, name)


# -- reading ------------------------------------------------------------------------------------------------


class CountingEngine(SqliteEngine):
    """Counts tries to read on the event loop."""

    tries = 0

    def get_nowait(self, space: int, keys: Sequence[bytes]) -> list[Entry | None] | None:
        self.tries += 1
        return super().get_nowait(space, keys)


def test_values_too_long_for_the_event_loop_are_tried_on_it_once(tmp_path: Path) -> None:
    engine = CountingEngine(tmp_path / "kvasir.db")
    store = Store(engine, Limits(), engine.clock)

    async def story() -> None:
        await engine.open()
        try:
            space = await store.create(OWNER, Space("", 0, ORGANISATION, "store", "default", 0), [])
            long = b'"%b"' % (b"x" * 600_000)
            await store.write(OWNER, space, put(A, long), put(B, long))
            entries = await store.get(OWNER, space, [A, B])
            assert [entry and entry.value for entry in entries] == [long, long]
            assert engine.tries == 1
            await store.update(OWNER, space, A, lambda _: None)
            assert engine.tries == 2
        finally:
            await engine.close()

    asyncio.run(story())


# -- rights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reads", "writes", "manages"),
    [
        ("owner", True, True, True),
        ("admin", True, True, True),
        ("developer", True, True, False),
        ("viewer", True, False, False),
        ("none", False, False, False),
        ("", False, False, False),
        ("Owner", False, False, False),
    ],
)
def test_what_a_role_may_do(name: str, reads: bool, writes: bool, manages: bool) -> None:
    bench = Bench()
    who = role(name)

    async def story() -> None:
        store, space = bench.store, bench.space
        session = await bench.create("talk", kind="session")

        async def may(work: Awaitable[object]) -> bool:
            try:
                await work
            except Forbidden:
                return False
            return True

        for reading in (
            store.get(who, space, [A]),
            store.page(who, space, Query()),
            store.count(who, space),
            store.list_spaces(who, "store"),
            store.count_spaces(who, "store"),
        ):
            assert await may(reading) is reads
        for writing in (
            store.write(who, space, put(A)),
            store.write(who, space, Delete(A)),
            store.write(who, space, DeleteRange(None)),
            store.write(who, space, Touch(A, None)),
            store.write_many(who, space, []),
            store.update(who, space, A, lambda _: None),
            store.create(who, Space("", 0, ORGANISATION, "session", "x", 0), [alias("x")]),
            store.end(who, session),
        ):
            assert await may(writing) is writes
        for managing in (
            store.create(who, Space("", 0, ORGANISATION, "store", "y", 0), [alias("y")]),
            store.create(who, Space("", 0, ORGANISATION, "application", "z", 0), [alias("z")]),
            store.end(who, space),
        ):
            assert await may(managing) is manages

    bench.run(story)


def test_another_organisations_store_does_not_exist() -> None:
    bench = Bench()

    async def story() -> None:
        for attempt in (
            lambda who: bench.store.open(who, bench.space.id),
            lambda who: bench.store.resolve(who, alias("default")),
            lambda who: bench.store.end(who, bench.space),
        ):
            with pytest.raises(NotFound) as caught:
                await attempt(STRANGER)
            assert caught.value.reason == "store_not_found"
        for missing in (bench.store.open(OWNER, "01HF0000000000000000000009"), bench.store.resolve(OWNER, alias("no"))):
            with pytest.raises(NotFound) as unknown:
                await missing
            # Word for word the same answer: nobody learns which of the two it was.
            assert (unknown.value.message, unknown.value.reason) == (caught.value.message, caught.value.reason)
        assert await bench.store.list_spaces(STRANGER, "store") == []
        assert await bench.store.open(OWNER, bench.space.id) == bench.space
        # And not either once the owner's look has filled the cache.
        with pytest.raises(NotFound):
            await bench.store.open(STRANGER, bench.space.id)

    bench.run(story)


def test_a_key_for_some_stores_knows_no_others() -> None:
    bench = Bench()

    async def story() -> None:
        other = await bench.create("other")
        scoped = Principal(ORGANISATION, "owner", "scoped", spaces=frozenset({other.id}))
        assert await bench.store.open(scoped, other.id) == other
        assert await bench.store.list_spaces(scoped, "store") == [other]
        with pytest.raises(NotFound):
            await bench.store.open(scoped, bench.space.id)
        with pytest.raises(NotFound):
            await bench.store.resolve(scoped, alias("default"))
        with pytest.raises(NotFound):
            await bench.store.end(scoped, bench.space)
        with pytest.raises(Forbidden):
            await bench.store.create(scoped, Space("", 0, ORGANISATION, "store", "x", 0), [alias("x")])

    bench.run(story)


def test_a_key_for_a_prefix_reaches_nothing_beside_it() -> None:
    bench = Bench()

    async def story() -> None:
        store, space = bench.store, bench.space
        await bench.commit(put(INSIDE), put(OUTSIDE))
        everything = [INSIDE, k("mine"), k("mine", "1", "2")]
        assert len(await store.get(LIMITED, space, everything)) == 3
        for key in everything:
            await store.write(LIMITED, space, put(key), Touch(key, None), when=[Present(INSIDE)])
            await store.update(LIMITED, space, key, lambda _: None)
        under = prefix_range(["mine"])
        assert await store.count(LIMITED, space, under) == 3
        assert len((await store.page(LIMITED, space, Query(range=under))).entries) == 3
        assert len((await store.page(LIMITED, space, Query(range=prefix_range(["mine", "1"])))).entries) == 2

        async def refused(work: Awaitable[object]) -> None:
            with pytest.raises(Forbidden, match="prefix"):
                await work

        for key in (OUTSIDE, k("min"), k("mind"), k("mine\x00"), k("")):
            await refused(store.get(LIMITED, space, [INSIDE, key]))
            await refused(store.write(LIMITED, space, put(key)))
            await refused(store.write(LIMITED, space, Delete(key)))
            await refused(store.write(LIMITED, space, Touch(key, None)))
            await refused(store.write(LIMITED, space, put(INSIDE), when=[Check(key, None)]))
            await refused(store.write(LIMITED, space, put(INSIDE), when=[Present(key)]))
            await refused(store.update(LIMITED, space, key, lambda _: None))
        for key_range in (None, prefix_range(["min"]), prefix_range(["mine2"]), prefix_range([])):
            await refused(store.count(LIMITED, space, key_range))
            await refused(store.page(LIMITED, space, Query(range=key_range)))
            await refused(store.write(LIMITED, space, DeleteRange(key_range)))
        assert await bench.entry(OUTSIDE) is not None
        await store.write(LIMITED, space, DeleteRange(under))
        assert await store.count(OWNER, space) == 1

    bench.run(story)


# -- limits -------------------------------------------------------------------------------------------------

SMALL = Limits(key_bytes=10, value_bytes=20, metadata_bytes=30)


@pytest.mark.parametrize(
    ("fits", "too_large"),
    [
        (put(k("x" * 8)), put(k("x" * 9))),
        (Delete(k("x" * 8)), Delete(k("x" * 9))),
        (Touch(k("x" * 8), None), Touch(k("x" * 9), None)),
        (put(A, b"1" * 20), put(A, b"1" * 21)),
        (put(A, metadata=b"{" + b" " * 28 + b"}"), put(A, metadata=b"{" + b" " * 29 + b"}")),
    ],
)
def test_each_limit_passes_n_and_refuses_one_more(fits: Mutation, too_large: Mutation) -> None:
    bench = Bench(SMALL)

    async def story() -> None:
        await bench.commit(fits)
        await bench.commit(DeleteRange(None))
        with pytest.raises(TooLarge, match="at most"):
            await bench.commit(put(B), too_large)
        assert await bench.entry(B) is None

    bench.run(story)


def test_the_empty_key_is_none() -> None:
    bench = Bench()

    async def story() -> None:
        with pytest.raises(Invalid):
            await bench.commit(put(b""))

    bench.run(story)


def test_a_refused_write_leaves_its_neighbours_alone() -> None:
    bench = Bench(SMALL)

    async def story() -> None:
        number = bench.space.number
        outcomes = await bench.store.write_many(
            OWNER,
            bench.space,
            [
                Write(number, (put(A, b"1" * 21),)),
                Write(number, (put(A),)),
                Write(number, (put(B),), (Present(B),)),
                Write(number, (put(k("x" * 9)),)),
                Write(number, (put(B),)),
            ],
        )
        assert [type(outcome) for outcome in outcomes] == [TooLarge, Commit, Conflict, TooLarge, Commit]
        assert await bench.entry(A) is not None

    bench.run(story)


# -- lives that reading extends -----------------------------------------------------------------------------


def test_reading_extends_the_life_of_an_entry_set_so() -> None:
    bench = Bench()

    async def story() -> None:
        await bench.commit(put(A, ttl=100, refresh=True), put(B, ttl=100))
        before = await bench.entry(A)
        assert before is not None
        for _ in range(5):
            bench.clock.now += 60
            entry = await bench.entry(A, role("viewer"))
            assert entry is not None
            assert entry.expires_at == bench.clock.now + 100
            assert (entry.versionstamp, entry.created_at) == (before.versionstamp, before.created_at)
            # What was promised is in the database.
            (stored,) = await bench.engine.get(bench.space.number, [A])
            assert stored == entry
        assert await bench.entry(B) is None
        bench.clock.now += 100
        assert await bench.entry(A) is None

    bench.run(story)


def test_reading_an_entry_that_lives_for_ever_leaves_it_so() -> None:
    """Though it was set with a life that slides."""
    bench = Bench()

    async def story() -> None:
        await bench.commit(put(A, ttl=100, refresh=True))
        await bench.commit(Touch(A, None))
        before = await bench.entry(A)
        assert before is not None
        assert (before.expires_at, before.refresh) == (None, 100)
        bench.clock.now += 1_000
        assert bench.store.get_nowait(role("viewer"), bench.space, [A]) in (None, [before])
        assert await bench.entry(A, role("viewer")) == before
        await bench.commit(Touch(A, bench.clock.now + 10))
        entry = await bench.entry(A)
        assert entry is not None
        assert entry.expires_at == bench.clock.now + 100

    bench.run(story)


def test_a_batch_extends_each_of_its_entries_and_answers_in_order() -> None:
    bench = Bench()

    async def story() -> None:
        await bench.commit(put(A, ttl=100, refresh=True), put(B, ttl=500, refresh=True), put(k("c")))
        bench.clock.now += 10
        entries = await bench.store.get(OWNER, bench.space, [B, k("none"), A, k("c"), A])
        assert [entry and (entry.key, entry.expires_at) for entry in entries] == [
            (B, START + 510),
            None,
            (A, START + 110),
            (k("c"), None),
            (A, START + 110),
        ]

    bench.run(story)


def test_listing_and_counting_extend_nothing() -> None:
    bench = Bench()

    async def story() -> None:
        await bench.commit(put(A, ttl=100, refresh=True))
        bench.clock.now += 60
        await bench.store.page(OWNER, bench.space, Query())
        await bench.store.count(OWNER, bench.space)
        bench.clock.now += 40
        assert await bench.entry(A) is None

    bench.run(story)


def test_reading_never_shortens_a_life() -> None:
    bench = Bench()

    async def story() -> None:
        await bench.commit(put(A, ttl=100, refresh=True), Touch(A, START + 9_000))
        entry = await bench.entry(A)
        assert entry is not None
        assert entry.expires_at == START + 9_000
        assert await bench.engine.get(bench.space.number, [A]) == [entry]

    bench.run(story)


class Meddling(MemoryEngine):
    """Lets somebody else act between a read and the write that follows it."""

    meddle: Callable[[], Awaitable[object]] | None = None
    times = 1

    async def write(self, writes: Sequence[Write]) -> list[Outcome]:
        if self.meddle is not None and self.times > 0:
            self.times -= 1
            meddle, self.meddle = self.meddle, None
            await meddle()
            self.meddle = meddle
        return await super().write(writes)


@pytest.mark.parametrize("change", ["replaced", "replaced for good", "deleted", "ended"])
def test_an_entry_that_changes_while_its_life_is_extended_is_answered_as_it_is_then(change: str) -> None:
    engine = Meddling()
    bench = Bench(engine=engine)

    async def story() -> None:
        await bench.commit(put(A, b'"old"', ttl=100, refresh=True), put(B, b'"other"', ttl=100, refresh=True))
        number = bench.space.number

        async def meddle() -> None:
            if change == "ended":
                await engine.end_space(bench.space.id)
            elif change == "deleted":
                await engine.write([Write(number, (Delete(A),))])
            elif change == "replaced":
                await engine.write([Write(number, (put(A, b'"new"', ttl=50, refresh=True),))])
            else:
                await engine.write([Write(number, (put(A, b'"new"'),))])

        engine.meddle = meddle
        bench.clock.now += 10
        if change == "ended":
            with pytest.raises(NotFound):
                await bench.store.get(OWNER, bench.space, [A, B])
            return
        a, b = await bench.store.get(OWNER, bench.space, [A, B])
        expected = {
            "replaced": [(b'"new"', START + 60), (b'"other"', START + 110)],
            "replaced for good": [(b'"new"', None), (b'"other"', START + 110)],
            "deleted": [None, (b'"other"', START + 110)],
        }
        assert [entry and (entry.value, entry.expires_at) for entry in (a, b)] == expected[change]

    bench.run(story)


def test_keys_that_were_absent_are_looked_at_again_with_those_that_changed() -> None:
    engine = Meddling()
    bench = Bench(engine=engine)

    async def story() -> None:
        await bench.commit(put(B, b'"old"', ttl=100, refresh=True))

        async def meddle() -> None:
            await engine.write([Write(bench.space.number, (put(A, b'"with it"'), put(B, b'"new"')))])

        engine.meddle = meddle
        entries = await bench.store.get(OWNER, bench.space, [A, B])
        assert [entry and entry.value for entry in entries] == [b'"with it"', b'"new"']

    bench.run(story)


# -- spaces that are cleared again and again ----------------------------------------------------------------


def test_no_entry_outlives_its_period() -> None:
    bench = Bench()

    async def story() -> None:
        bench.clock.now = START + 2_500
        assert next_clear(bench.space, bench.clock()) == START + 3_000
        await bench.commit(
            put(k("forever")),
            put(k("long"), ttl=10_000),
            put(k("short"), ttl=100),
            put(k("until"), expires_at=START + 2_700),
            put(k("late"), expires_at=START + 9_000),
            put(k("touched"), ttl=50),
            put(k("refreshed"), ttl=400, refresh=True),
            Touch(k("touched"), None),
        )
        bench.clock.now = START + 2_890
        refreshed = await bench.entry(k("refreshed"))
        assert refreshed is not None
        assert refreshed.expires_at == START + 3_000
        bench.clock.now = START + 2_999
        page = await bench.store.page(OWNER, bench.space, Query(order="key"))
        assert [entry.key for entry in page.entries] == [
            k("forever"), k("late"), k("long"), k("refreshed"), k("touched")
        ]  # fmt: skip
        assert {entry.expires_at for entry in page.entries} == {START + 3_000}
        bench.clock.now = START + 3_000
        assert await bench.store.count(OWNER, bench.space) == 0
        await bench.commit(put(A))
        entry = await bench.entry(A)
        assert entry is not None
        assert entry.expires_at == START + 4_000

    bench.run(story, clear_every=1_000)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("when", [(), (Check(A, None),)])
def test_a_write_that_is_committed_in_the_next_period_lives_in_it(many: bool, when: tuple[Check, ...]) -> None:
    engine = Meddling()
    bench = Bench(engine=engine)

    async def story() -> None:
        async def meddle() -> None:
            bench.clock.now = START + 1_001

        bench.clock.now = START + 999
        engine.meddle = meddle
        if many:
            (outcome,) = await bench.store.write_many(OWNER, bench.space, [Write(bench.space.number, (put(A),), when)])
        else:
            outcome = await bench.store.write(OWNER, bench.space, put(A), when=when)
        assert isinstance(outcome, Commit)
        entry = await bench.entry(A)
        assert entry is not None
        assert entry.expires_at == START + 2_000

    bench.run(story, clear_every=1_000)


def test_a_space_that_is_never_cleared_has_no_period() -> None:
    bench = Bench()

    async def story() -> None:
        assert next_clear(bench.space, bench.clock()) is None

    bench.run(story)


# -- update -------------------------------------------------------------------------------------------------


def increment(entry: Entry | None) -> Mutation:
    return Set(A, str((int(entry.value) if entry else 0) + 1).encode())


def test_updates_of_one_key_take_turns() -> None:
    bench = Bench()

    async def story() -> None:
        other = Store(bench.engine, Limits(), bench.clock)
        stores = [bench.store, other] * 100
        results = await asyncio.gather(*(store.update(OWNER, bench.space, A, increment) for store in stores))
        assert all(commit is not None for _, commit in results)
        entry = await bench.entry(A)
        assert entry is not None
        assert entry.value == b"200"

    bench.run(story)


class Hurried(MemoryEngine):
    """Gives way to the loop at every step, and counts writes that came in vain."""

    vain = 0

    def get_nowait(self, space: int, keys: Sequence[bytes]) -> None:  # type: ignore[override]
        return None

    async def get(self, space: int, keys: Sequence[bytes], max_bytes: int | None = None) -> list[Entry | None]:
        await asyncio.sleep(0)
        return await super().get(space, keys, max_bytes)

    async def write(self, writes: Sequence[Write]) -> list[Outcome]:
        await asyncio.sleep(0)
        outcomes = await super().write(writes)
        self.vain += sum(1 for outcome in outcomes if isinstance(outcome, Conflict))
        return outcomes


def test_updates_of_one_process_never_make_each_other_fail() -> None:
    engine = Hurried()
    bench = Bench(engine=engine)

    async def story() -> None:
        async def several() -> None:
            for _ in range(5):
                await bench.store.update(OWNER, bench.space, A, increment)

        await asyncio.gather(*(several() for _ in range(20)))
        entry = await bench.entry(A)
        assert entry is not None
        assert entry.value == b"100"
        assert engine.vain == 0
        assert len(bench.store._turns._locks) == 0

    bench.run(story)


def test_an_update_may_leave_things_as_they_are_or_refuse() -> None:
    bench = Bench()

    async def story() -> None:
        done = await bench.commit(put(A, b"1"))

        def refuse(entry: Entry | None) -> Mutation:
            raise Invalid("not a number")

        entry, commit = await bench.store.update(OWNER, bench.space, A, lambda entry: None)
        assert entry is not None
        assert (entry.versionstamp, commit) == (done.versionstamp, None)
        with pytest.raises(Invalid, match="not a number"):
            await bench.store.update(OWNER, bench.space, A, refuse)
        entry, commit = await bench.store.update(OWNER, bench.space, A, lambda entry: Delete(A))
        assert commit is not None
        assert commit.counts == (1,)

    bench.run(story)


def test_an_update_that_never_wins_says_so() -> None:
    engine = Meddling()
    bench = Bench(engine=engine)

    async def story() -> None:
        engine.times = 1_000_000
        engine.meddle = lambda: MemoryEngine.write(engine, [Write(bench.space.number, (put(A),))])
        with pytest.raises(Unavailable, match="too many writers"):
            await bench.store.update(OWNER, bench.space, A, increment)
        assert len(bench.store._turns._locks) == 0

    bench.run(story)


# -- caches -------------------------------------------------------------------------------------------------


def test_a_space_another_process_ended_or_renamed_is_seen_after_a_refresh() -> None:
    bench = Bench()

    async def story() -> None:
        store, engine = bench.store, bench.engine
        await store.refresh()
        assert await store.open(OWNER, bench.space.id) == bench.space
        await engine.alter_space(bench.space.id, name="neu")
        await store.refresh()
        assert (await store.open(OWNER, bench.space.id)).name == "neu"
        assert (await store.resolve(OWNER, alias("default"))).name == "neu"
        await engine.end_space(bench.space.id)
        await store.refresh()
        for gone in (store.open(OWNER, bench.space.id), store.resolve(OWNER, alias("default"))):
            with pytest.raises(NotFound):
                await gone

    bench.run(story)


def test_the_successor_of_an_expired_space_is_found_under_its_alias() -> None:
    bench = Bench()

    async def story() -> None:
        await bench.store.refresh()
        first = await bench.create("talk", kind="session", expires_at=START + 100)
        behind = alias("talk", "session")
        assert await bench.store.resolve(OWNER, behind) == first
        bench.clock.now = START + 100
        with pytest.raises(NotFound):
            await bench.store.resolve(OWNER, behind)
        with pytest.raises(NotFound):
            await bench.store.open(OWNER, first.id)
        second = await bench.create("talk", kind="session", expires_at=START + 900)
        await bench.store.refresh()
        assert second.id != first.id
        assert await bench.store.resolve(OWNER, behind) == second

    bench.run(story)


class Slow(MemoryEngine):
    """Finds a space at once and tells it later, when the gate opens."""

    gate: asyncio.Event | None = None

    async def resolve(self, alias: Alias) -> Space | None:
        space = await super().resolve(alias)
        if self.gate is not None:
            await self.gate.wait()
        return space


def test_a_space_found_before_a_change_is_not_cached_after_it() -> None:
    engine = Slow()
    bench = Bench(engine=engine)

    async def story() -> None:
        store = bench.store
        await store.refresh()
        engine.gate = asyncio.Event()
        looking = asyncio.create_task(store.resolve(OWNER, alias("default")))
        await asyncio.sleep(0)
        await engine.end_space(bench.space.id)
        await store.refresh()
        engine.gate.set()
        await looking
        with pytest.raises(NotFound):
            await store.resolve(OWNER, alias("default"))

    bench.run(story)


def test_a_store_is_created_once_however_many_ask() -> None:
    bench = Bench()

    async def story() -> None:
        spaces = await asyncio.gather(*(bench.create("same") for _ in range(20)))
        assert len({space.id for space in spaces}) == 1
        assert spaces[0].created_at == START
        assert len(spaces[0].id) == 26

    bench.run(story)


# -- deadlines ----------------------------------------------------------------------------------------------


def test_a_deadline_cuts_a_read_short_and_leaves_a_quick_one_alone() -> None:
    async def story() -> None:
        never = asyncio.get_running_loop().create_future()
        with pytest.raises(Timeout, match="5 ms"):
            await within(5, never)
        assert never.cancelled()
        for deadline in (None, 60_000.0):
            assert await within(deadline, asyncio.sleep(0, "done")) == "done"

    asyncio.run(story())


def test_a_failure_of_the_engine_comes_through() -> None:
    bench = Bench()

    async def story() -> None:
        await bench.engine.end_space(bench.space.id)
        with pytest.raises(KvasirError) as caught:
            await bench.commit(put(A))
        assert caught.value.reason == "store_not_found"

    bench.run(story)
