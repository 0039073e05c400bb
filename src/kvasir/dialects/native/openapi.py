"""The OpenAPI document of this API, made from its tables: operations, parameters, bodies and failures. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from kvasir import __version__
from kvasir.dialects.native import bodies, problems
from kvasir.dialects.native.descriptions import INFO, OPERATIONS, TAGS, Described
from kvasir.dialects.native.parameters import PARAMETERS
from kvasir.dialects.native.routes import OPERATIONS as ROUTES
from kvasir.dialects.native.routes import Operation
from kvasir.dialects.native.shapes import SCHEMAS
from kvasir.limits import Limits

JSON = "application/json"

_REF = "#/components/schemas/{name}"

#: Failures that any operation may answer with, and what they mean.
_FAILURES = {row.status: row.title for row in problems.FAILURES.values()}


_HEADERS: dict[str, str] = {
    "If-Match": '`"<versionstamp>"`, several of them, or `*`: only if the key has one of them, or exists at all.',
    "If-None-Match": "`*` in a write: only if the key does not exist. In a GET, known ETags: 304 if it has one.",
    "Kvasir-Metadata": "Metadata of the entry: a JSON object in ASCII, at most 4 KiB.",
    "Last-Event-ID": "The last id of an earlier watch: everything after it is told, or `resync`.",
}


def document(limits: Limits) -> dict[str, Any]:
    """The whole document."""
    kinds = [row.body for row in OPERATIONS.values() if row.body is not None]
    _, schemas = msgspec.json.schema_components(kinds, ref_template=_REF)
    _bound(schemas, limits)
    paths: dict[str, dict[str, Any]] = {}
    for operation in ROUTES:
        path = f"/v1/{operation.path}".rstrip("/")
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, OPERATIONS[operation.name])
    return {
        "openapi": "3.1.0",
        "info": INFO | {"version": __version__},
        "servers": [{"url": "/", "description": "This server"}],
        "security": [{"bearerToken": []}],
        "tags": TAGS,
        "paths": paths,
        "components": {
            "schemas": schemas | SCHEMAS,
            "securitySchemes": {
                "bearerToken": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An access key, or a token of the identity provider: `Authorization: Bearer …`",
                }
            },
        },
    }


def _bound(schemas: dict[str, Any], limits: Limits) -> None:
    """The limits in force."""
    schemas[bodies.Keys.__name__]["properties"]["keys"]["maxItems"] = limits.batch_keys
    schemas[bodies.NewSpace.__name__]["properties"]["name"] |= {
        "minLength": 1,
        "maxLength": limits.store_name_characters,
    }


def _operation(operation: Operation, row: Described) -> dict[str, Any]:
    made: dict[str, Any] = {
        "tags": [row.tag],
        "operationId": operation.name,
        "summary": row.summary,
        "description": row.description,
        "parameters": [*_in_path(operation), *_in_query(operation), *_in_header(row)],
        "responses": _responses(row),
        **({"security": []} if operation.anonymous else {}),
    }
    if row.body is not None:
        schema = {"$ref": _REF.format(name=row.body.__name__)}
        made["requestBody"] = {"required": True, "content": {JSON: {"schema": schema, "example": row.example}}}
    elif row.raw_body is not None:
        made["requestBody"] = {"required": True, "content": row.raw_body}
    return made


def _in_path(operation: Operation) -> list[dict[str, Any]]:
    named: list[dict[str, Any]] = []
    if "{id}" in operation.path:
        named.append(_parameter("id", "path", {"type": "string", "minLength": 1}, "The id, as a listing gives it."))
    if "{key}" in operation.path:
        text = "The parts of the key, separated by slashes; each is percent-encoded by itself."
        named.append(_parameter("key", "path", {"type": "string", "minLength": 1}, text))
    return named


def _in_query(operation: Operation) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in operation.parameters:
        row = PARAMETERS[name]
        schema: dict[str, Any] = row.schema
        if name == operation.repeated:
            schema = {"type": "array", "items": schema}
        needed = name == "key" and name != operation.repeated
        found.append(_parameter(name, "query", schema, row.description, required=needed))
    return found


def _in_header(row: Described) -> list[dict[str, Any]]:
    return [_parameter(name, "header", {"type": "string"}, _HEADERS[name], required=False) for name in row.headers]


def _parameter(
    name: str, where: str, schema: dict[str, Any], description: str, *, required: bool = True
) -> dict[str, Any]:
    return {"name": name, "in": where, "required": required, "schema": schema, "description": description}


def _responses(row: Described) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, (description, content) in row.answers.items():
        found[str(status)] = {"description": description, **({"content": content} if content else {})}
    problem = {problems.CONTENT_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}, "example": _EXAMPLE}}
    for status in sorted({400, 401, 403, 404, 405, 413, 415, 500, 503, *row.failures}):
        title = _FAILURES.get(status, "The request is not valid")
        found[str(status)] = {"description": title, "content": problem}
    return found


_EXAMPLE: dict[str, Any] = {
    "type": "urn:kvasir:error:not_found",
    "title": "There is no such thing",
    "status": 404,
    "detail": "there is no entry with this key",
    "code": "not_found",
    "fields": [],
    "request_id": "1d0ba2a0a3f1-1",
}
