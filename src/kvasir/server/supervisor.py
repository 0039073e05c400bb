"""Runs several worker processes as one server: starts them, replaces one that dies, and stops them together."""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import signal
from collections.abc import Callable

log = logging.getLogger("kvasir.supervisor")

#: Pause before a worker that died is replaced, so that one that keeps dying does not use up the CPU.
RESPAWN_SECONDS = 1.0

STOPPING = (signal.SIGTERM, signal.SIGINT)

#: The signals that the supervisor waits for; SIGALRM ends the pause. They stay blocked in it: a handler that ran just
#: before the call that waits would leave the signal unnoticed until the next one.
AWAITED = (*STOPPING, signal.SIGCHLD, signal.SIGALRM)

#: The exit status of a worker that cannot serve now, but might later: the database has gone since others began.
NOT_NOW = os.EX_TEMPFAIL

#: What a worker runs: (its number, a descriptor that becomes readable when the supervisor is gone, what to call once
#: it is serving, which returns whether all of them are) -> its exit status.
Serve = Callable[[int, int, Callable[[], bool]], int]


def supervise(workers: int, serve: Serve) -> int:
    """Fork workers that call `serve`, and wait for all of them. Returns 0 if each exited with 0.

    A worker that ends unasked is replaced. But if one exits before it has ever served, all are stopped: whatever kept
    it from serving would keep its successors from it, too, unless its status is `NOT_NOW` and another has served. The
    descriptor is the reading end of a pipe to which nobody
    writes, so no worker outlives this process, however it ends. Must be called before the process starts any thread.
    """
    signal.signal(signal.SIGCHLD, lambda *_: None)  # a signal without a handler may be dropped, even if it is blocked
    signal.pthread_sigmask(signal.SIG_BLOCK, AWAITED)
    with _Workers(serve, workers) as group:
        for worker in range(workers):
            group.start(worker)
        while group.is_running:
            awaited = signal.sigwait(AWAITED)
            # Before `collect`: a worker that ended because it was told to must not count as failed.
            if awaited in STOPPING:
                group.stop()
            group.collect()
            if awaited == signal.SIGALRM:
                group.start_missing()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
    return int(group.failed)


class _Workers:
    """The worker processes and what has become of them."""

    def __init__(self, serve: Serve, workers: int) -> None:
        self._serve = serve
        self._reading, self._writing = os.pipe()
        #: Memory shared with the workers: the byte of each is 1 once it has served.
        self._served = mmap.mmap(-1, workers)
        #: Numbers of the workers that run, by process id
        self._numbers: dict[int, int] = {}
        #: Numbers of those to replace after the pause
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
    def is_running(self) -> bool:
        return bool(self._numbers or self._missing)

    def start(self, worker: int) -> None:
        pid = os.fork()
        if pid == 0:
            self._run(worker)
        self._numbers[pid] = worker

    def start_missing(self) -> None:
        missing, self._missing = self._missing, []
        for worker in missing:
            try:
                self.start(worker)
            except OSError as error:  # the system may have no process or memory for it now; the others serve on
                log.error("worker %d could not be started (%s); trying again", worker, error.strerror)
                self._miss(worker)

    def _miss(self, worker: int) -> None:
        """Have this worker started after the pause."""
        if not self._missing:
            signal.setitimer(signal.ITIMER_REAL, RESPAWN_SECONDS)
        self._missing.append(worker)

    def stop(self) -> None:
        self._stopping = True
        self._missing.clear()
        for pid in self._numbers:
            os.kill(pid, signal.SIGTERM)

    def collect(self) -> None:
        """Take note of every worker that has ended; one signal may stand for several of them."""
        for pid, status in _ended():
            worker = self._numbers.pop(pid, None)
            if worker is None:
                continue  # the first process of a container inherits the children of others
            if self._stopping:
                # A worker that was ended by the signal itself had not begun to serve.
                self.failed = self.failed or status not in (0, *STOPPING)
            elif not self._may_succeed(worker, os.waitstatus_to_exitcode(status)):
                log.error("worker %d exited before it could serve (status %d); giving up", worker, status)
                self.failed = True
                self.stop()
            else:
                log.error("worker %d exited unexpectedly (status %d); starting another", worker, status)
                self._miss(worker)

    def _may_succeed(self, worker: int, exit_code: int) -> bool:
        """Whether its successor may serve: it has served itself, or was killed, or met what others had not met."""
        return bool(self._served[worker]) or exit_code < 0 or (exit_code == NOT_NOW and any(self._served[:]))

    def _run(self, worker: int) -> None:
        def on_ready() -> bool:
            self._served[worker] = 1
            return b"\0" not in self._served[:]

        status = 1
        try:
            os.close(self._writing)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            # Until the worker has handlers of its own, Ctrl-C in the terminal ends it just as SIGTERM does.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, AWAITED)
            status = self._serve(worker, self._reading, on_ready)
        except Exception:
            log.exception("worker %d failed", worker)
        finally:
            # Not sys.exit: this is a copy of the supervisor, and must not run what is left for the supervisor to do.
            os._exit(status)


def _ended() -> list[tuple[int, int]]:
    """Process id and status of every child that has ended since the last call."""
    ended = []
    with contextlib.suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            ended.append(child)
    return ended
