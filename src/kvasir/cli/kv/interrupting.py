"""Ctrl-C for commands that wait for ever."""

from __future__ import annotations

import os
import signal
import threading
import time

#: What a shell calls a command that Ctrl-C has ended.
INTERRUPTED = 128 + signal.SIGINT

#: So long it may take to end by itself.
SECONDS = 0.3


def end_when_interrupted() -> None:
    """Have Ctrl-C end the process whenever it comes.

    Python only notes a signal that comes in the moment before a read begins to wait, and raises KeyboardInterrupt when
    that read returns: with nothing to read, that is much later. So a thread is told of signals, too.
    """
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told)
    threading.Thread(target=_follow, args=(heard,), daemon=True).start()


def _follow(heard: int) -> None:
    while os.read(heard, 1) != bytes([signal.SIGINT]):
        pass
    time.sleep(SECONDS)
    os._exit(INTERRUPTED)
