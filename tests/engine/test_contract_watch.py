"""What `Engine.watch` promises, on every engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import pytest

from kvasir.engine import Engine, Watch
from kvasir.errors import NotFound, Unavailable
from kvasir.keys import text_range, under
from kvasir.limits import Limits
from kvasir.model import Change, Changes, Commit, Delete, DeleteRange, Increment, KeyRange, Touch, Write
from tests.support.clock import START
from tests.support.lab import Lab, commit, k, new_space, one, put, there

A, B, C = k("a"), k("b"), k("c")
WHOLE = KeyRange(b"", b"\xff")


def only(key: bytes) -> KeyRange:
    return KeyRange(key, key + b"\x00")


async def told(watch: Watch) -> Changes:
    return await asyncio.wait_for(anext(watch), 10)


@contextlib.asynccontextmanager
async def watching(
    engine: Engine, space: int, *ranges: KeyRange, since: int | None = None
) -> AsyncIterator[tuple[Watch, int]]:
    """A watch that has begun, and the versionstamp from which on it misses nothing."""
    watch = await engine.watch(space, ranges or [WHOLE], since)
    try:
        first = await told(watch)
        assert (first.changes, first.resync) == ([], False)
        yield watch, first.upto
    finally:
        watch.close()


async def until(watch: Watch, stamp: int) -> list[Change]:
    """All changes up to this versionstamp."""
    changes: list[Change] = []
    while True:
        more = await told(watch)
        assert not more.resync
        assert more.changes
        changes += more.changes
        stamps = [change.versionstamp for change in changes]
        assert stamps == sorted(stamps)
        assert more.upto >= stamps[-1]
        if more.upto >= stamp:
            return changes


def kinds(changes: Sequence[Change]) -> list[tuple[str, bytes]]:
    return [(change.kind, change.key) for change in changes]


def test_a_watch_tells_sets_deletes_and_lives(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        before = await commit(engine, space, put(A))
        async with watching(engine, space) as (watch, upto):
            assert upto >= before.versionstamp
            done = await commit(engine, space, put(A, b"2", metadata=b'{"m":1}', ttl=100))
            (change,) = await until(watch, done.versionstamp)
            assert change == Change("set", done.versionstamp, A, await there(engine, space, A))
            done = await commit(engine, space, Touch(A, START + 500))
            (change,) = await until(watch, done.versionstamp)
            entry = await there(engine, space, A)
            assert change == Change("expiry", done.versionstamp, A, entry)
            assert (entry.expires_at, entry.versionstamp < done.versionstamp) == (START + 500, True)
            done = await commit(engine, space, Increment(B, 3))
            assert await until(watch, done.versionstamp) == [
                Change("set", done.versionstamp, B, await there(engine, space, B))
            ]
            done = await commit(engine, space, Delete(A))
            assert await until(watch, done.versionstamp) == [Change("delete", done.versionstamp, A)]

    lab.run(story)


def test_what_changes_nothing_is_not_told(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(A, ttl=5), put(B, b'"x"'))
        async with watching(engine, space) as (watch, _):
            await commit(engine, space, Delete(C), Touch(C, START + 1), DeleteRange(under(k("none"))))
            await commit(engine, space, Touch(A, START + 1, extend=True))
            await engine.write([Write(space, (put(C), Increment(B, 1)))])
            await engine.write([Write(space, (put(C), DeleteRange(None, expect=9)))])
            lab.clock.now += 5
            assert await one(engine, space, A) is None  # the end of a life is no change
            while await engine.sweep():
                pass
            done = await commit(engine, space, put(k("last")))
            assert kinds(await until(watch, done.versionstamp)) == [("set", k("last"))]

    lab.run(story)


def test_only_what_is_watched_is_told(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space, other = (await new_space(engine, 1)).number, (await new_space(engine, 2)).number
        keys = [k("a"), k("a", "1"), k("a", "1", "2"), k("ab"), k("b"), k("b", "x"), k("a\x00"), k("")]
        wanted = {
            "a key": ([only(k("a"))], [k("a")]),
            "two keys": ([only(k("ab")), only(k("b"))], [k("ab"), k("b")]),
            "a prefix": ([under(k("a"))], [k("a"), k("a", "1"), k("a", "1", "2")]),
            "a deeper prefix": ([under(k("a", "1"))], [k("a", "1"), k("a", "1", "2")]),
            "a text": ([text_range("a")], [k("a"), k("a", "1"), k("a", "1", "2"), k("ab"), k("a\x00")]),
            "the empty part": ([under(k(""))], [k("")]),
            "overlapping": ([under(k("a")), only(k("a", "1")), text_range("b")], [*keys[:3], k("b"), k("b", "x")]),
            "everything": ([WHOLE], keys),
        }
        async with contextlib.AsyncExitStack() as stack:
            watches = {
                name: (await stack.enter_async_context(watching(engine, space, *ranges)))[0]
                for name, (ranges, _) in wanted.items()
            }
            await commit(engine, other, *(put(key) for key in keys))
            for key in keys:
                await commit(engine, space, put(key))
            for name, (_, members) in wanted.items():
                last = (await there(engine, space, members[-1])).versionstamp
                assert [change.key for change in await until(watches[name], last)] == members, name

    lab.run(story)


def test_a_range_that_is_deleted_is_told_as_far_as_it_is_watched(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(k("a")), put(k("a", "1")), put(k("a", "1", "2")), put(k("b")))
        async with contextlib.AsyncExitStack() as stack:
            ranges = {
                "whole": [WHOLE], "above": [under(k("a"))], "below": [under(k("a", "1"))], "key": [only(k("a", "1"))],
                "beside": [under(k("b"))],
            }  # fmt: skip
            watches = {
                name: (await stack.enter_async_context(watching(engine, space, *each)))[0]
                for name, each in ranges.items()
            }
            stamp = (await commit(engine, space, DeleteRange(under(k("a"))), put(k("a", "1", "3")))).versionstamp
            last = (await commit(engine, space, put(k("b")))).versionstamp
            kept = Change("set", stamp, k("a", "1", "3"), await there(engine, space, k("a", "1", "3")))
            beside = Change("set", last, k("b"), await there(engine, space, k("b")))

            def gone(key: bytes) -> Change:
                return Change("delete_range", stamp, key, None, under(key).end)

            assert await until(watches["whole"], last) == [gone(k("a")), kept, beside]
            assert await until(watches["above"], stamp) == [gone(k("a")), kept]
            assert await until(watches["below"], stamp) == [gone(k("a", "1")), kept]
            assert await until(watches["key"], stamp) == [Change("delete", stamp, k("a", "1"))]
            assert await until(watches["beside"], last) == [beside]

    lab.run(story)


def test_a_write_is_told_whole_and_in_the_order_of_writes(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        async with watching(engine, space) as (watch, _):
            stamps = []
            for n in range(20):
                keys = [k(str(n), str(m)) for m in range(5)]
                stamps.append((await commit(engine, space, *map(put, keys))).versionstamp)
            changes = await until(watch, stamps[-1])
            assert [change.key for change in changes] == [k(str(n), str(m)) for n in range(20) for m in range(5)]
            assert [change.versionstamp for change in changes] == [stamp for stamp in stamps for _ in range(5)]

    lab.run(story)


def test_a_slow_reader_gets_the_newest_state_of_each_key(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        async with watching(engine, space) as (watch, _):
            for n in range(50):
                await commit(engine, space, put(A, b"%d" % n), Touch(A, START + 100 + n))
                await commit(engine, space, put(B))
                await commit(engine, space, Delete(B))
            done = await commit(engine, space, put(C))
            await asyncio.sleep(0.3 if lab.durable else 0)  # it tells of what was read, however late
            newest = {change.key: change for change in await until(watch, done.versionstamp)}
            assert newest[A].entry == await there(engine, space, A)
            assert newest[A].entry.value == b"49"  # type: ignore[union-attr]
            assert (newest[A].kind, newest[B].kind, newest[C].kind) == ("set", "delete", "set")

    lab.run(story)


def test_a_set_is_told_in_its_place_though_its_life_is_newer(lab: Lab) -> None:
    """Whoever was told up to a versionstamp, and leaves, must hear of what was set after it, not of a life alone."""

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        async with watching(engine, space) as (watch, before):
            both = (await commit(engine, space, put(A), put(B))).versionstamp
            touched = (await commit(engine, space, Touch(A, START + 500))).versionstamp
            live = await until(watch, touched)
        async with watching(engine, space, since=before) as (watch, _):
            again = await until(watch, touched)
        entry = await there(engine, space, A)
        assert again == [Change("set", both, A, entry), Change("set", both, B, await there(engine, space, B))]
        assert [(change.key, change.versionstamp) for change in live][:2] == [(A, both), (B, both)]
        async with watching(engine, space, since=both) as (watch, _):
            assert await until(watch, touched) == [Change("expiry", touched, A, entry)]

    lab.run(story)


def test_sets_of_one_key_that_share_a_commit_are_told_in_order(lab: Lab) -> None:
    """A durable engine writes the last of them alone."""

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        async with watching(engine, space) as (watch, before):
            writes = [Write(space, (put(key),)) for key in (A, B, A, C, B)]
            outcomes = await asyncio.gather(*(engine.write([write]) for write in writes))
            stamps = [outcome.versionstamp for (outcome,) in outcomes if isinstance(outcome, Commit)]
            await until(watch, stamps[-1])
        async with watching(engine, space, since=before) as (watch, _):
            again = await until(watch, stamps[-1])
        assert [(change.key, change.versionstamp) for change in again] == list(zip((A, C, B), stamps[2:], strict=True))

    lab.run(story)


def test_a_reader_beyond_its_bound_is_told_that_it_has_missed_something(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        async with watching(engine, space) as (watch, _), watching(engine, space, only(A)) as (other, _):
            await commit(engine, space, *(put(k("ten", str(n))) for n in range(10)))
            first = await told(watch)
            assert (len(first.changes), first.resync) == (10, False)
            await commit(engine, space, *(put(k("eleven", str(n))) for n in range(11)))
            missed = await told(watch)
            assert (missed.changes, missed.resync) == ([], True)
            # From then on nothing is missed.
            done = await commit(engine, space, put(A))
            assert missed.upto < done.versionstamp
            assert kinds(await until(watch, done.versionstamp)) == [("set", A)]
            assert kinds(await until(other, done.versionstamp)) == [("set", A)]
            await commit(engine, space, put(A, b'"%s"' % (b"x" * 1_000)))
            assert (await told(watch)).resync

    lab.limits = Limits(watch_changes=10, watch_bytes=1_000)
    lab.run(story)


def test_a_watch_that_begins_again_is_told_all_since_or_that_this_cannot_be(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        async with watching(engine, space) as (watch, _):
            first = await commit(engine, space, put(A), put(B))
            await until(watch, first.versionstamp)
        await commit(engine, space, put(A, b"2"))
        await commit(engine, space, Delete(B))
        last = await commit(engine, space, put(C))
        async with watching(engine, space, since=first.versionstamp) as (watch, upto):
            assert upto == first.versionstamp
            changes = await until(watch, last.versionstamp)
            assert kinds(changes) == [("set", A), ("delete", B), ("set", C)]
        async with watching(engine, space, only(A), since=last.versionstamp) as (watch, upto):
            assert upto == last.versionstamp
            done = await commit(engine, space, put(A, b"3"))
            assert kinds(await until(watch, done.versionstamp)) == [("set", A)]
        for impossible in (1, done.versionstamp + (1 << 40), (1 << 63) - 1):
            again = await engine.watch(space, [WHOLE], impossible)
            missed = await told(again)
            assert (missed.changes, missed.resync) == ([], True)
            assert missed.upto >= done.versionstamp
            after = await commit(engine, space, put(A, b"4"))
            assert kinds(await until(again, after.versionstamp)) == [("set", A)]
            again.close()
            done = after

    lab.run(story)


def test_changes_of_another_process_are_told(lab: Lab) -> None:
    async def story(engine: Engine, other: Engine) -> None:
        space = (await new_space(engine)).number
        async with watching(engine, space) as (watch, _), watching(other, space) as (second, _):
            for n in range(10):
                await commit(engine if n % 2 else other, space, put(k(str(n))))
            last = await commit(other, space, DeleteRange(None))
            for each in (watch, second):
                changes = await until(each, last.versionstamp)
                assert changes[-1] == Change("delete_range", last.versionstamp, b"", None, b"\xff")

    lab.run_pair(story)


def test_commits_that_concern_nobody_hide_none_that_do(lab: Lab) -> None:
    """A process that passes over its own must not pass over another's between them."""

    async def story(engine: Engine, other: Engine) -> None:
        space = (await new_space(engine)).number
        async with watching(engine, space, only(A), under(C)) as (watch, _):
            for n in range(40):
                key = k("c", "d") if n % 2 else A
                if n % 4 < 2:
                    await commit(engine, space, put(B))
                last = await commit(other, space, put(key, b"%d" % n))
                await commit(engine, space, put(B))
                if n % 3 == 0:
                    changes = await until(watch, last.versionstamp)
                    assert changes[-1].entry == await there(engine, space, key)

    lab.run_pair(story)


def test_a_watch_begins_amid_commits_that_concerned_nobody_before(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        async with watching(engine, space, only(A)):
            for n in range(5):
                done = await commit(engine, space, put(B, b"%d" % n))
                async with watching(engine, space, only(B)) as (watch, begins):
                    if done.versionstamp > begins:
                        assert kinds(await until(watch, done.versionstamp)) == [("set", B)]
                    changed = await commit(engine, space, put(B, b"true"))
                    assert kinds(await until(watch, changed.versionstamp)) == [("set", B)]

    lab.run(story)


def test_a_watch_ends_when_it_is_closed_or_fails(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        async with watching(engine, space) as (watch, _):
            waits = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0)
            watch.close()
            with pytest.raises(StopAsyncIteration):
                await asyncio.wait_for(waits, 10)
        async with watching(engine, space) as (watch, _):
            waits = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0)
            watch.fail(NotFound("gone"))
            with pytest.raises(NotFound):
                await asyncio.wait_for(waits, 10)
        # Whoever gives up waiting loses nothing.
        async with watching(engine, space) as (watch, _):
            waits = asyncio.ensure_future(anext(watch))
            await asyncio.sleep(0)
            waits.cancel()
            done = await commit(engine, space, put(A))
            assert kinds(await until(watch, done.versionstamp)) == [("set", A)]

    lab.run(story)


def test_there_may_be_so_many_watches_and_no_more(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        watches = [await engine.watch(space, [only(A)]) for _ in range(3)]
        with pytest.raises(Unavailable):
            await engine.watch(space, [only(A)])
        watches[0].close()
        watches[0].close()
        watches[0] = await engine.watch(space, [only(A)])
        for watch in watches:
            watch.close()

    lab.limits = Limits(watches=3)
    lab.run(story)


def test_every_way_of_writing_is_told(lab: Lab) -> None:
    """Durable engines have faster ways for many plain Sets, of one space and of several."""

    async def story(engine: Engine) -> None:
        spaces = [(await new_space(engine, n)).number for n in (1, 2, 3)]
        async with contextlib.AsyncExitStack() as stack:
            watches = [(await stack.enter_async_context(watching(engine, space)))[0] for space in spaces]
            keys = [k(str(n)) for n in range(30)]
            outcomes = await asyncio.gather(
                *(engine.write([Write(space, (put(key, b"%d" % space),))]) for key in keys for space in spaces)
            )
            assert all(len(of_one) == 1 for of_one in outcomes)
            await engine.write([Write(space, (put(k("one call", str(n))),)) for n in range(9) for space in spaces])
            loaded = [await there(engine, spaces[0], keys[0])]
            for space, watch in zip(spaces, watches, strict=True):
                last = (await commit(engine, space, put(k("last")))).versionstamp
                changes = await until(watch, last)
                assert {change.key for change in changes} == {
                    *keys, *(k("one call", str(n)) for n in range(9)), k("last")
                }  # fmt: skip
                for change in changes:
                    assert change.entry == await there(engine, space, change.key)
                    assert change.versionstamp == change.entry.versionstamp
            await engine.load(spaces[1], loaded)
            last = (await commit(engine, spaces[1], put(k("last")))).versionstamp
            assert kinds(await until(watches[1], last)) == [("set", keys[0]), ("set", k("last"))]

    lab.run(story)
