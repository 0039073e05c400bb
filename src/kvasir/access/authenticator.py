"""An access key, or an identity provider's token -> `Principal`. The only place where secrets are compared.

Cached access keys are dropped as soon as any process changes one (the epoch says so). Cached tokens are good until
their `exp`, since a signature cannot be revoked.
"""

from __future__ import annotations

import hmac

from kvasir.access.identity_provider import IdentityProvider
from kvasir.control import access_keys
from kvasir.control.access_keys import AccessKey
from kvasir.engine import Clock, Engine
from kvasir.errors import Unauthenticated
from kvasir.keys import prefix_range
from kvasir.model import Principal
from kvasir.store.store import Store

#: Credentials of each kind that one process caches; the oldest is evicted first.
CACHED_CREDENTIALS = 2_000
#: Longer credentials are refused unread: well above any real token, and a bound on the caches.
CREDENTIAL_CHARACTERS = 8_192
#: Name of the cookie that may carry a credential
COOKIE = "cookie"


class Authenticator:
    """Tells which principal sent a credential, with or without an identity provider."""

    def __init__(
        self,
        store: Store,
        engine: Engine,
        identity_provider: IdentityProvider | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        """`clock`: what credentials expire by, if not by that of the store."""
        self._store = store
        self.clock = clock or store.clock
        self._engine = engine
        self._identity_provider = identity_provider
        self._epoch = -1
        #: By the whole header value, so that a known caller costs one lookup.
        self._keys: dict[str, Principal] = {}
        self._tokens: dict[str, Principal] = {}

    async def authenticate(self, authorization: str | None, cookie: str | None) -> Principal:
        """The principal behind an `Authorization` (Bearer or JWT) or a Cookie header. Calls `Store.refresh` once.

        Raises `Unauthenticated`, and `Unavailable` while tokens cannot be checked.
        """
        epoch = await self._store.refresh()
        if epoch != self._epoch:
            self._keys.clear()
            self._epoch = epoch
        credential = authorization or _credential_of(cookie)
        principal = self._keys.get(credential) or self._tokens.get(credential) or await self._verify(credential, epoch)
        if principal.expires_at is not None and principal.expires_at <= self.clock():
            self._tokens.pop(credential, None)
            raise Unauthenticated("the access key or token has expired")
        return principal

    def authenticate_nowait(self, authorization: str | None) -> Principal | None:
        """What `authenticate` gives for a known key that does not expire, if that takes no waiting; else None."""
        if self._store.refresh_nowait() != self._epoch:
            return None
        principal = self._keys.get(authorization or "")
        return None if principal is None or principal.expires_at is not None else principal

    async def access_key(self, authorization: str | None) -> AccessKey | None:
        """The access key in an Authorization header, for what is about the key itself; None: it is a token."""
        return await self._find_key(_secret_of(authorization or ""))

    async def _verify(self, credential: str, epoch: int) -> Principal:
        secret = _secret_of(credential)
        key = await self._find_key(secret)
        if key is not None:
            principal = _principal(key)
            # If the epoch has moved since, the key may have been revoked in the meantime.
            if epoch == self._epoch:
                _cache(self._keys, credential, principal)
            return principal
        if self._identity_provider is None or secret.count(".") != 2:
            raise Unauthenticated("the access key is unknown or revoked")
        principal = await self._identity_provider.verify(secret)
        _cache(self._tokens, credential, principal)
        return principal

    async def _find_key(self, secret: str) -> AccessKey | None:
        digest = access_keys.digest_of(secret)
        key = await access_keys.find_key(self._engine, digest)
        return key if key is not None and hmac.compare_digest(key.digest, digest) else None


def _principal(key: AccessKey) -> Principal:
    return Principal(
        key.organisation,
        key.role,
        key.id,
        spaces=None if key.spaces is None else frozenset(key.spaces),
        keys=None if key.prefix is None else prefix_range(key.prefix),
        expires_at=key.expires_at,
    )


def is_bearer(authorization: str | None, secret: str) -> bool:
    """Whether an Authorization header carries this secret, for what has a secret of its own instead of access keys."""
    return hmac.compare_digest((authorization or "").encode(), f"Bearer {secret}".encode())


def _credential_of(cookie: str | None) -> str:
    """The `Authorization` header that the credential cookie stands for; "" if there is none."""
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


def _cache(cache: dict[str, Principal], credential: str, principal: Principal) -> None:
    if len(cache) >= CACHED_CREDENTIALS:
        del cache[next(iter(cache))]
    cache[credential] = principal
