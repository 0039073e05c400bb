"""Fixtures for the tests of the console: one browser for all of them, a page that may do nothing wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.support.browser import Browsing, chromium
from tests.support.serving import Server


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
