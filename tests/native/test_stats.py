"""What `stats` tells: samples of all workers together, for those who administer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from kvasir.dialects.native import stats
from kvasir.dialects.native.rendering import instant
from kvasir.metrics import BUCKETS, Totals, percentile
from kvasir.model import Stats
from tests.support.http_client import client
from tests.support.native import refusal
from tests.support.serving import serving, wait_until


def test_samples_of_all_workers_together(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as server:
        path = f"{server.url}/v1/spaces/{server.store}/entries/a"
        for _ in range(50):
            assert client.put(path, content=b"1", headers=server.headers).status_code in (200, 201)
        client.get(path + "/none", headers=server.headers)

        found: dict[str, Any] = {}

        def told() -> bool:
            found.update(client.get(f"{server.url}/v1/stats?window=900", headers=server.headers).json())
            return bool(sum(5 * sample["writes"] for sample in found["samples"]) >= 30)

        wait_until(told, "every worker's writes are in the samples of any of them")
        assert found["interval"] == 5
        assert found["since"] == found["samples"][0]["from"]
        sample = max(found["samples"], key=lambda sample: sample["writes"])
        assert set(sample) == {
            "from", "to", "dialects", "writes", "commits", "queue_depth", "connections", "entries", "database_bytes",
        }  # fmt: skip
        native = sample["dialects"]["native"]
        assert native["requests"] >= sample["writes"] > 0
        assert 0 < native["p50"] <= native["p99"] <= BUCKETS[-1]
        assert sample["commits"] <= sample["writes"]
        assert sample["database_bytes"] > 0
        for window in ("0", "901", "x"):
            assert refusal(client.get(f"{server.url}/v1/stats?window={window}", headers=server.headers))[0] == 400


def test_stats_are_for_those_who_administer(v1: httpx.Client) -> None:
    assert v1.get("stats").status_code == 200
    key = v1.post("keys", json={"name": "x", "role": "developer"}).json()["key"]
    answer = v1.get("stats", headers={"Authorization": f"Bearer {key}"})
    assert refusal(answer) == (403, "forbidden", [])


def test_a_window_has_the_samples_that_reach_into_it() -> None:
    """The timer is late each time, so a sample is a little longer than the least window."""
    history = stats.History()
    assert history.samples(5) == []
    for number in range(200):
        history.add(stats.Moment(number * 5_001, Totals({}, number, number, 0, 0), Stats(0, 0, 0)))
    assert [len(history.samples(window)) for window in (5, 6, 10, 11, 900)] == [1, 2, 2, 3, 180]
    (last,) = history.samples(5)
    assert last["to"] == instant(199 * 5_001)


@pytest.mark.parametrize(
    ("counts", "part", "seconds"),
    [
        ({}, 0.5, None),
        ({0: 10}, 0.5, 0.00025),
        ({0: 10, 3: 10}, 0.5, 0.0005),
        ({14: 1}, 0.99, 10.0),
        ({13: 4}, 1.0, 10.0),
    ],
)
def test_percentiles(counts: dict[int, int], part: float, seconds: float | None) -> None:
    assert percentile([counts.get(at, 0) for at in range(len(BUCKETS) + 1)], part) == pytest.approx(seconds)
