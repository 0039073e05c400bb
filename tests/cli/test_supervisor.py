"""The supervisor's own exit status: that of its workers, but for one that had not begun to serve."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import os, signal, sys
from kvasir.supervisor import supervise

def serve(worker, parent):
    {on_stop}
    os.write(1, b"up\\n")
    os.read(parent, 1)  # until the supervisor is gone
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
