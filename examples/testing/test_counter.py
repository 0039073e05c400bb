"""A counter must count once, whether the write was lost or only its answer."""

from __future__ import annotations

import pytest
from counter import Counter

from kvasir.testing import Store


@pytest.fixture
def visitors(kvasir_versori: Store) -> Counter:
    return Counter(kvasir_versori.url, kvasir_versori.key, kvasir_versori.store, "visitors")


@pytest.mark.parametrize("fault", ["drop", "commit_then_drop"])
def test_a_lost_connection_neither_loses_nor_doubles_a_visitor(
    kvasir_versori: Store, visitors: Counter, fault: str
) -> None:
    visitors.increment()
    kvasir_versori.faults.add(fault, operation="SetKV", key="visitors", times=1)
    visitors.increment()
    assert visitors.value() == 2
    outcomes = [request["outcome"] for request in kvasir_versori.requests(operation="SetKV")]
    assert outcomes == (["ok", "drop", "ok"] if fault == "drop" else ["ok", "commit_then_drop"])
