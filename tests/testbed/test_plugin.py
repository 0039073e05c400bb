"""The plugin as a stranger uses it: three lines of conftest, the page's example, parallel workers, interrupted runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.serving import PATIENCE_SECONDS, environment, wait_until
from tests.support.voximplant_live import CLIENTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "testing.md").read_text()
CONFTEST = 'pytest_plugins = ["kvasir.testing"]\n'
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]


def run_tests(directory: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    (directory / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    return subprocess.run(
        [*PYTEST, *options], cwd=directory, env=environment(**variables), capture_output=True, text=True, check=False
    )


def servers_of(directory: Path) -> list[int]:
    """The process ids that tests have written down."""
    return [int(path.name) for path in directory.glob("pids/*")]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


NOTE = """
from pathlib import Path
import pytest

@pytest.fixture(autouse=True)
def noted(kvasir_server):
    Path("pids").mkdir(exist_ok=True)
    (Path("pids") / str(kvasir_server.pid)).touch()
"""


def test_the_example_of_the_page_passes(tmp_path: Path) -> None:
    conftest, example = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[:2]
    assert conftest == CONFTEST
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_greeting.py").write_text(example)
    done = run_tests(tmp_path)
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_client_of_a_fixture_is_closed(tmp_path: Path) -> None:
    """Warnings are errors, as many projects have it."""
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_client.py").write_text('def test_set(kvasir):\n    kvasir.client.set("a", 1)\n')
    done = run_tests(tmp_path)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert "ResourceWarning" not in done.stdout
    assert done.returncode == 0


def test_the_examples_pass_with_the_official_clients() -> None:
    (packages,) = CLIENTS.glob("python/lib/python3.*/site-packages")
    done = subprocess.run(
        [*PYTEST, "-c", os.devnull, "--rootdir", ROOT / "examples" / "testing", ROOT / "examples" / "testing"],
        cwd=ROOT / "examples" / "testing",
        env=environment(PYTHONPATH=str(packages), PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "5 passed" in done.stdout, done.stdout + done.stderr


ISOLATION = """
import json, urllib.request
import pytest

def set(kvasir, key):
    urllib.request.urlopen(urllib.request.Request(
        f"{kvasir.url}/store/{kvasir.store}/kv/{key}", b'{"value": 1}', kvasir.headers, method="PUT"))

def count(kvasir):
    address = f"{kvasir.url}/store/{kvasir.store}/kv/count"
    answer = urllib.request.urlopen(urllib.request.Request(address, b"{}", kvasir.headers, method="POST"))
    return json.load(answer)["count"]

@pytest.mark.parametrize("n", range(20))
def test_alone(kvasir, n):
    assert count(kvasir) == 0
    assert not kvasir.requests(operation="SetKV")
    set(kvasir, f"k{n}")
    before = kvasir.clock.now_ms()
    if n % 2:
        kvasir.clock.advance("31d")
    else:
        kvasir.faults.add("unavailable", operation="CountKV", times=1)
    if n == 7:
        raise RuntimeError("this one fails")

def test_clock_and_faults_are_back(kvasir_server):
    import time
    assert abs(kvasir_server.clock.now_ms() - time.time() * 1000) < 60_000
    assert kvasir_server.controls.call("GET", "faults") == []
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_tests_never_see_each_other_and_no_server_is_left(tmp_path: Path, workers: str) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST + NOTE)
    (tmp_path / "test_isolation.py").write_text(ISOLATION)
    done = run_tests(tmp_path, "-n", workers)
    assert "1 failed, 20 passed" in done.stdout, done.stdout + done.stderr
    assert len(servers_of(tmp_path)) == max(1, int(workers))
    assert not [pid for pid in servers_of(tmp_path) if is_alive(pid)]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_interrupted_or_killed_leaves_no_server(tmp_path: Path, how: signal.Signals) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST + NOTE)
    (tmp_path / "test_slow.py").write_text("import time\n\ndef test_slow(kvasir):\n    time.sleep(60)\n")
    # A shell that starts this in the background has SIGINT ignored by all that it starts.
    heeding = (
        "import signal, sys, pytest; signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(pytest.main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", heeding], cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL
    )
    wait_until(lambda: bool(servers_of(tmp_path)), "the server runs")
    process.send_signal(how)
    process.wait(PATIENCE_SECONDS)
    (server,) = servers_of(tmp_path)
    wait_until(lambda: not is_alive(server), "the server has ended")


def test_the_plugin_does_not_load_itself(tmp_path: Path) -> None:
    (tmp_path / "test_none.py").write_text("def test_none(kvasir):\n    pass\n")
    done = run_tests(tmp_path)
    assert "fixture 'kvasir' not found" in done.stdout
