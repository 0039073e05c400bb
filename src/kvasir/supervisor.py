"""Several worker processes as one server: start them, replace one that dies, stop them together."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator

log = logging.getLogger("kvasir.supervisor")

#: A worker that dies is replaced after this pause, so that one that cannot start does not spin.
RESPAWN_SECONDS = 1.0

STOPPING = (signal.SIGTERM, signal.SIGINT)

#: Signals the supervisor waits for. They stay blocked in it: one that a handler took just before a call that waits
#: would lie there until something else happens.
AWAITED = (*STOPPING, signal.SIGCHLD)


def supervise(workers: int, serve: Callable[[int, int], int]) -> int:
    """Fork workers that call `serve(worker, parent)` and wait for all; 0 if each ended well.

    `parent` is the reading end of a pipe that nobody writes to: it becomes readable when this process is gone,
    however it went, so that no worker is left behind. Must be called before the process has started any thread.
    """
    reading, writing = os.pipe()
    numbers: dict[int, int] = {}

    def spawn(worker: int) -> None:
        pid = os.fork()
        if pid == 0:
            _be_worker(serve, worker, reading, writing)
        numbers[pid] = worker

    signal.signal(signal.SIGCHLD, lambda *_: None)  # a signal that nobody handles may be dropped, even if blocked
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    for worker in range(workers):
        spawn(worker)
    stopping = failed = False
    while numbers:
        if signal.sigwait(AWAITED) in STOPPING:
            stopping = True
            for pid in numbers:
                os.kill(pid, signal.SIGTERM)
        for pid, status in _ended():
            worker = numbers.pop(pid)
            if stopping:
                # A worker that the signal itself ended had not begun to serve.
                failed = failed or status not in (0, *STOPPING)
            else:
                log.error("worker %d ended unexpectedly (status %d); starting another", worker, status)
                time.sleep(RESPAWN_SECONDS)
                spawn(worker)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
    os.close(writing)
    os.close(reading)
    return int(failed)


def _ended() -> Iterator[tuple[int, int]]:
    """Process id and status of every worker that has ended and was not asked for yet."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            yield pid, status


def _be_worker(serve: Callable[[int, int], int], worker: int, reading: int, writing: int) -> None:
    status = 1
    try:
        os.close(writing)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
        status = serve(worker, reading)
    except Exception:
        log.exception("worker %d failed", worker)
    finally:
        # Not sys.exit: this process is a copy of the supervisor and must not run what the supervisor still has to do.
        os._exit(status)
