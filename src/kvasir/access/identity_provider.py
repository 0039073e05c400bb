"""Verifies tokens (JWTs) of an identity provider: its key set, fetched when needed, and the claims that matter.

A token must be signed with a key of the set, by one of the configured asymmetric algorithms, for our issuer and
audience. Fetching never blocks the event loop, and strangers with made-up key ids cannot cause more than one fetch
every few seconds.
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

from kvasir.access import LEEWAY_SECONDS
from kvasir.config.table import Config
from kvasir.control.access_keys import ROLES
from kvasir.errors import Unauthenticated, Unavailable
from kvasir.jsontext import BYTE_ORDER_MARK
from kvasir.model import Principal

#: A key set older than this is fetched again in the background, so that withdrawn keys disappear.
MAX_KEY_SET_AGE_SECONDS = 300.0
#: The least time between two fetches, whatever the reason.
MIN_FETCH_INTERVAL_SECONDS = 10.0
FETCH_TIMEOUT_SECONDS = 5.0
MAX_KEY_SET_BYTES = 1_048_576
#: Without `exp` a token would be good for ever. PyJWT would refuse numbers as `sub` and `jti`, which some providers
#: send; both only name somebody or something.
_OPTIONS: Any = {"require": ["exp"], "verify_sub": False, "verify_jti": False}

#: Raised for a provider that cannot be reached or does not speak HTTP, and for what is not a key set (RecursionError:
#: brackets nested too deep).
FETCH_ERRORS = (OSError, TimeoutError, ValueError, http.client.HTTPException, msgspec.MsgspecError, RecursionError)

logger = logging.getLogger(__name__)


class IdentityProvider:
    """One issuer, its keys, and which of its claims name the organisation and the role. `jwks` is a URL or a file."""

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
    def from_config(cls, config: Config) -> IdentityProvider | None:
        """The provider that the settings name, if they name one."""
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

    async def verify(self, token: str) -> Principal:
        """The principal that a token names, valid until its `exp` and the leeway have passed.

        Raises `Unauthenticated`, saying why, and `Unavailable` while the key set cannot be fetched.
        """
        try:
            header = jwt.get_unverified_header(token)
            claims = jwt.decode(
                token,
                await self._key(header.get("kid"), header.get("alg")),
                algorithms=self._algorithms,
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_SECONDS,
                options=_OPTIONS,
            )
        except UnicodeEncodeError:  # bytes that are not text, in a header
            raise Unauthenticated("the token is not valid: it contains characters that no token has") from None
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"the token is not valid: {error}") from None
        organisation = _claim(claims, self._organisation_claim)
        try:
            organisation = str(ULID.from_str(str(organisation).upper()))
        except ValueError:
            raise Unauthenticated(f"the token's claim {self._organisation_claim!r} is not a ULID") from None
        claimed = _claim(claims, self._role_claim)
        roles = claimed if isinstance(claimed, list) else [claimed]
        # The most powerful of several; with none that we know, the caller is authenticated but may do nothing.
        role = next((role for role in ROLES if role in roles), "none")
        expires_at = (int(claims["exp"]) + LEEWAY_SECONDS) * 1_000
        return Principal(organisation, role, str(claims.get("sub", "token")), expires_at=expires_at)

    async def _key(self, kid: str | None, algorithm: str | None) -> jwt.PyJWK:
        if algorithm not in self._algorithms:
            raise jwt.InvalidAlgorithmError(f"its algorithm must be one of: {', '.join(self._algorithms)}")
        if kid not in self._keys or time.monotonic() - self._fetched > MAX_KEY_SET_AGE_SECONDS:
            await self._refresh(wait=kid not in self._keys)
        if kid not in self._keys and self._fetched < self._tried:
            # Perhaps the provider has a new key: whoever has a token of it must not be told that it is no good.
            raise Unavailable("the identity provider's keys cannot be fetched now; try again later")
        if kid not in self._keys:
            raise jwt.InvalidKeyError("the key set has no key with its key id (kid)")
        return jwt.PyJWK(self._keys[kid], self._keys[kid].get("alg") or algorithm)

    async def _refresh(self, *, wait: bool) -> None:
        """Fetch the key set unless that was tried a moment ago; one fetch serves everyone who waits."""
        if self._fetching is None or self._fetching.done():
            if time.monotonic() - self._tried < MIN_FETCH_INTERVAL_SECONDS:
                return
            self._tried = time.monotonic()
            self._fetching = asyncio.create_task(self._fetch())
        if wait:
            # Shielded: a caller who leaves must not cancel the fetch that others wait for.
            await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            text = await asyncio.wait_for(asyncio.to_thread(_read, self._jwks), 2 * FETCH_TIMEOUT_SECONDS)
            keys = _signing_keys(msgspec.json.decode(text.removeprefix(BYTE_ORDER_MARK)))
        except FETCH_ERRORS as error:
            # Some errors have no text, for example that of a response that is not HTTP.
            logger.warning(
                "the key set %s cannot be fetched: %s", self._jwks, str(error).strip() or type(error).__name__
            )
            return
        self._keys = keys
        self._fetched = time.monotonic()


def _read(source: str) -> bytes:
    """The text of a key set, from a URL or a file. Raises OSError, ValueError or HTTPException."""
    if not source.startswith(("http://", "https://")):
        return Path(source).read_bytes()
    # The scheme is checked above, and a redirect must not leave https.
    try:
        with urllib.request.urlopen(source, timeout=FETCH_TIMEOUT_SECONDS) as response:  # noqa: S310
            if source.startswith("https://") and not response.url.startswith("https://"):
                raise ValueError("it redirects to an address without TLS")
            text = bytes(response.read(MAX_KEY_SET_BYTES + 1))
    except urllib.error.HTTPError as error:
        error.close()
        raise
    if len(text) > MAX_KEY_SET_BYTES:
        raise ValueError(f"it is longer than {MAX_KEY_SET_BYTES:,} bytes")
    return text


def _signing_keys(document: Any) -> dict[str | None, dict[str, Any]]:
    """The public signing keys of a set by `kid`; the only key of a set also serves tokens without a `kid`."""
    if not isinstance(document, dict) or not isinstance(document.get("keys"), list):
        raise ValueError('it is not a key set, which is a JSON object with an array "keys"')
    usable: list[dict[str, Any]] = [
        key
        for key in document["keys"]
        if isinstance(key, dict) and key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"
    ]
    if not usable:
        raise ValueError("it contains no public key for signatures")
    found: dict[str | None, dict[str, Any]] = {key["kid"]: key for key in usable if isinstance(key.get("kid"), str)}
    if len(usable) == 1:
        found[None] = usable[0]
    return found


def _claim(claims: dict[str, Any], name: str) -> Any:
    """The claim of this name, or the nested one that a path such as `realm_access.roles` leads to."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for step in name.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value
