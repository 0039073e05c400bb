"""Tokens (JWTs) of an identity provider -> `Principal`: its key set, fetched when needed, and the claims that count.

Only signatures by keys of the set, by pinned asymmetric algorithms, for our issuer and audience, count. Fetching never
holds up the event loop, nor may strangers with made-up key ids cause more than one fetch every few seconds.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jwt
import msgspec
from ulid import ULID

from kvasir.config.table import Config
from kvasir.control.access_keys import ROLES
from kvasir.errors import Unauthenticated, Unavailable
from kvasir.model import Principal

#: A key set older than this is fetched anew in the background, so that withdrawn keys go.
KEYS_SECONDS = 300.0
#: Shortest time between two fetches, whatever the reason.
FETCH_PAUSE_SECONDS = 10.0
FETCH_TIMEOUT_SECONDS = 5.0
KEY_SET_BYTES = 1_048_576
#: How far the clocks of the provider and this machine may differ.
CLOCK_SECONDS = 5.0

#: What comes of a provider that cannot be reached, speaks no HTTP or sends no key set; brackets nested deep included.
UNUSABLE = (OSError, TimeoutError, ValueError, http.client.HTTPException, msgspec.MsgspecError, RecursionError)

logger = logging.getLogger(__name__)


class IdentityProvider:
    """One issuer, its keys, and how its claims are read."""

    def __init__(
        self,
        jwks: str,
        issuer: str,
        audience: str,
        *,
        algorithms: Sequence[str] = ("RS256", "ES256"),
        organisation_claim: str = "organisation",
        role_claim: str = "role",
    ) -> None:
        self._jwks = jwks
        self._issuer = issuer
        self._audience = audience
        self._algorithms = list(algorithms)
        self._organisation_claim = organisation_claim
        self._role_claim = role_claim
        self._keys: dict[str | None, dict[str, Any]] = {}
        self._fetching: asyncio.Task[None] | None = None
        self._fetched = self._tried = -float("inf")

    @classmethod
    def of(cls, config: Config) -> IdentityProvider | None:
        """The provider that the settings name; None: none."""
        if config.jwks is None or config.jwt_issuer is None or config.jwt_audience is None:
            return None
        return cls(
            config.jwks,
            config.jwt_issuer,
            config.jwt_audience,
            algorithms=config.jwt_algorithms,
            organisation_claim=config.jwt_organisation_claim,
            role_claim=config.jwt_role_claim,
        )

    async def principal(self, token: str) -> Principal:
        """Who a token names, until its `exp`.

        Raises `Unauthenticated`, saying why, and `Unavailable` while the key set cannot be had.
        """
        try:
            header = jwt.get_unverified_header(token)
            claims = jwt.decode(
                token,
                await self._key(header.get("kid"), header.get("alg")),
                algorithms=self._algorithms,
                issuer=self._issuer,
                audience=self._audience,
                leeway=CLOCK_SECONDS,
                options={"require": ["exp"]},
            )
        except UnicodeEncodeError:  # a header of bytes that are no text
            raise Unauthenticated("the token is not valid: it holds characters that no token has") from None
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"the token is not valid: {error}") from None
        organisation = _claim(claims, self._organisation_claim)
        try:
            organisation = str(ULID.from_str(str(organisation).upper()))
        except ValueError:
            raise Unauthenticated(f"the token's claim {self._organisation_claim!r} holds no ULID") from None
        said = _claim(claims, self._role_claim)
        roles = said if isinstance(said, list) else [said]
        # Of several, the one that may do most; without any, the caller is known but may do nothing.
        role = next((role for role in ROLES if role in roles), "none")
        return Principal(organisation, role, str(claims.get("sub", "token")), expires_at=int(claims["exp"]) * 1_000)

    async def _key(self, kid: str | None, algorithm: str | None) -> jwt.PyJWK:
        if algorithm not in self._algorithms:
            raise jwt.InvalidAlgorithmError(f"its algorithm must be one of: {', '.join(self._algorithms)}")
        if kid not in self._keys or time.monotonic() - self._fetched > KEYS_SECONDS:
            await self._refresh(wait=kid not in self._keys)
        if not self._keys:
            raise Unavailable("the identity provider's keys cannot be fetched now; try again later")
        if kid not in self._keys:
            raise jwt.InvalidKeyError("no key of the key set has its key id (kid)")
        return jwt.PyJWK(self._keys[kid], self._keys[kid].get("alg") or algorithm)

    async def _refresh(self, *, wait: bool) -> None:
        """Fetch the key set, if it was not tried just now; one fetch serves everyone who waits."""
        if self._fetching is None or self._fetching.done():
            if time.monotonic() - self._tried < FETCH_PAUSE_SECONDS:
                return
            self._tried = time.monotonic()
            self._fetching = asyncio.create_task(self._fetch())
        if wait:
            # Shielded: a caller who leaves must not take the others' keys with it.
            await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            text = await asyncio.wait_for(asyncio.to_thread(_read, self._jwks), 2 * FETCH_TIMEOUT_SECONDS)
            keys = _signing_keys(msgspec.json.decode(text))
        except UNUSABLE as error:
            # Some say nothing, as a line that is no HTTP does.
            logger.warning("the key set %s cannot be had: %s", self._jwks, str(error).strip() or type(error).__name__)
            return
        self._keys = keys
        self._fetched = time.monotonic()


def _read(source: str) -> bytes:
    """The text of a key set. Raises OSError, ValueError or HTTPException."""
    if not source.startswith(("http://", "https://")):
        return Path(source).read_bytes()
    # The scheme is checked above, and a redirect may not leave it.
    try:
        with urllib.request.urlopen(source, timeout=FETCH_TIMEOUT_SECONDS) as answer:  # noqa: S310
            if source.startswith("https://") and not answer.url.startswith("https://"):
                raise ValueError("it redirects to an address without TLS")
            text = bytes(answer.read(KEY_SET_BYTES + 1))
    except urllib.error.HTTPError as error:
        error.close()
        raise
    if len(text) > KEY_SET_BYTES:
        raise ValueError(f"it is longer than {KEY_SET_BYTES:,} bytes")
    return text


def _signing_keys(document: Any) -> dict[str | None, dict[str, Any]]:
    """The public signature keys of a set by `kid`; a set of one key also serves tokens without `kid`."""
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError('it is no key set: a JSON object with a member "keys"')
    usable: list[dict[str, Any]] = [
        key
        for key in document["keys"]
        if isinstance(key, dict) and key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"
    ]
    if not usable:
        raise ValueError("it holds no public key for signatures")
    found: dict[str | None, dict[str, Any]] = {key["kid"]: key for key in usable if isinstance(key.get("kid"), str)}
    if len(usable) == 1:
        found[None] = usable[0]
    return found


def _claim(claims: dict[str, Any], name: str) -> Any:
    """The claim of this name, or the one that dots lead to: `realm_access.roles`."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for step in name.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value
