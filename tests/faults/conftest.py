"""On which database the servers that are hurt keep their data."""

from __future__ import annotations

import pytest

from tests.support import postgres, serving


@pytest.fixture(params=["sqlite", "postgresql"])
def each_engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test twice: with the file in the data directory, and with a database of a real PostgreSQL instead."""
    if request.param == "postgresql":
        monkeypatch.setattr(serving, "databases", postgres.DatabasePerDirectory())
