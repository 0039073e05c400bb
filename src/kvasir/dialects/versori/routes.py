"""Which operation a method and a path name, and which key a path says. Pure.

Source: the paths of the Versori platform OpenAPI document, served under its /api/v2 and at the root, because the
clients send `o/…` or `store/…` after whatever base address they are given.
"""

from __future__ import annotations

import re

from kvasir.errors import Invalid, NotFound

BASE = "/api/v2"

#: Names the answers to requests that reach no operation, for metrics.
UNROUTED = "unrouted"

STORES: dict[str, str] = {"GET": "ListStores", "POST": "CreateStore"}
KEY: dict[str, str] = {"GET": "GetKV", "PUT": "SetKV", "DELETE": "DeleteKV"}
#: Paths that look like a key of one part and win for the methods they define; other methods mean that key.
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

#: Says whether a percent-decoded path is one of this API's. A client that joins a base address that ends in a slash and
#: a path that begins with one sends two.
serves = re.compile(f"{BASE}/|//?(?:store|o)/").match

BATCH_FORM = "use the batch form, where every key can be said as an array of strings: POST, PUT or DELETE …/kv/batch"


class MethodNotAllowed(Invalid):
    """The path is served, but not with this method."""

    def __init__(self, method: str, allowed: dict[str, str]) -> None:
        self.allow = ", ".join(sorted(allowed))
        super().__init__(f"{method} is not served here; these are: {self.allow}", code="method_not_allowed")


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
            raise NotFound("nothing is served under this path", code="route_not_found")
    operation = methods.get(method)
    if operation is None:
        raise MethodNotAllowed(method, methods)
    return operation, owner.upper(), rest


def key_parts(text: str) -> list[str]:
    """The parts of a key in path form: the decoded text, split at every slash.

    Encoded and plain slashes are the same: generated clients encode the slashes of the `key` parameter and the Go
    client does not. Raises `Invalid` for an empty part, and for U+FFFD, which stands where the path was not UTF-8:
    two broken keys must never become one.
    """
    parts = text.split("/")
    if "" in parts:
        raise _unsayable("has an empty part, which a path cannot say safely")
    if "\ufffd" in text:
        raise _unsayable("does not decode to UTF-8")
    return parts


def _unsayable(what: str) -> Invalid:
    return Invalid(f"the key in the path {what}; {BATCH_FORM}", fields=(("key", what),))
