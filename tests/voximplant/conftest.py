"""Making an RSA key takes a tenth of a second, so the in-process tests share a few."""

from __future__ import annotations

import functools
import itertools

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa


@functools.cache
def _pool() -> tuple[rsa.RSAPrivateKey, ...]:
    return tuple(rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(3))


@pytest.fixture(autouse=True)
def _shared_rsa_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test's first three service accounts have different keys, as ever."""
    keys = itertools.cycle(_pool())
    monkeypatch.setattr("kvasir.service_accounts.rsa.generate_private_key", lambda **_: next(keys))
