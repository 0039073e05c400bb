"""What `Engine.get` and `Engine.write` promise when requests of many spaces arrive together, on every engine."""

from __future__ import annotations

import asyncio
import random

from kvasir.config.database_url import POSTGRES_KEY_BYTES
from kvasir.engine import Engine, Outcome
from kvasir.errors import NotFound
from kvasir.keys import prefix_range
from kvasir.model import SYSTEM_SPACE, Check, Commit, Conflict, Delete, DeleteRange, Present, Touch, Write
from tests.support.clock import START
from tests.support.lab import Lab, commit, conflict, k, new_space, one, put, there, ulid

A, B, C = k("a"), k("b"), k("c")
GONE = 999_999_999


async def several(engine: Engine, count: int) -> list[int]:
    return [(await new_space(engine, n)).number for n in range(count)]


async def together(engine: Engine, *writes: Write) -> list[Outcome]:
    """Each write by a caller of its own, all in one turn of the loop."""
    outcomes = await asyncio.gather(*(engine.write([write]) for write in writes))
    return [outcome for (outcome,) in outcomes]


def committed(outcomes: list[Outcome]) -> list[Commit]:
    commits = [outcome for outcome in outcomes if isinstance(outcome, Commit)]
    assert len(commits) == len(outcomes), outcomes
    return commits


def test_sets_of_many_spaces_are_each_what_one_alone_would_be(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        spaces = await several(engine, 40)
        for space in spaces[::2]:
            await commit(engine, space, put(A, ttl=500, refresh=True, metadata=b"{}"), put(B, ttl=5))
        old = {space: [await there(engine, space, key) for key in (A, B)] for space in spaces[::2]}
        lab.clock.now += 5
        sets = [(space, put(key, str(n).encode(), ttl=100 + n)) for n, space in enumerate(spaces) for key in (A, B, C)]
        random.Random(1).shuffle(sets)
        commits = committed(await together(engine, *(Write(space, (change,)) for space, change in sets)))
        for (space, change), done in zip(sets, commits, strict=True):
            assert done.counts == (int(space in old and change.key == A),)
            entry = await there(engine, space, change.key)
            assert (entry.value, entry.versionstamp) == (change.value, done.versionstamp)
            assert (entry.expires_at, entry.refresh, entry.metadata) == (START + 5 + (change.ttl or 0), None, None)
        for space, (living, expired) in old.items():
            kept, anew = await there(engine, space, A), await there(engine, space, B)
            assert (kept.sequence, kept.created_at) == (living.sequence, living.created_at)
            assert anew.sequence > expired.sequence
            assert anew.created_at == START + 5
        for space in spaces[1::2]:
            # In the order in which they were asked for.
            entries = [await there(engine, at, change.key) for at, change in sets if at == space]
            assert [entry.sequence for entry in entries] == sorted({entry.sequence for entry in entries})

    lab.run(story)


def test_versionstamps_rise_in_each_space_through_single_and_mixed_groups(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        spaces = await several(engine, 5)
        seen: dict[int, list[int]] = {space: [] for space in spaces}
        for n in range(20):
            chosen = spaces[: 1 + n % 5]
            commits = committed(await together(engine, *(Write(space, (put(A, b"%d" % n),)) for space in chosen)))
            for space, done in zip(chosen, commits, strict=True):
                seen[space].append(done.versionstamp)
        for stamps in seen.values():
            assert stamps == sorted(set(stamps))

    lab.run(story)


def test_sets_of_one_key_in_two_spaces_and_twice_in_each(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        first, second = await several(engine, 2)
        writes = [Write(space, (put(A, value),)) for value in (b"1", b"2") for space in (first, second)]
        commits = committed(await together(engine, *writes))
        assert [done.counts for done in commits] == [(0,), (0,), (1,), (1,)]
        for space, done in ((first, commits[2]), (second, commits[3])):
            entry = await there(engine, space, A)
            assert (entry.value, entry.versionstamp) == (b"2", done.versionstamp)

    lab.run(story)


def test_sets_of_one_key_at_once_are_each_told_what_they_found(lab: Lab) -> None:
    """Also if one of them makes an entry that has expired already, and beside others of a space that is gone."""

    async def story(engine: Engine) -> None:
        (space,) = await several(engine, 1)
        sets = [put(A, b"1"), put(A, b"2"), put(B, b"1"), put(A, b"3", expires_at=START - 1), put(A, b"4", ttl=9)]
        sets += [put(A, b"5"), put(B, b"2"), put(A, b"6", ttl=5, metadata=b"{}")]
        writes = [Write(space, (one,)) for one in sets]
        for found in ([0, 1, 0, 1, 0, 1, 1, 1], [1, 1, 1, 1, 0, 1, 1, 1]):
            outcomes = await together(engine, *writes, Write(GONE, (put(A),)), Write(GONE, (put(A, b"2"),)))
            assert all(isinstance(outcome, NotFound) for outcome in outcomes[-2:])
            commits = committed(outcomes[:-2])
            assert [done.counts for done in commits] == [(count,) for count in found]
            last, other = await there(engine, space, A), await there(engine, space, B)
            assert (last.value, last.expires_at, last.metadata) == (b"6", START + 5, b"{}")
            assert (last.versionstamp, other.versionstamp) == (commits[7].versionstamp, commits[6].versionstamp)
            assert (other.value, other.expires_at) == (b"2", None)

    lab.run(story)


def test_every_write_of_a_mixed_group_has_its_own_outcome(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        spaces = await several(engine, 8)
        for space in spaces:
            await commit(engine, space, put(A), put(k("r", "1")), put(k("r", "2")))
        ended, expired, guarded, ranged, deleted, touched, plain, other = spaces
        assert await engine.end_space(ulid(0))
        stamp = (await there(engine, guarded, A)).versionstamp
        writes = [
            Write(ended, (put(A, b"2"),)),
            Write(plain, (put(A, b"2"),)),
            Write(guarded, (put(B), Delete(A)), (Check(A, None),)),
            Write(GONE, (put(A, b"2"),)),
            Write(ranged, (DeleteRange(prefix_range(["r"])),)),
            Write(deleted, (Delete(A), Delete(B))),
            Write(touched, (Touch(A, START + 1),)),
            Write(other, (put(A, b"2"),)),
            Write(other, (put(A, b"3"), put(B, b"3")), (Present(A),)),
            Write(ranged, (put(k("r", "3")),)),
            Write(expired, (put(A, expires_at=START - 1),)),
            Write(SYSTEM_SPACE, (put(A),)),
        ]
        for way in ("together", "one call"):
            before = await engine.epoch()
            outcomes = await (together(engine, *writes) if way == "together" else engine.write(writes))
            assert isinstance(outcomes[0], NotFound), way
            assert isinstance(outcomes[3], NotFound), way
            assert outcomes[2] == conflict(Check(A, None), stamp), way
            if way == "together":
                rest = committed([outcomes[n] for n in (1, 4, 5, 6, 7, 8, 9, 10)])
                assert [done.counts for done in rest] == [(1,), (2,), (1, 0), (1,), (1,), (1, 0), (0,), (1,)]
            assert await engine.epoch() > before, "the write to the system space has not moved it"
            assert await one(engine, guarded, B) is None
            await there(engine, guarded, A)
            assert [entry and entry.value for entry in await engine.get(other, [A, B])] == [b"3", b"3"]
            assert [entry is None for entry in await engine.get(ranged, [k("r", n) for n in "123"])] == [1, 1, 0]
            assert await one(engine, deleted, A) is None
            assert (await there(engine, touched, A)).expires_at == START + 1
            assert await one(engine, expired, A) is None
            assert (await there(engine, plain, A)).value == b"2"

    lab.run(story)


def test_a_space_that_expires_is_gone_for_the_writes_that_share_a_group(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        spaces = [(await new_space(engine, n, expires_at=START + 5 + n % 2)).number for n in range(10)]
        committed(await together(engine, *(Write(space, (put(A),)) for space in spaces)))
        lab.clock.now += 5
        outcomes = await together(engine, *(Write(space, (put(A, b"2"),)) for space in spaces))
        assert [isinstance(outcome, NotFound) for outcome in outcomes] == [True, False] * 5
        committed(outcomes[1::2])

    lab.run(story)


def test_the_longest_keys_and_large_values_share_a_group(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        dice = random.Random(2)
        spaces = await several(engine, 4)
        key = k("".join(chr(dice.randrange(0x10000, 0x110000)) for _ in range((POSTGRES_KEY_BYTES - 2) // 4)))
        values = [b'"' + bytes([97 + n]) * (1 << 20) + b'"' for n in range(4)]
        writes = [Write(space, (put(key, value),)) for space, value in zip(spaces, values, strict=True)]
        commits = committed(await together(engine, *writes, *writes))
        assert [done.counts for done in commits] == [(0,)] * 4 + [(1,)] * 4
        got = await asyncio.gather(*(engine.get(space, [key]) for space in spaces))
        assert [entry and entry.value for (entry,) in got] == values

    lab.run(story)


def test_reads_of_many_spaces_see_their_own(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        spaces = await several(engine, 30)
        await together(engine, *(Write(space, (put(A, b"%d" % space), put(B, ttl=5))) for space in spaces))
        lab.clock.now += 5
        asked = [(space, keys) for space in spaces for keys in ([A], [C, A, B, A], [B, C])]
        asked.append((GONE, [A]))
        random.Random(3).shuffle(asked)
        answers = await asyncio.gather(*(engine.get(space, keys) for space, keys in asked))
        for (space, keys), entries in zip(asked, answers, strict=True):
            assert [entry and (entry.key, entry.value) for entry in entries] == [
                (A, b"%d" % space) if key == A and space != GONE else None for key in keys
            ]

    lab.run(story)


def test_what_was_acknowledged_in_one_space_is_read_among_reads_of_others(lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        spaces = await several(engine, 12)

        async def turn(space: int) -> None:
            for n in range(30):
                done = await commit(engine, space, put(A, b"%d" % n))
                (entry,) = await engine.get(space, [A])
                assert entry is not None
                assert (entry.value, entry.versionstamp) == (b"%d" % n, done.versionstamp)

        await asyncio.gather(*(turn(space) for space in spaces))

    lab.run(story)


def test_two_processes_write_to_the_same_spaces_and_lose_no_outcome(lab: Lab) -> None:
    """In orders of their own, beside the sweep and the end of spaces: a deadlock would be an outcome of its own."""

    async def story(first: Engine, second: Engine) -> None:
        spaces = await several(first, 24)
        doomed = [(await new_space(first, 100 + n)).number for n in range(8)]
        won = dict.fromkeys(spaces, 0)
        dice = random.Random(4)

        async def caller(engine: Engine, name: int) -> None:
            for n in range(15):
                chosen = dice.sample(spaces, 6)
                outcomes = await together(
                    engine,
                    *(Write(space, (put(k("set", f"{name}.{n}")), )) for space in chosen),
                    *(Write(space, (put(k("brief", f"{name}.{n}"), ttl=1),)) for space in dice.sample(spaces, 2)),
                    *(Write(space, (put(A),)) for space in doomed[:2]),
                )  # fmt: skip
                committed(outcomes[:8])
                assert all(isinstance(outcome, Commit | NotFound) for outcome in outcomes)
                for space in chosen:
                    won[space] += 1

        async def counter(engine: Engine) -> None:
            for _ in range(15):
                for space in dice.sample(spaces, 4):
                    entry = await one(engine, space, B)
                    count = int(entry.value) if entry else 0
                    write = Write(
                        space, (put(B, b"%d" % (count + 1)),), (Check(B, entry.versionstamp if entry else None),)
                    )
                    (outcome,) = await together(engine, write)
                    assert isinstance(outcome, Commit | Conflict)
                    counted[space] += isinstance(outcome, Commit)

        async def ender() -> None:
            for n in range(8):
                await second.end_space(ulid(100 + n))
                lab.clock.now += 2
                await first.sweep()

        counted = dict.fromkeys(spaces, 0)
        callers = [caller(engine, n) for n, engine in enumerate([first, second] * 3)]
        await asyncio.gather(*callers, counter(first), counter(second), ender())
        for space in spaces:
            assert await second.count(space, prefix_range(["set"])) == won[space]
            entry = await one(first, space, B)
            assert int(entry.value if entry else 0) == counted[space]

    lab.run_pair(story)
