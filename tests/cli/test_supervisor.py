"""The supervisor's own exit status: that of its workers, but for one that had not begun to serve."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile

import pytest

SCRIPT = """
import os, select, signal, sys
from kvasir.server.supervisor import supervise

def serve(worker, parent, up):
    {on_stop}
    up()
    os.write(1, b"up\\n")
    while not select.select([parent], [], [], 0.05)[0]:
        pass  # until the supervisor is gone
    return 0

sys.exit(supervise(2, serve))
"""


@pytest.mark.parametrize(
    ("on_stop", "status"),
    [
        ("pass", 0),  # no handler yet: the signal ends it while it starts
        ("signal.signal(signal.SIGTERM, lambda *_: os._exit(0))", 0),
        ("signal.signal(signal.SIGTERM, lambda *_: os._exit(3))", 1),
        ("signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGKILL))", 1),
    ],
)
def test_exit_status(on_stop: str, status: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(on_stop=on_stop)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == ["up\n", "up\n"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == status
        finally:
            process.kill()


@pytest.mark.parametrize("end", ["up(); os._exit(1)", "up(); os.kill(os.getpid(), 9)", "os.kill(os.getpid(), 9)"])
def test_a_worker_that_dies_is_replaced(end: str) -> None:
    """Also before it has served, if it was killed: that says nothing of its successors."""
    die = "pass\n    if not os.path.exists(sys.argv[1]):"
    die += f" open(sys.argv[1], 'w').close(); os.write(1, b'died\\n'); {end}"
    with tempfile.TemporaryDirectory() as directory:
        script = SCRIPT.format(on_stop=die).replace("supervise(2", "supervise(1")
        with subprocess.Popen(
            [sys.executable, "-c", script, f"{directory}/died"], stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stdout is not None
                assert [process.stdout.readline() for _ in range(2)] == ["died\n", "up\n"]
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0
            finally:
                process.kill()


def test_workers_that_cannot_start_end_the_server() -> None:
    """Again and again would be for ever: what keeps the first ones from starting keeps their successors too."""
    script = SCRIPT.format(on_stop="raise OSError('no such thing')")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "giving up" in done.stderr
    assert done.stdout == ""


def test_one_that_cannot_start_ends_the_others_too() -> None:
    script = SCRIPT.format(on_stop="if worker == 1: os._exit(1)")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert set(done.stdout.split()) <= {"up"}


def test_one_that_cannot_start_now_while_another_serves_is_replaced() -> None:
    """The database may have gone since the other started."""
    fail = "open(failed, 'w').close(); os.write(1, b'failed\\n'); os._exit(75)"
    steps = (
        "up_file, failed = sys.argv[1] + '/up', sys.argv[1] + '/failed'",
        "if worker == 0: up(); open(up_file, 'w').close()",
        "while not os.path.exists(up_file): pass",
        f"if worker == 1 and not os.path.exists(failed): {fail}",
    )
    script = SCRIPT.format(on_stop="\n    ".join(steps))
    with (
        tempfile.TemporaryDirectory() as directory,
        subprocess.Popen([sys.executable, "-c", script, directory], stdout=subprocess.PIPE, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            assert sorted(process.stdout.readline() for _ in range(3)) == ["failed\n", "up\n", "up\n"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_a_successor_that_the_system_has_no_room_for_is_started_later() -> None:
    plan = (
        "import os; fork = os.fork; os.forks = 0",
        "def failing():",
        "    os.forks += 1",
        "    if os.forks == 3: raise BlockingIOError(11, 'planted')",
        "    return fork()",
        "os.fork = failing",
    )
    die = "if worker == 1 and os.forks == 2: up(); os.write(1, b'died\\n'); os._exit(1)"
    script = "\n".join(plan) + SCRIPT.format(on_stop=die)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert sorted(process.stdout.readline() for _ in range(3)) == ["died\n", "up\n", "up\n"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
            assert process.stderr is not None
            assert "worker 1 could not be started (planted); trying again" in process.stderr.read()
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_can_be_stopped_while_its_workers_die_again_and_again(number: signal.Signals) -> None:
    script = SCRIPT.format(on_stop="up(); os.write(1, b'died\\n'); os._exit(1)")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(5)] == ["died\n"] * 5
            process.send_signal(number)
            assert process.wait(30) in (0, 1)
        finally:
            process.kill()


def test_children_of_others_are_not_its_workers() -> None:
    """The first process of a container inherits them."""
    script = SCRIPT.format(on_stop="pass").replace("sys.exit(", "os.spawnlp(os.P_NOWAIT, 'true', 'true')\nsys.exit(")
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == ["up\n", "up\n"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
