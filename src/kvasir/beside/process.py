"""Parsing what strangers have sent, in a process of its own: one request at a time, in the order asked.

One function of a JSON parser may run for hundreds of milliseconds, and a thread of this process would hold the
interpreter's lock all the while. The process starts when it is first needed and ends with this one, however that ends,
since it reads from a pipe. What goes through the pipes is pickled, which is safe between the two. A thread waits for
the answers: its calls of the system let go of the lock, and large texts are neither copied nor cut for the pipe.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import IO, Any, TypeVar, cast

from msgspec import Struct

from kvasir import limits
from kvasir.beside.thread import Line, in_thread
from kvasir.errors import Unavailable

T = TypeVar("T")

log = logging.getLogger("kvasir.beside")

#: Up to so many bytes a text is read in the thread of this process: that takes no function of C a millisecond or two,
#: and a server whose texts are all like that needs no second process.
NEAR_BYTES = 65_536

#: How often a request is tried: a process may be killed, but a request that kills each may not go on.
ATTEMPTS = 2

#: What is read of the pipe at once, and so what is unpickled without a look at who else wants the interpreter's lock.
PIECE_BYTES = 65_536

#: As `kvasir.server.run` has it for the server: memory of large texts is given back.
_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "4194304"}

_line = Line("kvasir-beside-process")


async def aside(function: Callable[..., T], text: bytes | str, *arguments: Any) -> T:
    """`function(text, *arguments)`, done beside the event loop.

    It is a function of a module, which depends on its arguments alone and changes nothing; all of them can be pickled,
    and so can what it returns or raises. What has not begun when the caller is cancelled is not done. Raises
    `Unavailable` if the process cannot be had.
    """
    if len(text) <= NEAR_BYTES:
        return await in_thread(partial(function, text, *arguments))
    answer = await _line.do(partial(_helper.ask, function, (text, *arguments)))
    if answer.error is not None:
        try:
            raise answer.error
        finally:
            del answer  # it would be a cycle, which keeps whatever its callers hold
    return cast("T", answer.result)


def stop() -> None:
    """End the process, if there is one. Whoever asks afterwards gets another."""
    _helper.stop()


def pid() -> int | None:
    """The id of the process, if there is one."""
    return _helper.pid


class Answer(Struct):
    """What has become of a request."""

    result: Any = None
    error: Exception | None = None
    #: What it has counted in `kvasir.limits.refusals`
    refusals: dict[str, int] = {}


class _Process(subprocess.Popen[bytes]):
    """The process."""

    @property
    def asked(self) -> IO[bytes]:
        """Where requests are written."""
        return cast("IO[bytes]", self.stdin)

    @property
    def answers(self) -> IO[bytes]:
        """Where answers are read."""
        return cast("IO[bytes]", self.stdout)


class Helper:
    """The process, and the pipes to it. Only one thread may ask."""

    def __init__(self) -> None:
        self._process: _Process | None = None

    @property
    def pid(self) -> int | None:
        """Its id, if it has been started."""
        return None if self._process is None else self._process.pid

    def ask(self, function: Callable[..., object], arguments: tuple[Any, ...]) -> Answer:
        """Have it call a function. Raises `Unavailable` if it ends every time."""
        for _ in range(ATTEMPTS):
            process = self._process or self._start()
            try:
                pickle.dump((function, arguments), process.asked, pickle.HIGHEST_PROTOCOL)
                process.asked.flush()
                answer: Answer = pickle.load(process.answers)  # noqa: S301  # of our own process
            except (OSError, EOFError, pickle.UnpicklingError, ValueError):
                if self._process is not process:
                    break  # it was told to stop
                self.stop()
                log.warning("the process that reads large requests has ended (status %s)", process.returncode)
            except BaseException:
                self.stop()  # nobody knows what is in the pipe
                raise
            else:
                for bound, times in answer.refusals.items():
                    limits.refusals[bound] += times
                return answer
        raise Unavailable("nothing was done: the process that reads large requests has ended; try again")

    def _start(self) -> _Process:
        found = os.pathsep.join(path for path in sys.path if path)
        try:
            self._process = _Process(
                [sys.executable, "-P", "-m", "kvasir.beside"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=PIECE_BYTES,
                env=os.environ | _MALLOC | {"PYTHONPATH": found},
            )
        except OSError as error:
            log.error("the process that reads large requests cannot be started: %s", error)
            raise Unavailable("nothing was done: no process to read large requests can be started; try again") from None
        log.debug("process %d reads large requests", self._process.pid)
        return self._process

    def stop(self) -> None:
        """End it, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        with contextlib.suppress(OSError):  # what was not written yet
            process.asked.close()
        process.answers.close()


_helper = Helper()
atexit.register(stop)
