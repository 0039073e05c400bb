"""Which operation a method and a path mean, and which key is in a path. Pure.

The paths are those of the Versori platform OpenAPI document, served under its /api/v2 and at the root, because its
clients append `o/…` or `store/…` to whatever base address they are given.
"""

from __future__ import annotations

import re

from kvasir.errors import Invalid, NotFound

BASE = "/api/v2"

#: The operation, for metrics, of requests that reach none.
UNROUTED = "unrouted"

STORES: dict[str, str] = {"GET": "ListStores", "POST": "CreateStore"}
KEY: dict[str, str] = {"GET": "GetKV", "PUT": "SetKV", "DELETE": "DeleteKV"}
#: Paths that look like a key of one part. For the methods listed they win; with other methods they mean that key.
FIXED: dict[str, dict[str, str]] = {
    "batch": {"POST": "BatchGetKV", "PUT": "BatchSetKV", "DELETE": "BatchDeleteKV"},
    "list": {"POST": "ListKV"},
    "count": {"POST": "CountKV"},
}
_METHODS = {text: KEY | methods for text, methods in FIXED.items()}

OPERATIONS: tuple[str, ...] = (
    *STORES.values(),
    *KEY.values(),
    *(operation for methods in FIXED.values() for operation in methods.values()),
)

#: Whether a percent-decoded path belongs to this API. A client that joins a base address with a slash at its end and a
#: path with one at its start sends two.
serves = re.compile(f"{BASE}/|//?(?:store|o)/").match

#: What stands in a decoded path for what is no text; see `kvasir.dialects.http.Request.path`.
_NO_TEXT = re.compile("[\udc00-\udcff]")
_BROKEN_PERCENT = "has a percent sign without two hexadecimal digits behind it; % itself is written %25"

BATCH_FORM = "use the batch form, where any key can be given as an array of strings: POST, PUT or DELETE …/kv/batch"


class MethodNotAllowed(Invalid):
    """The path exists, but not with this method."""

    def __init__(self, method: str, allowed: dict[str, str]) -> None:
        self.allow = ", ".join(sorted(allowed))
        super().__init__(f"{method} is not allowed here; use one of: {self.allow}", code="method_not_allowed")


def route(method: str, path: str) -> tuple[str, str, str]:
    """(operation, ULID of the store or organisation, the rest of the path: a key as text, or "").

    A ULID may be written in either case. Raises `NotFound` and `MethodNotAllowed`.
    """
    if path.startswith(f"{BASE}/"):
        path = path[len(BASE) :]
    if path.startswith("//"):
        path = path[1:]
    match path.split("/", 4):
        case ["", "store", owner, "kv", rest]:
            methods = _METHODS.get(rest, KEY)
        case ["", "o", owner, "store"]:
            rest, methods = "", STORES
        case _:
            raise NotFound("there is nothing at this path", code="route_not_found")
    operation = methods.get(method)
    if operation is None:
        raise MethodNotAllowed(method, methods)
    if not owner.isascii():
        owner = owner.encode("ascii", "replace").decode()  # no ULID, and perhaps no text: it names nothing either way
    return operation, owner.upper(), rest


def key_parts(text: str) -> list[str]:
    """The parts of a key in a path: the decoded text, split at every slash.

    An encoded slash is the same as a plain one: generated clients encode the slashes of the `key` parameter, the Go
    client does not. Raises `Invalid` for an empty part, and for bytes that are not UTF-8 and broken percent-encodings:
    two paths that differ must never become one key.
    """
    parts = text.split("/")
    if "" in parts:
        raise _unfit("has an empty part, which a path cannot express safely")
    if not text.isascii() and _NO_TEXT.search(text) is not None:
        raise _unfit(_BROKEN_PERCENT if "\udc25" in text else "does not decode to UTF-8")
    return parts


def _unfit(what: str) -> Invalid:
    return Invalid(f"the key in the path {what}; {BATCH_FORM}", fields=(("key", what),))
