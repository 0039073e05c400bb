"""Copies of entries that were just read: never older than what any process has been told is committed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from kvasir.engines.sqlite import MAX_NOWAIT_BYTES, SqliteEngine, reading
from kvasir.engines.sqlite.entry_cache import ENTRIES, VALUE_BYTES, EntryCache
from kvasir.engines.sqlite.seqlocks import RANGES, Seqlocks, lock_of
from kvasir.keys import pack
from kvasir.model import Delete, DeleteRange, Entry, KeyRange, Query, Set, Space, Touch, Write
from tests.support.clock import START, ManualClock

KEY = pack(["key"])
OTHER = pack(["other"])


async def _two(folder: Path, clock: ManualClock) -> tuple[SqliteEngine, SqliteEngine, int]:
    """Two engines on one file, as two processes have them, and the number of a space."""
    engines = [SqliteEngine(folder / "kvasir.db", clock=clock) for _ in range(2)]
    for engine in engines:
        await engine.open()
    space = await engines[0].create_space(Space("01", 0, "o", "store", "s", START), [])
    return engines[0], engines[1], space.number


async def _read(engine: SqliteEngine, space: int, keys: Sequence[bytes]) -> list[Entry | None]:
    """As the store does it: without waiting if that is possible."""
    entries = engine.get_nowait(space, keys)
    return await engine.get(space, keys) if entries is None else entries


def test_every_kind_of_write_by_another_process_is_seen_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        clock = ManualClock()
        here, there, space = await _two(tmp_path, clock)

        async def seen() -> list[bytes | None]:
            one = (await _read(here, space, [KEY]))[0]
            many = await _read(here, space, [KEY, OTHER])
            assert many[0] == one
            return [None if entry is None else entry.value for entry in many]

        await there.write([Write(space, (Set(KEY, b"1"), Set(OTHER, b"1")))])
        for _ in range(2):
            assert await seen() == [b"1", b"1"]
        await there.write([Write(space, (Set(KEY, b"2"), Set(OTHER, b"2")))])
        assert await seen() == [b"2", b"2"]
        await there.write(
            [Write(space, (Set(pack([str(n)]), b"0"),)) for n in range(8)] + [Write(space, (Set(KEY, b"3"),))]
        )
        assert await seen() == [b"3", b"2"]
        await there.write([Write(space, (Touch(KEY, START + 10),))])
        assert (await _read(here, space, [KEY]))[0] is not None
        clock.now += 10
        assert await seen() == [None, b"2"]
        await there.write([Write(space, (Set(KEY, b"4"),))])
        assert await seen() == [b"4", b"2"]
        await there.write([Write(space, (Delete(KEY),))])
        assert await seen() == [None, b"2"]
        await there.write([Write(space, (DeleteRange(None),))])
        assert await seen() == [None, None]
        await here.close()
        await there.close()

    asyncio.run(story())


def test_processes_that_come_by_different_paths_see_each_others_writes(tmp_path: Path) -> None:
    async def story() -> None:
        for name in ("real", "linked"):
            (tmp_path / name).mkdir()
        # The link may be there before the file.
        (tmp_path / "linked" / "kvasir.db").symlink_to(tmp_path / "real" / "kvasir.db")
        engines = [SqliteEngine(tmp_path / name / "kvasir.db", clock=ManualClock()) for name in ("linked", "real")]
        for engine in engines:
            await engine.open()
        here, there = engines
        space = (await here.create_space(Space("01", 0, "o", "store", "s", START), [])).number
        for value in (b"1", b"2"):
            await there.write([Write(space, (Set(KEY, value),))])
            assert [entry and entry.value for entry in await _read(here, space, [KEY])] == [value]
        epoch = await here.epoch()
        await there.end_space("01")
        assert await here.epoch() == epoch + 1
        assert [file.name for file in (tmp_path / "linked").iterdir()] == ["kvasir.db"]
        for engine in engines:
            await engine.close()

    asyncio.run(story())


def test_an_unchanged_entry_is_read_from_the_database_once(tmp_path: Path) -> None:
    async def story() -> None:
        here, there, space = await _two(tmp_path, ManualClock())
        await there.write([Write(space, (Set(KEY, b"1"), Set(OTHER, b"1")))])
        asked = 0
        real = reading.get_one

        def counting(*arguments: object) -> Entry | None:
            nonlocal asked
            asked += 1
            return real(*arguments)  # type: ignore[arg-type]

        reading.get_one = counting  # type: ignore[assignment]
        try:
            for _ in range(5):
                assert await _read(here, space, [KEY]) != [None]
        finally:
            reading.get_one = real
        assert asked == 1
        await here.close()
        await there.close()

    asyncio.run(story())


def test_what_is_under_way_or_large_is_not_kept(tmp_path: Path) -> None:
    seqlocks = Seqlocks(tmp_path / "kvasir.db")
    cache = EntryCache(seqlocks)
    entry = Entry(KEY, b"1", 1, 1, START)
    for lock in (lock_of(7, KEY), RANGES):
        seqlocks.write_begin([lock])
        cache.put(7, entry, cache.version_before_read(7, KEY))
        assert cache.get(7, KEY, lambda: START) is None
        seqlocks.write_end([lock])
    cache.put(7, Entry(KEY, b"1" * (VALUE_BYTES + 1), 1, 1, START), cache.version_before_read(7, KEY))
    assert cache.get(7, KEY, lambda: START) is None
    cache.put(7, entry, cache.version_before_read(7, KEY))
    assert cache.get(7, KEY, lambda: START) == entry
    seqlocks.write_begin([lock_of(7, KEY)])
    assert cache.get(7, KEY, lambda: START) is None
    assert cache.get_all(7, [KEY], START) is None


def test_what_was_swept_does_not_come_back_with_a_clock_that_is_set_back(tmp_path: Path) -> None:
    async def story() -> None:
        clock = ManualClock()
        here, there, space = await _two(tmp_path, clock)

        async def seen() -> list[Entry | None]:
            many = await _read(here, space, [KEY, OTHER])
            assert [*await _read(here, space, [KEY]), *await _read(here, space, [OTHER])] == many
            return many

        await there.write([Write(space, (Set(KEY, b"1", ttl=1_000), Set(OTHER, b"1", ttl=900)))])
        assert None not in await seen()
        clock.now = START + 1_000
        while await there.sweep():
            pass
        clock.now = START + 500
        assert await seen() == [None, None]
        assert await here.count(space) == 0
        # The next sweep goes by the clock as it is now.
        await there.write([Write(space, (Set(pack(["third"]), b"1", ttl=100),))])
        clock.now = START + 600
        while await there.sweep():
            pass
        assert await seen() == [None, None]
        await there.write([Write(space, (Set(KEY, b"1", ttl=1), Set(OTHER, b"1", ttl=1)))])
        assert None not in await seen()
        assert here._cache.get(space, KEY, clock) is not None
        await here.close()
        await there.close()

    asyncio.run(story())


def test_the_copies_are_bounded(tmp_path: Path) -> None:
    seqlocks = Seqlocks(tmp_path / "kvasir.db")
    cache = EntryCache(seqlocks)
    keys = [pack([str(n)]) for n in range(ENTRIES + 1)]
    for key in keys:
        cache.put(7, Entry(key, b"1", 1, 1, START), cache.version_before_read(7, key))
    kept = [key for key in keys if cache.get(7, key, lambda: START)]
    assert 0 < len(kept) <= ENTRIES


def test_a_writer_that_died_in_between_makes_everybody_ask_until_it_is_put_right(tmp_path: Path) -> None:
    seqlocks = Seqlocks(tmp_path / "kvasir.db")
    seqlocks.write_begin([lock_of(7, KEY), RANGES])
    seqlocks.close()
    later = Seqlocks(tmp_path / "kvasir.db")
    assert later.counters[RANGES] & 1
    later.repair()
    assert not later.counters[RANGES] & 1
    assert not later.counters[lock_of(7, KEY)] & 1


def test_long_values_are_not_read_on_the_event_loop(tmp_path: Path) -> None:
    async def story() -> None:
        here, there, space = await _two(tmp_path, ManualClock())
        long = b'"%b"' % (b"x" * (MAX_NOWAIT_BYTES // 2))
        await here.write([Write(space, (Set(KEY, long), Set(OTHER, b"1")))])
        assert here.get_nowait(space, [KEY, OTHER]) is not None
        await there.write([Write(space, (Set(OTHER, long),))])
        assert here.get_nowait(space, [KEY, OTHER]) is None
        assert [entry and entry.value for entry in await _read(here, space, [KEY, OTHER])] == [long, long]
        for query in (Query(limit=2), Query(limit=2, range=KeyRange(KEY, b"\xff"))):
            assert [entry.value for entry in (await here.page(space, query)).entries] == [long, long]
        # Reading that was broken off holds on to no snapshot.
        await there.write([Write(space, (Set(KEY, b"2"), Set(OTHER, b"2")))])
        entries = here.get_nowait(space, [KEY, OTHER])
        assert entries is not None
        assert [entry and entry.value for entry in entries] == [b"2", b"2"]
        await here.close()
        await there.close()

    asyncio.run(story())
