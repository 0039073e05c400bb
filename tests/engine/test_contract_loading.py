"""What `Engine.load` promises: entries of another database, exactly as they were there."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest

from kvasir.engine import LOADED_BELOW, Engine
from kvasir.errors import Invalid, NotFound
from kvasir.keys import first_number_of, prefix_range
from kvasir.model import SYSTEM_SPACE, Check, Commit, Entry, Query, Write
from tests.support.clock import START
from tests.support.lab import Lab, alias, commit, k, new_space, one, put, there, ulid, write

A, B, C = k("a"), k("b"), k("c")
#: A tenth of a second before the laboratory's clock, as sequences count.
EARLIER = first_number_of(START - 100)
#: A day after it: written by a server whose clock is ahead.
LATER = first_number_of(START + 86_400_000)


def entry(key: bytes, sequence: int = EARLIER, **others: object) -> Entry:
    facts = {"value": b'{"n": 1.50}', "versionstamp": sequence + 5, "created_at": START - 100} | others
    return Entry(key=key, sequence=sequence, **facts)  # type: ignore[arg-type]


async def listed(engine: Engine, space: int) -> list[Entry]:
    return (await engine.page(space, Query(order="oldest"))).entries


def test_entries_are_there_as_they_were_given(lab: Lab) -> None:
    given = [
        entry(C, EARLIER),
        entry(A, EARLIER + 7, versionstamp=EARLIER + 99, expires_at=START + 10_000, refresh=500, metadata=b'{"m":[ ]}'),
        entry(B, EARLIER + 8, value='"näme\\u0000"'.encode(), created_at=START - 50),
        entry(k("d", "\x00", "é"), EARLIER + first_number_of(60), value=b'"' + b"x" * 1_048_574 + b'"'),
    ]

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await engine.load(space, given[:1])
        await engine.load(space, given[1:])
        assert await listed(engine, space) == given
        assert await engine.get(space, [each.key for each in given]) == given
        assert await engine.count(space) == 4
        conditions = [Check(each.key, each.versionstamp) for each in given]
        assert isinstance(await write(engine, space, when=conditions), Commit)

    lab.run(story)


def test_what_is_written_afterwards_is_later_than_all_that_was_loaded(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await engine.load(space, [entry(A, LATER, versionstamp=LATER + 3, created_at=START + 86_400_000)])
        stamp = (await commit(engine, space, put(B))).versionstamp
        assert stamp > LATER + 3
        assert [each.key for each in await listed(engine, space)] == [A, B]
        newest = await there(engine, space, B)
        assert newest.sequence > LATER
        assert newest.created_at >= START + 86_400_000
        assert (await commit(engine, space, put(A))).versionstamp > stamp

    lab.run(story)


def test_a_restart_does_not_forget_what_was_loaded(durable_lab: Lab) -> None:
    async def load(engine: Engine) -> int:
        space = (await new_space(engine)).number
        await engine.load(space, [entry(A, LATER)])
        return space

    space = durable_lab.run(load)

    async def go_on(engine: Engine) -> None:
        assert await listed(engine, space) == [entry(A, LATER)]
        assert (await commit(engine, space, put(B))).versionstamp > LATER + 5
        assert [each.key for each in await listed(engine, space)] == [A, B]

    durable_lab.run(go_on)


def test_a_living_entry_is_replaced_in_its_place(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await engine.load(space, [entry(A, EARLIER), entry(B, EARLIER + 1, metadata=b"{}"), entry(C, EARLIER + 2)])
        new = entry(B, EARLIER + 1, value=b"2", versionstamp=EARLIER + 70, expires_at=START + 9, refresh=9)
        assert await one(engine, space, B) != new
        await engine.load(space, [new])
        assert await listed(engine, space) == [entry(A, EARLIER), new, entry(C, EARLIER + 2)]

    lab.run(story)


@pytest.mark.parametrize("order", ["newest", "oldest", "key"])
def test_entries_are_listed_by_their_creation_whatever_their_sequences_say(
    lab: Lab, order: Literal["newest", "oldest", "key"]
) -> None:
    """Engines may go by the sequence to find what was created since; those of other databases may say anything."""
    day = 86_400_000
    given = [
        entry(k("e"), -9, created_at=-3),
        entry(k("d"), 0, created_at=-2),
        entry(A, 1, created_at=START - 9 * day),
        entry(B, 2, created_at=START + day),
        entry(C, 3, created_at=START - 5),
        entry(k("p", "1"), EARLIER, created_at=START - 100),
        entry(k("p", "2"), EARLIER + 1, created_at=START - 99),
        entry(k("p", "3"), first_number_of(START + 7), created_at=START - 100),
        entry(k("p", "4"), first_number_of(START + 8), created_at=1 << 43),
    ]

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await engine.load(space, given)
        # In its place, but created later than that says.
        await engine.load(space, [entry(k("p", "1"), EARLIER, created_at=START + 20)])
        await commit(engine, space, put(k("w", "1")))
        await engine.write([Write(space, (put(k("w", str(n))),)) for n in range(2, 9)])
        everything = await listed(engine, space)
        assert len(everything) == 17
        wanted = sorted(everything, key=lambda each: each.key) if order == "key" else everything
        if order == "newest":
            wanted.reverse()
        for since in sorted({near + each.created_at for each in everything for near in (-1, 0, 1)}):
            for within in (None, prefix_range(["p"])):
                among = wanted if within is None else [each for each in wanted if each.key in within_p]
                keys = [each.key for each in among if each.created_at >= since]
                for limit, metadata in ((None, None), (1, None), (5, None), (3, b"{}")):
                    query = Query(created_from=since, range=within, order=order, limit=limit, metadata=metadata)
                    found = [each.key for each in (await engine.page(space, query)).entries]
                    assert found == keys[:limit], query

    within_p = {k("p", str(n)) for n in range(1, 5)}
    lab.run(story)


def test_an_expired_entry_gives_up_its_place(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await engine.load(space, [entry(A, EARLIER, expires_at=START), entry(B, EARLIER + 1)])
        assert await listed(engine, space) == [entry(B, EARLIER + 1)]
        assert await one(engine, space, A) is None
        await engine.load(space, [entry(A, EARLIER + 2)])
        assert await listed(engine, space) == [entry(B, EARLIER + 1), entry(A, EARLIER + 2)]
        lab.clock.now = START - 50
        assert await engine.count(space) == 2

    lab.run(story)


def test_numbers_that_two_spaces_share_or_that_are_too_low_keep_their_order(lab: Lab) -> None:
    names = [k(str(n)) for n in range(20)]
    given = [entry(key, EARLIER + n) for n, key in enumerate(names)]

    async def story(engine: Engine) -> None:
        first, second = (await new_space(engine, 1)).number, (await new_space(engine, 2)).number
        await engine.load(first, given)
        await engine.load(second, given[:10])
        await engine.load(second, given[10:])
        for space in (first, second):
            found = await listed(engine, space)
            assert [each.key for each in found] == names
            assert all(got.sequence >= was.sequence for got, was in zip(found, given, strict=True))
            assert [msgspec.structs.replace(each, sequence=0) for each in found] == [
                msgspec.structs.replace(each, sequence=0) for each in given
            ]
        await engine.load(second, [entry(A, EARLIER - 9)])
        assert (await listed(engine, second))[-1].key == A

    lab.run(story)


HIGHEST = LOADED_BELOW - 1


@pytest.mark.parametrize("numbers", [{"versionstamp": HIGHEST}, {"sequence": HIGHEST}])
def test_the_highest_numbers_that_are_loaded_leave_room_for_later_ones(lab: Lab, numbers: dict[str, int]) -> None:
    async def story(engine: Engine) -> None:
        for space in ((await new_space(engine)).number, SYSTEM_SPACE):
            await engine.load(space, [entry(A, **({"versionstamp": 5} | numbers))])
            loaded = await there(engine, space, A)
            for _ in range(3):
                await commit(engine, space, put(B), put(C))
                await engine.write([Write(space, (put(k("d", str(n))),)) for n in range(9)])
            assert (await there(engine, space, B)).versionstamp > loaded.versionstamp
            assert (await there(engine, space, B)).sequence > loaded.sequence
        assert (await new_space(engine, 2)).number

    lab.run(story)


@pytest.mark.parametrize(
    "numbers", [{"versionstamp": HIGHEST + 1}, {"sequence": HIGHEST + 1}, {"versionstamp": (1 << 63) - 1}]
)
def test_numbers_that_leave_no_room_are_refused(lab: Lab, numbers: dict[str, int]) -> None:
    """After them nothing could be written any more."""

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        for number in (space, SYSTEM_SPACE):
            with pytest.raises(Invalid, match="room"):
                await engine.load(number, [entry(A), entry(B, **numbers), entry(C)])
            assert await listed(engine, number) == []
            await commit(engine, number, put(B))

    lab.run(story)


def test_nothing_is_loaded_into_a_space_that_is_gone(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = await new_space(engine, 1)
        await engine.end_space(space.id)
        brief = await new_space(engine, 2, expires_at=START + 1)
        lab.clock.now += 1
        for number in (space.number, brief.number):
            with pytest.raises(NotFound):
                await engine.load(number, [entry(A)])

    lab.run(story)


def test_records_of_the_system_space_are_seen_by_every_process_at_once(lab: Lab) -> None:
    async def story(first: Engine, second: Engine) -> None:
        await commit(first, SYSTEM_SPACE, put(A))
        assert (await there(second, SYSTEM_SPACE, A)).value == b"1"
        before = await second.epoch()
        await first.load(SYSTEM_SPACE, [entry(A, value=b"2"), entry(B)])
        assert await second.epoch() != before
        assert [each and each.value for each in await second.get(SYSTEM_SPACE, [A, B])] == [b"2", entry(B).value]
        space = await new_space(first)
        before = await second.epoch()
        await first.load(space.number, [entry(A)])
        assert await second.epoch() == before

    lab.run_pair(story)


def test_a_copy_read_a_moment_ago_is_not_given_again(lab: Lab) -> None:
    async def story(first: Engine, second: Engine) -> None:
        space = (await new_space(first)).number
        await commit(first, space, put(A))
        assert (await there(second, space, A)).value == b"1"
        await first.load(space, [entry(A, value=b"2")])
        assert (await there(second, space, A)).value == b"2"

    lab.run_pair(story)


def test_a_space_is_made_exactly_as_it_was(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        made = await new_space(
            engine,
            7,
            kind="session",
            aliases=[alias("t", "session-token", "")],
            expires_at=START + 5,
            clear_every=60_000,
        )
        found = await engine.get_space(ulid(7))
        assert found == made
        assert (made.created_at, made.expires_at, made.clear_every) == (START, START + 5, 60_000)

    lab.run(story)
