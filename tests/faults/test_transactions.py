"""Amounts are moved between accounts through two servers, one of which is killed: the sum is right at every look."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.faults.stubborn import Stubborn, under_load, wait_for_progress
from tests.support.faults.transfers import ACCOUNTS, Auditor, Mover, open_accounts
from tests.support.raw_http import Client
from tests.support.serving import serving, wait_until

MOVERS = 8
#: `python -m bench transactions` makes 2,000.
TRANSFERS = 100


@pytest.mark.usefixtures("each_engine")
def test_transfers_through_two_servers_keep_the_sum_through_a_kill(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with serving(tmp_path) as one, serving(tmp_path / "second", "--data-dir", str(one.data_dir)) as other:
        servers = [one, other]
        store = one.store
        with Client(one, store) as client:
            open_accounts(client, store)
        movers = [Mover(servers, store, TRANSFERS) for _ in range(MOVERS)]
        auditors = [Auditor(servers, store) for _ in range(2)]
        clients: list[Stubborn] = [*movers, *auditors]
        with under_load(clients):
            wait_until(lambda: sum(mover.moved for mover in movers) > MOVERS * TRANSFERS // 4, "amounts are moved")
            other.kill()
            wait_for_progress(auditors)
            for mover in movers:
                mover.join(90)
        assert all(mover.moved + mover.unknown >= TRANSFERS for mover in movers)
        assert sum(mover.unknown for mover in movers) <= MOVERS
        assert all(auditor.done > 3 for auditor in auditors)
        with Client(one, store) as client:
            last = Auditor([one], store)
            last.step(client)
            assert (last.done, last.unexpected) == (1, [])
            assert client.count("account") == ACCOUNTS
