"""Keys for the in-process tests, and a real server for the others."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.voximplant_live import Live, live


@functools.cache
def _pool() -> tuple[rsa.RSAPrivateKey, ...]:
    return tuple(rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(3))


@pytest.fixture(autouse=True)
def _shared_rsa_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making an RSA key takes a tenth of a second; a test's first three are different ones, as ever."""
    keys = itertools.cycle(_pool())
    monkeypatch.setattr("kvasir.control.service_accounts.rsa.generate_private_key", lambda **_: next(keys))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A real `kvasir serve`, over plain HTTP and TLS, with applications and a service account made by the commands."""
    with live(tmp_path_factory.mktemp("voximplant")) as running:
        yield running
