"""Fixtures for the tests of the console: one browser for all of them, a page that may do nothing wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page

from tests.support import serving as servers
from tests.support.browser import Browsing, chromium
from tests.support.console import EXACT, new_space, put
from tests.support.native import Client
from tests.support.serving import Server

THEMES = ("light", "dark")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The tests of a module are light and dark in turn; see test_rows.py."""
    if "theme" in metafunc.fixturenames:
        names = [name for name in vars(metafunc.module) if name.startswith("test_")]
        turn = (names.index(metafunc.function.__name__) + (servers.databases is not None)) % 2
        everything = os.environ.get("KVASIR_CONSOLE_THEMES") == "all"
        metafunc.parametrize("theme", THEMES if everything else (THEMES[turn],))


# Not longer than these tests: Playwright has the thread's event loop for as long as it is there.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A running Chromium."""
    with chromium() as running:
        yield running


@pytest.fixture
def browsing(browser: Browser, server: Server) -> Iterator[Browsing]:
    """Makes pages; the test fails if one violates a policy, logs an error or asks another origin for anything."""
    made = Browsing(browser, server.url)
    yield made
    made.close()


@pytest.fixture
def page(browsing: Browsing) -> Page:
    """A page in a browser context of its own; relative addresses are the server's."""
    return browsing.page()


@pytest.fixture
def themed(browsing: Browsing, theme: str) -> Page:
    """The same in light or dark."""
    return browsing.page(color_scheme=theme, viewport={"width": 1280, "height": 800})


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    """Whoever may do everything."""
    with httpx.Client(base_url=f"{server.url}/v1/", headers=server.headers, trust_env=False) as client:
        yield client


@pytest.fixture
def kv(http: httpx.Client) -> Client:
    """A store of its own, with some keys in it."""
    kv = new_space(http)
    put(kv, ["exact"], EXACT)
    put(kv, ["products"], '"overview"')
    for number in range(3):
        put(kv, ["products", str(number)], json.dumps({"name": f"mead {number}"}))
    put(kv, ["config", "mail"], '{"host": "mail.example.org"}', kvasir_metadata='{"by":"ada","ticket":17.50}')
    put(kv, ["session", "abc"], '{"user": "ada"}', "&ttl=2h&refresh=true")
    return kv
