"""Scans of SQLite: how much one statement joins, how often a row is read, and how soon a scan ends."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import apsw
import pytest

from kvasir.engine import Engine
from kvasir.engines.sqlite import connection, scanning
from kvasir.errors import Unavailable
from kvasir.model import Joined, Set
from tests.support.lab import Lab, commit, k, new_space, put


class Statements:
    """The statements of a scan that begin while this is there, and what is done at each that joins entries."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.joining = 0
        self.at_each: Any = lambda: None
        opened = connection.for_reading

        def traced(path: Path) -> connection.ReadConnection:
            found = opened(path)
            found.exec_trace = self._saw
            return found

        monkeypatch.setattr(connection, "for_reading", traced)

    def _saw(self, _cursor: apsw.Cursor, sql: str, _values: Any) -> bool:
        if "group_concat" in sql:
            self.joining += 1
            self.at_each()
        return True


def scan_of(folder: Path, space: int, lab: Lab) -> scanning._Scan:
    return scanning._Scan(next(folder.rglob("*.db")), space, None, joined=True, now=lab.clock.now)


def lengths(batches: list[Any]) -> list[int]:
    return [batch.count if isinstance(batch, Joined) else -len(batch) for batch in batches]


def test_long_keys_behind_short_ones_are_not_all_joined_at_once(tmp_path: Path) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, *[put(k(f"a{n:05}")) for n in range(2_300)])
        await commit(engine, space, *[put(k(f"b{n:04}" + "x" * 1_900)) for n in range(1_500)])
        found = 0
        async with contextlib.aclosing(engine.scan(space, None, True)) as batches:
            async for batch in batches:
                assert isinstance(batch, Joined)
                found += batch.count
                assert len(batch.keys) + len(batch.values) + len(batch.facts) <= 4 * scanning.TEXT_BYTES
        assert found == 3_800

    Lab("sqlite", tmp_path).run(story)


def test_what_is_too_long_to_be_joined_is_not_tried_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab("sqlite", tmp_path)

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        long = b'"%b"' % (b"x" * 300_000)
        await commit(engine, space, *[put(k(f"a{n:04}")) for n in range(600)])
        await commit(engine, space, *[Set(k(f"b{n:02}"), long) for n in range(40)])
        await commit(engine, space, *[put(k(f"c{n:04}")) for n in range(900)])
        statements = Statements(monkeypatch)
        scan = scan_of(tmp_path, space, lab)
        told = [count for batches in iter(scan.batches, []) for count in lengths(batches)]
        scan.end("it was read")
        joined = [count for count in told if count > 0]
        assert sum(map(abs, told)) == 1_540
        assert sum(joined) >= 900
        # Each that joins something, two that meet the long ones, and one behind the last entry.
        assert statements.joining <= len(joined) + 3

    lab.run(story)


def test_a_scan_that_was_ended_does_not_go_on_among_the_expired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab("sqlite", tmp_path)

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, *[put(k(f"{n:04}"), ttl=9) for n in range(2_000)])
        lab.clock.now += 9
        statements = Statements(monkeypatch)
        scan = scan_of(tmp_path, space, lab)
        statements.at_each = lambda: scan.end("it took too long")
        with pytest.raises(Unavailable, match="it took too long"):
            scan.batches()
        assert statements.joining == 1

    lab.run(story)
