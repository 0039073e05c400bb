"""What the store did -> response bodies, and the one table of failures. Pure.

Names and required fields are those of the Versori platform OpenAPI document; the additional fields (`metadata` of an
entry, `count` of a removal, `key` of a success, `index` of a failure) are Kvasir's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgspec
from msgspec import Struct

from kvasir import errors
from kvasir.dialects import json_keys, timestamps
from kvasir.dialects.http import EncodedBody, Response
from kvasir.dialects.versori import cursor
from kvasir.dialects.versori.requests import Put, Refused
from kvasir.dialects.versori.routes import MethodNotAllowed
from kvasir.engine import Outcome
from kvasir.errors import KvasirError
from kvasir.keys import unpack, versionstamp_text
from kvasir.model import Commit, Conflict, Entry, Page, Query, Space

_json = msgspec.json.Encoder().encode

# -- entries ----------------------------------------------------------------------------------------------


def value(entry: Entry) -> bytes:
    """The body of GetKV."""
    if entry.expires_at is None and entry.metadata is None:
        return b'{"value":%b,"versionstamp":"%020x","createdAt":"%b"}' % (
            entry.value,
            entry.versionstamp,
            timestamps.render(entry.created_at),
        )
    return b"{%b}" % _fields(entry)


def entry(key: bytes, entry: Entry) -> bytes:
    """One `KVEntry`; `key`: its key as JSON."""
    if entry.expires_at is None and entry.metadata is None:
        return b'{"key":%b,"value":%b,"versionstamp":"%020x","createdAt":"%b"}' % (
            key,
            entry.value,
            entry.versionstamp,
            timestamps.render(entry.created_at),
        )
    return b'{"key":%b,%b}' % (key, _fields(entry))


def _entries(entries: Sequence[Entry]) -> bytes:
    return b",".join(map(entry, json_keys.arrays([item.key for item in entries]), entries))


def _fields(entry: Entry) -> bytes:
    body = b'"value":%b,"versionstamp":"%020x","createdAt":"%b"' % (
        entry.value,
        entry.versionstamp,
        timestamps.render(entry.created_at),
    )
    if entry.expires_at is not None:
        # Through another API the entry may have an expiry beyond the last date-time.
        body += b',"expiresAt":"%b"' % timestamps.render(min(entry.expires_at, timestamps.LATEST))
    if entry.metadata is not None:
        body += b',"metadata":%b' % entry.metadata
    return body


def found(entries: Iterable[Entry | None]) -> bytes:
    """The body of BatchGetKV: the existing entries of the keys asked for, in the order of the keys."""
    return b'{"entries":[%b]}' % _entries([item for item in entries if item is not None])


def page(page: Page, query: Query, space: str) -> bytes:
    """The body of ListKV."""
    return b'{"data":[%b],"pagination":%b}' % (_entries(page.entries), _json(_pagination(page, query, space)))


def _pagination(page: Page, query: Query, space: str) -> dict[str, str]:
    """Cursors to the pages on both sides; "" for a page that is known to be empty.

    `page.more` is about the direction of travel only. In the other direction lies the page that the client came from.
    From an empty page, the cursor back includes the entry that the client's own cursor pointed at.
    """
    first, last = (page.entries[0].sequence, page.entries[-1].sequence) if page.entries else (None, None)
    step = 1 if query.order == "newest" else -1
    if query.before is not None:
        back = cast("int", query.before) + step if last is None else last
        return {
            "nextCursor": cursor.encode(space, back),
            "prevCursor": cursor.encode(space, first) if page.more and first is not None else "",
        }
    if query.after is None:
        previous = ""
    else:
        previous = cursor.encode(space, cast("int", query.after) - step if first is None else first)
    return {"nextCursor": cursor.encode(space, last) if page.more and last is not None else "", "prevCursor": previous}


# -- writes -----------------------------------------------------------------------------------------------


def committed(outcome: Commit | Conflict) -> bytes:
    """The body of SetKV. If a condition is not met: the key's present versionstamp, "" if it does not exist."""
    if outcome.__class__ is Commit:
        return b'{"ok":true,"versionstamp":"%020x","committed":true}' % outcome.versionstamp
    stamp = "" if outcome.versionstamp is None else versionstamp_text(outcome.versionstamp)
    return b'{"ok":false,"versionstamp":"%b","committed":false}' % stamp.encode()


def batch_result(entries: Sequence[Put | Refused], outcomes: Iterable[Outcome]) -> bytes:
    """The body of BatchSetKV, from all entries and the outcomes of those that were written."""
    successes: list[bytes] = []
    failures: list[dict[str, Any]] = []
    results = iter(outcomes)
    for index, wanted in enumerate(entries):
        if isinstance(wanted, Refused):
            failures.append({"key": wanted.key, "error": wanted.why, "index": index})
            continue
        outcome, key = next(results), unpack(wanted.set.key)
        if isinstance(outcome, Commit):
            successes.append(
                b'{"ok":true,"versionstamp":"%020x","committed":true,"key":%b}' % (outcome.versionstamp, _json(key))
            )
        else:
            failures.append({"key": key, "error": _why(outcome, index), "index": index})
    return b'{"successes":[%b],"failures":%b}' % (b",".join(successes), _json(failures))


def _why(outcome: Conflict | KvasirError, index: int) -> str:
    if isinstance(outcome, KvasirError):
        return _blamed(outcome, "BatchSetKV", index)[0]
    return f"the condition is not met: {_present_state(outcome)}"


def _present_state(conflict: Conflict) -> str:
    if conflict.versionstamp is None:
        return "the key does not exist"
    return f"the key has the versionstamp {versionstamp_text(conflict.versionstamp)}"


def removed(commit: Commit | None) -> bytes:
    """The body of DeleteKV and BatchDeleteKV."""
    return b'{"status":"deleted","count":%d}' % (sum(commit.counts) if commit else 0)


def not_removed(conflict: Conflict) -> errors.Conflicting:
    """The failure of a removal whose condition is not met: its response has no field to say so."""
    key, state = _json(unpack(conflict.key)).decode(), _present_state(conflict)
    return errors.Conflicting(
        f"nothing was deleted: the condition on {key} is not met, {state}",
        fields=(("options.ifVersionstamp", state),),
    )


def count(number: int) -> bytes:
    """The body of CountKV."""
    return b'{"count":%d}' % number


# -- stores -----------------------------------------------------------------------------------------------


def store_id(space: Space) -> bytes:
    """The body of CreateStore."""
    return _json({"id": space.id})


def stores(spaces: Iterable[Space]) -> bytes:
    """The body of ListStores."""
    return _json({"stores": [{"id": space.id, "name": space.name, "orgId": space.organisation} for space in spaces]})


# -- failures ---------------------------------------------------------------------------------------------


class Failure(Struct, frozen=True):
    """The response to a class of failures: the status, and what the caller should do next."""

    status: int
    details: str
    headers: tuple[tuple[str, str], ...] = ()


#: Every class of failure has a row; a subclass without one uses its parent's.
FAILURES: dict[type[KvasirError], Failure] = {
    KvasirError: Failure(500, "This is a bug in the server. Report the request id to its operator: {request}"),
    errors.Invalid: Failure(400, "Correct the request as the message says, then send it again. /docs describes it."),
    MethodNotAllowed: Failure(405, "Use one of the methods in the Allow header. /docs lists what each path serves."),
    EncodedBody: Failure(415, "Send the body as it is, without Content-Encoding.", (("Accept-Encoding", "identity"),)),
    errors.TooLarge: Failure(413, "Send less at a time, or have the operator raise the limit that the message names."),
    errors.NotFound: Failure(404, "Check the path: the store's id as ListStores gives it, then /kv/ and the key."),
    errors.Unauthenticated: Failure(
        401,
        "Send an access key or a token that is still good: Authorization: Bearer <key>, or JWT <key>.",
        (("WWW-Authenticate", 'Bearer realm="kvasir"'),),
    ),
    errors.Forbidden: Failure(403, "Use a credential of this organisation whose role and scope allow the operation."),
    errors.Conflicting: Failure(409, "Read the key again, then repeat the request with its present versionstamp."),
    errors.Unavailable: Failure(
        503, "Nothing was changed. Send the request again in a moment.", (("Retry-After", "1"),)
    ),
    errors.Timeout: Failure(504, "Send the request again, with a longer options.timeout or without one."),
    errors.UnknownOutcome: Failure(500, "The write may or may not have happened. Read the keys before writing again."),
}


#: What may be too large in a request -> the field to blame, by operation.
_ENTRY_FIELDS = {"key": "key", "value": "value", "metadata": "options.metadata"}
_OTHER_FIELDS = {
    "BatchSetKV": {subject: f"entries[{{}}].{field}" for subject, field in _ENTRY_FIELDS.items()},
    "BatchGetKV": {"key": "keys[{}]"},
    "BatchDeleteKV": {"key": "keys[{}]"},
    "ListKV": {"key": "selector.prefix", "metadata": "selector.filter.metadata"},
    "CountKV": {"key": "selector.prefix"},
}


def _blamed(error: KvasirError, operation: str, index: int | None = None) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The message of a failure and the fields to blame. Only here does what is too large get the name of a field.

    `index`: the entry of a batch whose own write failed.
    """
    if not isinstance(error, errors.TooLarge) or error.subject is None:
        return error.message, error.fields
    field = _OTHER_FIELDS.get(operation, _ENTRY_FIELDS)[error.subject].format(error.index if index is None else index)
    return f"{field}: {error.message}", ((field, error.message),)


def failure(error: KvasirError, operation: str, request: str) -> Response:
    """The response to a request that failed; `request` is its id."""
    row = next(FAILURES[kind] for kind in type(error).__mro__ if kind in FAILURES)
    message, fields = _blamed(error, operation)
    body: dict[str, Any] = {"code": error.reason, "message": message, "details": row.details.format(request=request)}
    if fields:
        body["fields"] = [{"field": field, "message": message} for field, message in fields]
    headers = row.headers
    if isinstance(error, MethodNotAllowed):
        headers = (("Allow", error.allow),)
    return Response(row.status, _json(body), operation, error.code, headers)
