"""Strange texts, what a key does not allow, signing in and out, narrow screens."""

from __future__ import annotations

import json
import re

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import Browsing
from tests.support.console import as_key, check_access, new_space, place, put, sign_in, stored, value_shown
from tests.support.native import Client
from tests.support.serving import Server


@pytest.fixture
def page(themed: Page) -> Page:
    return themed


@pytest.fixture
def kv(http: httpx.Client) -> Client:
    return new_space(http)


def new_key(http: httpx.Client, **limits: object) -> str:
    return str(http.post("keys", json={"name": "limited"} | limits).json()["key"])


#: Texts that a page might take for something else.
STRANGE = [
    "<script>window.hit = 1</script>",
    '<img src=x onerror="window.hit = 1">',
    "\"'`${window.hit = 1}",
    "\u202eevil\u2066",
    "line\u2028end\u2029",
    "\x00\x1b[31m\r\n\t",
    "../%2e%2e;#/",
    "\U0001f600",
    "x" * 1900,
]


def test_strange_texts_are_shown_as_text(page: Page, server: Server, kv: Client) -> None:
    for text in STRANGE:
        put(kv, [text, ""], json.dumps({text: text}, ensure_ascii=False), kvasir_metadata=json.dumps({"m": text[:300]}))
    sign_in(page, server.key, place(kv))
    page.get_by_role("treeitem").first.wait_for()
    for text in STRANGE:
        page.goto(place(kv, base=[text], key=[text, ""]))
        heading = page.locator(".pane-head h1")
        expect(heading).to_contain_text("empty")
        expect(page.locator(".facts .metadata")).to_be_visible()
        shown = page.locator(".pane .cm-content").inner_text()
        assert "\u202e" not in heading.inner_text()
        assert "\u202e" not in shown
    page.goto(place(kv, "list"))
    page.locator("#list [role=option]").first.wait_for()
    assert page.evaluate("window.hit") is None
    # What is long is cut where it is a row, and says so.
    expect(page.locator("#list")).to_contain_text("more characters")


def test_ten_thousand_characters_in_a_part_are_refused_in_words(page: Page, server: Server, kv: Client) -> None:
    """No key of the store is so long; the box says so, and the page stays as it is."""
    sign_in(page, server.key, place(kv))
    page.get_by_label("Go to a prefix or key").fill(as_key("x" * 10_000))
    page.keyboard.press("Enter")
    expect(page.locator("#jump-failure")).to_contain_text("2,048")


def test_a_viewer_sees_nothing_that_changes_anything(
    page: Page, server: Server, kv: Client, http: httpx.Client
) -> None:
    put(kv, ["a"], "1")
    sign_in(page, new_key(http, role="viewer"), place(kv, key=["a"]))
    assert value_shown(page) == "1"
    changing = re.compile(r"Edit|Delete|New|Import|Expiry|Metadata|Make|Revoke|Rename")
    expect(page.get_by_role("button", name=changing)).to_have_count(0)
    expect(page.get_by_role("link", name="Access keys")).to_have_count(0)
    page.keyboard.press("e")
    page.keyboard.press("n")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.goto(place(kv, "list"))
    page.locator("#list [role=option]").first.wait_for()
    expect(page.get_by_role("checkbox")).to_have_count(0)
    expect(page.locator(".tick")).to_have_count(0)
    # Neither by its address.
    page.goto("/console/#/access")
    expect(page.get_by_role("heading", name="Access keys")).to_have_count(0)


def test_a_key_that_is_limited_to_a_prefix_sees_only_that(
    page: Page, server: Server, kv: Client, http: httpx.Client
) -> None:
    put(kv, ["mine", "a"], "1")
    put(kv, ["other", "b"], "2")
    sign_in(page, new_key(http, role="developer", prefix=["mine"]), place(kv))
    expect(page.get_by_role("treeitem")).to_have_text(["a"])
    page.get_by_label("Go to a prefix or key").fill("other")
    page.keyboard.press("Enter")
    expect(page.locator("#jump-failure")).to_contain_text("This access key opens only")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    put(kv, ["other", "c"], "3")
    put(kv, ["mine", "d"], "3")
    expect(page.get_by_role("treeitem")).to_have_text(["a", "d"])


def test_signing_in_and_out(page: Page, server: Server, kv: Client, browsing: Browsing) -> None:
    page.goto("/console/")
    check_access(page, "sign in")
    page.get_by_label("Access key").fill("no such key")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("Paste an access key")
    page.get_by_label("Access key").fill("x" * 40)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("does not know this access key")
    page.get_by_label("Access key").fill(server.key)
    page.get_by_role("button", name="Sign in").click()
    page.locator("header.top").wait_for()
    # Not kept unless asked to be.
    assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [0, 0, ""]
    page.reload()
    page.get_by_label("Access key").fill(server.key)
    page.get_by_label("Stay signed in").check()
    page.get_by_role("button", name="Sign in").click()
    page.locator("header.top").wait_for()
    page.reload()
    page.locator("header.top").wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Access key").wait_for()
    assert page.evaluate("sessionStorage.length") == 0
    assert not [url for url, _ in browsing.requests if server.key in url]


def test_a_revoked_key_is_signed_out(page: Page, server: Server, kv: Client, http: httpx.Client) -> None:
    made = http.post("keys", json={"name": "short", "role": "developer"}).json()
    sign_in(page, made["key"], place(kv))
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    # Its watch ends, and is refused when it connects again.
    http.delete(f"keys/{made['id']}")
    expect(page.get_by_role("alert")).to_contain_text("no longer takes this access key")
    expect(page.get_by_label("Access key")).to_be_visible()


@pytest.mark.parametrize(("width", "height"), [(390, 844), (640, 400)], ids=["narrow", "at 200 %"])
def test_every_view_fits_its_screen(browsing: Browsing, server: Server, kv: Client, width: int, height: int) -> None:
    """Nothing is cut off at the side, and axe finds nothing there either."""
    put(kv, ["config", "mail"], '{"host": "mail.example.org"}', kvasir_metadata='{"by":"ada"}')
    page = browsing.page(viewport={"width": width, "height": height})
    sign_in(page, server.key)
    views = [place(kv), place(kv, "list"), place(kv, key=["config", "mail"]), "/console/#/"]
    for address in (*views, *(f"/console/#/{name}" for name in ("plots", "access", "accounts", "spaces"))):
        page.goto(address)
        page.locator(":is(.keys, .pane, .sheet, .spaces):visible").first.wait_for()
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, address
        check_access(page, address)
    # Offers to undo, as many as there are, cover no button and are not lost.
    for number in range(6):
        put(kv, ["gone", str(number)], "1")
        page.goto(place(kv, key=["gone", str(number)]))
        page.locator("#delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete 1 entry").click()
        page.locator("#entry").get_by_role("button", name="Make one").wait_for()
    for button in page.locator("#entry .below button").all():
        button.click(trial=True)
    check_access(page, "notices")
    page.get_by_role("button", name="4 earlier").click()
    page.get_by_role("button", name="Undo").first.click()
    expect(page.get_by_text("The entry is back.")).to_be_visible()
    assert stored(kv, ["gone", "0"]) == "1"
