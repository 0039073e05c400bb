"""Several worker processes as one server: start them, replace one that dies, stop them together."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from types import FrameType

log = logging.getLogger("kvasir.supervisor")

#: A worker that dies is replaced after this pause, so that one that cannot start does not spin.
RESPAWN_SECONDS = 1.0

STOPPING = (signal.SIGTERM, signal.SIGINT)


def supervise(workers: int, serve: Callable[[int, int], int]) -> int:
    """Fork workers that call `serve(worker, parent)` and wait for all; 0 if each ended well.

    `parent` is the reading end of a pipe that nobody writes to: it becomes readable when this process is gone,
    however it went, so that no worker is left behind. Must be called before the process has started any thread.
    """
    reading, writing = os.pipe()
    stopping = False
    numbers: dict[int, int] = {}

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        for pid in numbers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def spawn(worker: int) -> None:
        # A signal between fork and the next line would miss the child, or reach it with this process's handler.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        if not stopping:
            pid = os.fork()
            if pid == 0:
                _be_worker(serve, worker, reading, writing)
            numbers[pid] = worker
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

    for number in STOPPING:
        signal.signal(number, stop)
    for worker in range(workers):
        spawn(worker)
    failed = False
    while numbers:
        pid, status = os.wait()
        worker = numbers.pop(pid)
        if stopping:
            # A worker that the signal itself ended had not begun to serve.
            failed = failed or status not in (0, signal.SIGTERM)
            continue
        log.error("worker %d ended unexpectedly (status %d); starting another", worker, status)
        time.sleep(RESPAWN_SECONDS)
        spawn(worker)
    os.close(writing)
    os.close(reading)
    return int(failed)


def _be_worker(serve: Callable[[int, int], int], worker: int, reading: int, writing: int) -> None:
    status = 1
    try:
        os.close(writing)
        for number in STOPPING:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        status = serve(worker, reading)
    except Exception:
        log.exception("worker %d failed", worker)
    finally:
        # Not sys.exit: this process is a copy of the supervisor and must not run what the supervisor still has to do.
        os._exit(status)
