"""`/metrics`: what is counted, by every worker, and that Prometheus' own parsers read it."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics import parser
from prometheus_client.parser import text_string_to_metric_families as prometheus_text
from websockets.sync.client import connect

from kvasir.dialects.operations.health import wants_open_metrics
from kvasir.errors import Unavailable
from kvasir.limits import BOUNDS, Limits, NemesisLimits, WebSocketLimits
from kvasir.metrics import FAMILIES, PLACES, Metrics
from kvasir.model import Histogram
from kvasir.server import vitals
from kvasir.server.vitals import Vitals
from kvasir.server.worker import again_and_again
from tests.support.http_client import client
from tests.support.serving import Server, serving, wait_until

#: Untyped in the library
open_metrics: Any = parser.text_string_to_metric_families

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(server: Server) -> Samples:
    """Every sample of a server."""
    text = client.get(f"{server.url}/metrics").text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in prometheus_text(text)
        for sample in family.samples
    }


def value(server: Server, name: str, **labels: str) -> float:
    return scraped(server)[name, tuple(sorted(labels.items()))]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(
        tmp_path_factory.mktemp("metrics"), "--workers", "2", "--nemesis-auth", "key", "--limit-value-bytes", "100"
    ) as server:
        yield server


def put(server: Server, key: str, value: bytes = b"1") -> httpx.Response:
    path = f"{server.url}/v1/spaces/{server.store}/entries/{key}"
    return client.put(path, content=value, headers=server.headers)


def test_both_forms_are_read_by_the_parsers_of_prometheus(server: Server) -> None:
    put(server, "a")
    names = {family.name for family in FAMILIES}
    answer = client.get(f"{server.url}/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    parsed = {family.name for family in prometheus_text(answer.text)}
    assert parsed == {name.removesuffix("_total") for name in names}

    answer = client.get(f"{server.url}/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    parsed = {family.name for family in open_metrics(answer.text)}
    assert parsed == {name.removesuffix("_total").removesuffix("_info") for name in names}


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        # as Prometheus 2.42 asks, and 2.50
        ("application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
         "text/plain;version=0.0.4;q=0.5,*/*;q=0.1", True),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2", True),
        ("application/openmetrics-text;q=0.2, text/plain", False),
        ("application/openmetrics-text;q=x", False),
    ],
)  # fmt: skip
def test_openmetrics_is_for_those_who_prefer_it(accept: str, wanted: bool) -> None:
    assert wants_open_metrics(accept) is wanted


def test_a_write_is_counted_with_its_wait_its_commit_and_its_reads(server: Server) -> None:
    before = scraped(server)
    for number in range(20):
        assert put(server, f"counted-{number}").status_code == 201
    for _ in range(40):  # whichever worker answers, it has read the entry before
        client.get(f"{server.url}/v1/spaces/{server.store}/entries/counted-1", headers=server.headers)

    def grown(name: str) -> float:
        return scraped(server)[name, ()] - before[name, ()]

    def agree() -> bool:
        """Whether each commit has its time and its writes. A worker may be about to publish."""
        samples = scraped(server)
        return samples["kvasir_commit_seconds_count", ()] == samples["kvasir_commit_writes_count", ()]

    # Or more: the other worker may have had something to publish before, and sweeps are commits, too.
    wait_until(lambda: grown("kvasir_commit_writes_sum") >= 20, "the other worker has published its writes")
    wait_until(lambda: grown("kvasir_write_wait_seconds_count") >= 20, "each of them has waited")
    wait_until(agree, "each commit has its time and its writes")
    assert grown("kvasir_commit_seconds_count") > 0
    assert grown("kvasir_commit_seconds_sum") > 0
    wait_until(lambda: grown("kvasir_entry_cache_hits_total") >= 36, "the other worker has published its hits")
    assert grown("kvasir_entry_cache_misses_total") >= 1


def test_connections_are_counted_by_listener_and_watches_too(server: Server) -> None:
    with connect(server.nemesis_url, additional_headers=server.headers):
        wait_until(lambda: value(server, "kvasir_connections", listener="nemesis") == 1, "the connection is counted")
    wait_until(lambda: value(server, "kvasir_connections", listener="nemesis") == 0, "it is gone")
    assert value(server, "kvasir_connections", listener="http") >= 1
    assert value(server, "kvasir_connections", listener="https") == 0
    url = f"{server.url}/v1/spaces/{server.store}/watch?prefix=a"
    with client.stream("GET", url, headers=server.headers) as watch:
        assert watch.status_code == 200, watch.read()
        wait_until(lambda: value(server, "kvasir_watches") == 1, "the watch is counted")
    wait_until(lambda: value(server, "kvasir_watches") == 0, "it is gone")


def test_a_refusal_is_counted_by_its_bound(server: Server) -> None:
    before = value(server, "kvasir_refusals_total", bound="value_bytes")
    assert put(server, "large", b'"%b"' % (b"x" * 101)).status_code == 413
    wait_until(
        lambda: value(server, "kvasir_refusals_total", bound="value_bytes") == before + 1, "the refusal is counted"
    )


def wait_for_both(server: Server) -> None:
    def told() -> bool:
        samples = scraped(server)
        return all(("process_start_time_seconds", (("worker", worker),)) in samples for worker in ("0", "1"))

    wait_until(told, "both workers have published")


def test_processes_are_told_apart(server: Server) -> None:
    wait_for_both(server)
    for worker in ("0", "1"):
        assert value(server, "process_resident_memory_bytes", worker=worker) > 10_000_000
        assert value(server, "process_cpu_seconds_total", worker=worker) > 0
        assert value(server, "process_open_fds", worker=worker) < value(server, "process_max_fds", worker=worker)
    assert value(server, "kvasir_workers") == 2
    assert value(server, "kvasir_ready") == 1
    samples = scraped(server)  # of one worker: the other one looks at the database at another time
    assert 0 <= samples["kvasir_wal_bytes", ()] < samples["kvasir_database_bytes", ()]
    wait_until(lambda: value(server, "kvasir_event_loop_lag_seconds_count") > 0, "the lag of the loop is measured")
    listening = [dict(labels)["url"] for name, labels in scraped(server) if name == "kvasir_listener_info"]
    assert server.url in listening


def test_a_worker_without_open_files_left_goes_on_with_its_chores(monkeypatch: pytest.MonkeyPatch) -> None:
    none_left = OSError(errno.EMFILE, "Too many open files")

    def refused(_: str) -> list[str]:
        raise none_left

    async def story() -> None:
        times, enough = 0, asyncio.Event()

        async def look() -> None:
            nonlocal times
            times += 1
            if times < 3:
                raise (none_left, Unavailable("the database is away"))[times - 1]
            enough.set()

        chore = asyncio.create_task(again_and_again(0.001, look))
        async with asyncio.timeout(10):
            await enough.wait()
        chore.cancel()

    asyncio.run(story())
    nothing: Any = None
    looking = Vitals(nothing, nothing, lambda: None, Limits(), None)
    counted = looking._open_files()
    monkeypatch.setattr(vitals, "FILES_SECONDS", -1.0)
    monkeypatch.setattr(os, "listdir", refused)
    assert looking._open_files() == counted > 0


def test_a_worker_that_takes_the_place_of_another_goes_on_counting(tmp_path: Path) -> None:
    with serving(tmp_path, "--workers", "2") as server:
        wait_for_both(server)
        for number in range(10):
            put(server, f"k{number}")
        wait_until(lambda: value(server, "kvasir_commit_writes_sum") >= 10, "all writes are published")
        before = value(server, "kvasir_commit_writes_sum")
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text(encoding="ascii").split()
        started = [value(server, "process_start_time_seconds", worker=worker) for worker in ("0", "1")]
        os.kill(int(children[0]), signal.SIGKILL)

        def replaced() -> bool:
            try:
                now = [value(server, "process_start_time_seconds", worker=worker) for worker in ("0", "1")]
            except httpx.HTTPError:
                return False
            return now != started

        wait_until(replaced, "the worker is replaced")
        assert value(server, "kvasir_commit_writes_sum") >= before


def test_every_bound_is_a_setting_and_every_published_series_has_a_place() -> None:
    fields = {
        prefix + name
        for prefix, limits in (("", Limits), ("nemesis_", WebSocketLimits), ("nemesis_", NemesisLimits))
        for name in limits.__slots__
    }
    assert set(BOUNDS) <= fields | {"postgres_connections"}
    metrics = Metrics({}, 1)
    metrics.collect = lambda: {series: 2.0 for series in PLACES if series[0] == "kvasir_watches"}
    metrics.publish()
    assert "kvasir_watches 2" in metrics.text([])


def test_requests_are_counted_by_worker_and_none_is_lost_with_it() -> None:
    metrics = Metrics({"native": ("GetEntry", "SetEntry"), "versori": ("GetKV",)}, 2)
    metrics.observe("native", "SetEntry", "ok", 0.0005)
    metrics.observe("native", "SetEntry", "conflict", 0.0006, 2)
    metrics.publish()
    metrics.serve_as(1)
    metrics.observe("versori", "GetKV", "ok", 11.0)
    metrics.publish()
    metrics.serve_as(0)  # in the place of a worker that has ended
    metrics.observe("native", "SetEntry", "ok", 0.0005)
    assert metrics.totals().requests["native"][:1] == [2]
    lines = metrics.text([]).splitlines()
    for line in (
        'kvasir_requests_total{dialect="native",operation="SetEntry",outcome="ok"} 2',
        'kvasir_requests_total{dialect="native",operation="SetEntry",outcome="conflict"} 2',
        'kvasir_request_seconds_bucket{dialect="native",operation="SetEntry",le="0.0005"} 2',
        'kvasir_request_seconds_bucket{dialect="native",operation="SetEntry",le="0.001"} 4',
        'kvasir_request_seconds_sum{dialect="native",operation="SetEntry"} 0.0022',
        'kvasir_request_seconds_bucket{dialect="versori",operation="GetKV",le="10.0"} 0',
        'kvasir_request_seconds_count{dialect="versori",operation="GetKV"} 1',
    ):
        assert line in lines


def test_a_histogram_counts_a_value_at_its_bound_below_it() -> None:
    histogram = Histogram.of((1.0, 2.0))
    for observed in (1.0, 1.5, 2.0, 2.5):
        histogram.observe(observed)
    assert histogram.counts == [1, 2, 1]
    assert histogram.total == 7.0
