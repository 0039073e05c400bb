"""What the core and its drivers say to each other: the core yields steps, a driver takes them. Pure.

An operation is a generator. It yields a step, and the driver sends it the outcome, or throws `NotSent` or `Lost` into
it; what it returns is the result. `Client` drives such generators with a blocking HTTP client and `AsyncClient` with an
asynchronous one, so everything but the sockets is written once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from kvasir_client.errors import Invalid

T = TypeVar("T")

#: What an entity tag may hold (RFC 9110, 8.8.3), in ASCII
_STAMP = re.compile(r"[!#-~]+").fullmatch

#: And what is no visible sign of ASCII, which a header may not have either.
_NOT_ASCII = re.compile(r"[^\x00-\x7e]")

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}


@dataclass(frozen=True)
class Request:
    """One HTTP request. `path` is below the server's address and percent-encoded."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    #: A function makes the pieces of a body that is too long for the memory.
    body: bytes | Callable[[], Iterable[bytes]] | None = None
    #: Whether it may change something, so that sending it twice would be wrong.
    writes: bool = False


def with_json(method: str, path: str, body: Any, *, writes: bool) -> Request:
    """A request with a JSON body. Raises what `dumps` does."""
    return Request(method, path, headers=JSON, body=dumps(body), writes=writes)


class Answer(NamedTuple):
    """The answer to a request; of a stream only the head, unless it is a failure."""

    status: int
    #: By lower-case name
    headers: Mapping[str, str]
    body: bytes


class Send(NamedTuple):
    """Step: send a request and read the whole answer. The outcome is an `Answer`."""

    request: Request
    #: Seconds of silence after which the answer counts as lost; None: as many as the client waits for any.
    silence: float | None = None


class Open(NamedTuple):
    """Step: send a request whose answer is a stream, and read its head. The outcome is an `Answer`.

    The stream stays open until the next `Open` or the end of the operation. The body of an answer that is not 200 has
    been read.
    """

    request: Request
    #: Seconds of silence after which the stream counts as lost.
    silence: float
    #: Whether it is one of Server-Sent Events.
    events: bool = False


class Read(NamedTuple):
    """Step: some bytes of the open stream, or its next Server-Sent Event; None at its end."""


class Pause(NamedTuple):
    """Step: wait so many seconds."""

    seconds: float


class Give(NamedTuple):
    """Step: hand one item to the caller of an operation with many results."""

    item: Any


Step = Send | Open | Read | Pause | Give
Steps = Generator[Step, Any, T]


class NotSent(Exception):
    """No byte of the request has left this machine: the connection was refused or never made."""


class Lost(Exception):
    """The request, or a part of it, has gone out, and no whole answer has come back."""

    def __init__(self, message: str, *, late: bool = False) -> None:
        super().__init__(message)
        #: Whether the answer was not lost but only too late.
        self.late = late


def advance(steps: Steps[Any], outcome: Any) -> Step:
    """Tell an operation the outcome of its step; its next step. Raises StopIteration with the result at the end."""
    return steps.throw(outcome) if isinstance(outcome, NotSent | Lost) else steps.send(outcome)


def stamp(versionstamp: str) -> str:
    """A versionstamp that may stand in a request. Raises `Invalid`."""
    if not _STAMP(versionstamp):
        raise Invalid(f"{versionstamp!r} is no versionstamp: give the one of an entry, as it is")
    return versionstamp


def ascii_json(text: str) -> str:
    r"""A JSON text that means the same, in ASCII: other characters, which only texts in it have, as \uXXXX."""
    return _NOT_ASCII.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def dumps(value: Any) -> bytes:
    """JSON text of a value. Raises TypeError or ValueError for what JSON in UTF-8 cannot express."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except RecursionError:
        raise ValueError("the value is nested too deeply") from None
