"""Fixtures for the tests of the Versori API."""

from __future__ import annotations

import pytest

from tests.support.clock import ManualClock
from tests.support.versori import Api


@pytest.fixture
def api(clock: ManualClock) -> Api:
    """The dialect over an empty store."""
    return Api(clock)
