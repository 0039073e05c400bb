"""What the tests of a real cluster need; without one they are left out."""

from __future__ import annotations

import os
import uuid

import pytest

from tests.support.cluster import Cluster
from tests.support.postgres import ClusterServer, shared_server

if not os.environ.get("KVASIR_TEST_CITUS"):
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    """A database spread over all nodes, without tables yet."""
    server = shared_server()
    assert isinstance(server, ClusterServer)
    name = f"kvasir_{uuid.uuid4().hex}"
    server.new_database(name)
    return Cluster(server, name)
