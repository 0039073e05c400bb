"""Failures as problem documents (RFC 9457), and the one table of their statuses. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from kvasir import errors
from kvasir.dialects.http import EncodedBody, Response
from kvasir.dialects.native.preconditions import ConditionNotMet
from kvasir.dialects.native.routes import MethodNotAllowed
from kvasir.errors import KvasirError
from kvasir.keys import versionstamp_text

CONTENT_TYPE = "application/problem+json"

#: Headers of every answer: nothing is to be kept, changed on the way, or taken for what it is not.
HEADERS = (("Cache-Control", "no-store, no-transform"), ("X-Content-Type-Options", "nosniff"))


class Failure(Struct, frozen=True):
    """The answer to a class of failures."""

    status: int
    #: In a few words, the same each time
    title: str
    headers: tuple[tuple[str, str], ...] = ()


#: Every class of failure has a row; a subclass without one uses its parent's.
FAILURES: dict[type[KvasirError], Failure] = {
    KvasirError: Failure(500, "The server failed"),
    errors.Invalid: Failure(400, "The request is not valid"),
    MethodNotAllowed: Failure(405, "The method is not allowed here"),
    EncodedBody: Failure(415, "The body must be sent as it is", (("Accept-Encoding", "identity"),)),
    errors.TooLarge: Failure(413, "A limit is exceeded"),
    errors.NotFound: Failure(404, "There is no such thing"),
    errors.Unauthenticated: Failure(
        401, "A valid credential is needed", (("WWW-Authenticate", 'Bearer realm="kvasir"'),)
    ),
    errors.Forbidden: Failure(403, "The credential does not allow this"),
    errors.Conflicting: Failure(409, "It conflicts with what is there"),
    ConditionNotMet: Failure(412, "A condition is not met"),
    errors.Unavailable: Failure(503, "Nothing was done; try again", (("Retry-After", "1"),)),
    errors.Timeout: Failure(504, "There was no answer in time"),
    errors.UnknownOutcome: Failure(500, "The write may or may not have happened; read before writing again"),
}

#: What may be too large in a request for one key -> the field to blame; in a request for several, the path to it.
_FIELDS = {"key": "key", "value": "value", "metadata": "kvasir-metadata"}
_FIELDS_OF_MANY = {"Atomic": "mutations[{}].{}", "GetMany": "keys[{}]"}


def problem(error: KvasirError, operation: str, request: str) -> dict[str, Any]:
    """The members of the document of a failure; `request` is the id of the request."""
    row = next(FAILURES[kind] for kind in type(error).__mro__ if kind in FAILURES)
    fields = error.fields
    if isinstance(error, errors.TooLarge) and error.subject is not None:
        many = _FIELDS_OF_MANY.get(operation)
        field = _FIELDS[error.subject] if many is None else many.format(error.index, error.subject)
        fields = ((field, error.message),)
    document: dict[str, Any] = {
        "type": f"urn:kvasir:error:{error.reason}",
        "title": row.title,
        "status": row.status,
        "detail": error.message,
        "code": error.reason,
        "fields": [{"field": field, "message": message} for field, message in fields],
        "request_id": request,
    }
    if isinstance(error, ConditionNotMet):
        document |= error.present
        if (stamp := error.present.get("versionstamp")) is not None:
            document["versionstamp"] = versionstamp_text(stamp)
    return document


def failure(error: KvasirError, operation: str, request: str, **more: Any) -> Response:
    """The response to a request that failed; `request` is its id, `more` are further members."""
    document = problem(error, operation, request) | more
    row = next(FAILURES[kind] for kind in type(error).__mro__ if kind in FAILURES)
    headers = (*HEADERS, *row.headers)
    if isinstance(error, MethodNotAllowed):
        headers += (("Allow", error.allow),)
    elif isinstance(error, ConditionNotMet) and error.present.get("versionstamp") is not None:
        headers += (("ETag", f'"{document["versionstamp"]}"'),)
    return Response(row.status, msgspec.json.encode(document), operation, error.code, headers, CONTENT_TYPE)
