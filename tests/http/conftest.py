"""A server with a neighbour on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.neighbour import Neighbour, beside
from tests.support.serving import Server


@pytest.fixture
def neighbour(server: Server) -> Iterator[Neighbour]:
    """A neighbour on the module's server."""
    with beside(server) as present:
        yield present
