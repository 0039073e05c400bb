"""Fixtures for pytest: `pytest_plugins = ["kvasir.testing"]` in a conftest.py, and `kvasirdb[pytest]` installed.

Each test gets a space of its own on a server that the session (with pytest-xdist: the worker) shares. Clock and faults
of a space are put back after the test, also a failed one. docs/testing.md begins with an example.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kvasir.testing.server import Server, Space

if TYPE_CHECKING:
    import kvasir_client

__all__ = ["Server", "Space"]


class Store(Space):
    """What the fixture `kvasir` gives: a store with nothing in it."""

    def __init__(self, server: Server) -> None:
        super().__init__(server, server.space().facts)
        #: Base URL, owner's access key and ULID of the store
        self.url, self.key, self.store = server.url, server.key, self.id
        self.organisation = str(server.facts["organisation"])
        self._closing = contextlib.ExitStack()

    @property
    def headers(self) -> dict[str, str]:
        """The credential of the Versori API and of Kvasir's own."""
        return {"Authorization": f"Bearer {self.key}"}

    @cached_property
    def client(self) -> kvasir_client.Store:
        """Kvasir's own client on this store."""
        import kvasir_client  # noqa: PLC0415  # most tests bring a client of their own

        return self._closing.enter_context(kvasir_client.Client(self.url, key=self.key)).store(self.store)

    def end(self) -> None:
        """End it, and close the client on it."""
        self._closing.close()
        super().end()


class Application(Space):
    """What the fixture `kvasir_voximplant` gives: an application with nothing in it."""

    def __init__(self, server: Server, credentials: Path) -> None:
        super().__init__(server, server.space("application").facts)
        self.url = str(server.facts["https"])
        self.application_id, self.application_name = int(self.facts["application_id"]), str(self.facts["name"])
        #: The credentials.json that the official clients read, and the certificate they have to trust
        self.credentials, self.ca = credentials, Path(server.facts["ca"])


class Session(Space):
    """What the fixture `kvasir_nemesis` gives: a session with nothing in it."""

    def __init__(self, server: Server) -> None:
        super().__init__(server, server.space("session").facts)
        self.url, self.token = f"{server.facts['nemesis']}/session", str(self.facts["token"])


@pytest.fixture(scope="session")
def kvasir_options() -> list[str]:
    """Options of `kvasir dev`; override it to add `--seed` or `--lenient`."""
    return ["--nemesis", "--https"]


@pytest.fixture(scope="session")
def kvasir_server(kvasir_options: list[str]) -> Iterator[Server]:
    """The server of this session; what it moves, it moves for every test."""
    server = Server(kvasir_options)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def kvasir(kvasir_server: Server) -> Iterator[Store]:
    """A store of its own."""
    space = Store(kvasir_server)
    yield space
    space.end()


@pytest.fixture
def kvasir_versori(kvasir: Store) -> Store:
    """A store of its own, for a program that speaks the Versori API at `url` with `headers`."""
    return kvasir


@pytest.fixture
def kvasir_voximplant(kvasir_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Application]:
    """An application of its own, for the official clients of Voximplant: credentials as a file, trust as variables."""
    credentials = tmp_path / "credentials.json"
    credentials.write_text(json.dumps(kvasir_server.facts["voximplant"]["credentials"]))
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(variable, str(kvasir_server.facts["ca"]))
    space = Application(kvasir_server, credentials)
    yield space
    space.end()


@pytest.fixture
def kvasir_nemesis(kvasir_server: Server) -> Iterator[Session]:
    """A session of its own, for a program that speaks NemesisDB's commands at `url` with `token`."""
    space = Session(kvasir_server)
    yield space
    space.end()
