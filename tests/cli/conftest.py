"""Fixtures for the tests of the command line."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.kv import Kv
    from tests.support.serving import Server

_names = itertools.count(1)


@pytest.fixture
def kv(server: Server, tmp_path: Path) -> Kv:
    """The commands of `kvasir kv`, on a store of their own."""
    # Some tests beside this file run where nothing but parsers is installed.
    from kvasir_client import Client  # noqa: PLC0415

    from tests.support.kv import Kv  # noqa: PLC0415

    name = f"kv-{next(_names)}"
    with Client(server.url, key=server.key) as client:
        client.create_store(name)
    return Kv(server, name, tmp_path)
