"""What a request did and how long its parts took, for those who watch: the log of slow requests, and traces.

Nothing is recorded unless somebody watches. Then whoever takes up a request makes it the `current` one, and what takes
long on its way says so. Times are those of `time.perf_counter`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextvars import ContextVar

from msgspec import Struct

from kvasir.model import Space

#: The parts of a request, in their order; docs/operate/observability.md says what each is. `RENDER` is what is left.
AUTH, BODY, READ, WAIT, COMMIT, RENDER = PHASES = ("auth", "body", "read", "wait", "commit", "render")

#: The methods of HTTP. With HTTP/2, a client can send any text in the place of one.
METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
OTHER = "_OTHER"

#: A `traceparent` of W3C Trace Context: the version, which is not ff, the trace, the span of the caller, and flags.
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")


class Phase(Struct):
    """What a request spent on one of its parts, all times together."""

    began: float
    ended: float
    seconds: float = 0.0
    times: int = 0


class Timed:
    """A request as it is timed, or several that are carried out together. One that needs nothing keeps nothing."""

    #: None: nothing has taken any time yet
    phases: dict[str, Phase] | None = None
    #: What it is about: a space, the first packed key, and how many keys
    space: Space | None = None
    key: bytes | None = None
    keys = 0

    def spent(self, name: str, began: float, ended: float, *, less: float = 0.0) -> None:
        """Count a part; `less`: seconds of it that count as other parts."""
        if self.phases is None:
            self.phases = {}
        phase = self.phases.get(name)
        if phase is None:
            phase = self.phases[name] = Phase(began, ended)
        phase.ended = max(phase.ended, ended)
        phase.seconds += max(0.0, ended - began - less)
        phase.times += 1

    def seconds(self, *names: str) -> float:
        """What these parts have taken so far."""
        return sum([phase.seconds for name, phase in dict(self.phases or {}).items() if name in names])


class Finished(Struct, frozen=True):
    """A request that is answered."""

    #: Unique; of HTTP, that of the answer's header
    id: str
    #: As metrics name them
    api: str
    operation: str
    outcome: str
    #: Of HTTP; what is none of `METHODS` is `OTHER`
    method: str | None
    status: int | None
    began: float
    ended: float
    timed: Timed
    #: The headers of the request, or of the one that opened its connection, by lower-case name
    header: Callable[[str], str | None]

    def phases(self) -> dict[str, Phase]:
        """Every part that took time, `RENDER` included: from the end of those before it to the answer."""
        found = dict(self.timed.phases or {})  # what was given up may still wait for a commit, in another thread
        since = max([self.began, *(phase.ended for phase in found.values())])
        return found | {RENDER: Phase(since, self.ended, max(0.0, self.ended - since), 1)}

    def trace(self) -> tuple[str, str] | None:
        """(trace, span of the caller) of a client that is part of a trace."""
        return trace_of(self.header)


#: Gets every request that took so many seconds, or longer
Observer = Callable[[Finished], None]


class Watcher(Struct, frozen=True):
    """Who wants to know of requests: all that take so many seconds."""

    seconds: float
    tell: Observer


#: The request that is being carried out
current: ContextVar[Timed | None] = ContextVar("current", default=None)

#: Whether anybody watches: at all, in this process
recording = False


def record() -> None:
    """Somebody watches from now on. Before this process serves."""
    global recording  # noqa: PLW0603  # looked at by every write, so it has to cost nothing
    recording = True


def trace_of(header: Callable[[str], str | None]) -> tuple[str, str] | None:
    """(trace, span of the caller) of a valid `traceparent`; anything else in that header is ignored."""
    found = TRACEPARENT.fullmatch(header("traceparent") or "")
    return None if found is None else (found[1], found[2])
