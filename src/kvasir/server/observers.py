"""Who wants to know of the requests of this process, by its settings: the log of slow ones, and traces."""

from __future__ import annotations

from kvasir import timing
from kvasir.config.table import Config
from kvasir.server import traces
from kvasir.server.slow_log import SlowLog, settle
from kvasir.timing import Finished, Observer, Watcher


def watcher(config: Config, sent: traces.Traces | None) -> Watcher | None:
    """Who watches; None: nobody, and then nothing is timed. `sent`: traces, if there are any."""
    observers: list[Observer] = []
    seconds = 0.0
    if config.slow_ms is not None:
        seconds = config.slow_ms / 1000
        observers.append(SlowLog(seconds, settle(config.data_dir)))
    if sent is not None:
        seconds = 0.0
        observers.append(sent)
    if not observers:
        return None
    timing.record()

    def tell(finished: Finished) -> None:
        for observer in observers:
            observer(finished)

    return Watcher(seconds, observers[0] if len(observers) == 1 else tell)
