"""What a check of either durable engine says of entries, and where it stops."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from kvasir.engines.soundness import MAX_FAULTS, entry_fault, list_fault
from kvasir.engines.sqlite import SqliteEngine
from tests.support.clock import ManualClock
from tests.support.lab import commit, k, new_space, put


@pytest.mark.parametrize(
    ("key", "value", "metadata", "fault"),
    [
        (k("a"), b"1", None, None),
        (k("a"), b'"\xc3\xbc"', b"{}", None),
        (b"a", b"1", None, "packed form"),
        (k("a") + b"\xff", b"1", None, "packed form"),
        (k("a"), b"{", None, "not valid JSON"),
        (k("a"), b'"\xff"', None, "not valid JSON"),
        (k("a"), b"1", b"{", "not valid JSON"),
        (k("a"), b"1", b"[]", "not a JSON object"),
    ],
)
def test_an_entry_is_sound_or_its_fault_is_named(
    key: bytes, value: bytes, metadata: bytes | None, fault: str | None
) -> None:
    found = entry_fault(key, value, metadata)
    assert found is None if fault is None else fault in str(found)


def test_the_list_of_faults_ends_where_it_says() -> None:
    faults: list[str] = []
    for number in itertools.count():
        if not list_fault(faults, f"fault {number}"):
            break
    assert len(faults) == MAX_FAULTS + 1
    assert (faults[0], faults[-2], faults[-1]) == ("fault 0", f"fault {MAX_FAULTS - 1}", "there may be more")


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        ("DELETE FROM space WHERE number <> 1", "belong to no space"),
        ("INSERT INTO alias VALUES ('store', '', 'x', 77)", "aliases lead to no space"),
        ("UPDATE meta SET last = 1", "newer than the last number"),
        ("UPDATE entry SET key = x'61'", "packed form"),
        ("UPDATE entry SET value = x'7b'", "not valid JSON"),
        ("UPDATE entry SET metadata = x'5b5d'", "not a JSON object"),
    ],
)
def test_the_check_of_a_file_finds_what_does_not_belong_together(tmp_path: Path, damage: str, finding: str) -> None:
    """Its counterpart for the other durable engine, which has other tables, is in `test_postgres`."""

    async def story() -> None:
        engine = SqliteEngine(tmp_path / "kvasir.db", clock=ManualClock())
        await engine.open()
        try:
            await commit(engine, (await new_space(engine)).number, put(k("a")))
            assert await engine.check() == []
            with closing(apsw.Connection(str(tmp_path / "kvasir.db"))) as connection:
                connection.execute(damage)
            assert any(finding in fault for fault in await engine.check())
        finally:
            await engine.close()

    asyncio.run(story())
