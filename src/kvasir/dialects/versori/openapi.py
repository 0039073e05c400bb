"""The OpenAPI document of this API: openapi.json beside this module, with the limits in force filled in."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from kvasir import __version__
from kvasir.dialects.versori import routes
from kvasir.dialects.versori.requests import PAGE_ENTRIES
from kvasir.limits import Limits


def document(limits: Limits) -> dict[str, Any]:
    """The whole document."""
    text = (files(__package__) / "openapi.json").read_text(encoding="utf-8")
    for name in ("key_bytes", "value_bytes", "metadata_bytes"):
        text = text.replace(f"{{{name}}}", f"{getattr(limits, name):,}")
    whole: dict[str, Any] = json.loads(text)
    whole["info"]["version"] = __version__
    schemas = whole["components"]["schemas"]
    schemas["BatchEntries"]["maxItems"] = limits.batch_keys
    for request in ("BatchGetKVRequest", "BatchDeleteKVRequest"):
        schemas[request]["properties"]["keys"]["maxItems"] = limits.batch_keys
    limit = schemas["ListOptions"]["properties"]["limit"]
    limit["maximum"] = limit["default"] = min(PAGE_ENTRIES, limits.page_entries)
    schemas["CreateStoreRequest"]["properties"]["name"]["maxLength"] = limits.store_name_characters
    _add_keys_named_like_a_route(whole["paths"])
    return whole


def _add_keys_named_like_a_route(paths: dict[str, Any]) -> None:
    """Add that GET /kv/list is GetKV of the key "list": in OpenAPI a concrete path hides a templated one."""
    for name, methods in routes.FIXED.items():
        for method, operation in paths["/store/{store}/kv/{key}"].items():
            if method.upper() not in methods:
                paths[f"/store/{{store}}/kv/{name}"][method] = operation | {
                    "tags": ["keys named like a route"],
                    "operationId": f"{operation['operationId']}_{name}",
                    "parameters": [each for each in operation["parameters"] if each["name"] != "key"],
                }
