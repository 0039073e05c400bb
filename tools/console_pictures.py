"""Pictures of the console for the documents: `python -m tools.console_pictures` writes docs/pictures/*.png.

A server of its own with made-up entries, Debian's Chromium, a window of 1280 x 800. Look at them before committing.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import httpx
from playwright.sync_api import Page, expect

from tests.support.browser import Browsing, chromium
from tests.support.console import place, put, sign_in
from tests.support.native import Client
from tests.support.serving import Server, serving

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
WINDOW = {"width": 1280, "height": 800}

MAIL = {
    "host": "mail.example.org",
    "ports": [25, 587],
    "retry": {"times": 3, "after": "5m"},
    "quota": 12345678901234567890,
    "enabled": True,
}


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory)) as server, chromium() as browser:
        browsing = Browsing(browser, server.url)
        kv = _fill(server)
        _entry(browsing.page(viewport=WINDOW), server, kv, "console")
        _merge(browsing, server, kv)
        _list(browsing.page(viewport=WINDOW, color_scheme="dark"), server, kv)
        _plots(browsing.page(viewport=WINDOW), server, kv)
        browsing.close()


def _fill(server: Server) -> Client:
    http = httpx.Client(base_url=f"{server.url}/v1/", headers=server.headers, trust_env=False)
    for name, kind in (("accounts", "store"), ("support-bot", "application")):
        http.post("spaces", json={"name": name, "kind": kind}).raise_for_status()
    kv = Client(http, http.post("spaces", json={"name": "shop"}).json()["id"])
    for number, name in enumerate(("dry mead", "sweet mead", "cyser", "metheglin", "braggot")):
        put(kv, ["products", str(number)], json.dumps({"name": name, "price": 9.5, "tags": ["honey"]}))
    put(kv, ["locks", "import"], '"worker 3"', "&ttl=15m")
    put(kv, ["sessions", "ada"], '{"cart": ["cyser"]}', "&ttl=24h&refresh=true")
    put(kv, ["config", "mail"], json.dumps(MAIL, indent=2), kvasir_metadata='{"by":"ada","ticket":17}')
    put(kv, ["config", "shop"], '{"currency": "EUR"}')
    return kv


def _save(page: Page, name: str) -> None:
    page.mouse.move(0, 0)
    # What changed has faded by then, and notices have gone.
    page.wait_for_timeout(3_000)
    page.screenshot(path=PICTURES / f"{name}.png")


def _entry(page: Page, server: Server, kv: Client, name: str) -> None:
    sign_in(page, server.key, place(kv, key=["config", "mail"]))
    page.locator(".cm-line").first.wait_for()
    page.get_by_role("treeitem", name="products").locator(".twist").click()
    _save(page, name)


def _merge(browsing: Browsing, server: Server, kv: Client) -> None:
    page = browsing.page(viewport=WINDOW)
    sign_in(page, server.key, place(kv, key=["config", "mail"]))
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Value").press("Control+End")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.type(',\n  "sender": "shop@example.org"')
    put(kv, ["config", "mail"], json.dumps(MAIL | {"host": "mail2.example.org"}, indent=2))
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("textbox", name="Their version")).to_be_visible()
    _save(page, "console-merge")


def _list(page: Page, server: Server, kv: Client) -> None:
    sign_in(page, server.key, place(kv, "list"))
    page.locator("#list [role=option]").nth(1).locator(".tick").click()
    page.locator("#list [role=option]").nth(2).click()
    page.locator(".cm-line").first.wait_for()
    _save(page, "console-list")


def _plots(page: Page, server: Server, kv: Client) -> None:
    ends = time.monotonic() + 60
    number = 0
    while time.monotonic() < ends:
        number += 1
        for _ in range(20 + number % 30):
            put(kv, ["products", str(number % 50)], '{"name": "mead"}')
        kv.get("products/1")
        time.sleep(0.2)
    sign_in(page, server.key, "/console/#/plots")
    page.locator("canvas").first.wait_for()
    _save(page, "console-plots")


if __name__ == "__main__":
    main()
