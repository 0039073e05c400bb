"""Faults planted in the SQLite engine, at its seams, and survived."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import pytest

from kvasir.engine import Clock, Outcome
from kvasir.engines.sqlite import SqliteEngine, bulk, checkpoints, recovery
from kvasir.engines.sqlite import connection as connections
from kvasir.engines.sqlite import writer as writing
from kvasir.engines.sqlite.seqlocks import RANGES
from kvasir.engines.sqlite.transaction import Transaction
from kvasir.errors import KvasirError, Unavailable, UnknownOutcome
from kvasir.keys import prefix_range
from kvasir.model import SYSTEM_SPACE, Commit, Delete, DeleteRange, Mutation, Write
from tests.support.clock import ManualClock
from tests.support.lab import alias, commit, k, new_space, put, there, ulid
from tests.support.serving import wait_until

A, B, C = k("a"), k("b"), k("c")
POISON = k("poison")


class FaultyEngine(SqliteEngine):
    """Does instead of a commit what a test plants."""

    def __init__(self, path: Path, *, clock: Clock) -> None:
        super().__init__(path, clock=clock, commit=lambda connection: self._planted(connection))
        self._planted: Callable[[apsw.Connection], None] = writing.commit

    @contextmanager
    def commits_by(self, planted: Callable[[apsw.Connection], None]) -> Iterator[None]:
        self._planted = planted
        try:
            yield
        finally:
            self._planted = writing.commit


def fail(_: apsw.Connection) -> None:
    """A commit that fails."""
    raise apsw.IOError("planted")


def told(folder: Path, story: Callable[[FaultyEngine], Awaitable[None]]) -> None:
    """Tell a story to a fresh engine; its database must be sound afterwards, and again after a restart."""

    async def tell() -> None:
        clock = ManualClock()
        engine = FaultyEngine(folder / "kvasir.db", clock=clock)
        await engine.open()
        try:
            await asyncio.wait_for(story(engine), 60)
            assert await engine.check() == []
        finally:
            await engine.close()
        again = SqliteEngine(folder / "kvasir.db", clock=clock)
        await again.open()
        assert await again.check() == []
        await again.close()

    asyncio.run(tell())


class Hold:
    """Keeps the writing thread just before a commit, until it is released."""

    def __init__(self, engine: FaultyEngine) -> None:
        self._engine = engine
        self._reached = threading.Event()
        self._released = threading.Event()

    @contextmanager
    def now(self) -> Iterator[None]:
        def held(connection: apsw.Connection) -> None:
            self._reached.set()
            assert self._released.wait(60)
            writing.commit(connection)

        with self._engine.commits_by(held):
            try:
                yield
            finally:
                self._released.set()

    async def reached(self) -> None:
        assert await asyncio.to_thread(self._reached.wait, 60)

    def release(self) -> None:
        self._released.set()


def queued(engine: SqliteEngine, space: int, *mutations: Mutation) -> asyncio.Task[Any]:
    async def written() -> list[Outcome]:
        return await engine.write([Write(space, mutations)])

    return asyncio.create_task(written())


# -- one write fails inside a group -------------------------------------------------------------------------


@contextmanager
def poisoned(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Iterator[None]:
    """Whoever sets or removes the poisonous key fails right after the database has done it."""
    mutate = Transaction._mutate

    def planted(self: Transaction, space: int, mutation: Mutation, stamp: int, now: int) -> int:
        count = mutate(self, space, mutation, stamp, now)
        if not isinstance(mutation, DeleteRange) and mutation.key == POISON:
            raise error
        return count

    with monkeypatch.context() as patch:
        patch.setattr(Transaction, "_mutate", planted)
        yield


@pytest.mark.parametrize("error", [RuntimeError("planted"), apsw.ConstraintError("planted"), Unavailable("planted")])
def test_a_write_that_fails_in_its_group_changes_nothing_and_its_neighbours_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def story(engine: FaultyEngine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(A, b'"old"'), put(k("many", "1")), put(k("many", "2")))
        before = await there(engine, space, A)
        fatal = (put(B), put(A, b'"new"'), DeleteRange(prefix_range(["many"])), put(POISON), put(C))
        groups = sum(engine.writer.groups.counts)
        hold = Hold(engine)
        with poisoned(monkeypatch, error), hold.now():
            opener = queued(engine, space, put(k("opener")))
            await hold.reached()
            neighbours = [queued(engine, space, put(k("before", str(n))), put(k("too", str(n)))) for n in range(3)]
            failing = queued(engine, space, *fatal)
            mixed = asyncio.ensure_future(
                engine.write([Write(space, (put(k("x")),)), Write(space, fatal), Write(space, (put(k("y")),))])
            )
            alone = queued(engine, space, Delete(POISON), Delete(A))
            neighbours += [queued(engine, space, put(k("after", str(n)))) for n in range(3)]
            await asyncio.sleep(0)
            hold.release()
            for neighbour in (opener, *neighbours):
                (outcome,) = await neighbour
                assert isinstance(outcome, Commit)
            for failed in (*await failing, (await mixed)[1], *await alone):
                assert isinstance(failed, KvasirError)
                assert "planted" not in failed.message or isinstance(error, KvasirError)
            assert isinstance((await mixed)[0], Commit)
            assert isinstance((await mixed)[2], Commit)
        assert sum(engine.writer.groups.counts) == groups + 2, "they were no group"
        assert await there(engine, space, A) == before
        assert await engine.get(space, [B, C, POISON]) == [None] * 3
        assert await engine.count(space, prefix_range(["many"])) == 2
        assert await engine.count(space) == 1 + 2 + 1 + 6 + 3 + 2

    told(tmp_path, story)


def test_sets_of_many_spaces_share_their_statements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(engine: FaultyEngine) -> None:
        spaces = [(await new_space(engine, n)).number for n in range(100)]
        assert await engine.end_space(ulid(0))
        rows: list[int] = []
        apply = bulk.apply

        def counting(cursor: apsw.Cursor, chosen: list[bulk.Row], *rest: Any) -> None:
            rows.append(len(chosen))
            apply(cursor, chosen, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(bulk, "apply", counting)
            outcomes = await engine.write([Write(space, (put(A),)) for space in spaces])
        assert [isinstance(outcome, Commit) for outcome in outcomes] == [False] + [True] * 99
        assert rows == [99]

    told(tmp_path, story)


@pytest.mark.parametrize("error", [apsw.FullError("planted"), apsw.IOError("planted"), apsw.NoMemError("planted")])
def test_when_the_database_itself_fails_the_whole_group_is_undone_and_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def story(engine: FaultyEngine) -> None:
        space = (await new_space(engine)).number
        epoch = await engine.epoch()
        hold = Hold(engine)
        with poisoned(monkeypatch, error):
            with hold.now():
                opener = queued(engine, space, put(k("opener")))
                await hold.reached()
                group = [queued(engine, space, put(A)), queued(engine, SYSTEM_SPACE, put(A))]
                group += [queued(engine, space, put(B), put(POISON)), queued(engine, space, put(C))]
                await asyncio.sleep(0)
                hold.release()
                assert isinstance((await opener)[0], Commit)
                for task in group:
                    with pytest.raises(Unavailable):
                        await task
            assert await engine.get(space, [A, B, C, POISON]) == [None] * 4
            assert await engine.epoch() == epoch
            await commit(engine, space, put(A))
        await commit(engine, space, put(POISON))
        assert engine.writer.failures == 1

    told(tmp_path, story)


def test_a_change_of_spaces_that_fails_half_way_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(engine: FaultyEngine) -> None:
        space = await new_space(engine)
        epoch = await engine.epoch()
        remove_space = Transaction.remove_space

        def planted(self: Transaction, number: int) -> None:
            remove_space(self, number)
            raise RuntimeError("planted")

        with monkeypatch.context() as patch:
            patch.setattr(Transaction, "remove_space", planted)
            with pytest.raises(KvasirError, match="nothing of it"):
                await engine.end_space(space.id)
        assert await engine.get_space(space.id) == space
        assert await engine.resolve(alias("space-1")) == space
        assert await engine.epoch() == epoch
        await commit(engine, space.number, put(A))

    told(tmp_path, story)


# -- the commit fails ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("happened", [False, True], ids=["lost", "happened"])
def test_a_failed_commit_is_an_unknown_outcome_until_the_database_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, happened: bool
) -> None:
    async def story(engine: FaultyEngine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(A, b'"old"'))

        def planted(connection: apsw.Connection) -> None:
            if happened:
                writing.commit(connection)
            raise apsw.IOError("planted")

        monkeypatch.setattr(writing, "REOPEN_SECONDS", 3_600.0)
        with engine.commits_by(planted), pytest.raises(UnknownOutcome, match="may or may not"):
            await engine.write([Write(space, (put(A, b'"new"'), put(B)))])
        assert engine.writer.broken
        # Nobody may answer from memory what the failed commit may yet have changed.
        assert engine._writes.seqlocks.held()
        # Refused, not queued: nothing may build on what nobody knows. Reading goes on.
        for _ in range(3):
            with pytest.raises(Unavailable, match="nothing was written"):
                await engine.write([Write(space, (put(C),))])
        with pytest.raises(Unavailable):
            await engine.end_space("01HF0000000000000000000001")
        assert (await there(engine, space, A)).value == (b'"new"' if happened else b'"old"')

        with monkeypatch.context() as patch:
            patch.setattr(connections, "for_writing", refuse)
            patch.setattr(writing, "REOPEN_SECONDS", 0.0)
            for _ in range(2):
                with pytest.raises(Unavailable, match="nothing was written"):
                    await engine.write([Write(space, (put(C),))])
            assert engine.writer.broken
        monkeypatch.setattr(writing, "REOPEN_SECONDS", 0.0)
        done = await commit(engine, space, put(C))
        assert not engine.writer.broken
        assert not engine._writes.seqlocks.held()
        entries = await engine.get(space, [A, B, C])
        expected = [b'"new"', b"1", b"1"] if happened else [b'"old"', None, b"1"]
        assert [entry and entry.value for entry in entries] == expected
        assert all(entry is None or entry.versionstamp <= done.versionstamp for entry in entries)

    told(tmp_path, story)


def refuse(*_: object, **__: object) -> apsw.Connection:
    raise apsw.CantOpenError("planted")


class Examined:
    """A connection for writing whose quick check is replaced."""

    def __init__(self, real: apsw.Connection, found: Callable[[], list[tuple[str]]]) -> None:
        self._real = real
        self._found = found

    @classmethod
    def by(cls, patch: pytest.MonkeyPatch, found: Callable[[], list[tuple[str]]]) -> None:
        real = connections.for_writing
        patch.setattr(connections, "for_writing", lambda *a, **o: cls(real(*a, **o), found))

    def execute(self, sql: str, *values: Any) -> Any:
        return self._found() if "quick_check" in sql else self._real.execute(sql, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def test_an_unsound_database_takes_no_writes_after_a_failed_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(engine: FaultyEngine) -> None:
        space = (await new_space(engine)).number
        monkeypatch.setattr(writing, "REOPEN_SECONDS", 3_600.0)

        with engine.commits_by(fail), pytest.raises(UnknownOutcome):
            await engine.write([Write(space, (put(A),))])
        with monkeypatch.context() as patch:
            Examined.by(patch, lambda: [("planted damage",)])
            patch.setattr(writing, "REOPEN_SECONDS", 0.0)
            for _ in range(2):
                with pytest.raises(Unavailable, match="planted damage"):
                    await engine.write([Write(space, (put(A),))])
        monkeypatch.setattr(writing, "REOPEN_SECONDS", 0.0)
        await commit(engine, space, put(A))

    told(tmp_path, story)


def test_a_broken_writer_recovers_though_nobody_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(engine: FaultyEngine) -> None:
        space = (await new_space(engine)).number

        monkeypatch.setattr(writing, "REOPEN_SECONDS", 0.0)
        with engine.commits_by(fail), pytest.raises(UnknownOutcome):
            await engine.write([Write(space, (put(A),))])
        await asyncio.to_thread(wait_until, lambda: not engine.writer.broken, "the writer has recovered")
        await commit(engine, space, put(A))

    told(tmp_path, story)


def test_what_a_writer_left_that_died_is_settled_before_writes_are_accepted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(engine: FaultyEngine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(A))
        monkeypatch.setattr(writing, "REOPEN_SECONDS", 0.0)
        with monkeypatch.context() as patch:
            patch.setattr(writing.Writer, "_sweep", lambda self: None)  # nobody but who starts
            patch.setattr(recovery, "MOVE_EPOCH", "the disk fails")
            engine._writes.seqlocks.write_begin([RANGES])
            another = SqliteEngine(tmp_path / "kvasir.db", clock=ManualClock())
            await another.open()
            assert another.writer.broken
            assert (await there(another, space, A)).value == b"1"
        await asyncio.to_thread(wait_until, lambda: not another.writer.broken, "the writer has recovered")
        assert not another._writes.seqlocks.held()
        await commit(another, space, put(B))
        await another.close()

    told(tmp_path, story)


def test_a_neighbour_settles_what_a_writer_left_that_died(tmp_path: Path) -> None:
    async def story(engine: FaultyEngine) -> None:
        space = (await new_space(engine)).number
        epoch = await engine.epoch()
        seqlocks = engine._writes.seqlocks
        seqlocks.write_begin([RANGES])
        assert seqlocks.any_held()
        await asyncio.to_thread(wait_until, lambda: not seqlocks.any_held(), "somebody has settled it")
        assert await engine.epoch() == epoch + 1, "the epoch of before is remembered"
        await commit(engine, space, put(A))

    told(tmp_path, story)


def test_a_full_disk_at_the_commit_undoes_the_group_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(engine: FaultyEngine) -> None:
        space = (await new_space(engine)).number

        def planted(_: apsw.Connection) -> None:
            raise apsw.FullError("planted")

        with engine.commits_by(planted):
            for _ in range(3):
                with pytest.raises(Unavailable, match="disk is full"):
                    await engine.write([Write(space, (put(A), put(B)))])
        assert not engine.writer.broken
        assert await engine.get(space, [A, B]) == [None, None]
        await commit(engine, space, put(A))

    told(tmp_path, story)


def test_another_process_writes_on_while_this_one_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(engine: FaultyEngine) -> None:
        other = SqliteEngine(tmp_path / "kvasir.db", clock=ManualClock())
        await other.open()
        space = (await new_space(engine)).number
        monkeypatch.setattr(writing, "REOPEN_SECONDS", 3_600.0)

        with engine.commits_by(fail), pytest.raises(UnknownOutcome):
            await engine.write([Write(space, (put(A),))])
        await asyncio.wait_for(commit(other, space, put(B)), 10)
        assert (await there(engine, space, B)).value == b"1"
        monkeypatch.setattr(writing, "REOPEN_SECONDS", 0.0)
        await commit(engine, space, put(C))
        await other.close()

    told(tmp_path, story)


def test_another_process_writes_on_while_this_one_examines_the_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(engine: FaultyEngine) -> None:
        other = SqliteEngine(tmp_path / "kvasir.db", clock=ManualClock())
        await other.open()
        space = (await new_space(engine)).number
        examining, go_on = threading.Event(), threading.Event()

        def slowly() -> list[tuple[str]]:
            examining.set()
            assert go_on.wait(60)
            return [("ok",)]

        monkeypatch.setattr(writing, "REOPEN_SECONDS", 0.0)
        with monkeypatch.context() as patch:
            Examined.by(patch, slowly)
            with engine.commits_by(fail), pytest.raises(UnknownOutcome):
                await engine.write([Write(space, (put(A),))])
            assert await asyncio.to_thread(examining.wait, 60)
            try:
                await asyncio.wait_for(commit(other, space, put(B)), 10)
                assert engine.writer.broken
            finally:
                go_on.set()
        await asyncio.to_thread(wait_until, lambda: not engine.writer.broken, "the writer has recovered")
        await commit(engine, space, put(C))
        await other.close()

    told(tmp_path, story)


# -- the write-ahead log ------------------------------------------------------------------------------------


@contextmanager
def small_log(monkeypatch: pytest.MonkeyPatch, milliseconds: int, held: float = 0.0001) -> Iterator[None]:
    """The log is copied at 20 pages and waits for readers at 80, for so many milliseconds.

    `held`: pages of the log for each millisecond that one reader may keep them from being copied.
    """
    with monkeypatch.context() as patch:
        patch.setattr(writing, "COPY_PAGES", 20)
        patch.setattr(checkpoints, "WAIT_PAGES", 80)
        patch.setattr(checkpoints, "WAIT_PAGES_A_MILLISECOND", 0.0001)
        patch.setattr(checkpoints, "WAIT_MILLISECONDS", milliseconds)
        patch.setattr(checkpoints, "HELD_PAGES_A_MILLISECOND", held)
        yield


def log_pages(folder: Path) -> int:
    return (folder / "kvasir.db-wal").stat().st_size // 4_096


def test_the_log_stays_short_though_at_every_moment_somebody_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(engine: FaultyEngine) -> None:
        space = (await new_space(engine)).number
        stopped, began = threading.Event(), threading.Event()

        def read_in_turns() -> None:
            here, there = (connections.for_reading(tmp_path / "kvasir.db") for _ in range(2))
            while not stopped.is_set():
                here.execute("BEGIN; SELECT * FROM meta").fetchall()
                if there.in_transaction:
                    there.execute("COMMIT")
                    began.set()
                here, there = there, here
                stopped.wait(0.01)
            here.close()
            there.close()

        reading = asyncio.create_task(asyncio.to_thread(read_in_turns))
        assert await asyncio.to_thread(began.wait, 60)
        try:
            for n in range(400):
                await commit(engine, space, put(k(str(n))))
        finally:
            stopped.set()
            await reading
        # 400 commits are at least 800 pages.
        assert log_pages(tmp_path) < 160

    with small_log(monkeypatch, 60_000):
        told(tmp_path, story)


def test_a_log_that_a_long_read_holds_on_to_is_waited_for_seldom_and_cut_back_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[int] = []
    restart = checkpoints._restart

    def counted(connection: apsw.Connection, pages: int) -> bool:
        waits.append(pages)
        return restart(connection, pages)

    async def story(engine: FaultyEngine) -> None:
        space = (await new_space(engine)).number
        reader = connections.for_reading(tmp_path / "kvasir.db")
        reader.execute("BEGIN; SELECT * FROM meta").fetchall()
        for n in range(400):
            await commit(engine, space, put(k(str(n))))
        assert log_pages(tmp_path) >= 800
        assert len(waits) >= 3
        assert all(later >= 2 * earlier for earlier, later in itertools.pairwise(waits))
        reader.close()
        for _ in range(400):
            await commit(engine, space, put(A))
            if log_pages(tmp_path) <= 100:
                return
        raise AssertionError("the log is as long as ever")

    monkeypatch.setattr(checkpoints, "_restart", counted)
    monkeypatch.setattr(connections, "LOG_BYTES", 100 * 4_096)
    with small_log(monkeypatch, 0):
        told(tmp_path, story)


def test_writers_do_not_wait_for_a_reader_that_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(engine: FaultyEngine) -> None:
        space = (await new_space(engine)).number
        reader = connections.for_reading(tmp_path / "kvasir.db")
        reader.execute("BEGIN; SELECT * FROM meta").fetchall()
        for n in range(100):
            await asyncio.wait_for(commit(engine, space, put(k(str(n)))), 60)
        assert log_pages(tmp_path) >= 160
        reader.close()

    # A vain wait by itself would take an hour.
    with small_log(monkeypatch, 3_600_000, held=320):
        told(tmp_path, story)


# -- the promise of durability -------------------------------------------------------------------------------


@pytest.mark.parametrize(("durable", "synchronous"), [(True, 2), (False, 1)], ids=["full", "relaxed"])
def test_the_writer_waits_for_the_disk_unless_the_operator_says_otherwise(
    tmp_path: Path, durable: bool, synchronous: int
) -> None:
    async def story() -> None:
        engine = SqliteEngine(tmp_path / "kvasir.db", durable=durable)
        await engine.open()
        connection = engine._writes._connection
        # 2: the write-ahead log reaches the disk before COMMIT returns; 1: at the next checkpoint.
        assert await engine._writes.run(lambda _: connection.pragma("synchronous")) == synchronous
        assert await engine._writes.run(lambda _: connection.pragma("journal_mode")) == "wal"
        # On macOS, whether that is the disk, or the drive's own cache.
        assert await engine._writes.run(lambda _: connection.pragma("fullfsync")) == durable
        assert await engine._writes.run(lambda _: connection.pragma("checkpoint_fullfsync"))
        await engine.close()

    asyncio.run(story())


# -- housekeeping -------------------------------------------------------------------------------------------


def test_housekeeping_that_fails_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(engine: FaultyEngine) -> None:
        space = (await new_space(engine)).number
        failed = threading.Event()

        def planted(self: writing.Writer) -> None:
            failed.set()
            raise OSError("planted")

        with monkeypatch.context() as patch:
            patch.setattr(writing.Writer, "_sweep", planted)
            patch.setattr(writing, "SWEEP_EVERY_SECONDS", 0.0)
            await commit(engine, space, put(A))
            assert await asyncio.to_thread(failed.wait, 10)
            await asyncio.wait_for(commit(engine, space, put(B)), 10)
        await asyncio.wait_for(commit(engine, space, put(C)), 10)

    told(tmp_path, story)


def test_a_log_that_a_dead_writer_left_is_written_over_itself_whole(tmp_path: Path) -> None:
    async def story(engine: FaultyEngine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, *(put(k(str(n)), b'"%s"' % (b"x" * 60_000)) for n in range(5)))
        log = tmp_path / "kvasir.db-wal"
        before = log.read_bytes()
        assert len(before) > 4 * connections.LOG_CHUNK
        changed = log.stat().st_mtime_ns
        connections.sync_log(tmp_path / "kvasir.db")
        assert log.read_bytes() == before
        assert log.stat().st_mtime_ns > changed

    told(tmp_path, story)
    connections.sync_log(tmp_path / "kvasir.db")  # there is none any more
    assert not (tmp_path / "kvasir.db-wal").exists()


def test_a_filter_pauses_between_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call is too short for the interpreter to take its lock away, and the next one comes at once."""
    seconds, pauses = 0.0, 0

    def sleep(_: float) -> None:
        nonlocal pauses
        pauses += 1

    def contains(_: bytes | None) -> bool:
        nonlocal seconds
        seconds += connections.WORK_SECONDS / 4
        return False

    monkeypatch.setattr(connections, "time", SimpleNamespace(perf_counter=lambda: seconds, sleep=sleep))
    filtering = connections.Filter()
    filtering.contains = contains
    for _ in range(101):
        assert not filtering(b"{}")
    assert 18 <= pauses <= 25
