"""Every failure of this API: the published code and text, the outcome for metrics, and which situation gets which.

Codes and texts are those of https://voximplant.com/docs/references/httpapi/errors. No document says which of them
the key-value methods return, so the assignment is Kvasir's; clients should match on the code alone.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from kvasir.access.service_tokens import Flaw
from kvasir.errors import (
    Conflicting,
    Forbidden,
    Invalid,
    KvasirError,
    NotFound,
    Timeout,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnknownOutcome,
)


class Failure(Struct, frozen=True):
    """One published error."""

    code: int
    text: str
    #: As metrics count it
    outcome: str = "invalid"


INTERNAL = Failure(2, "Internal error.", "internal")
DATABASE = Failure(4, "DB error.", "unknown_outcome")
AUTHORIZATION = Failure(100, "Authorization failed.", "unauthorized")
ARGUMENTS = Failure(101, "Invalid arguments.")
NO_COMMAND = Failure(102, "Missing 'cmd' parameter.")
UNKNOWN_COMMAND = Failure(103, "Unknown command.")
FORBIDDEN = Failure(104, "Forbidden command.", "forbidden")
FORMAT = Failure(105, "The required output format type is not supported.")
APPLICATION_NAME = Failure(107, "Invalid application name.", "not_found")
ACCOUNT_ID = Failure(115, "The 'account_id' parameter is invalid.")
APPLICATION_ID = Failure(116, "The 'application_id' parameter is invalid.", "not_found")
EMPTY = Failure(134, "Required parameter is empty.")
TRY_LATER = Failure(162, "try later..", "unavailable")
KEY_ID = Failure(433, "Invalid key id.", "unauthorized")
TOKEN_FORMAT = Failure(447, "Invalid token format.", "unauthorized")
TOKEN_LIFETIME = Failure(454, "The token TTL exceeds the maximum limit.", "unauthorized")
TOKEN_FUTURE = Failure(455, "Token issued in the future.", "unauthorized")
TOKEN_EXPIRED = Failure(456, "The token has expired.", "unauthorized")
ONE_OF = Failure(458, "Specify only one of the following parameters: {0}.")
LENGTH = Failure(477, "The '{0}' parameter length must not exceed {1} symbols.", "too_large")
NOT_UNIQUE = Failure(493, "The '{0}' is not unique.", "conflict")
INVALID = Failure(496, "The '{0}' parameter is invalid.")
MISSING = Failure(496, "The '{0}' parameter is invalid.", "not_found")
OTHER_VERSION = Failure(496, "The '{0}' parameter is invalid.", "conflict")
RANGE = Failure(497, "{0} should be in range of {1}..{2}.")
APPLICATION = Failure(558, "Application is not found.", "not_found")

#: Failures that the layers below may raise. One without a row is an internal error.
FAILURES: dict[type[KvasirError], Failure] = {
    Invalid: ARGUMENTS,
    TooLarge: msgspec.structs.replace(ARGUMENTS, outcome="too_large"),
    NotFound: APPLICATION_ID,
    Unauthenticated: AUTHORIZATION,
    Forbidden: FORBIDDEN,
    Conflicting: NOT_UNIQUE,
    Unavailable: TRY_LATER,
    Timeout: msgspec.structs.replace(TRY_LATER, outcome="timeout"),
    UnknownOutcome: DATABASE,
}

#: Everything that may be wrong with a token.
FLAWS: dict[Flaw, Failure] = {
    Flaw.MISSING: AUTHORIZATION,
    Flaw.FORMAT: TOKEN_FORMAT,
    Flaw.KEY_ID: KEY_ID,
    Flaw.SIGNATURE: AUTHORIZATION,
    Flaw.LIFETIME: TOKEN_LIFETIME,
    Flaw.FUTURE: TOKEN_FUTURE,
    Flaw.EXPIRED: TOKEN_EXPIRED,
    Flaw.ACCOUNT: AUTHORIZATION,
}


class ApiError(Exception):
    """A failure in the form of this API.

    `values` fill the placeholders of the published text, `detail` adds a reason in Kvasir's words, `field` names the
    parameter to blame (the service itself sends `field_name` with some errors), and `more` are further fields for
    programs, such as `reason`.
    """

    def __init__(
        self, failure: Failure, *values: object, field: str | None = None, detail: str | None = None, **more: Any
    ) -> None:
        super().__init__(failure, *values)  # so that it can be pickled
        self.failure = failure
        text = failure.text.format(*values)
        self.members: dict[str, Any] = {"msg": f"{text[:-1]}: {detail}." if detail else text, "code": failure.code}
        if field is not None:
            self.members["field_name"] = field
        self.members |= more


def invalid(field: str, detail: str | None = None, **more: Any) -> ApiError:
    """Error 496 for a parameter."""
    return ApiError(INVALID, field, field=field, detail=detail, **more)


def recoded(failure: Failure, code: int) -> Failure:
    """A failure with a code that the operator chose, and the published text of that code if it is one of ours."""
    known = (INVALID, EMPTY, AUTHORIZATION, KEY_ID, APPLICATION_ID, APPLICATION)
    text = next((other.text for other in known if other.code == code), failure.text)
    return Failure(code, text, failure.outcome)


def of(error: KvasirError) -> ApiError:
    """The API's form of a failure from the layers below."""
    failure = next((FAILURES[kind] for kind in type(error).__mro__ if kind in FAILURES), INTERNAL)
    if failure is INTERNAL:
        return ApiError(INTERNAL)
    field = error.fields[0][0] if error.fields else None
    return ApiError(failure, "key", field=field, detail=error.message, reason=error.reason)


def render(error: ApiError) -> bytes:
    """The body of an error response, which has HTTP status 200."""
    return msgspec.json.encode({"error": error.members})
