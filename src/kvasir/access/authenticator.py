"""Credentials -> `Principal`. The only place where a secret is compared.

What it remembers of access keys is forgotten as soon as any process changes one (the epoch says so); what it remembers
of tokens ends with their `exp`, since nobody can take a signature back.
"""

from __future__ import annotations

import hmac

from kvasir.access.identity_provider import IdentityProvider
from kvasir.control import access_keys
from kvasir.engine import Engine
from kvasir.errors import Unauthenticated
from kvasir.keys import prefix_range
from kvasir.model import Principal
from kvasir.store.store import Store

#: Credentials of each kind that one process remembers; the oldest goes first.
REMEMBERED = 2_000
#: Longest credential that is looked at: well above any real token, and a bound on what is remembered.
CREDENTIAL_CHARACTERS = 8_192
COOKIE = "cookie"


class Auth:
    """Knows who asks."""

    def __init__(self, store: Store, engine: Engine, identity: IdentityProvider | None = None) -> None:
        self._store = store
        self._engine = engine
        self._identity = identity
        self._epoch = -1
        #: By the whole header text, so that a known caller costs one look.
        self._keys: dict[str, Principal] = {}
        self._tokens: dict[str, Principal] = {}

    async def access_key(self, authorization: str | None, cookie: str | None) -> Principal:
        """The principal of an `Authorization` header (Bearer or JWT) or a Cookie header, calling `Store.refresh` once.

        Raises `Unauthenticated`, and `Unavailable` when a token cannot be checked now.
        """
        epoch = await self._store.refresh()
        if epoch != self._epoch:
            self._keys.clear()
            self._epoch = epoch
        credential = authorization or _credential_of(cookie)
        principal = (
            self._keys.get(credential) or self._tokens.get(credential) or await self._recognise(credential, epoch)
        )
        if principal.expires_at is not None and principal.expires_at <= self._store.clock():
            self._tokens.pop(credential, None)
            raise Unauthenticated("the access key or token has expired")
        return principal

    async def _recognise(self, credential: str, epoch: int) -> Principal:
        secret = _secret_of(credential)
        principal = await self._owner_of(secret)
        if principal is not None:
            # Found in the state of this epoch; if another came meanwhile, it may be revoked already.
            if epoch == self._epoch:
                _remember(self._keys, credential, principal)
            return principal
        if self._identity is None or secret.count(".") != 2:
            raise Unauthenticated("the access key is unknown or revoked")
        principal = await self._identity.principal(secret)
        _remember(self._tokens, credential, principal)
        return principal

    async def _owner_of(self, secret: str) -> Principal | None:
        digest = access_keys.digest_of(secret)
        key = await access_keys.find_key(self._engine, digest)
        if key is None or not hmac.compare_digest(key.digest, digest):
            return None
        return Principal(
            key.organisation,
            key.role,
            key.id,
            spaces=None if key.spaces is None else frozenset(key.spaces),
            keys=None if key.prefix is None else prefix_range(key.prefix),
            expires_at=key.expires_at,
        )


def _credential_of(cookie: str | None) -> str:
    """What an `Authorization` header would say for the cookie named `cookie` in a Cookie header; "" without it."""
    for pair in (cookie or "").split(";"):
        name, _, value = pair.strip().partition("=")
        if name == COOKIE and value:
            return "Bearer " + value.strip('"')
    return ""


def _secret_of(credential: str) -> str:
    """The secret of `Bearer …` or `JWT …`. Raises `Unauthenticated`."""
    if not credential:
        raise Unauthenticated('an access key is needed: send "Authorization: Bearer <access key>"')
    scheme, _, secret = credential.partition(" ")
    secret = secret.strip()
    if scheme.lower() not in ("bearer", "jwt") or not secret:
        raise Unauthenticated('the Authorization header must read "Bearer <access key>" or "JWT <token>"')
    if len(credential) > CREDENTIAL_CHARACTERS:
        raise Unauthenticated(f"the credential is longer than {CREDENTIAL_CHARACTERS:,} characters")
    return secret


def _remember(known: dict[str, Principal], credential: str, principal: Principal) -> None:
    if len(known) >= REMEMBERED:
        del known[next(iter(known))]
    known[credential] = principal
