"""The laboratory, once for every engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import ENGINES, Lab


@pytest.fixture(params=ENGINES)
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """A fresh database of each kind."""
    lab = Lab(request.param, tmp_path)
    yield lab
    lab.close()


@pytest.fixture
def durable_lab(tmp_path: Path) -> Lab:
    """A fresh database of the kind that survives its process."""
    return Lab("sqlite", tmp_path)
