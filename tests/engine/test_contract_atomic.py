"""What several mutations and checks in one write promise, on every engine: all or nothing, every unmet check told."""

from __future__ import annotations

import asyncio

import pytest

from kvasir.engine import Engine
from kvasir.errors import Invalid
from kvasir.keys import prefix_range
from kvasir.model import (
    Check,
    Commit,
    Condition,
    Conflict,
    Delete,
    DeleteRange,
    Increment,
    Present,
    Set,
    Touch,
    Unmet,
    Write,
)
from tests.support.clock import START
from tests.support.lab import Lab, commit, k, new_space, one, put, there, write

A, B, C, D = k("a"), k("b"), k("c"), k("d")

MOST, LEAST = (1 << 63) - 1, -(1 << 63)


def test_every_unmet_condition_is_told_with_what_is_there(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        stamp = (await commit(engine, space, put(A), put(k("p", "1")), put(k("p", "2")))).versionstamp
        conditions: list[Condition] = [
            Check(A, stamp),
            Check(A, 7),
            Present(B),
            Check(A, None),
            Check(C, 9),
            Present(A),
        ]
        range = DeleteRange(prefix_range(["p"]), expect=3)
        all_of_them = DeleteRange(None, expect=4)
        right = DeleteRange(prefix_range(["p"]), expect=2)
        outcome = await write(engine, space, put(D), range, all_of_them, right, when=conditions)
        assert outcome == Conflict(
            (
                Unmet(Check(A, 7), stamp),
                Unmet(Present(B), None),
                Unmet(Check(A, None), stamp),
                Unmet(Check(C, 9), None),
                Unmet(range, count=2),
                Unmet(all_of_them, count=3),
            )
        )
        assert (outcome.key, outcome.versionstamp) == (A, stamp)
        assert await engine.count(space) == 3

    lab.run(story)


def test_a_range_is_deleted_only_if_it_holds_what_is_expected(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        under = prefix_range(["p"])
        await commit(engine, space, put(k("p")), put(k("p", "1")), put(k("p", "2"), ttl=5), put(k("pp")))
        for wrong in (0, 2, 4):
            assert await write(engine, space, DeleteRange(under, expect=wrong)) == Conflict(
                (Unmet(DeleteRange(under, expect=wrong), count=3),)
            )
        lab.clock.now += 5
        # What the write itself sets before is not counted.
        done = await commit(engine, space, put(k("p", "new")), DeleteRange(under, expect=2))
        assert done.counts == (0, 3)
        assert await engine.count(space) == 1
        assert (await commit(engine, space, DeleteRange(under, expect=0))).counts == (0,)
        outcome = await write(engine, space, DeleteRange(None, expect=0))
        assert isinstance(outcome, Conflict)
        assert (outcome.key, outcome.unmet[0].count) == (b"", 1)

    lab.run(story)


def test_a_set_keeps_expiry_and_metadata_if_told_so(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        first = Set(A, b"1", b'{"m":1}', ttl=100, refresh=True)
        await commit(engine, space, first)
        await commit(engine, space, Touch(A, START + 500))
        await commit(engine, space, Set(A, b"2", b'{"m":2}', keep_expiry=True))
        entry = await there(engine, space, A)
        assert (entry.value, entry.metadata, entry.expires_at, entry.refresh) == (b"2", b'{"m":2}', START + 500, 100)
        await commit(engine, space, Set(A, b"3", ttl=7, keep_metadata=True))
        entry = await there(engine, space, A)
        assert (entry.value, entry.metadata, entry.expires_at, entry.refresh) == (b"3", b'{"m":2}', START + 7, None)
        both = Set(A, b"4", b"{}", ttl=50, refresh=True, keep_expiry=True, keep_metadata=True)
        assert (await commit(engine, space, both)).counts == (1,)
        entry = await there(engine, space, A)
        assert (entry.value, entry.metadata, entry.expires_at, entry.refresh) == (b"4", b'{"m":2}', START + 7, None)

    lab.run(story)


def test_what_is_given_beside_keep_is_for_a_new_entry(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        both = Set(A, b"1", b'{"new":1}', ttl=50, refresh=True, keep_expiry=True, keep_metadata=True)
        await commit(engine, space, Set(A, b"0", b"{}", ttl=1))
        lab.clock.now += 1
        assert (await commit(engine, space, both)).counts == (0,)
        entry = await there(engine, space, A)
        assert (entry.metadata, entry.expires_at, entry.refresh) == (b'{"new":1}', START + 51, 50)
        assert entry.created_at == START + 1

    lab.run(story)


def test_many_sets_that_keep_beside_plain_ones(lab: Lab) -> None:
    """A durable engine has a faster way for many plain Sets."""

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        keys = [k(str(n)) for n in range(20)]
        await commit(engine, space, *(Set(key, b"1", b'{"m":1}', ttl=100) for key in keys))
        await engine.write(
            [
                Write(space, (Set(key, b"2", keep_expiry=n % 2 == 0, keep_metadata=n % 3 == 0),))
                for n, key in enumerate(keys)
            ]
        )
        for n, entry in enumerate(await engine.get(space, keys)):
            assert entry is not None
            assert entry.expires_at == (START + 100 if n % 2 == 0 else None)
            assert entry.metadata == (b'{"m":1}' if n % 3 == 0 else None)

    lab.run(story)


def test_an_increment_adds_to_what_is_there(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        assert (await commit(engine, space, Increment(A, 5))).counts == (5,)
        assert (await commit(engine, space, Increment(A, -7), Increment(A, 1), Increment(B, 2, 40))).counts == (
            -2,
            -1,
            42,
        )
        entry = await there(engine, space, A)
        assert (entry.value, entry.expires_at, entry.metadata) == (b"-1", None, None)
        for text, number in ((b" -0\n", 0), (b"\t12 ", 12), (b"%d" % MOST, MOST), (b"%d" % LEAST, LEAST)):
            await commit(engine, space, put(C, text))
            assert (await commit(engine, space, Increment(C, 0))).counts == (number,)
            assert (await there(engine, space, C)).value == b"%d" % number
        assert (await commit(engine, space, Increment(C, MOST))).counts == (-1,)

    lab.run(story)


def test_an_increment_keeps_life_and_metadata_and_moves_the_versionstamp(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        before = await commit(engine, space, Set(A, b"1", b'{"m":1}', ttl=100, refresh=True))
        done = await commit(engine, space, Increment(A, 1, 99, expires_at=START + 5))
        entry = await there(engine, space, A)
        assert (entry.value, entry.metadata, entry.expires_at, entry.refresh) == (b"2", b'{"m":1}', START + 100, 100)
        assert entry.versionstamp == done.versionstamp > before.versionstamp
        lab.clock.now += 100
        assert (await commit(engine, space, Increment(A, 1, 99, expires_at=START + 105))).counts == (100,)
        entry = await there(engine, space, A)
        assert (entry.metadata, entry.expires_at, entry.refresh) == (None, START + 105, None)

    lab.run(story)


@pytest.mark.parametrize(
    ("value", "delta"),
    [
        (b"1.0", 1),
        (b"1e3", 1),
        (b'"1"', 1),
        (b"null", 1),
        (b"true", 1),
        (b"[1]", 1),
        (b"9223372036854775808", 0),
        (b"-9223372036854775809", 0),
        (b"10000000000000000000000", 0),
        (b"%d" % MOST, 1),
        (b"%d" % LEAST, -1),
    ],
)
def test_what_cannot_be_incremented_is_refused_and_nothing_changes(lab: Lab, value: bytes, delta: int) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(A, value), put(B, b"7"), put(k("p", "1")))
        before = await engine.get(space, [A, B, C, D, k("p", "1")])
        bad = Increment(A, delta)
        for mutations in (
            (bad,),
            (put(C), bad),
            (Increment(B, 1), Touch(B, START + 1), DeleteRange(prefix_range(["p"])), put(D), bad, Delete(A)),
            (bad, put(C)),
        ):
            # Its neighbours in one call are left alone.
            outcomes = await engine.write(
                [Write(space, (put(k("x")),)), Write(space, mutations, (Present(A),)), Write(space, (put(k("y")),))]
            )
            assert [type(outcome) for outcome in outcomes] == [Commit, Invalid, Commit]
            assert isinstance(outcomes[1], Invalid)
            assert outcomes[1].reason == "not_incremented"
            assert await engine.get(space, [A, B, C, D, k("p", "1")]) == before
            # So is whoever shares a commit with it.
            both = await gathered(engine, space, mutations)
            assert [type(outcome) for (outcome,) in both] == [Commit, Invalid, Commit]
            assert await engine.get(space, [A, B, C, D, k("p", "1")]) == before
        assert await one(engine, space, k("after")) is not None

    lab.run(story)


async def gathered(engine: Engine, space: int, mutations: tuple[object, ...]) -> list[list[object]]:
    return await asyncio.gather(  # type: ignore[return-value]
        engine.write([Write(space, (put(k("before")),))]),
        engine.write([Write(space, mutations)]),  # type: ignore[arg-type]
        engine.write([Write(space, (put(k("after")),))]),
    )


def test_an_increment_from_an_initial_value_beyond_the_bounds_is_refused(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        (outcome,) = await engine.write([Write(space, (put(B), Increment(A, 1, MOST)))])
        assert isinstance(outcome, Invalid)
        assert await engine.get(space, [A, B]) == [None, None]
        # The initial value does not matter for a key that exists.
        await commit(engine, space, put(A, b"1"))
        assert (await commit(engine, space, Increment(A, 1, MOST))).counts == (2,)

    lab.run(story)


def test_an_increment_beside_sets_counts_exactly(lab: Lab) -> None:
    async def story(engine: Engine, other: Engine) -> None:
        space = (await new_space(engine)).number

        async def count(engine: Engine) -> None:
            for _ in range(50):
                await commit(engine, space, Increment(A, 1), put(B))

        async def edit(engine: Engine) -> None:
            for _ in range(50):
                await commit(engine, space, Touch(A, START + 1_000), put(C))

        await asyncio.gather(*[count(each) for each in (engine, other) for _ in range(4)], edit(engine), edit(other))
        assert (await there(engine, space, A)).value == b"400"

    lab.run_pair(story)


def test_mutations_of_one_write_see_each_other(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        done = await commit(
            engine,
            space,
            put(A, b"5"),
            Increment(A, 1),
            Delete(A),
            Increment(A, 1, 100),
            DeleteRange(None),
            Increment(A, 3),
        )
        assert done.counts == (0, 6, 1, 101, 1, 3)
        assert (await there(engine, space, A)).value == b"3"

    lab.run(story)


def test_the_life_of_an_edited_entry_survives_touches_beside_the_edits(lab: Lab) -> None:
    """Edits by compare-and-set that keep expiry and metadata, while others extend the life: neither is lost."""

    async def story(engine: Engine, other: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, Set(A, b"0", b'{"m":1}', ttl=1_000, refresh=True))

        async def edit() -> None:
            for _ in range(40):
                entry = await there(engine, space, A)
                changed = Set(A, b"%d" % (int(entry.value) + 1), keep_expiry=True, keep_metadata=True)
                await commit(engine, space, changed, when=[Check(A, entry.versionstamp)])

        async def extend() -> None:
            for n in range(40):
                await commit(other, space, Touch(A, START + 1_000 + n + 1, extend=True), when=[Present(A)])

        await asyncio.gather(edit(), extend())
        entry = await there(engine, space, A)
        assert (entry.value, entry.metadata, entry.expires_at, entry.refresh) == (
            b"40",
            b'{"m":1}',
            START + 1_040,
            1_000,
        )

    lab.run_pair(story)
