"""Fixtures for every test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from kvasir.engine import Clock
from kvasir.engines.numbering import wall_clock
from kvasir.engines.postgres import PostgresEngine
from tests.support import engines, packages, postgres
from tests.support import serving as servers
from tests.support.clock import ManualClock
from tests.support.serving import Server, serving


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine",
        choices=["default", "postgresql"],
        default="default",
        help="what the tests of the APIs run on: what a server without settings takes, or a real PostgreSQL",
    )


def pytest_configure(config: pytest.Config) -> None:
    # The same examples in each run, so that what fails is the change and not the draw. Runs with more examples are for
    # finding something new, and draw anew.
    hypothesis.settings.register_profile("kvasir", derandomize="KVASIR_EXAMPLES" not in os.environ)
    hypothesis.settings.load_profile("kvasir")
    if config.getoption("--engine") == "postgresql":
        servers.databases = postgres.DatabasePerDirectory()
        engines.make_durable = _postgresql


def _postgresql(clock: Clock) -> PostgresEngine:
    """On a schema of its own of the shared server."""
    server = postgres.shared_server()
    # The wall clock is what an engine without a clock keeps for itself, as the database tells it.
    return postgres.postgres_engine(server.new_schema(), clock=None if clock is wall_clock else clock)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = ["only_sqlite"] if config.getoption("--engine") == "postgresql" else []
    left_out += ["one_server"] if os.environ.get("KVASIR_TEST_CITUS") else []
    others = [item for item in items if any(map(item.get_closest_marker, left_out))]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("--engine") == "default" and not os.environ.get("KVASIR_TEST_CITUS"):
        terminalreporter.write_line("tests/citus was left out: KVASIR_TEST_CITUS names no cluster (make test-citus)")


@pytest.fixture(autouse=True)
def _engines_end() -> Iterator[None]:
    """Those that a test has made in this process."""
    yield
    engines.close_engines()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the server, which all processes of a run share."""
    base = tmp_path_factory.getbasetemp()
    return packages.shared_wheel(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


@pytest.fixture(scope="session", autouse=True)
def _postgresql_ends() -> Iterator[None]:
    """Not left to the end of the process, which a test runner may cut short."""
    yield
    postgres.close_shared_server()


@pytest.fixture
def clock() -> ManualClock:
    """A clock for engines and stores."""
    return ManualClock()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with default settings, shared by the tests of one module."""
    with serving(tmp_path_factory.mktemp("server")) as running:
        yield running
