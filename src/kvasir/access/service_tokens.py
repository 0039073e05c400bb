"""Verifies service tokens: JSON Web Tokens signed with the key of a service account.

Owns what such a token must look like and how long a verified one is cached. Knows only public keys; the only secret it
sees, the token itself, is never compared or logged.
"""

from __future__ import annotations

import enum
from hashlib import sha256
from typing import Any, cast

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import Struct

from kvasir.access import LEEWAY_SECONDS
from kvasir.control import service_accounts
from kvasir.engine import Clock, Engine
from kvasir.errors import Unauthenticated
from kvasir.model import Principal
from kvasir.store.store import Store

#: The longest a token may live: from `iat` to `exp`.
MAX_LIFETIME_SECONDS = 3600
#: Longer Authorization headers are refused unread; those of the official clients have about 600 characters.
MAX_HEADER_CHARACTERS = 4096
#: Verified tokens, and as many public keys, that one process caches; the oldest are evicted first.
CACHED_TOKENS = 10_000
#: Headers that are recognised without their digest
SAME_TOKENS = 256

_UNCHECKED: Any = {
    "verify_signature": True,
    **{f"verify_{claim}": False for claim in ("exp", "iat", "nbf", "aud", "iss", "sub", "jti")},
}


class Flaw(enum.Enum):
    """What is wrong with a token: the first of these that applies."""

    MISSING = "no bearer token was sent"
    FORMAT = "the token is not a JSON Web Token signed with RS256"
    KEY_ID = "the token names a key that is unknown or has been revoked"
    SIGNATURE = "the token's signature does not match its key"
    LIFETIME = "the token is valid for longer than an hour"
    FUTURE = "the token is not valid yet"
    EXPIRED = "the token has expired"
    ACCOUNT = "the token's issuer is not the account that its key belongs to"


class BadToken(Unauthenticated):
    """A token that is missing or not valid; `flaw` says why."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw.value)
        self.flaw = flaw


class Caller(Struct, frozen=True):
    """Who sent a valid token."""

    principal: Principal
    account_id: int


class _Key(Struct, frozen=True):
    public: RSAPublicKey
    caller: Caller


class ServiceTokenVerifier:
    """Verifies tokens, and caches valid ones until they expire or any process changes a key."""

    def __init__(self, store: Store, engine: Engine, *, clock: Clock | None = None) -> None:
        """`clock`: what tokens expire by, if not by that of the store."""
        self._store = store
        self._clock = clock or store.clock
        self._engine = engine
        self._epoch = -1
        #: SHA-256 of the header -> (who sent it, the Unix second until which it is valid). By digest, so that the time
        #: a lookup takes reveals nothing about a token.
        self._tokens: dict[bytes, tuple[Caller, float]] = {}
        #: The same by the `id` of headers: a listener that remembers heads gives the same text again and again.
        self._same: dict[int, tuple[str, Caller, float]] = {}
        self._keys: dict[str, _Key] = {}

    def verify_nowait(self, authorization: str | None) -> Caller | None:
        """What `verify` returns, if that takes no waiting; None says nothing."""
        if authorization is None or self._store.refresh_nowait() != self._epoch:
            return None
        same = self._same.get(id(authorization))
        if same is None or same[0] is not authorization:
            known = self._tokens.get(_digest(authorization))
            if known is None:
                return None
            if len(self._same) >= SAME_TOKENS:
                self._same.clear()
            same = self._same[id(authorization)] = authorization, *known
        return None if self._clock() > same[2] * 1000 else same[1]

    async def verify(self, authorization: str | None) -> Caller:
        """Who sent this Authorization header. Calls `Store.refresh` once. Raises `BadToken`.

        The header is `Bearer` and a JWT: header `alg` RS256 and `kid`, claims `iss` (the account's id as text or
        number; 0 means the key's own account), `iat` and `exp`.
        """
        epoch = await self._store.refresh()
        if epoch != self._epoch:
            self._tokens.clear()
            self._same.clear()
            self._keys.clear()
            self._epoch = epoch
        if authorization is None:
            raise BadToken(Flaw.MISSING)
        digest = _digest(authorization)
        now = self._clock() / 1000
        if (known := self._tokens.get(digest)) is not None:
            if now > known[1]:
                del self._tokens[digest]
                raise BadToken(Flaw.EXPIRED)
            return known[0]
        caller, until = await self._check(_bearer(authorization), now)
        if self._epoch == epoch:  # otherwise a key was changed in the meantime
            _evict(self._tokens)
            self._tokens[digest] = caller, until
        return caller

    async def _check(self, token: str, now: float) -> tuple[Caller, float]:
        try:
            header = jwt.get_unverified_header(token)
        except jwt.PyJWTError:
            raise BadToken(Flaw.FORMAT) from None
        if header.get("alg") != "RS256":
            raise BadToken(Flaw.FORMAT)
        key = await self._key(header.get("kid"))
        try:
            claims = jwt.decode(token, key.public, algorithms=["RS256"], options=_UNCHECKED)
        except jwt.InvalidSignatureError:
            raise BadToken(Flaw.SIGNATURE) from None
        except jwt.PyJWTError:
            raise BadToken(Flaw.FORMAT) from None
        until = _check_times(claims, now)
        if not _is_issuer(claims.get("iss"), key.caller.account_id):
            raise BadToken(Flaw.ACCOUNT)
        return key.caller, until

    async def _key(self, key_id: object) -> _Key:
        if not isinstance(key_id, str):
            raise BadToken(Flaw.KEY_ID)
        epoch = self._epoch
        if (known := self._keys.get(key_id)) is not None:
            return known
        record = await service_accounts.find(self._engine, key_id)
        if record is None:
            raise BadToken(Flaw.KEY_ID)
        public = cast("RSAPublicKey", load_pem_public_key(record.public_key.encode()))
        key = _Key(public, Caller(service_accounts.principal(record), record.account_id))
        if self._epoch == epoch:
            _evict(self._keys)
            self._keys[key_id] = key
        return key


def _digest(authorization: str) -> bytes:
    return sha256(authorization.encode("utf-8", "surrogatepass")).digest()


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.strip().partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise BadToken(Flaw.MISSING)
    if len(authorization) > MAX_HEADER_CHARACTERS:
        raise BadToken(Flaw.FORMAT)
    return token.strip()


def _check_times(claims: dict[str, Any], now: float) -> float:
    """Until when the token is valid, in Unix seconds. A `nbf` in the future counts like such an `iat`."""
    issued, expires = _time(claims.get("iat")), _time(claims.get("exp"))
    if expires - issued > MAX_LIFETIME_SECONDS:
        raise BadToken(Flaw.LIFETIME)
    if max(issued, _time(claims.get("nbf", issued))) > now + LEEWAY_SECONDS:
        raise BadToken(Flaw.FUTURE)
    if now > expires + LEEWAY_SECONDS:
        raise BadToken(Flaw.EXPIRED)
    return expires + LEEWAY_SECONDS


def _time(claim: object) -> float:
    # Also false for what is infinite or no number, without making a double of an integer that is too large for one.
    if isinstance(claim, int | float) and not isinstance(claim, bool) and abs(claim) < 2**53:
        return claim
    raise BadToken(Flaw.FORMAT)


def _is_issuer(issuer: object, account_id: int) -> bool:
    """The Python client, configured as its README says, sends "0", other clients a number or its text."""
    if isinstance(issuer, bool) or not isinstance(issuer, int | str):
        return False
    return str(issuer) in {"0", str(account_id)}


def _evict(cache: dict[Any, Any]) -> None:
    if len(cache) >= CACHED_TOKENS:
        del cache[next(iter(cache))]
