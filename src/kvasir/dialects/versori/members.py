"""What each object of a body may have: the names of the Versori platform OpenAPI document. Nothing but tables.

Values and metadata are the caller's own, and not looked into.
"""

from __future__ import annotations

from kvasir.dialects.ignored import Known, Tables

SET_OPTIONS: Known = dict.fromkeys(
    ("metadata", "expireIn", "expireAt", "refreshOnAccess", "ifNotExists", "ifVersionstamp", "overwrite")
)
SET: Known = {"value": None, "options": SET_OPTIONS}
ENTRY: Known = {"key": None, **SET}
DELETE_OPTIONS: Known = dict.fromkeys(("cascade", "ifVersionstamp"))
GET_OPTIONS: Known = {"timeout": None}
FILTER: Known = dict.fromkeys(("createdAfter", "createdBefore", "metadata"))
SELECTOR: Known = {"prefix": None, "after": None, "before": None, "filter": FILTER}
LIST_OPTIONS: Known = dict.fromkeys(("limit", "reverse"))
COUNT_SELECTOR: Known = {"prefix": None}

#: The body of each operation that has one
BODIES: dict[str, Known] = {
    "SetKV": SET,
    "DeleteKV": {"options": DELETE_OPTIONS},
    "BatchGetKV": {"keys": None, "options": GET_OPTIONS},
    "BatchSetKV": {"entries": [ENTRY]},
    "BatchDeleteKV": {"keys": None, "options": DELETE_OPTIONS},
    "ListKV": {"selector": SELECTOR, "options": LIST_OPTIONS},
    "CountKV": {"selector": COUNT_SELECTOR},
    "CreateStore": {"name": None},
}
KNOWN = Tables({"GetKV": {}, "ListStores": {}, **BODIES})
