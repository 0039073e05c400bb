"""What an attack does to a server, seen from outside: memory, processor time, and how long /healthz takes."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from pathlib import Path

from tests.support.serving import Server

#: Between two looks at the memory, and between two requests to /healthz.
EVERY_SECONDS = 0.02

_HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def family(pid: int) -> list[int]:
    """A server, and the processes that it has started."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):  # it has ended
            for thread in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found


def memory_mib(pid: int) -> float:
    """Memory of a server that no file backs, with that of the processes that it has started."""
    return sum(map(_memory_mib, family(pid)))


def _memory_mib(pid: int) -> float:
    """Of one process.

    From the counters of the kernel: to have it walk through the pages, as smaps_rollup does, would stop the process.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # it has ended
        return 0.0
    found = re.search(r"^RssAnon:\s+(\d+) kB", text, re.MULTILINE)
    return 0.0 if found is None else int(found[1]) / 1024  # without it, it is ending


def processor_seconds(pid: int) -> float:
    """Processor time of a server so far, all its threads together, and that of the processes that it has started."""
    return sum(map(_processor_seconds, family(pid)))


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def seconds_without_processor(thread: str) -> float:
    """How long a thread, by its folder in /proc, was ready to run so far, and had to wait for a processor."""
    return int(Path(f"/proc/{thread}/schedstat").read_text().split()[1]) / 1e9


def seconds_until_idle(pid: int, *, most: float) -> float:
    """How long the process goes on working from now: until it uses less than a fifth of a core; at most `most`."""
    began = time.monotonic()
    while time.monotonic() - began < most:
        before, at = processor_seconds(pid), time.monotonic()
        time.sleep(0.05)
        if (processor_seconds(pid) - before) / (time.monotonic() - at) < 0.2:
            return at - began
    return most


class Watch(threading.Thread):
    """Looks at a server all the while: `with Watch(server) as watch: …`."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._done = threading.Event()
        self.rest_mib = self.peak_mib = memory_mib(server.pid)
        #: The longest time that an answer to /healthz took, without what the machine had no processor for the server's
        #: event loop, or for us.
        self.healthz_seconds = 0.0
        self.answers = 0

    @property
    def above_rest_mib(self) -> float:
        return self.peak_mib - self.rest_mib

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self.join()

    def run(self) -> None:
        pid = self._server.pid
        threads = f"self/task/{threading.get_native_id()}", f"{pid}/task/{pid}"
        with socket.create_connection(("127.0.0.1", self._server.port), timeout=60) as connection:
            while not self._done.wait(EVERY_SECONDS):
                began, starved = time.perf_counter(), sum(map(seconds_without_processor, threads))
                connection.sendall(_HEALTHZ)
                assert connection.recv(4_096).startswith(b"HTTP/1.1 200")
                starved = sum(map(seconds_without_processor, threads)) - starved
                self.healthz_seconds = max(self.healthz_seconds, time.perf_counter() - began - starved)
                self.answers += 1
                self.peak_mib = max(self.peak_mib, memory_mib(self._server.pid))
