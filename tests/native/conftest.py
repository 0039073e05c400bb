"""Fixtures for the tests of Kvasir's own API."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import httpx
import pytest

from tests.support.native import Client
from tests.support.serving import Server

_numbers = itertools.count(1)


@pytest.fixture
def v1(server: Server) -> Iterator[httpx.Client]:
    """A client of the API, with the owner's key."""
    with httpx.Client(base_url=f"{server.url}/v1/", headers=server.headers, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def kv(v1: httpx.Client) -> Client:
    """A store that nothing has been written to."""
    return Client(v1, v1.post("spaces", json={"name": f"store {next(_numbers)}"}).json()["id"])
