"""Shapes and examples of answers, for the API's document. Words and shapes only."""

from __future__ import annotations

from typing import Any


def object_of(required: tuple[str, ...] = (), **properties: dict[str, Any]) -> dict[str, Any]:
    """An object; every member is required unless told otherwise."""
    return {"type": "object", "required": list(required or properties), "properties": properties}


def array(items: dict[str, Any]) -> dict[str, Any]:
    """An array of these."""
    return {"type": "array", "items": items}


def ref(name: str) -> dict[str, Any]:
    """One of `SCHEMAS`, or of the bodies."""
    return {"$ref": f"#/components/schemas/{name}"}


TEXT: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "number"}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}
FLAG: dict[str, Any] = {"type": "boolean"}
PARTS = array(TEXT)
STAMP: dict[str, Any] = {"type": "string", "pattern": "^[0-9a-f]{20}$"}
INSTANT: dict[str, Any] = {"type": "string", "format": "date-time"}


def or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """This, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


SCHEMAS: dict[str, Any] = {
    "Problem": object_of(
        ("type", "title", "status", "detail", "code", "fields", "request_id"),
        type=TEXT,
        title=TEXT,
        status={"type": "integer"},
        detail=TEXT,
        code=TEXT,
        fields=array(object_of(field=TEXT, message=TEXT)),
        request_id=TEXT,
        versionstamp=or_null(STAMP),
    ),
    "Entry": object_of(
        ("key", "versionstamp", "created_at", "expires_at", "refresh", "metadata"),
        key=PARTS,
        value={"description": "Any JSON; left out with `values=false`"},
        versionstamp=STAMP,
        created_at=INSTANT,
        expires_at=or_null(INSTANT),
        refresh=or_null(COUNT | {"description": "Milliseconds of a sliding life"}),
        metadata=or_null({"type": "object"}),
    ),
    "Space": object_of(
        ("id", "kind", "name", "created_at", "expires_at"),
        id=TEXT,
        kind=TEXT | {"enum": ["store", "application", "session"]},
        name=TEXT,
        created_at=INSTANT,
        expires_at=or_null(INSTANT),
        aliases=array(object_of(kind=TEXT, name=TEXT)),
        count=COUNT,
    ),
    "Key": object_of(
        ("id", "name", "role", "spaces", "prefix", "created_at", "expires_at"),
        id=TEXT,
        name=TEXT,
        role=TEXT,
        spaces=or_null(PARTS),
        prefix=or_null(PARTS),
        created_at=INSTANT,
        expires_at=or_null(INSTANT),
        key=TEXT | {"description": "The secret: in the answer that makes the key, and nowhere else"},
    ),
    "ServiceAccount": object_of(
        id=TEXT,
        account_id=COUNT,
        roles=PARTS,
        applications=or_null(PARTS),
        description=TEXT,
        created_at=INSTANT,
    ),
    "Report": object_of(
        set=COUNT,
        kept=COUNT,
        refused=COUNT,
        refusals=array(object_of(line=COUNT, reason=TEXT)),
        ignored=PARTS,
        lines=COUNT,
        whole=or_null(FLAG),
        dry_run=FLAG,
    ),
}

ENTRY_EXAMPLE: dict[str, Any] = {
    "key": ["products", "1"],
    "value": {"name": "mead"},
    "versionstamp": "000019e830e1a0000000",
    "created_at": "2026-06-01T12:00:00.000Z",
    "expires_at": None,
    "refresh": None,
    "metadata": None,
}
SPACE_EXAMPLE: dict[str, Any] = {
    "id": "01JZX0W7M2Q4T8V6B3N5C9D1EF",
    "kind": "store",
    "name": "default",
    "created_at": "2026-06-01T12:00:00.000Z",
    "expires_at": None,
    "aliases": [{"kind": "store", "name": "default"}],
}
KEY_EXAMPLE: dict[str, Any] = {
    "id": "01JZX0W7M2Q4T8V6B3N5C9D1EF",
    "name": "reader",
    "role": "viewer",
    "spaces": None,
    "prefix": ["products"],
    "created_at": "2026-06-01T12:00:00.000Z",
    "expires_at": None,
}
ACCOUNT_EXAMPLE: dict[str, Any] = {
    "id": "7d5e2a0c-4b1e-4f57-9a43-0d8b6f1f2c3d",
    "account_id": 1,
    "roles": ["Developer"],
    "applications": None,
    "description": "",
    "created_at": "2026-06-01T12:00:00.000Z",
}


def json(schema: dict[str, Any], example: Any) -> dict[str, Any]:
    """Content in JSON."""
    return {"application/json": {"schema": schema, "example": example}}


def text(media: str, example: str) -> dict[str, Any]:
    """Content that is no JSON as a whole."""
    return {media: {"schema": TEXT, "example": example}}
