"""Credentials: Authorization and Cookie headers, service tokens, tokens of an identity provider, key sets.

An input is a letter and what it is about: a header, a cookie, or the header and the claims of a token with a good
signature (JSON, on a line each), or a key set. Nobody gets in but by the credentials that exist.
"""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from kvasir.access import identity_provider
from kvasir.access.authenticator import Authenticator
from kvasir.access.identity_provider import IdentityProvider
from kvasir.access.service_tokens import BadToken, ServiceTokenVerifier
from kvasir.errors import Unauthenticated, Unavailable
from tests.fuzz import done
from tests.support.identity_provider import AUDIENCE, ISSUER, rsa_jwk, rsa_key
from tests.support.voximplant import World, private_key

WORLD = World()
ACCOUNT_KEY = private_key(WORLD.credentials.private_key)
PROVIDER = IdentityProvider("a file", ISSUER, AUDIENCE, organisation_claim="a.organisation", role_claim="role")
PROVIDER._keys = {"k1": rsa_jwk("k1"), None: rsa_jwk("k1")}
PROVIDER._fetched = time.monotonic() + 10**9
PROVIDER._tried = PROVIDER._fetched
AUTHENTICATOR = Authenticator(WORLD.store, WORLD.engine, PROVIDER)


def check(data: bytes) -> None:
    kind, rest = data[:1], data[1:]
    if kind == b"s":
        check_signed(rest)
    elif kind == b"k":
        check_key_set(rest)
    elif kind == b"c":
        refused(None, rest.decode("latin-1"))
    else:
        header = rest.decode("latin-1")
        refused(header, None)
        refused("Bearer " + header, None)
        check_service(header)
        check_service("Bearer " + header)


def refused(header: str | None, cookie: str | None) -> None:
    try:
        principal = done(AUTHENTICATOR.authenticate(header, cookie))
    except (Unauthenticated, Unavailable):
        return
    raise AssertionError(f"{principal} got in")


def check_service(header: str, account: int | None = None) -> None:
    try:
        caller = done(ServiceTokenVerifier(WORLD.store, WORLD.engine).verify(header))
    except BadToken:
        return
    assert account is not None, "a token without a good signature"
    assert caller.account_id == account


def check_signed(rest: bytes) -> None:
    head, _, payload = rest.partition(b"\n")
    for key, kid in ((ACCOUNT_KEY, WORLD.credentials.key_id), (rsa_key("k1"), "k1")):
        token = signed(head.replace(b"KID", kid.encode()), payload, key)
        check_service(f"Bearer {token}", WORLD.credentials.account_id)
        check_provider(token, payload)


def signed(head: bytes, payload: bytes, key: RSAPrivateKey) -> str:
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (head, payload))
    signature = key.sign(text, PKCS1v15(), hashes.SHA256())
    return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()


def check_provider(token: str, payload: bytes) -> None:
    try:
        principal = done(PROVIDER.verify(token))
    except (Unauthenticated, Unavailable):
        return
    claims: dict[str, Any] = json.loads(payload)
    assert claims["iss"] == ISSUER
    assert principal.organisation == str(claims.get("a.organisation") or claims["a"]["organisation"]).upper()
    assert principal.role in ("owner", "admin", "developer", "viewer", "none")
    assert principal.name.__class__ is str


def check_key_set(rest: bytes) -> None:
    try:
        keys = identity_provider._signing_keys(msgspec.json.decode(rest))
    except identity_provider.FETCH_ERRORS:
        return
    provider = IdentityProvider("a file", ISSUER, AUDIENCE)
    provider._keys = keys
    provider._fetched = provider._tried = PROVIDER._fetched
    for kid in keys:
        token = jwt.encode({"iss": ISSUER}, rsa_key("k1"), "RS256", headers={} if kid is None else {"kid": kid})
        try:
            done(provider.verify(token))
        except (Unauthenticated, Unavailable):
            continue
        raise AssertionError("a token without exp got in")
