"""The files for Prometheus and Grafana, tried with Debian's Prometheus: each alert, and each query of the board."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from kvasir.metrics import FAMILIES
from tests.support.http_client import client
from tests.support.serving import PATIENCE_SECONDS, Server, free_ports, serving, wait_until
from tools import board
from tools.pages import DOCS

ROOT = DOCS.parent
DEPLOY = ROOT / "deploy"

prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="Prometheus is not installed: apt-get install prometheus",
)


def promtool(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run(
        ["promtool", *arguments], cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> list[dict[str, Any]]:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
    return [rule for group in rules["groups"] for rule in group["rules"]]


def test_the_board_is_fresh() -> None:
    assert board.FILE.read_text(encoding="utf-8") == board.text(), "run `make docs`"


def test_every_alert_is_tested_firing_and_not_firing_and_says_what_to_do() -> None:
    names = [alert["alert"] for alert in alerts()]
    tests = yaml.safe_load((ROOT / "tests" / "operate" / "alerts.yml").read_text(encoding="utf-8"))["tests"]
    quiet = [each["alertname"] for each in tests[0]["alert_rule_test"] if not each.get("exp_alerts")]
    firing = [each["labels"].split('"')[1] for each in tests[1]["promql_expr_test"][0]["exp_samples"]]
    assert sorted(quiet) == sorted(firing) == sorted(names)
    assert all({"summary", "description"} <= alert["annotations"].keys() for alert in alerts())
    documented = (DOCS / "operate" / "observability.md").read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}`" not in documented] == []


@prometheus
def test_the_alerts_fire_when_they_must_and_only_then() -> None:
    promtool("check", "config", "deploy/prometheus/prometheus.yml")
    promtool("test", "rules", "tests/operate/alerts.yml")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("board")) as server:
        yield server


@pytest.fixture(scope="module")
def load(server: Server) -> Iterator[None]:
    """Requests of every kind, some of which fail, until the tests are over."""
    ended = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=server.url, headers=server.headers, trust_env=False) as http:
            while not ended.wait(0.02):
                http.put(f"/v1/spaces/{server.store}/entries/a", content=b"1")
                http.get(f"/v1/spaces/{server.store}/entries/a")
                http.get(f"/api/v2/store/{server.store}/kv/none")

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    ended.set()
    thread.join()


@pytest.fixture(scope="module")
def collecting(server: Server, load: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A Prometheus with the files as they are in the repository, but for the address and the interval."""
    directory = tmp_path_factory.mktemp("prometheus")
    settings = (DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    settings = settings.replace("127.0.0.1:8901", f"127.0.0.1:{server.port}").replace("15s", "1s")
    (directory / "prometheus.yml").write_text(settings, encoding="utf-8")
    shutil.copy(DEPLOY / "prometheus" / "alerts.yml", directory)
    (port,) = free_ports(1)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(
                    "prometheus",
                    f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'data'}",
                ),
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1", trust_env=False) as http:
            yield http
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def results(http: httpx.Client, expression: str) -> list[dict[str, Any]]:
    try:
        answer = http.get("/query", params={"query": expression})
    except httpx.HTTPError:  # not there yet
        return []
    if answer.status_code != 200 and "invalid" in answer.text:
        raise AssertionError(f"{expression}: {answer.text}")
    return list(answer.json()["data"]["result"]) if answer.status_code == 200 else []


@prometheus
def test_every_query_of_the_board_returns_data_under_load(collecting: httpx.Client) -> None:
    wait_until(lambda: any(each["value"][1] == "1" for each in results(collecting, "up")), "the target is up")
    panels = [panel for panel in json.loads(board.FILE.read_text(encoding="utf-8"))["panels"] if "targets" in panel]
    queries = [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]
    assert len(queries) > 30
    for title, expression in queries:
        asked = expression.replace("$__rate_interval", "20s").replace("$instance", ".*")
        wait_until(lambda asked=asked: bool(results(collecting, asked)), f"{title!r} has data: {asked}")  # type: ignore[misc]
    rules = collecting.get("/rules").json()["data"]["groups"][0]["rules"]
    assert {rule["name"]: rule["health"] for rule in rules} == {alert["alert"]: "ok" for alert in alerts()}
    assert {rule["state"] for rule in rules if rule["name"] in ("KvasirDown", "KvasirNotReady")} == {"inactive"}


@prometheus
def test_the_names_follow_the_conventions_of_prometheus(server: Server, load: None) -> None:
    text = client.get(f"{server.url}/metrics").text
    assert len(FAMILIES) > 30
    assert promtool("check", "metrics", stdin=text) == ""
