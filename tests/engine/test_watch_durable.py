"""What watches of durable engines do when logs are missing, processes die and snapshots last too long."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import Iterable
from contextlib import aclosing
from pathlib import Path

import pytest

from kvasir.engine import Engine
from kvasir.engines.postgres import changelog as postgres_changelog
from kvasir.engines.postgres import watches as postgres_watches
from kvasir.engines.sqlite import SqliteEngine, changelog, watches
from kvasir.engines.sqlite.seqlocks import WATCHED_UNTIL
from kvasir.engines.watching import Logged, Watchers
from kvasir.errors import Unavailable
from kvasir.limits import Limits
from kvasir.model import Delete, Entry, KeyRange
from tests.support.lab import Lab, commit, k, new_space, put, scanned, there

WHOLE = KeyRange(b"", b"\xff")


async def forget_that_somebody_watches(lab: Lab, engine: Engine) -> None:
    if lab.schema:
        await lab.schema.ask("update kvasir_head set watched_until = null")
    else:
        engine._writes.seqlocks.counters[WATCHED_UNTIL] = 0  # type: ignore[attr-defined]


def test_a_write_that_nobody_logged_is_missed_aloud(durable_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever watches on, and by whoever begins again."""
    monkeypatch.setattr(watches, "RENEW_SECONDS", 0.2)

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        watch = await engine.watch(space, [WHOLE])
        first = await anext(watch)
        assert not first.resync
        await forget_that_somebody_watches(durable_lab, engine)
        done = await commit(engine, space, put(k("unseen")))
        missed = await asyncio.wait_for(anext(watch), 10)
        assert (missed.resync, missed.changes) == (True, [])
        assert missed.upto >= done.versionstamp
        done = await commit(engine, space, put(k("seen")))
        again = await asyncio.wait_for(anext(watch), 10)
        assert [change.key for change in again.changes] == [k("seen")] or again.resync
        watch.close()
        late = await engine.watch(space, [WHOLE], first.upto)
        assert (await anext(late)).resync
        late.close()

    durable_lab.run(story)


def test_a_commit_of_its_own_process_is_told_whenever_others_are_looked_for(
    durable_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (watches, postgres_watches):
        monkeypatch.setattr(module, "POLL_SECONDS", 3_600)

    async def story(engine: Engine) -> None:
        space, other = (await new_space(engine, 1)).number, (await new_space(engine, 2)).number
        one, two = await engine.watch(space, [WHOLE]), await engine.watch(other, [WHOLE])
        for watch in (one, two):
            await anext(watch)
        for n in range(3):
            await commit(engine, space, put(k(str(n))))
            assert [change.key for change in (await asyncio.wait_for(anext(one), 10)).changes] == [k(str(n))]
        two.close()
        await commit(engine, other, put(k("of nobody")))
        await commit(engine, space, put(k("alone")))
        assert [change.key for change in (await asyncio.wait_for(anext(one), 10)).changes] == [k("alone")]
        one.close()

    durable_lab.run(story)


def test_what_concerns_nobody_is_not_read(durable_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process knows what it has committed itself; to read that again would cost every write."""
    for module in (watches, postgres_watches):
        monkeypatch.setattr(module, "POLL_SECONDS", 3_600)
    read: list[bytes] = []

    def concerning(self: Watchers, logged: Iterable[Logged], after: int) -> list[Logged]:
        found = list(logged)
        read.extend(each[3] for each in found)
        return known(self, found, after)

    known = Watchers.concerning
    monkeypatch.setattr(Watchers, "concerning", concerning)

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        watch = await engine.watch(space, [KeyRange(k("a"), k("a") + b"\x00")])
        await anext(watch)
        for n in range(10):
            await asyncio.gather(*(commit(engine, space, put(k("b", str(m % 3)))) for m in range(n)))
        await commit(engine, space, put(k("a")), put(k("c")))
        assert [change.key for change in (await asyncio.wait_for(anext(watch), 10)).changes] == [k("a")]
        assert set(read) == {k("a"), k("c")}
        watch.close()

    durable_lab.run(story)


@pytest.mark.parametrize("durable_lab", ["postgres"], indirect=True)
def test_a_commit_that_was_lost_hides_no_later_one(durable_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes over may not have had the last commits, and hand out numbers on both sides of theirs."""
    assert durable_lab.schema
    ask = durable_lab.schema.ask
    monkeypatch.setattr(postgres_watches, "POLL_SECONDS", 3_600)

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        watch = await engine.watch(space, [KeyRange(k("a"), k("a") + b"\x00")])
        begun = await anext(watch)
        await commit(engine, space, put(k("b")))
        await ask(f"delete from kvasir_change where space = {space}")
        await ask(f"update kvasir_head set last = {begun.upto} where space = {space}")
        durable_lab.clock.now += 1_000
        done = await commit(engine, space, put(k("a")))
        changes = await asyncio.wait_for(anext(watch), 10)
        assert [change.versionstamp for change in changes.changes] == [done.versionstamp]
        watch.close()

    durable_lab.run(story)


def test_a_watch_that_begins_again_behind_many_bytes_is_told_so(
    durable_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of a log have a megabyte and more; those who watch on are told all of it, a bounded part at a time."""
    for module in (changelog, postgres_watches):
        monkeypatch.setattr(module, "REPLAY_BYTES", 60_000)
    monkeypatch.setattr(postgres_changelog, "READ_BYTES", 10_000)

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        watch = await engine.watch(space, [WHOLE])
        first = await anext(watch)
        keys = [[k(f"{n}.{m}" + "x" * 500) for m in range(9)] for n in range(20)]
        done = [await commit(engine, space, *map(put, some)) for some in keys]
        told: list[bytes] = []
        while len(told) < 9 * 20:
            changes = await asyncio.wait_for(anext(watch), 10)
            assert not changes.resync
            told += [change.key for change in changes.changes]
        assert told == [key for some in keys for key in some]
        far = await engine.watch(space, [WHOLE], first.upto)
        assert (await anext(far)).resync
        near = await engine.watch(space, [WHOLE], done[9].versionstamp)
        told = []
        while len(told) < 9 * 10:
            told += [change.key for change in (await asyncio.wait_for(anext(near), 10)).changes]
        assert told == [key for some in keys[10:] for key in some]
        for each in (watch, far, near):
            each.close()

    durable_lab.run(story)


def test_nothing_is_logged_while_nobody_watches(durable_lab: Lab) -> None:
    async def rows() -> int:
        if durable_lab.schema:
            return int((await durable_lab.schema.ask("select count(*) from kvasir_change"))[0][0])
        engine = SqliteEngine(durable_lab.file, clock=durable_lab.clock)
        await engine.open()
        try:
            return int(engine._connection.execute("SELECT count(*) FROM change").get)
        finally:
            await engine.close()

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(k("a")), put(k("b")))
        await asyncio.gather(*(commit(engine, space, put(k(str(n)))) for n in range(20)))
        assert await rows() == 0
        watch = await engine.watch(space, [WHOLE])
        await commit(engine, space, put(k("a")))
        assert await rows() > 0
        watch.close()
        # The log goes once it is a minute old.
        durable_lab.clock.now += changelog.KEPT_MILLISECONDS + 1_000
        await forget_that_somebody_watches(durable_lab, engine)
        await commit(engine, space, put(k("a")))
        for _ in range(3):
            await engine.sweep()
        assert await rows() == 0

    durable_lab.run(story)


WRITER = """
    import asyncio, sys
    from kvasir.model import Set, Write
    from kvasir.keys import pack
    from tests.support.lab import Lab
    from tests.support.postgres import postgres_engine
    from kvasir.engines.sqlite import SqliteEngine
    from pathlib import Path

    async def main(where, space):
        engine = postgres_engine(where, durable=False) if "://" in where else SqliteEngine(Path(where))
        await engine.open()
        n = 0
        while True:
            n += 1
            pair = tuple(Set(pack([part, str(n % 50)]), b"%d" % n) for part in ("left", "right"))
            await engine.write([Write(space, pair)])
            print(n, flush=True)

    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def test_all_that_a_killed_process_has_committed_is_told(durable_lab: Lab, tmp_path: Path) -> None:
    """kill -9 amid its commits: those who watch elsewhere know what is there, writes of two keys whole."""
    script = tmp_path / "writer.py"
    script.write_text(textwrap.dedent(WRITER))
    where = durable_lab.schema.url if durable_lab.schema else str(durable_lab.file)

    async def story(engine: Engine) -> None:
        durable_lab.clock.now = engine.clock()
        space = (await new_space(engine)).number
        watch = await engine.watch(space, [WHOLE])
        known: dict[bytes, bytes] = {}
        await anext(watch)
        for _ in range(3):
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(script), where, str(space),
                stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            )  # fmt: skip
            assert process.stdout is not None
            for _ in range(30):
                await process.stdout.readline()
            process.send_signal(signal.SIGKILL)
            await process.wait()
            last = (await commit(engine, space, put(k("marker")), Delete(k("marker")), put(k("end")))).versionstamp
            upto = 0
            while upto < last:
                changes = await asyncio.wait_for(anext(watch), 10)
                upto = changes.upto
                if changes.resync:
                    known = {entry.key: entry.value for entry in await scanned(engine, space)}
                for change in changes.changes:
                    if change.entry is None:
                        known.pop(change.key, None)
                    else:
                        known[change.key] = change.entry.value
            assert known == {entry.key: entry.value for entry in await scanned(engine, space)}
            for n in range(50):
                assert known.get(k("left", str(n))) == known.get(k("right", str(n)))
        watch.close()

    durable_lab.run(story)


async def filled(engine: Engine, entries: int = 4_500) -> int:
    space = (await new_space(engine)).number
    for start in range(0, entries, 900):
        await commit(engine, space, *(put(k(f"{n:06}"), b'"before"') for n in range(start, start + 900)))
    return space


def test_a_scan_shows_the_instant_of_its_first_batch(durable_lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = await filled(engine)
        seen: list[Entry] = []
        async with aclosing(engine.scan(space)) as batches:
            async for batch in batches:
                assert isinstance(batch, list)
                seen += batch
                await commit(engine, space, put(k(f"{len(seen):06}"), b'"after"'), Delete(k("004499")), put(k("zz")))
        assert [entry.key for entry in seen] == [k(f"{n:06}") for n in range(4_500)]
        assert {entry.value for entry in seen} == {b'"before"'}
        assert (await there(engine, space, k("zz"))).value == b"1"

    durable_lab.run(story)


def test_a_scan_gives_its_snapshot_up_when_its_time_is_over(durable_lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = await filled(engine)
        scan = engine.scan(space)
        assert await anext(scan)
        await asyncio.sleep(1.2)  # its reader is slow
        with pytest.raises(Unavailable) as ended:
            async for _ in scan:
                pass
        assert ended.value.reason == "snapshot_ended"
        assert len(await scanned(engine, space)) == 4_500

    durable_lab.limits = Limits(snapshot_seconds=0.5)
    durable_lab.run(story)


def test_there_may_be_so_many_snapshots_and_no_more(durable_lab: Lab) -> None:
    async def story(engine: Engine) -> None:
        space = await filled(engine)
        scans = [engine.scan(space) for _ in range(2)]
        for scan in scans:
            assert await anext(scan)
        with pytest.raises(Unavailable) as refused:
            await anext(engine.scan(space))
        assert refused.value.reason == "snapshot_ended"
        for scan in scans:
            await scan.aclose()
        assert len(await scanned(engine, space)) == 4_500

    durable_lab.limits = Limits(snapshots=2)
    durable_lab.run(story)


def test_a_scan_is_cut_when_the_log_grows_too_long(tmp_path: Path) -> None:
    async def story() -> None:
        engine = SqliteEngine(tmp_path / "kvasir.db", limits=Limits(snapshot_log_bytes=1 << 20))
        await engine.open()
        space = await filled(engine)
        scan = engine.scan(space)
        assert await anext(scan)
        for n in range(40):
            await commit(engine, space, put(k("large"), b'"%s"' % (b"%02d" % n * 50_000)))
        await asyncio.sleep(1.2)
        with pytest.raises(Unavailable) as ended:
            async for _ in scan:  # what was read ahead comes yet
                pass
        assert ended.value.reason == "snapshot_ended"
        await engine.close()

    asyncio.run(story())
