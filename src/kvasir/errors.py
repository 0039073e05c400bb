"""The failures that a caller can react to. An expected outcome (a condition not met) is a value, not one of these.

`code` is stable and goes over the wire where the dialect has room for it; every dialect has one table from these
classes to its own responses. Any other exception is an internal error.
"""

from __future__ import annotations

from typing import ClassVar, Literal


class KvasirError(Exception):
    """Base of all failures. `message` is for the caller: what to do next, but no secrets and no values."""

    code: ClassVar[str] = "internal"
    #: Whether nothing happened and the same request may succeed later.
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, fields: tuple[tuple[str, str], ...] = (), code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        #: (path of the field to blame, what is wrong with it), for example ("options.expireIn", "must be > 0")
        self.fields = fields
        self.reason = code or self.code

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle it as it is, whatever a class takes to make one."""
        return _restored, (type(self), self.args, vars(self))


def _restored(kind: type[KvasirError], args: tuple[object, ...], members: dict[str, object]) -> KvasirError:
    error = kind.__new__(kind, *args)
    vars(error).update(members)
    return error


class Invalid(KvasirError):
    """The request is malformed; sending it again will not help."""

    code = "invalid"


class TooLarge(KvasirError):
    """A documented limit was exceeded."""

    code = "too_large"

    def __init__(
        self,
        message: str,
        *,
        fields: tuple[tuple[str, str], ...] = (),
        subject: Literal["key", "value", "metadata"] | None = None,
        index: int = 0,
    ) -> None:
        super().__init__(message, fields=fields)
        #: What is too large, if it is one of these.
        self.subject = subject
        #: Which of the keys or mutations of the call it belongs to.
        self.index = index


def response_too_long(max_bytes: int) -> TooLarge:
    """The failure of a read that would return more bytes than this."""
    return TooLarge(
        f"the values of these keys are longer than the {max_bytes:,} bytes allowed; ask for fewer keys at a time"
    )


class NotFound(KvasirError):
    """There is no such thing, or the caller may not know of it."""

    code = "not_found"


def space_gone() -> NotFound:
    """The answer of an engine to a write in a space that has ended or expired."""
    return NotFound("the store is gone", code="store_not_found")


class Unauthenticated(KvasirError):
    """There is no credential, or it is not valid, or no longer."""

    code = "unauthorized"


class Forbidden(KvasirError):
    """The credential is valid but does not allow this."""

    code = "forbidden"


class Conflicting(KvasirError):
    """A condition was not met, in an operation whose response cannot say so."""

    code = "conflict"


class Unavailable(KvasirError):
    """Nothing happened: the queue is full, the disk is full or the server is stopping. Try again later."""

    code = "unavailable"
    retryable = True


class Timeout(KvasirError):
    """The caller's own deadline passed before there was an answer. Only reads raise it."""

    code = "timeout"
    retryable = True


class UnknownOutcome(KvasirError):
    """The commit itself failed: the write may or may not have happened. Read before writing again."""

    code = "unknown_outcome"
