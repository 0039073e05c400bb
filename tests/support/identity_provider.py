"""Tokens and key sets as an identity provider makes them."""

from __future__ import annotations

import json
import time
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import RSAAlgorithm

from tests.support.organisations import ORGANISATION

ISSUER = "https://identity.example.org/"
AUDIENCE = "kvasir"


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    """A key pair by name; making one takes a moment."""
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


@cache
def ec_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def rsa_jwk(kid: str | None, **more: Any) -> dict[str, Any]:
    named = {} if kid is None else {"kid": kid}
    return RSAAlgorithm.to_jwk(rsa_key(kid or "only").public_key(), as_dict=True) | named | more


def key_set(*keys: dict[str, Any]) -> str:
    return json.dumps({"keys": keys})


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims with some replaced; None: left out."""
    now = int(time.time())
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 300}
    good |= {"organisation": ORGANISATION, "role": "developer"} | changes
    return {name: value for name, value in good.items() if value is not None}


def token(kid: str | None = "k1", algorithm: str = "RS256", **changes: Any) -> str:
    headers = {} if kid is None else {"kid": kid}
    key: Any = ec_key() if algorithm == "ES256" else rsa_key(kid or "only")
    return jwt.encode(claims(**changes), key, algorithm, headers=headers)
