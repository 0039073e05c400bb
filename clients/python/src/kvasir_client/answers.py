"""Which failure an answer is, and whether the request may be sent again. Pure.

This is the one place that decides about repeating. A read is repeated whenever that may help. A write is repeated only
if nothing can have happened: the connection was refused, so that no byte went out, or Kvasir itself says so by a
problem document with the code `unavailable`. A proxy's 503 is no such word, and neither is silence: there the outcome
is unknown, and a second request could undo or repeat the first.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from kvasir_client import errors
from kvasir_client.errors import ConditionNotMet, Failed, KvasirError, UnknownOutcome
from kvasir_client.wire import Answer, Lost, NotSent, Pause, Request, Send, Step, Steps

T = TypeVar("T")

PROBLEM = "application/problem+json"
_OWN = "urn:kvasir:error:"

#: Failures of codes that are not those of a class.
_BY_STATUS: dict[int, type[KvasirError]] = {
    400: errors.Invalid,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.Invalid,
    409: errors.Conflicting,
    413: errors.TooLarge,
    503: errors.Unavailable,
    504: errors.Timeout,
}

#: Members of a problem document that have places of their own in a failure.
_KNOWN_MEMBERS = {"type", "title", "status", "detail", "code", "fields", "request_id"} | {
    "failed",
    "versionstamp",
    "count",
}

#: The head of the request is longer than a server, or a proxy before it, reads.
TOO_LONG = (414, 431)

#: Beyond it, a server's wish to be asked later is cut off.
LONGEST_PAUSE = 5.0


@dataclass(frozen=True)
class Retries:
    """How often and how soon a request is sent again."""

    #: The first one included
    attempts: int = 4
    #: Seconds before the second attempt, at most; each further one doubles it.
    base: float = 0.1

    def pause(self, attempt: int, wish: float | None = None) -> float:
        """Seconds to wait after the n-th attempt: at random, so that clients do not come back all at once."""
        longest = min(self.base * 2 ** (attempt - 1), LONGEST_PAUSE)
        # The jitter of a retry needs no cryptography.
        return min(wish or 0.0, LONGEST_PAUSE) + random.uniform(longest / 2, longest)  # noqa: S311


def exchange(request: Request, retries: Retries, *, send: Step | None = None) -> Steps[Answer]:
    """Send a request until there is an answer that is no failure. Raises the last `KvasirError`.

    `send`: the step to take instead of `Send`, for a stream.
    """
    attempt = 1
    while True:
        try:
            answer: Answer = yield send or Send(request)
        except NotSent as error:
            failure: KvasirError = errors.Unavailable(str(error))
            again = True
        except Lost as error:
            failure = _lost(request, error)
            again = not request.writes
        else:
            found = failure_of(answer, writes=request.writes)
            if found is None:
                return answer
            failure = found
            again = isinstance(found, errors.Unavailable) if request.writes else answer.status >= 500
        if not again or attempt >= retries.attempts:
            raise failure
        yield Pause(retries.pause(attempt, failure.retry_after))
        attempt += 1


def _lost(request: Request, error: Lost) -> KvasirError:
    if request.writes:
        return UnknownOutcome(f"{error}; the write may or may not have happened: read before writing again")
    return errors.Timeout(str(error)) if error.late else errors.Unavailable(str(error))


def failure_of(answer: Answer, *, writes: bool) -> KvasirError | None:
    """The failure that an answer is; None: it is none."""
    if 200 <= answer.status < 300 or (answer.status == 304 and not writes):
        return None
    document = _problem(answer)
    if document is None:
        return _foreign(answer, writes=writes)
    code, detail = str(document["code"]), str(document.get("detail", document.get("title", "")))
    known: dict[str, Any] = {
        "reason": code,
        "status": answer.status,
        "request_id": _text(document.get("request_id")),
        "details": {name: value for name, value in document.items() if name not in _KNOWN_MEMBERS},
    }
    if answer.status == 412:
        failed = _failed(document)
        present = failed[0].present if failed else _text(document.get("versionstamp"))
        count = failed[0].count if failed else document.get("count")
        return ConditionNotMet(detail, present=present, count=count, failed=failed, **known)
    if writes and answer.status >= 500 and code != errors.Unavailable.code:
        return UnknownOutcome(detail, **known)
    kind = errors.BY_CODE.get(code) or _BY_STATUS.get(answer.status, KvasirError)
    fields = document.get("fields")
    if not isinstance(fields, list):
        fields = []
    named = [(str(each.get("field")), str(each.get("message"))) for each in fields if isinstance(each, dict)]
    return kind(detail, fields=named, retry_after=_seconds(answer.headers.get("retry-after")), **known)


def told(text: str) -> KvasirError:
    """The failure by which a stream that has begun ends: the problem document of an answer, without its head."""
    try:
        status = int(json.loads(text)["status"])
    except (ValueError, KeyError, TypeError, RecursionError):
        status = 500
    failure = failure_of(Answer(status, {"content-type": PROBLEM}, text.encode()), writes=False)
    return failure or KvasirError("the stream has ended")


def _problem(answer: Answer) -> dict[str, Any] | None:
    """The problem document of an answer, if it is one and Kvasir's own."""
    if answer.headers.get("content-type", "").partition(";")[0].strip() != PROBLEM:
        return None
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    own = isinstance(document, dict) and str(document.get("type")).startswith(_OWN) and "code" in document
    return document if own else None


def _foreign(answer: Answer, *, writes: bool) -> KvasirError:
    """The failure of an answer that is not Kvasir's: a proxy's, or that of another service."""
    said = f"the answer is HTTP {answer.status}, and not one of Kvasir's"
    if answer.status in TOO_LONG:
        return errors.TooLarge(
            f"the answer is HTTP {answer.status}: the key, or what else the address holds, is too long",
            status=answer.status,
        )
    if answer.status >= 500 or answer.status == 408 or (answer.status == 429 and not writes):
        if writes:
            return UnknownOutcome(
                f"{said}: the write may or may not have happened; read before writing again", status=answer.status
            )
        return errors.Unavailable(said, status=answer.status, retry_after=_seconds(answer.headers.get("retry-after")))
    return KvasirError(f"{said}: check the address of the server, and any proxy on the way", status=answer.status)


def _failed(document: dict[str, Any]) -> list[Failed]:
    checks = document.get("failed")
    if not isinstance(checks, list):
        return []
    return [
        Failed(_parts(each.get("key") or each.get("prefix")), each.get("versionstamp"), each.get("count"))
        for each in checks
        if isinstance(each, dict)
    ]


def _parts(found: object) -> tuple[str, ...]:
    return tuple(map(str, found)) if isinstance(found, list) else ()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 6 else None


def read(answer: Answer, request: Request, look: Callable[[Any], T]) -> T:
    """What the JSON of a successful answer says. Raises `KvasirError` if it has not Kvasir's form."""
    return read_text(answer, request, lambda text: look(json.loads(text)))


def read_text(answer: Answer, request: Request, look: Callable[[str], T]) -> T:
    """Like `read`, of the text."""
    try:
        return look(answer.body.decode())
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError):
        raise unreadable(answer, request) from None


def unreadable(answer: Answer, request: Request) -> KvasirError:
    """The failure of an answer that says yes in other words than Kvasir's: of a portal, a proxy, another service."""
    said = f"the answer of HTTP {answer.status} cannot be read: is this the address of a Kvasir server?"
    return UnknownOutcome(said, status=answer.status) if request.writes else KvasirError(said, status=answer.status)
