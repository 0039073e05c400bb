"""The kill bench in short: some kills of each kind under load from all three APIs lose nothing and repeat nothing."""

from __future__ import annotations

from pathlib import Path

from bench.kill import Rig, kill
from tests.support.faults.keepers import Tally, VersoriKeeper, VoximplantKeeper
from tests.support.faults.stubborn import wait_for_progress
from tests.support.raw_http import Client

#: One of each kind on PostgreSQL, somewhat more on SQLite
KILLS = 10


def test_kills_of_every_kind_lose_no_acknowledged_write_and_repeat_none() -> None:
    result = kill(KILLS, None)
    assert result.kills.total() == KILLS
    assert set(result.kills) == {"server", "supervisor", "worker", "PostgreSQL", "backend"}
    assert (result.tally.lost, result.tally.excess, result.faults) == (0, 0, []), str(result)
    assert result.tally.acknowledged > 10 * KILLS


def test_the_reckoning_finds_what_is_lost_and_what_is_done_twice(tmp_path: Path) -> None:
    with Rig(tmp_path, None) as rig:
        wait_for_progress(rig.clients, 5)
        rig.stop()
        acknowledged = sorted(rig.versori[0].acknowledged)
        with Client(rig.servers[0], rig.servers[0].store) as client:
            assert client.delete(f"kept/0/{acknowledged[0]}").status == 200
            assert client.put(f"kept/0/{acknowledged[1]}", 0).status == 200  # the key alone does not count
            counter = client.get(VersoriKeeper.COUNTER).json()["value"]
            assert client.put(VersoriKeeper.COUNTER, counter + 3).status == 200
        with Client(rig.servers[0], rig.application) as client:
            counter = client.get(VoximplantKeeper.COUNTER).json()["value"]
            assert client.put(VoximplantKeeper.COUNTER, str(int(counter) - 1)).status == 200
        with Client(rig.servers[0], rig.session) as client:
            repeated = client.get("list-1-0").json()["value"]
            assert client.put("list-1-0", [*repeated, repeated[0]]).status == 200
        assert rig.reckon() == ""
    told_twice = 3 + 1
    unknown = rig.tally.unknown
    assert rig.tally.lost == 3, "a key, a value and an addition"
    assert told_twice - unknown <= rig.tally.excess <= told_twice


def test_what_a_client_was_told_is_compared_with_what_is_there() -> None:
    tally = Tally()
    tally.compare({1, 2, 5, 9}, acknowledged={1, 2, 3}, unknown={4, 5})
    assert tally == Tally(acknowledged=3, unknown=2, lost=1, excess=1)
    tally.count(7, acknowledged=5, unknown=1)
    assert tally == Tally(acknowledged=8, unknown=3, lost=1, excess=2)
    tally.count(3, acknowledged=5, unknown=1)
    assert tally == Tally(acknowledged=13, unknown=4, lost=3, excess=2)
