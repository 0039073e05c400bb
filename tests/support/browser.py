"""Debian's Chromium, driven by Playwright, and what a page must never do while a test looks."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, Request, sync_playwright

#: Where Debian has it
CHROMIUM = "/usr/bin/chromium"

#: Says the policy's name wherever a policy was violated, in words that no Chromium changes.
_TELL_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) => {
  console.error(`violation of ${event.effectiveDirective} by ${event.blockedURI || event.sample}`);
});
"""

#: What Chromium logs about each answer of 400 and more; the API's are for the page to handle.
_REFUSED = re.compile(r"Failed to load resource: the server responded with a status of \d+")


@contextlib.contextmanager
def chromium(*options: str) -> Iterator[Browser]:
    """A running Chromium, with options of its command line. Skips where there is none; CI has to have it."""
    found = CHROMIUM if os.path.exists(CHROMIUM) else shutil.which("chromium")  # noqa: PTH110
    if found is None:
        missing = "Chromium is missing: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    # Its own sandbox refuses to work for root.
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=[*sandbox, *options])
        try:
            yield browser
        finally:
            browser.close()


class Browsing:
    """Browser contexts (each like a browser of its own) whose pages are watched."""

    def __init__(self, browser: Browser, origin: str) -> None:
        self._browser = browser
        self._origin = origin
        self._contexts: list[BrowserContext] = []
        #: What pages did that they must not. A test that provokes such a thing empties it.
        self.faults: list[str] = []
        #: The URL and the headers of every request
        self.requests: list[tuple[str, dict[str, str]]] = []

    def context(self, **options: Any) -> BrowserContext:
        """A new one; `options` are Playwright's: color_scheme, viewport …"""
        context = self._browser.new_context(base_url=self._origin, **options)
        context.add_init_script(_TELL_VIOLATIONS)
        context.on("console", self._said)
        context.on("weberror", lambda error: self.faults.append(f"error: {error.error}"))
        context.on("request", self._requested)
        self._contexts.append(context)
        return context

    def page(self, **options: Any) -> Page:
        """A page in a context of its own."""
        return self.context(**options).new_page()

    def close(self) -> None:
        """Close everything, then fail if a page did what it must not."""
        for context in self._contexts:
            with contextlib.suppress(Error):  # closed by the test
                context.close()
        assert not self.faults, "\n".join(self.faults)

    def _said(self, message: ConsoleMessage) -> None:
        refused = _REFUSED.match(message.text) and message.location["url"].startswith(f"{self._origin}/v1")
        if message.type in ("error", "warning", "assert") and not refused:
            self.faults.append(f"console: {message.text} ({message.location['url']})")

    def _requested(self, request: Request) -> None:
        self.requests.append((request.url, request.headers))
        if not request.url.startswith((f"{self._origin}/", "data:", "blob:")):
            self.faults.append(f"a request to another origin: {request.url}")
