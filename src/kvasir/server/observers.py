"""Who wants to know of the requests of this process, by its settings: the log of slow ones."""

from __future__ import annotations

from kvasir import timing
from kvasir.config.table import Config
from kvasir.server.slow_log import SlowLog, settle
from kvasir.timing import Watcher


def watcher(config: Config) -> Watcher | None:
    """Who watches; None: nobody, and then nothing is timed."""
    if config.slow_ms is None:
        return None
    timing.record()
    seconds = config.slow_ms / 1000
    return Watcher(seconds, SlowLog(seconds, settle(config.data_dir)))
