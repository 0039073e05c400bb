"""The failures of the client: those of the server under the same names and codes, and a condition that is not met.

The codes are those of the server's problem documents. What tells one failure from another is the class, or `code`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar


class KvasirError(Exception):
    """Base of all failures. `message` says what happened and what to do; it holds no secret and no value."""

    code: ClassVar[str] = "internal"
    #: Whether nothing has changed and the same request may succeed later.
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        status: int | None = None,
        fields: Sequence[tuple[str, str]] = (),
        request_id: str | None = None,
        retry_after: float | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        #: The server's own code, which may be finer than that of the class: "store_not_found" is a "not_found".
        self.reason = reason or self.code
        #: HTTP status of the answer; None: there was no answer.
        self.status = status
        #: (member of the request, what is wrong with it)
        self.fields = tuple(fields)
        #: By which the server's log names the request.
        self.request_id = request_id
        #: Seconds after which the server wants to be asked again; None: it has not said so.
        self.retry_after = retry_after
        #: What else the answer says: of a failed import, under "imported", what it has set all the same.
        self.details = dict(details or {})


class Invalid(KvasirError):
    """The request is malformed; sending it again will not help."""

    code = "invalid"


class TooLarge(KvasirError):
    """A documented limit was exceeded."""

    code = "too_large"


class NotFound(KvasirError):
    """There is no such thing, or the caller may not know of it."""

    code = "not_found"


class Unauthenticated(KvasirError):
    """There is no access key, or it is not valid, or no longer."""

    code = "unauthorized"


class Forbidden(KvasirError):
    """The access key is valid but does not allow this."""

    code = "forbidden"


class Conflicting(KvasirError):
    """What was asked for contradicts what is there."""

    code = "conflict"


class Unavailable(KvasirError):
    """The server cannot be reached or cannot answer now. A write has changed nothing. Try again later."""

    code = "unavailable"
    retryable = True


class Timeout(KvasirError):
    """There was no answer in time. Only reads raise it."""

    code = "timeout"
    retryable = True


class UnknownOutcome(KvasirError):
    """The write may or may not have happened. Read before writing again."""

    code = "unknown_outcome"


@dataclass(frozen=True)
class Failed:
    """A condition of a transaction that was not met."""

    #: Of the check, or the prefix of a deletion
    key: tuple[str, ...]
    #: The versionstamp that the key has; None: the key is absent.
    present: str | None
    #: How many entries there are below the prefix; None: it was a check.
    count: int | None = None


class ConditionNotMet(KvasirError):
    """A condition of a write was not met, and nothing has changed."""

    code = "condition_not_met"

    def __init__(
        self,
        message: str,
        *,
        present: str | None = None,
        count: int | None = None,
        failed: Sequence[Failed] = (),
        reason: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, reason=reason, status=status, request_id=request_id, details=details)
        #: The versionstamp of the key of the (first) failed condition; None: the key is absent, or this was an import,
        #: whose `details` name the line.
        self.present = present
        #: How many entries there are, if the condition was their number.
        self.count = count
        #: Every check that was not met.
        self.failed = tuple(failed)


#: Code of a problem document -> the failure to raise.
BY_CODE: dict[str, type[KvasirError]] = {
    kind.code: kind
    for kind in (
        Invalid, TooLarge, NotFound, Unauthenticated, Forbidden, Conflicting, Unavailable, Timeout, UnknownOutcome,
    )
}  # fmt: skip
