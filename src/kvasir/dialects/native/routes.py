"""Which operation a method and a path mean. Pure; paths are taken as they came and split before they are decoded."""

from __future__ import annotations

import re

from msgspec import Struct

from kvasir.errors import Invalid, NotFound

#: The operation, for metrics, of requests that reach none.
UNROUTED = "unrouted"

#: Whether a percent-decoded path belongs to this API.
serves = re.compile(r"/v1(?:/|\Z)").match


class Operation(Struct, frozen=True, gc=False):
    """One row: what a method does at a path."""

    name: str
    method: str
    #: Below /v1/, with {id} and {key} for what a request fills in
    path: str
    #: Rows of `parameters.PARAMETERS`
    parameters: tuple[str, ...] = ()
    #: The one of them that may be there several times
    repeated: str = ""
    #: Whether it takes no credential
    anonymous: bool = False
    #: Of a write of many entries: what it has in place of If-Match and If-None-Match
    instead: str = ""


_WRITE = ("ttl", "expires_at", "refresh", "keep")
_PREFIX = ("prefix", "all")
_LISTING = ("order", "limit", "cursor", "values", "created_from", "created_to", "metadata")

SET_ENTRY = Operation("SetEntry", "PUT", "spaces/{id}/entries/{key}", _WRITE)

OPERATIONS: tuple[Operation, ...] = (
    Operation("About", "GET", ""),
    Operation("ListSpaces", "GET", "spaces", ("kind", "after", "limit")),
    Operation("CreateSpace", "POST", "spaces"),
    Operation("GetSpace", "GET", "spaces/{id}"),
    Operation("RenameSpace", "PATCH", "spaces/{id}"),
    Operation("EndSpace", "DELETE", "spaces/{id}"),
    Operation("GetEntry", "GET", "spaces/{id}/entries/{key}", ("form", "extend")),
    SET_ENTRY,
    Operation("DeleteEntry", "DELETE", "spaces/{id}/entries/{key}"),
    Operation("GetEntryByKey", "GET", "spaces/{id}/entry", ("key", "form", "extend")),
    Operation("SetEntryByKey", "PUT", "spaces/{id}/entry", ("key", *_WRITE)),
    Operation("DeleteEntryByKey", "DELETE", "spaces/{id}/entry", ("key",)),
    Operation("ListEntries", "GET", "spaces/{id}/entries", (*_PREFIX, *_LISTING)),
    Operation(
        "DeletePrefix",
        "DELETE",
        "spaces/{id}/entries",
        (*_PREFIX, "expect"),
        instead="say by expect how many entries there must be",
    ),
    Operation("ListChildren", "GET", "spaces/{id}/children", (*_PREFIX, "from", "after", "limit")),
    Operation("CountEntries", "GET", "spaces/{id}/count", _PREFIX),
    Operation("GetMany", "POST", "spaces/{id}/get", ("extend",)),
    Operation("Atomic", "POST", "spaces/{id}/atomic", instead="conditions go into checks, in the body"),
    Operation("ListKeys", "GET", "keys"),
    Operation("CreateKey", "POST", "keys"),
    Operation("RevokeKey", "DELETE", "keys/{id}"),
    Operation("ListServiceAccounts", "GET", "service-accounts"),
    Operation("CreateServiceAccount", "POST", "service-accounts"),
    Operation("RevokeServiceAccount", "DELETE", "service-accounts/{id}"),
    Operation("CreateConsoleLink", "POST", "console/links"),
    Operation("ExchangeConsoleCode", "POST", "console/exchange", anonymous=True),
    Operation("Stats", "GET", "stats", ("window",)),
    Operation("Watch", "GET", "spaces/{id}/watch", (*_PREFIX, "key"), "key"),
    Operation("Export", "GET", "spaces/{id}/export", _PREFIX),
    Operation(
        "Import",
        "POST",
        "spaces/{id}/import",
        ("mode", "dry_run"),
        instead="say by mode what to do with keys that exist",
    ),
)

_METHODS: dict[str, dict[str, Operation]] = {}
for _operation in OPERATIONS:
    _METHODS.setdefault(_operation.path, {})[_operation.method] = _operation


class MethodNotAllowed(Invalid):
    """The path exists, but not with this method."""

    def __init__(self, method: str, methods: dict[str, Operation]) -> None:
        self.allow = ", ".join(sorted({*methods, *(("HEAD",) if "GET" in methods else ())}))
        super().__init__(f"{method[:20]} is not allowed here; use one of: {self.allow}", code="method_not_allowed")


def route(method: str, raw_path: str) -> tuple[Operation, str, str]:
    """(operation, the id in the path or "", the key in the path as it came or ""). Raises `NotFound`."""
    _, root, *rest = raw_path.split("/", 5)
    id = key = template = ""
    if rest:
        template = rest[0]
        if len(rest) > 1 and template == "console":
            template += f"/{rest[1]}"
        elif len(rest) > 1:
            # ULIDs may be written in either case; the ids of service accounts are none.
            id = rest[1].upper() if template == "spaces" else rest[1]
            template += "/{id}"
        if len(rest) > 2:
            template += "/" + rest[2]
        if len(rest) > 3:
            template += "/{key}"
            key = rest[3]
    methods = _METHODS.get(template)
    # The decoded path begins with /v1, but a slash that is percent-encoded separates nothing.
    if root != "v1" or methods is None or (not id and "{id}" in template):
        raise NotFound("there is nothing at this path; /v1/openapi.json says what there is", code="route_not_found")
    operation = methods.get(method)
    if operation is None:
        raise MethodNotAllowed(method, methods)
    return operation, id, key
