"""`kvasir serve` with a heartbeat: how long its event loop stands still, measured inside, goes to a file in memory.

The time that the loop's thread was ready to run and had no processor does not count: the kernel tells it, and it is
the machine's doing. That of other threads, which may hold the interpreter's lock meanwhile, does count.

HEARTBEAT=FILE python -m tests.hostile.beating serve …
"""

from __future__ import annotations

import asyncio
import mmap
import os
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

from kvasir.cli import main
from kvasir.server.worker import Worker

BEAT_SECONDS = 0.005
#: The longest standstill, and the interpreter's switch interval
_SECONDS = struct.Struct("dd")


class Heartbeat:
    """The longest standstill since it was read last, as two processes see it."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_SECONDS.size))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _SECONDS.size)
        self.switch_seconds = 0.0

    def read(self) -> float:
        """The longest standstill in seconds; begins anew."""
        seconds, self.switch_seconds = _SECONDS.unpack(self._memory[:])
        self._memory[:] = bytes(_SECONDS.size)
        return float(seconds)

    async def beat(self) -> None:
        """Measure for ever."""
        schedstat = os.open(f"/proc/self/task/{threading.get_native_id()}/schedstat", os.O_RDONLY)
        while True:
            due = time.perf_counter() + BEAT_SECONDS
            waited = _waited(schedstat)
            await asyncio.sleep(BEAT_SECONDS)
            late = time.perf_counter() - due - (_waited(schedstat) - waited)
            longest = max(late, _SECONDS.unpack(self._memory[:])[0])
            self._memory[:] = _SECONDS.pack(longest, sys.getswitchinterval())


def _waited(schedstat: int) -> float:
    """How many seconds a thread has waited for a processor so far."""
    return int(os.pread(schedstat, 100, 0).split()[1]) / 1e9


def _run() -> Any:
    heartbeat = Heartbeat(Path(os.environ["HEARTBEAT"]))
    serve = Worker.serve

    async def beating(self: Worker, **options: Any) -> int:
        beats = asyncio.get_running_loop().create_task(heartbeat.beat())
        try:
            return await serve(self, **options)
        finally:
            beats.cancel()

    Worker.serve = beating  # type: ignore[method-assign]
    return main()


if __name__ == "__main__":
    sys.exit(_run())
