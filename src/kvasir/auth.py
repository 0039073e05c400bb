"""Credentials -> `Principal`. The only place where a secret is compared."""

from __future__ import annotations

from kvasir.engine import Engine
from kvasir.model import Principal
from kvasir.store import Store


class Auth:
    """Knows who asks. What it remembers is forgotten as soon as any process changes a key."""

    def __init__(self, store: Store, engine: Engine) -> None:
        self._store = store
        self._engine = engine

    async def access_key(self, authorization: str | None, cookie: str | None) -> Principal:
        """The principal of an `Authorization` header (Bearer or JWT) or a Cookie header, calling `Store.refresh` once.

        Raises `Unauthenticated`.
        """
        raise NotImplementedError
