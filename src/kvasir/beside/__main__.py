"""The process that `kvasir.beside.process` starts: calls what it is asked to, until nobody can ask any more."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import traceback
from pathlib import Path
from typing import Any

from kvasir import limits
from kvasir.beside.process import PIECE_BYTES, Answer

#: Who is served by the event loop goes first.
NICENESS = 5
#: Where memory is short, the kernel ends this process rather than the server.
SACRIFICE = "500"


def answer(function: Any, arguments: tuple[Any, ...]) -> Answer:
    """What has become of a call."""
    limits.refusals.update(dict.fromkeys(limits.refusals, 0))
    try:
        found = Answer(function(*arguments))
    except Exception as error:
        found = Answer(error=_portable(error))
    found.refusals = {bound: times for bound, times in limits.refusals.items() if times}
    return found


def _portable(error: Exception) -> Exception:
    """The failure in a form that can be pickled; with the way to it, which pickling loses, if it is no refusal."""
    if type(error).__module__.startswith("kvasir."):
        return error
    way = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:
        error = RuntimeError(f"a failure of the class {type(error).__name__}")
    error.add_note(way)
    return error


def main() -> None:
    """Serve the process that has started this one."""
    # It has more to do than wait: what was asked is answered until the end of the drain.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(SACRIFICE, encoding="ascii")
    with open(0, "rb", PIECE_BYTES) as asked, os.fdopen(os.dup(1), "wb", PIECE_BYTES) as answers:
        os.dup2(2, 1)  # whatever is printed goes to the log
        with contextlib.suppress(EOFError, BrokenPipeError, pickle.UnpicklingError):
            while True:
                pickle.dump(answer(*pickle.load(asked)), answers, pickle.HIGHEST_PROTOCOL)  # noqa: S301
                answers.flush()


if __name__ == "__main__":
    main()
