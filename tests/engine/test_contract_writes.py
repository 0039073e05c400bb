"""What `Engine.get` and `Engine.write` promise, on every engine."""

from __future__ import annotations

import asyncio

import pytest

from kvasir.engine import Engine
from kvasir.errors import NotFound, TooLarge
from kvasir.keys import prefix_range
from kvasir.model import (
    SYSTEM_SPACE,
    Check,
    Commit,
    Conflict,
    Delete,
    DeleteRange,
    Present,
    Set,
    Touch,
    Write,
)
from tests.support.clock import START
from tests.support.lab import Lab, commit, conflict, k, new_space, one, put, there, ulid, write

A, B, C = k("a"), k("b"), k("c")


def test_an_entry_comes_back_as_it_was_set(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        value, metadata = b' {"n": 1.0e2, "a":"\xc3\xa9"} ', b'{ "m" : [1] }'
        done = await commit(engine, space, Set(A, value, metadata=metadata))
        entry = await there(engine, space, A)
        assert (entry.key, entry.value, entry.metadata) == (A, value, metadata)
        assert (entry.versionstamp, entry.created_at) == (done.versionstamp, START)
        assert (entry.expires_at, entry.refresh) == (None, None)

    lab.run(story)


def test_get_answers_in_the_order_asked_with_gaps_and_repeats(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(A), put(B))
        entries = await engine.get(space, [B, C, A, B])
        assert [entry and entry.key for entry in entries] == [B, None, A, B]
        assert await engine.get(space, []) == []

    lab.run(story)


def test_a_thousand_keys_are_one_snapshot(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        keys = [k(str(n)) for n in range(1_000)]

        async def writer() -> None:
            for round in range(20):
                await commit(engine, space, *(put(key, str(round).encode()) for key in keys))

        await commit(engine, space, *(put(key, b"start") for key in keys))
        writing = asyncio.create_task(writer())
        looks = 0
        while not writing.done():
            entries = await engine.get(space, keys)
            assert len({entry.value for entry in entries if entry}) == 1
            assert None not in entries
            looks += 1
            await asyncio.sleep(0)
        await writing
        assert looks

    lab.run(story)


def test_spaces_do_not_see_each_other(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        first, second = (await new_space(engine, 1)).number, (await new_space(engine, 2)).number
        await commit(engine, first, put(A))
        assert await one(engine, second, A) is None
        assert (await commit(engine, second, Delete(A), DeleteRange(None))).counts == (0, 0)
        await there(engine, first, A)

    lab.run(story)


def test_a_set_replaces_value_metadata_and_expiry_as_one_and_keeps_its_place(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        assert (await commit(engine, space, put(A, metadata=b"{}", ttl=1_000, refresh=True))).counts == (0,)
        old = await there(engine, space, A)
        lab.clock.now += 10
        assert (await commit(engine, space, put(A, b"2"))).counts == (1,)
        new = await there(engine, space, A)
        assert (new.value, new.metadata, new.expires_at, new.refresh) == (b"2", None, None, None)
        assert (new.sequence, new.created_at) == (old.sequence, old.created_at)
        assert new.versionstamp > old.versionstamp

    lab.run(story)


def test_a_deleted_key_set_again_is_a_new_entry(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(A))
        old = await there(engine, space, A)
        lab.clock.now += 10
        assert (await commit(engine, space, Delete(A), Delete(A), Delete(B))).counts == (1, 0, 0)
        assert await one(engine, space, A) is None
        await commit(engine, space, put(A))
        new = await there(engine, space, A)
        assert new.sequence > old.sequence
        assert new.created_at == START + 10

    lab.run(story)


def test_a_mutation_sees_the_ones_before_it(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        done = await commit(
            engine, space, put(A), put(A, b"2"), Delete(A), put(A, b"3"), Touch(A, START + 5), DeleteRange(None), put(B)
        )
        assert done.counts == (0, 1, 1, 0, 1, 1, 0)
        assert await one(engine, space, A) is None
        assert (await there(engine, space, B)).versionstamp == done.versionstamp

    lab.run(story)


def test_entries_of_one_write_share_the_versionstamp_and_keep_their_order(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        done = await commit(engine, space, put(C), put(A), put(B))
        c, a, b = [await there(engine, space, key) for key in (C, A, B)]
        assert {c.versionstamp, a.versionstamp, b.versionstamp} == {done.versionstamp}
        assert c.sequence < a.sequence < b.sequence

    lab.run(story)


def test_a_check_holds_for_exactly_one_versionstamp(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        stamp = (await commit(engine, space, put(A))).versionstamp
        for wrong in (stamp - 1, stamp + 1, 0, -1, None):
            assert await write(engine, space, put(A, b"wrong"), when=[Check(A, wrong)]) == conflict(
                Check(A, wrong), stamp
            )
        assert (await there(engine, space, A)).value == b"1"
        await commit(engine, space, put(A, b"2"), when=[Check(A, stamp)])
        assert (await there(engine, space, A)).value == b"2"

    lab.run(story)


def test_a_check_of_absence_and_a_check_of_presence(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        assert await write(engine, space, put(A), when=[Present(A)]) == conflict(Present(A), None)
        assert await write(engine, space, put(A), when=[Check(A, 7)]) == conflict(Check(A, 7), None)
        stamp = (await commit(engine, space, put(A), when=[Check(A, None)])).versionstamp
        assert await write(engine, space, put(A), when=[Check(A, None)]) == conflict(Check(A, None), stamp)
        await commit(engine, space, Delete(A), when=[Present(A)])
        await commit(engine, space, put(A), when=[Check(A, None)])

    lab.run(story)


def test_conditions_look_at_the_state_before_the_write_and_at_any_key(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        stamp = (await commit(engine, space, put(A))).versionstamp
        outcome = await write(
            engine, space, Delete(A), put(B), put(C), when=[Check(A, stamp), Check(B, None), Present(C)]
        )
        assert outcome == conflict(Present(C), None)
        assert [entry and entry.key for entry in await engine.get(space, [A, B, C])] == [A, None, None]
        await commit(engine, space, Delete(A), put(B), when=[Check(A, stamp), Check(B, None)])

    lab.run(story)


def test_a_write_may_only_check(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        assert (await commit(engine, space, when=[Check(A, None)])).counts == ()
        assert await write(engine, space, when=[Present(A)]) == conflict(Present(A), None)

    lab.run(story)


def test_independent_writes_happen_in_order_and_leave_each_other_alone(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        outcomes = await engine.write(
            [
                Write(space, (put(A),)),
                Write(space, (put(B), put(A, b"no")), (Check(A, None),)),
                Write(999_999_999, (put(A),)),
                Write(space, (put(C),), (Present(A),)),
            ]
        )
        first, second, third, fourth = outcomes
        assert isinstance(first, Commit)
        assert isinstance(fourth, Commit)
        assert second == conflict(Check(A, None), first.versionstamp)
        assert isinstance(third, NotFound)
        assert third.reason == "store_not_found"
        assert fourth.versionstamp >= first.versionstamp
        assert [entry and entry.value for entry in await engine.get(space, [A, B, C])] == [b"1", None, b"1"]
        assert await engine.write([]) == []

    lab.run(story)


def test_many_plain_sets_at_once_are_each_what_one_alone_would_be(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(k("living"), ttl=500, refresh=True, metadata=b"{}"), put(k("expired"), ttl=5))
        living, expired = await there(engine, space, k("living")), await there(engine, space, k("expired"))
        lab.clock.now += 5
        sets = [put(k("new", str(n)), ttl=n + 1) for n in range(300)]
        sets += [put(k("living"), b"2"), put(k("expired"), b"2"), put(k("twice"), b"1"), put(k("twice"), b"2", ttl=9)]
        outcomes = await engine.write([Write(space, (one,)) for one in sets])
        assert all(isinstance(outcome, Commit) for outcome in outcomes)
        counts = [outcome.counts for outcome in outcomes if isinstance(outcome, Commit)]
        assert counts == [(0,)] * 300 + [(1,), (0,), (0,), (1,)]
        entries = [await there(engine, space, k("new", str(n))) for n in range(300)]
        assert [entry.expires_at for entry in entries] == [START + 5 + n + 1 for n in range(300)]
        assert [entry.sequence for entry in entries] == sorted({entry.sequence for entry in entries})
        kept, anew = await there(engine, space, k("living")), await there(engine, space, k("expired"))
        assert (kept.sequence, kept.created_at) == (living.sequence, living.created_at)
        assert (kept.value, kept.expires_at, kept.refresh, kept.metadata) == (b"2", None, None, None)
        assert kept.versionstamp > living.versionstamp
        assert anew.sequence > expired.sequence
        assert (anew.created_at, anew.expires_at) == (START + 5, None)
        twice = await there(engine, space, k("twice"))
        assert (twice.value, twice.expires_at) == (b"2", START + 14)

    lab.run(story)


def test_delete_range_takes_the_range_and_nothing_beside_it(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        inside = [k("a"), k("a", "b"), k("a", "\x00"), k("a", ""), k("a", "\U0010ffff")]
        outside = [k("ab"), k("a\x00"), k("a\x00", "b"), k(""), k("b"), k("a\x00\U0010ffff")]
        await commit(engine, space, *map(put, inside + outside))
        assert await engine.count(space, prefix_range(["a"])) == len(inside)
        assert (await commit(engine, space, DeleteRange(prefix_range(["a"])))).counts == (len(inside),)
        assert await engine.get(space, inside) == [None] * len(inside)
        assert None not in await engine.get(space, outside)
        assert (await commit(engine, space, DeleteRange(None))).counts == (len(outside),)
        assert await engine.count(space) == 0

    lab.run(story)


def test_touch_changes_the_expiry_and_nothing_else(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(A, metadata=b'{"m":1}', ttl=1_000, refresh=True))
        old = await there(engine, space, A)
        for expires_at in (START + 5_000, START + 10, None):
            assert (await commit(engine, space, Touch(A, expires_at), Touch(B, expires_at))).counts == (1, 0)
            new = await there(engine, space, A)
            assert new.expires_at == expires_at
            for field in old.__struct_fields__:
                assert field == "expires_at" or getattr(new, field) == getattr(old, field), field
        assert (await commit(engine, space, Touch(A, START))).counts == (1,)
        assert await one(engine, space, A) is None
        assert (await commit(engine, space, Touch(A, None))).counts == (0,)

    lab.run(story)


def test_touch_that_extends_never_shortens(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(A, ttl=1_000))
        for asked, then in (
            (START + 999, START + 1_000),
            (START + 1_000, START + 1_000),
            (START + 1_001, START + 1_001),
            (START - 1, START + 1_001),
            (None, None),
            (START + 9_999, None),
        ):
            assert (await commit(engine, space, Touch(A, asked, extend=True))).counts == (1,)
            assert (await there(engine, space, A)).expires_at == then

    lab.run(story)


def test_refresh_remembers_the_length_of_the_first_life(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(
            engine,
            space,
            put(A, ttl=700, refresh=True),
            put(B, expires_at=START + 800, refresh=True),
            put(C, refresh=True),
        )
        a, b, c = [await there(engine, space, key) for key in (A, B, C)]
        assert (a.expires_at, a.refresh) == (START + 700, 700)
        assert (b.expires_at, b.refresh) == (START + 800, 800)
        assert (c.expires_at, c.refresh) == (None, None)
        await commit(engine, space, put(A, ttl=5))
        assert (await there(engine, space, A)).refresh is None

    lab.run(story)


def test_big_values_and_awkward_bytes_survive(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        big = b'"' + b"x" * (1 << 20) + b'"'
        key = k("\x00", "", "\x00\x00", "\U0010ffff", "ß/..")
        await commit(engine, space, put(key, big), put(A, b'"\\u0000\\ud83d\\ude00"'))
        assert [entry and entry.value for entry in await engine.get(space, [key, A])] == [
            big,
            b'"\\u0000\\ud83d\\ude00"',
        ]

    lab.run(story)


def test_many_writers_at_once_lose_nothing(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number

        async def increment() -> None:
            while True:
                (entry,) = await engine.get(space, [A])
                number = int(entry.value) if entry else 0
                check = Check(A, entry.versionstamp if entry else None)
                if isinstance(await write(engine, space, put(A, str(number + 1).encode()), when=[check]), Commit):
                    return

        await asyncio.gather(*(increment() for _ in range(40)))
        assert (await there(engine, space, A)).value == b"40"
        stamps = await asyncio.gather(*(commit(engine, space, put(k(str(n)))) for n in range(200)))
        assert len({done.versionstamp for done in stamps}) == 200

    lab.run(story)


def test_cancelling_a_write_harms_nobody(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        for n in range(50):
            task = asyncio.ensure_future(engine.write([Write(space, (put(k(str(n))),))]))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.wait_for(commit(engine, space, put(A)), 10)
        await there(engine, space, A)

    lab.run(story)


def test_what_one_process_acknowledged_every_process_reads(lab: Lab) -> None:
    async def story(first: Engine, second: Engine) -> None:
        space = (await new_space(first)).number
        stamp = 0
        for n in range(50):
            writer, reader = (first, second) if n % 2 else (second, first)
            done = await commit(writer, space, put(A, str(n).encode()))
            entry = await there(reader, space, A)
            assert (entry.value, entry.versionstamp) == (str(n).encode(), done.versionstamp)
            assert done.versionstamp > stamp
            stamp = done.versionstamp

    lab.run_pair(story)


def test_a_key_is_changed_once_however_many_processes_try(lab: Lab) -> None:
    async def story(first: Engine, second: Engine) -> None:
        space = (await new_space(first)).number
        for n in range(50):
            stamp = None if n == 0 else (await there(first, space, A)).versionstamp
            outcomes = await asyncio.gather(
                *(write(engine, space, put(A, str(n).encode()), when=[Check(A, stamp)])
                  for engine in [first, second] * 3)
            )  # fmt: skip
            assert sum(isinstance(outcome, Commit) for outcome in outcomes) == 1

    lab.run_pair(story)


def test_the_system_space_is_there_from_the_start(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        await commit(engine, SYSTEM_SPACE, put(A))
        await there(engine, SYSTEM_SPACE, A)
        assert await engine.list_spaces() == []
        assert await engine.get_space(ulid(1)) is None

    lab.run(story)


def test_the_writer_counts_its_work(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        writes = engine.writer.groups.total
        groups = sum(engine.writer.groups.counts)
        await engine.write([Write(space, (put(A),)), Write(space, (put(B),))])
        assert engine.writer.groups.total == writes + 2
        assert sum(engine.writer.groups.counts) == groups + 1
        assert engine.writer.queue_depth == 0

    lab.run(story)


def test_a_read_may_be_bounded(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(A, b"1" * 10), put(B, b"2" * 20), put(C, b"3" * 500, ttl=1))
        lab.clock.now += 1  # what has expired weighs nothing
        keys = [A, B, C, k("absent"), B]
        assert await engine.get(space, keys, 30) == await engine.get(space, keys)
        with pytest.raises(TooLarge, match="fewer keys"):
            await engine.get(space, keys, 29)
        many = [k(str(number)) for number in range(600)]
        await commit(engine, space, *(put(key, b"12345") for key in many))
        assert None not in await engine.get(space, many, 3_000)
        with pytest.raises(TooLarge):
            await engine.get(space, many, 2_999)
        assert await one(engine, space, A) is not None

    lab.run(story)


def test_what_takes_no_waiting_is_what_waiting_gives(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        keys = [A, B, C]
        await commit(engine, space, put(A), put(B, ttl=1_000))
        for _ in range(2):
            assert engine.get_nowait(space, keys) in (None, await engine.get(space, keys))
            assert engine.epoch_nowait() in (None, await engine.epoch())
            lab.clock.now += 1_000
        assert engine.get_nowait(space, keys[1:2]) in (None, [None])
        if engine.write_nowait is not None:
            conflicting = Write(space, (put(A),), (Check(A, None),))
            stamped, refused = engine.write_nowait([Write(space, (put(B),)), conflicting])
            assert isinstance(stamped, Commit)
            assert isinstance(refused, Conflict)
            (entry,) = await engine.get(space, [B])
            assert entry is not None
            assert entry.versionstamp == stamped.versionstamp

    lab.run(story)
