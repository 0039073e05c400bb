"""Several worker processes as one server: start them, replace one that dies, stop them together."""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import signal
from collections.abc import Callable

log = logging.getLogger("kvasir.supervisor")

#: A worker that dies is replaced after this pause, so that one that dies again and again does not spin.
RESPAWN_SECONDS = 1.0

STOPPING = (signal.SIGTERM, signal.SIGINT)

#: Signals the supervisor waits for; SIGALRM ends the pause. They stay blocked in it: one that a handler took just
#: before a call that waits would lie there until something else happens.
AWAITED = (*STOPPING, signal.SIGCHLD, signal.SIGALRM)

#: What a worker does: its number, a descriptor that is readable once the supervisor is gone, and what it calls when
#: it has begun to serve -> its exit status.
Serve = Callable[[int, int, Callable[[], None]], int]


def supervise(workers: int, serve: Serve) -> int:
    """Fork workers that call `serve` and wait for all; 0 if each ended well.

    One that ends unasked is replaced, but one that ends by itself before it has ever served ends them all: what kept it
    from that would keep its successors. The descriptor is the reading end of a pipe that nobody writes to, so that no
    worker is left behind however this process goes. Must be called before the process has started any thread.
    """
    signal.signal(signal.SIGCHLD, lambda *_: None)  # a signal that nobody handles may be dropped, even if blocked
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    with _Workers(serve, workers) as group:
        for worker in range(workers):
            group.start(worker)
        while group.goes_on:
            awaited = signal.sigwait(AWAITED)
            # First of all: a worker that ended because it was asked to must not count as one that failed.
            if awaited in STOPPING:
                group.stop()
            group.collect()
            if awaited == signal.SIGALRM:
                group.start_missing()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
    return int(group.failed)


class _Workers:
    """The processes, by number, and what has become of them."""

    def __init__(self, serve: Serve, workers: int) -> None:
        self._serve = serve
        self._reading, self._writing = os.pipe()
        #: Shared with the workers: 1 where one has begun to serve.
        self._served = mmap.mmap(-1, workers)
        self._numbers: dict[int, int] = {}
        #: Those that are replaced after the pause.
        self._missing: list[int] = []
        self._stopping = False
        self.failed = False

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        os.close(self._writing)
        os.close(self._reading)
        self._served.close()

    @property
    def goes_on(self) -> bool:
        return bool(self._numbers or self._missing)

    def start(self, worker: int) -> None:
        pid = os.fork()
        if pid == 0:
            self._be(worker)
        self._numbers[pid] = worker

    def start_missing(self) -> None:
        missing, self._missing = self._missing, []
        for worker in missing:
            self.start(worker)

    def stop(self) -> None:
        self._stopping = True
        self._missing.clear()
        for pid in self._numbers:
            os.kill(pid, signal.SIGTERM)

    def collect(self) -> None:
        """Take note of every worker that has ended; one signal may stand for several."""
        for pid, status in _ended():
            # As the first process of a container it inherits the children of others.
            worker = self._numbers.pop(pid, None)
            if worker is None:
                continue
            if self._stopping:
                # A worker that the signal itself ended had not begun to serve.
                self.failed = self.failed or status not in (0, *STOPPING)
            elif not self._served[worker] and not os.WIFSIGNALED(status):
                log.error("worker %d ended before it could serve (status %d); giving up", worker, status)
                self.failed = True
                self.stop()
            else:
                log.error("worker %d ended unexpectedly (status %d); starting another", worker, status)
                if not self._missing:
                    signal.setitimer(signal.ITIMER_REAL, RESPAWN_SECONDS)
                self._missing.append(worker)

    def _be(self, worker: int) -> None:
        def up() -> None:
            self._served[worker] = 1

        status = 1
        try:
            os.close(self._writing)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # Until the worker has a handler, an interrupt from the terminal ends it as the signal to stop does.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
            status = self._serve(worker, self._reading, up)
        except Exception:
            log.exception("worker %d failed", worker)
        finally:
            # Not sys.exit: this is a copy of the supervisor and must not run what the supervisor still has to do.
            os._exit(status)


def _ended() -> list[tuple[int, int]]:
    """Process id and status of every child that has ended and was not asked for yet."""
    ended = []
    with contextlib.suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(child)
    return ended
