"""The laboratory, once for every engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import DURABLE, ENGINES, Lab


@pytest.fixture(params=ENGINES)
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """A fresh database of each kind."""
    lab = Lab(request.param, tmp_path)
    yield lab
    lab.close()


@pytest.fixture(params=DURABLE)
def durable_lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """A fresh database of each kind that survives its process."""
    lab = Lab(request.param, tmp_path)
    yield lab
    lab.close()
