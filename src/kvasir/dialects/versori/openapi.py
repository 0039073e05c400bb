"""The OpenAPI document of what is served: openapi.json beside this module, with the limits in force filled in."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from kvasir import __version__
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
    return whole
