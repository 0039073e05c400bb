"""What clients of two servers see at once could have happened one operation at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.faults.history import Caller, Record
from tests.support.faults.linearizable import violation, with_a_stale_read, with_a_torn_read
from tests.support.faults.pairs import PairCaller, PairRecord
from tests.support.faults.stubborn import under_load
from tests.support.serving import serving

CLIENTS = 8
OPERATIONS = 600


@pytest.mark.usefixtures("each_engine")
def test_reads_and_writes_through_two_processes_are_linearizable(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with serving(tmp_path) as one, serving(tmp_path / "second", "--data-dir", str(one.data_dir)) as other:
        record = Record([one, other], one.store, ["a", "b", "c"])
        callers = [Caller(record, OPERATIONS) for _ in range(CLIENTS)]
        with under_load(callers):
            for caller in callers:
                caller.join(60)
        record.read_at_last()
    history = record.history()
    assert len(history) > 0.9 * CLIENTS * OPERATIONS
    assert len(record.refused) > 100, "they hardly met"
    assert violation(history) is None
    assert violation(with_a_stale_read(history)) is not None


@pytest.mark.usefixtures("each_engine")
def test_transactions_over_two_keys_through_two_processes_are_linearizable(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with serving(tmp_path) as one, serving(tmp_path / "second", "--data-dir", str(one.data_dir)) as other:
        record = PairRecord([one, other], one.store, ["a", "b"])
        callers = [PairCaller(record, OPERATIONS // 2) for _ in range(CLIENTS)]
        with under_load(callers):
            for caller in callers:
                caller.join(60)
    history = record.operations
    assert len(history) > 0.5 * CLIENTS * OPERATIONS // 2
    assert sum(caller.conflicts for caller in callers) > 50, "they hardly met"
    absent = (None, None)
    assert violation(history, first=absent) is None
    assert violation(with_a_torn_read(history), first=absent) is not None
