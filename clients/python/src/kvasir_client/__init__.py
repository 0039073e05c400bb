"""A client of Kvasir: keys of several parts, JSON values, transactions, exact expiry, watching.

    from kvasir_client import Client

    with Client("http://127.0.0.1:8901", key="kv_…") as client:
        kv = client.store("first-steps")
        kv.set(("products", "1"), {"name": "mead"}, ttl="24h")
        entry = kv.get(("products", "1"))

`AsyncClient` is the same for asyncio. The interfaces that others have defined are in modules of their own: `mapping`
(a MutableMapping), `key_value` (py-key-value-aio), `django` (Django's cache).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvasir_client.client import Client, Store, Transaction
from kvasir_client.entries import Child, Committed, Entry, Event, Loaded, Raw, Refusal, Space
from kvasir_client.errors import (
    ConditionNotMet,
    Conflicting,
    Failed,
    Forbidden,
    Invalid,
    KvasirError,
    NotFound,
    Timeout,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnknownOutcome,
)
from kvasir_client.keys import Key
from kvasir_client.times import Ttl

if TYPE_CHECKING:
    from kvasir_client.aio import AsyncClient, AsyncStore, AsyncTransaction

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "AsyncStore",
    "AsyncTransaction",
    "Child",
    "Client",
    "Committed",
    "ConditionNotMet",
    "Conflicting",
    "Entry",
    "Event",
    "Failed",
    "Forbidden",
    "Invalid",
    "Key",
    "KvasirError",
    "Loaded",
    "NotFound",
    "Raw",
    "Refusal",
    "Space",
    "Store",
    "Timeout",
    "TooLarge",
    "Transaction",
    "Ttl",
    "Unauthenticated",
    "Unavailable",
    "UnknownOutcome",
]


def __getattr__(name: str) -> Any:
    """Loads what is for asyncio when it is asked for: it doubles the time that a short command takes to start."""
    if name in ("AsyncClient", "AsyncStore", "AsyncTransaction"):
        from kvasir_client import aio  # noqa: PLC0415

        return getattr(aio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
