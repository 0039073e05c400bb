"""What engines promise about time: expiry, creation order and numbers that are never given twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from kvasir.engine import Engine
from kvasir.engines.postgres import PostgresEngine
from kvasir.errors import NotFound
from kvasir.keys import first_number_of, millisecond_of
from kvasir.model import SYSTEM_SPACE, Check, Commit, Delete, DeleteRange, Entry, Present, Query, Touch, Write
from tests.support.clock import START
from tests.support.lab import Lab, alias, commit, conflict, k, new_space, one, put, there, write

A, B, C = k("a"), k("b"), k("c")


@pytest.mark.parametrize("how", ["ttl", "expires_at", "touch", "extend"])
def test_expiry_is_exact_for_every_operation(lab: Lab, how: str) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        if how == "ttl":
            await commit(engine, space, put(A, metadata=b'{"m":1}', ttl=100))
        elif how == "expires_at":
            await commit(engine, space, put(A, metadata=b'{"m":1}', expires_at=START + 100))
        else:
            await commit(engine, space, put(A, metadata=b'{"m":1}', ttl=50))
            await commit(engine, space, Touch(A, START + 100, extend=how == "extend"))
        stamp = (await there(engine, space, A)).versionstamp

        async def sights() -> list[object]:
            return [
                await one(engine, space, A) is not None,
                (await engine.get(space, [A, B]))[0] is not None,
                *[len((await engine.page(space, Query(order=order))).entries) for order in ("newest", "oldest", "key")],
                len((await engine.page(space, Query(limit=1, metadata=b'{"m":1}'))).entries),
                await engine.count(space),
                await engine.count_spaces("store") == (1, 1),
                await write(engine, space, when=[Present(A)]) != conflict(Present(A), None),
                isinstance(await write(engine, space, when=[Check(A, stamp)]), Commit),
                await write(engine, space, when=[Check(A, None)]) == conflict(Check(A, None), stamp),
            ]

        lab.clock.now = START + 99
        assert all(sights_now := await sights()), sights_now
        lab.clock.now = START + 100
        assert not any(sights_now := await sights()), sights_now
        done = await commit(engine, space, Touch(A, None), Delete(A), DeleteRange(None))
        assert done.counts == (0, 0, 0)

    lab.run(story)


def test_an_expired_key_set_again_is_a_new_entry(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(A, ttl=10))
        old = await there(engine, space, A)
        await commit(engine, space, put(B))
        lab.clock.now += 10
        assert (await commit(engine, space, put(A), when=[Check(A, None)])).counts == (0,)
        new = await there(engine, space, A)
        assert new.sequence > (await there(engine, space, B)).sequence > old.sequence
        assert new.created_at == START + 10
        assert [entry.key for entry in (await engine.page(space, Query())).entries] == [A, B]

    lab.run(story)


def test_an_entry_may_be_born_expired(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(A))
        assert (await commit(engine, space, put(A, expires_at=START), put(B, expires_at=0, refresh=True))).counts == (
            1,
            0,
        )
        assert await engine.get(space, [A, B]) == [None, None]
        assert await engine.count(space) == 0
        await commit(engine, space, put(A), when=[Check(A, None)])

    lab.run(story)


def test_sweeping_changes_nothing_one_could_see(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine, 1)).number
        gone = await new_space(engine, 2)
        fading = await new_space(engine, 3, expires_at=START + 10)
        keys = [k(str(n)) for n in range(300)]
        for number in (space, gone.number, fading.number):
            await commit(engine, number, *(put(key, ttl=10) for key in keys), put(A))
        await engine.end_space(gone.id)
        lab.clock.now += 10
        await commit(engine, space, put(keys[0], b"2"))
        before = (await engine.page(space, Query())).entries
        swept = 0
        while step := await engine.sweep():
            swept += step
            assert (await engine.page(space, Query())).entries == before
            assert await engine.count(space) == 2
        assert engine.writer.swept >= swept
        assert await engine.count_spaces("store") == (1, 2)
        stats = await engine.stats()
        assert stats.entries >= 2
        assert await engine.sweep() == 0

    lab.run(story)


def test_a_clock_set_back_never_reuses_a_number_nor_reverses_creation(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(A))
        if lab.kind == "postgres":
            # A step of it that has begun knows the clock as it was, by which what comes now has expired.
            await engine._sweeper.stop()  # type: ignore[attr-defined]
        lab.clock.now = START - 3_600_000
        done = await commit(engine, space, put(B), put(C, ttl=1_000))
        a, b, c = [await there(engine, space, key) for key in (A, B, C)]
        assert done.versionstamp > a.versionstamp
        assert a.sequence < b.sequence < c.sequence
        assert a.created_at <= b.created_at <= c.created_at
        assert [e.key for e in (await engine.page(space, Query(order="oldest", created_from=START))).entries] == [
            A,
            B,
            C,
        ]
        # Expiry obeys the clock as it is now.
        assert c.expires_at == lab.clock.now + 1_000
        lab.clock.now += 999
        await there(engine, space, C)
        lab.clock.now += 1
        assert await one(engine, space, C) is None
        assert await write(engine, space, when=[Present(C)]) == conflict(Present(C), None)
        # Whatever the shape of the write, nothing is created before its time.
        await engine.write([Write(space, (put(k("plain")),)), Write(space, (put(k("too")),))])
        await commit(engine, space, put(k("if")), when=[Check(k("if"), None)])
        await commit(engine, SYSTEM_SPACE, put(A))
        created = [entry.created_at for entry in (await engine.page(space, Query(order="oldest"))).entries]
        assert created == sorted(created)
        assert min(created) == START
        assert (await there(engine, SYSTEM_SPACE, A)).created_at >= START

    lab.run(story)


def test_numbers_stand_for_the_millisecond_of_the_clock_or_a_later_one(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        for now in (START + 5, START + 5, START + 1_005):
            lab.clock.now = now
            done = await commit(engine, space, put(k(str(now))))
            assert millisecond_of(done.versionstamp) == now
            assert millisecond_of((await there(engine, space, k(str(now)))).sequence) == now
        lab.clock.now = START
        done = await commit(engine, space, put(A))
        assert millisecond_of(done.versionstamp) == START + 1_005
        assert first_number_of(START + 1_005) <= done.versionstamp < first_number_of(START + 1_006)

    lab.run(story)


def test_a_clock_that_stands_still_gives_new_numbers(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        seen: list[int] = []
        for n in range(100):
            done = await commit(engine, space, put(k(str(n))))
            seen += [done.versionstamp, (await there(engine, space, k(str(n)))).sequence]
        assert seen == sorted(set(seen))
        assert seen[-1] < 1 << 63

    lab.run(story)


def test_numbers_and_entries_survive_closing(durable_lab: Lab) -> None:
    lab = durable_lab

    async def before(engine: Engine) -> tuple[int, str, Entry]:
        space = await new_space(engine, expires_at=START + 10_000, clear_every=500)
        await commit(engine, space.number, put(A, b'"kept"', metadata=b'{"m":1}', ttl=5_000, refresh=True))
        await commit(engine, space.number, put(B), put(C))
        await commit(engine, space.number, Delete(C))
        return space.number, space.id, await there(engine, space.number, A)

    number, id, kept = lab.run(before)
    lab.clock.now -= 86_400_000  # the clock of the machine was set back meanwhile

    async def after(engine: Engine) -> None:
        assert await there(engine, number, A) == kept
        space = await engine.get_space(id)
        assert space is not None
        assert (space.number, space.expires_at, space.clear_every) == (number, START + 10_000, 500)
        assert await engine.aliases(id) == [alias("space-1")]
        b = await there(engine, number, B)
        done = await commit(engine, number, put(C))
        c = await there(engine, number, C)
        assert done.versionstamp > c.versionstamp - 1 > b.sequence
        assert c.sequence > done.versionstamp > b.versionstamp
        assert c.created_at >= b.created_at
        assert (await new_space(engine, 2)).number != number

    lab.run(after)


def test_no_number_of_a_deleted_entry_or_space_comes_again(durable_lab: Lab) -> None:
    lab = durable_lab
    numbers: list[int] = []
    spaces: list[int] = []

    async def story(engine: Engine) -> None:
        lasting = (await new_space(engine)).number  # the same one every time
        done = await commit(engine, lasting, put(A))
        numbers.extend([done.versionstamp, (await there(engine, lasting, A)).sequence])
        await commit(engine, lasting, Delete(A))
        passing = await new_space(engine, 2)
        done = await commit(engine, passing.number, put(A))
        await engine.end_space(passing.id)
        spaces.append(passing.number)
        if lab.kind == "sqlite":  # whose numbers grow across spaces, too
            numbers.extend([passing.number, done.versionstamp])
        while await engine.sweep():
            pass

    for _ in range(4):
        lab.run(story)
        if lab.kind == "postgres":  # whose spaces are numbered by the clock alone
            lab.clock.advance(1)
    assert numbers == sorted(set(numbers))
    assert len(set(spaces)) == len(spaces)


def test_an_older_copy_restored_gives_no_number_twice(tmp_path: Path) -> None:
    lab = Lab("sqlite", tmp_path)

    async def first(engine: Engine) -> int:
        return (await new_space(engine)).number

    space = lab.run(first)
    copy = lab.file.with_suffix(".copy")
    shutil.copy(lab.file, copy)

    async def lost(engine: Engine) -> int:
        for n in range(500):
            done = await commit(engine, space, put(k(str(n))))
        return max(done.versionstamp, (await there(engine, space, k("499"))).sequence)

    highest = lab.run(lost)
    for file in lab.file.parent.glob("kvasir.db*"):
        if file != copy:
            file.unlink()
    shutil.copy(copy, lab.file)
    lab.clock.now += 1

    async def again(engine: Engine) -> None:
        assert await engine.count(space) == 0
        done = await commit(engine, space, put(A))
        assert done.versionstamp > highest
        assert (await there(engine, space, A)).sequence > highest
        assert (await new_space(engine, 2)).number > highest

    lab.run(again)


def test_how_far_the_database_is_ahead_of_the_clock_is_known(lab: Lab) -> None:
    far = 50 * 365 * 86_400_000

    async def ahead(engine: Engine) -> int:
        # PostgreSQL's figure may be some seconds old.
        if isinstance(engine, PostgresEngine):
            engine._ahead = None
        return await engine.milliseconds_ahead()

    async def before(engine: Engine) -> int:
        assert await ahead(engine) == 0
        space, other = (await new_space(engine)).number, (await new_space(engine, 2)).number
        await commit(engine, other, put(A))
        lab.clock.now += far
        assert await ahead(engine) == 0
        await commit(engine, space, put(A))
        assert await ahead(engine) == 0
        lab.clock.now -= far
        assert await ahead(engine) == far
        later = await commit(engine, space, put(B), put(C, ttl=100))
        assert later.versionstamp > (await there(engine, space, A)).versionstamp
        assert (await there(engine, space, B)).created_at == START + far
        lab.clock.now += 100
        assert await one(engine, space, C) is None, "expiry goes by the clock"
        assert await ahead(engine) == far - 100
        return other

    other = lab.run(before)

    async def after(engine: Engine) -> None:
        assert await ahead(engine) == far - 100
        lab.clock.now += far - 101
        assert await ahead(engine) == 1
        lab.clock.now += 1
        assert await ahead(engine) == 0
        loaded = Entry(A, b"1", first_number_of(START), 1, START + 2 * far, None, None, None)
        await engine.load(other, [loaded])
        assert await ahead(engine) == far

    lab.run(after)


def test_an_expired_space_is_gone_for_every_operation(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = await new_space(engine, 1, expires_at=START + 100)
        other = await new_space(engine, 2)
        await commit(engine, space.number, put(A))
        lab.clock.now = START + 99
        assert await engine.get_space(space.id) == space
        assert await engine.resolve(alias("space-1")) == space
        assert await engine.count_spaces("store") == (2, 1)
        await commit(engine, space.number, put(B))
        lab.clock.now = START + 100
        assert await engine.get_space(space.id) is None
        assert await engine.resolve(alias("space-1")) is None
        assert await engine.aliases(space.id) == []
        assert await engine.list_spaces() == [other]
        assert await engine.count_spaces("store") == (1, 0)
        assert await engine.alter_space(space.id, name="x") is None
        assert await engine.end_space(space.id) is False
        (outcome,) = await engine.write([Write(space.number, (put(C),))])
        assert isinstance(outcome, NotFound)
        # Its alias is free for a successor, which the sweep of the old one must not harm.
        heir = await new_space(engine, 3, aliases=[alias("space-1")])
        await commit(engine, heir.number, put(A))
        while await engine.sweep():
            pass
        assert await engine.resolve(alias("space-1")) == heir
        assert await engine.count(heir.number) == 1

    lab.run(story)
