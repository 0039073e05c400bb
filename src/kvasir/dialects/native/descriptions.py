"""What the API's document says of each operation: one row each, beside its row in `routes`. Words and shapes only."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from kvasir.dialects.native import bodies
from kvasir.dialects.native.shapes import (
    ACCOUNT_EXAMPLE,
    COUNT,
    ENTRY_EXAMPLE,
    FLAG,
    INSTANT,
    KEY_EXAMPLE,
    NUMBER,
    PARTS,
    SPACE_EXAMPLE,
    STAMP,
    TEXT,
    array,
    json,
    object_of,
    or_null,
    ref,
    text,
)

#: Status -> what it means, and the content by media type, if there is any.
Answers = dict[int, tuple[str, dict[str, Any] | None]]


class Described(Struct, frozen=True):
    """One row."""

    tag: str
    summary: str
    description: str
    answers: Answers
    body: type | None = None
    example: Any = None
    raw_body: dict[str, Any] | None = None
    #: Headers that a request may have
    headers: tuple[str, ...] = ()
    #: Statuses of failures, besides those that every operation may have
    failures: tuple[int, ...] = ()


INFO: dict[str, Any] = {
    "title": "Kvasir's own API",
    "summary": "All that the store can do, by the conventions of HTTP",
    "description": "A **key** is an array of strings. A **value** is any JSON and comes back byte for byte: it is the "
    "body itself. `ETag` has its **versionstamp**, which conditions compare. An answer to a write comes after it is on "
    "disk.\n\nFailures are problem documents (RFC 9457) with a stable `code`.",
    "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
}

TAGS: list[dict[str, Any]] = [
    {"name": "entries", "description": "One entry of a space"},
    {"name": "many entries", "description": "Listings, trees, counts, many keys, transactions"},
    {"name": "streams", "description": "Watching, export and import"},
    {"name": "spaces", "description": "Stores, applications and sessions"},
    {"name": "administration", "description": "Credentials and figures, for owners and admins"},
]


_ANY: dict[str, Any] = {"application/json": {"schema": {}, "example": {"name": "mead"}}}
_STAMPED = json(object_of(versionstamp=STAMP), {"versionstamp": "000019e830e1a0000000"})

_GET = Described(
    "entries",
    "Get a value",
    "The value itself; with `form=entry` the whole entry. Extends a sliding life unless `extend=false`; HEAD and 304 "
    "never do.",
    {200: ("The value", _ANY), 304: ("It has not changed", None)},
    headers=("If-Match", "If-None-Match"),
    failures=(412,),
)
_PUT = Described(
    "entries",
    "Set a value",
    "The body becomes the value. It replaces value, metadata and life as one, but for what `keep` names.",
    {200: ("A value was replaced", _STAMPED), 201: ("The key is new", _STAMPED)},
    raw_body=_ANY,
    headers=("If-Match", "If-None-Match", "Kvasir-Metadata"),
    failures=(412,),
)
_DELETE = Described(
    "entries",
    "Delete an entry",
    "Removing what is not there is no failure: `Kvasir-Count` says how many there were.",
    {204: ("It is gone", None)},
    headers=("If-Match",),
    failures=(412,),
)

OPERATIONS: dict[str, Described] = {
    "About": Described(
        "administration",
        "Who am I, and what is this",
        "Version, engine, durability and features of the server; name, organisation, role and limits of the caller.",
        {
            200: (
                "The server and the caller",
                json(
                    object_of(version=TEXT, engine=TEXT, durability=TEXT, features=PARTS, caller={"type": "object"}),
                    {
                        "version": "0.1.0",
                        "engine": "sqlite",
                        "durability": "full",
                        "features": ["atomic", "watch"],
                        "caller": {"name": "admin", "role": "owner"},
                    },
                ),
            )
        },
    ),
    "ListSpaces": Described(
        "spaces",
        "List spaces",
        "By ascending id. The token of a session is in no answer.",
        {
            200: (
                "One page",
                json(
                    object_of(spaces=array(ref("Space")), next=or_null(TEXT)),
                    {"spaces": [SPACE_EXAMPLE], "next": None},
                ),
            )
        },
    ),
    "CreateSpace": Described(
        "spaces",
        "Make a store or an application",
        "Unless there is one of this name already.",
        {
            200: ("There is one of this name", json(ref("Space"), SPACE_EXAMPLE)),
            201: ("It is made", json(ref("Space"), SPACE_EXAMPLE)),
        },
        bodies.NewSpace,
        {"name": "first-steps", "kind": "store"},
        failures=(409,),
    ),
    "GetSpace": Described(
        "spaces",
        "Show a space",
        "With the number of entries that the caller may read.",
        {200: ("The space", json(ref("Space"), SPACE_EXAMPLE | {"count": 42}))},
    ),
    "RenameSpace": Described(
        "spaces",
        "Rename a store or an application",
        "Its id and its entries stay.",
        {200: ("The space", json(ref("Space"), SPACE_EXAMPLE))},
        bodies.NewName,
        {"name": "second-steps"},
        failures=(409,),
    ),
    "EndSpace": Described("spaces", "End a space", "All its keys end with it, at once.", {204: ("It is gone", None)}),
    "GetEntry": _GET,
    "SetEntry": _PUT,
    "DeleteEntry": _DELETE,
    "GetEntryByKey": _GET,
    "SetEntryByKey": _PUT,
    "DeleteEntryByKey": _DELETE,
    "ListEntries": Described(
        "many entries",
        "List entries",
        "A page of one snapshot. `next` goes back as `cursor`. Extends no life.",
        {
            200: (
                "One page",
                json(
                    object_of(entries=array(ref("Entry")), next=or_null(TEXT)),
                    {"entries": [ENTRY_EXAMPLE], "next": None},
                ),
            )
        },
    ),
    "DeletePrefix": Described(
        "many entries",
        "Delete all entries of a prefix",
        "With `expect` only if there are exactly so many.",
        {204: ("They are gone; `Kvasir-Count` says how many", None)},
        failures=(412,),
    ),
    "ListChildren": Described(
        "many entries",
        "List the next parts below a prefix",
        "In key order, exact at any size. `next` goes back as `after`; a page may be short and yet have a `next`.",
        {
            200: (
                "One page",
                json(
                    object_of(children=array(object_of(part=TEXT, entry=FLAG, below=FLAG)), next=or_null(TEXT)),
                    {"children": [{"part": "products", "entry": False, "below": True}], "next": None},
                ),
            )
        },
    ),
    "CountEntries": Described(
        "many entries", "Count entries", "Exactly.", {200: ("The number", json(object_of(count=COUNT), {"count": 42}))}
    ),
    "GetMany": Described(
        "many entries",
        "Get many entries",
        "In one snapshot, in the order of the keys; null for one that is absent.",
        {
            200: (
                "The entries",
                json(object_of(entries=array(or_null(ref("Entry")))), {"entries": [ENTRY_EXAMPLE, None]}),
            )
        },
        bodies.Keys,
        {"keys": [["products", "1"], ["products", "2"]]},
    ),
    "Atomic": Described(
        "many entries",
        "Do a transaction",
        "All mutations at one instant if all checks hold; 412 names every check that does not.",
        {
            200: (
                "It is done",
                json(
                    object_of(versionstamp=STAMP, results=array({"type": "object"})),
                    {"versionstamp": "000019e830e1a0000000", "results": [{"type": "set", "replaced": False}]},
                ),
            )
        },
        bodies.Atomic,
        {"checks": [{"key": ["a"], "versionstamp": None}], "mutations": [{"type": "set", "key": ["a"], "value": 1}]},
        failures=(412,),
    ),
    "ListKeys": Described(
        "administration",
        "List access keys",
        "Of the organisation, oldest first, expired ones too.",
        {200: ("The keys", json(object_of(keys=array(ref("Key"))), {"keys": [KEY_EXAMPLE]}))},
    ),
    "CreateKey": Described(
        "administration",
        "Make an access key",
        "Never with a higher role, wider spaces or prefix, or a later end than the caller's own.",
        {201: ("It is made; the secret is shown this once", json(ref("Key"), KEY_EXAMPLE | {"key": "kv_…"}))},
        bodies.NewKey,
        {"name": "reader", "role": "viewer", "prefix": ["products"], "ttl": "30d"},
        failures=(409,),
    ),
    "RevokeKey": Described(
        "administration",
        "Revoke an access key",
        "It is refused from now on. Any key may revoke itself.",
        {204: ("It is revoked", None)},
    ),
    "ListServiceAccounts": Described(
        "administration",
        "List service accounts",
        "Of the organisation, for the Voximplant API, oldest first.",
        {
            200: (
                "The accounts",
                json(object_of(service_accounts=array(ref("ServiceAccount"))), {"service_accounts": [ACCOUNT_EXAMPLE]}),
            )
        },
    ),
    "CreateServiceAccount": Described(
        "administration",
        "Make a service account",
        "The answer is the credentials.json of the official Voximplant clients.",
        {
            201: (
                "It is made; the private key is shown this once",
                json(
                    object_of(account_email=TEXT, account_id=COUNT, key_id=TEXT, private_key=TEXT),
                    {
                        "account_email": "account-1@kvasir.invalid",
                        "account_id": 1,
                        "key_id": "7d5e2a0c-4b1e-4f57-9a43-0d8b6f1f2c3d",
                        "private_key": "-----BEGIN PRIVATE KEY-----…",
                    },
                ),
            )
        },
        bodies.NewServiceAccount,
        {"roles": ["Developer"]},
    ),
    "RevokeServiceAccount": Described(
        "administration",
        "Revoke a service account",
        "Its tokens are refused from now on.",
        {204: ("It is revoked", None)},
    ),
    "CreateConsoleLink": Described(
        "administration",
        "Make a one-time link to the console",
        "For the caller's own rights. Its `path` is good for one browser within 60 seconds. A key that came by a link "
        "makes none.",
        {
            201: (
                "It is made; the code is shown this once",
                json(
                    object_of(code=TEXT, path=TEXT, expires_at=INSTANT),
                    {"code": "6V…", "path": "/console/#code=6V…", "expires_at": "2026-06-01T12:01:00.000Z"},
                ),
            )
        },
    ),
    "ExchangeConsoleCode": Described(
        "administration",
        "Exchange the code of a link for an access key",
        "Once. The access key is named `console`, may do what the one that asked for the link may, and ends after 12 "
        "hours, or with the one that asked. To sign out, revoke it. 401 for a code that is wrong, used or too old.",
        {201: ("The access key, shown this once", json(ref("Key"), KEY_EXAMPLE | {"name": "console", "key": "kv_…"}))},
        bodies.ConsoleCode,
        {"code": "6V…"},
    ),
    "Stats": Described(
        "administration",
        "What the server did",
        "Samples of the last 15 minutes, one each 5 seconds, of all workers together.",
        {
            200: (
                "The samples, oldest first",
                json(
                    object_of(interval=NUMBER, since=or_null(INSTANT), samples=array({"type": "object"})),
                    {"interval": 5, "since": None, "samples": []},
                ),
            )
        },
    ),
    "Watch": Described(
        "streams",
        "Watch keys",
        "Server-Sent Events: `ready`, then `set`, `delete`, `delete_prefix`, `expiry`, `resync`, `error`, `bye`.",
        {
            200: (
                "Events",
                text(
                    "text/event-stream",
                    'id: 000019e830e1a0000000\nevent: ready\ndata: {"versionstamp":"000019e830e1a0000000"}\n\n',
                ),
            )
        },
        headers=("Last-Event-ID",),
    ),
    "Export": Described(
        "streams",
        "Export entries",
        'Lines of JSON, of one snapshot in key order. Without the last line, `{"end": …}`, the stream was cut.',
        {
            200: (
                "Lines",
                text(
                    "application/x-ndjson",
                    '{"key":["a"],"text":"1","metadata":null,"refresh":null,"created_at":"2026-06-01T12:00:00.000Z",'
                    '"expires_at":null,"versionstamp":"000019e830e1a0000000"}\n{"end":{"entries":1}}\n',
                ),
            )
        },
    ),
    "Import": Described(
        "streams",
        "Import entries",
        "Lines of JSON, as an export has them or written by hand; durable in batches.",
        {
            200: (
                "What was done",
                json(
                    ref("Report"),
                    {
                        "set": 2,
                        "kept": 0,
                        "refused": 0,
                        "refusals": [],
                        "ignored": [],
                        "lines": 2,
                        "whole": None,
                        "dry_run": False,
                    },
                ),
            )
        },
        raw_body=text("application/x-ndjson", '{"key":["a"],"value":1}\n{"key":["b"],"text":"1"}\n'),
        failures=(412,),
    ),
}
