"""Fixtures of the client's tests: a real server, and both clients, which run the same tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kvasir_client import Client, Store

from clients.python.tests.support.blocking import Loop, blocking_client
from tests.support import postgres
from tests.support.serving import Server, serving

#: What others have written to be run in a process of its own.
collect_ignore = ["contracts"]

_names = itertools.count(1)

Connect = Callable[..., Client]


@pytest.fixture(scope="session", autouse=True)
def _postgresql_ends() -> Iterator[None]:
    yield
    postgres.close_shared_server()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with default settings, shared by the tests of one module."""
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(params=["blocking", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes clients of one kind: of the blocking one or of the one for asyncio."""
    made: list[Client] = []
    loop = Loop() if request.param == "asyncio" else None

    def make(*arguments: Any, **options: Any) -> Client:
        client = blocking_client(loop, *arguments, **options) if loop else Client(*arguments, **options)
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()
    if loop:
        loop.close()


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KVASIR_URL", "KVASIR_KEY", "KVASIR_STORE"):
        monkeypatch.delenv(name, raising=False)
    # The tests talk to this machine alone, whatever proxy it uses for others.
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def client(connect: Connect, server: Server) -> Client:
    """A client of the server, of either kind."""
    return connect(server.url, key=server.key)


@pytest.fixture
def kv(client: Client) -> Store:
    """A fresh store."""
    name = f"store-{next(_names)}"
    client.create_store(name)
    return client.store(name)
