"""Plots, administration, keyboard, strange texts, what a key does not allow. Light on SQLite, dark on PostgreSQL."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.support import serving as servers
from tests.support.browser import Browsing
from tests.support.console import as_key, check_access, place, put, sign_in, stored, value_shown
from tests.support.native import Client
from tests.support.serving import Server, wait_until


@pytest.fixture
def page(browsing: Browsing) -> Page:
    scheme = "light" if servers.databases is None else "dark"
    return browsing.page(color_scheme=scheme, viewport={"width": 1280, "height": 800})


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{server.url}/v1/", headers=server.headers, trust_env=False) as client:
        yield client


@pytest.fixture
def kv(http: httpx.Client) -> Client:
    return Client(http, http.post("spaces", json={"name": "views"}).json()["id"])


def new_key(http: httpx.Client, **limits: object) -> str:
    return str(http.post("keys", json={"name": "limited"} | limits).json()["key"])


def test_look(page: Page, server: Server, http: httpx.Client) -> None:
    """Plots of what /v1/stats has, each with a table of the same."""
    wait_until(lambda: bool(http.get("stats").json()["samples"]), "the server has its first sample")
    sign_in(page, server.key)
    page.get_by_role("link", name="Plots").click()
    figures = page.locator("figure")
    expect(figures).to_have_count(10)
    expect(figures.first.locator("canvas")).to_be_visible()
    table = page.get_by_role("table", name=re.compile(r"Requests per second"))
    expect(table.get_by_role("columnheader")).to_contain_text(["Until", "/v1"])
    entries = page.get_by_role("table", name=re.compile("^Entries"))
    expect(entries.get_by_role("cell").last).to_have_text(str(http.get("stats").json()["samples"][-1]["entries"]))
    check_access(page, "plots")


def test_administer_access_keys(page: Page, server: Server, http: httpx.Client) -> None:
    sign_in(page, server.key, "/console/#/access")
    page.get_by_role("button", name="New access key").click()
    page.get_by_label("Name", exact=True).fill("<b>reader</b>")
    page.get_by_label("Only keys below").fill("products")
    check_access(page, "new access key")
    page.get_by_role("button", name="Make the key").click()
    secret = page.get_by_role("textbox", name="Access key").input_value()
    check_access(page, "secret")
    assert httpx.get(f"{server.url}/v1", headers={"Authorization": f"Bearer {secret}"}).json()["caller"]["prefix"] == [
        "products"
    ]
    page.get_by_role("button", name="I have kept it").click()
    # Once shown, it is nowhere on the page.
    assert secret not in page.content()
    row = page.get_by_role("row").filter(has_text="<b>reader</b>")
    expect(row).to_contain_text("viewer")
    check_access(page, "access keys")
    row.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(row).to_have_count(0)
    assert httpx.get(f"{server.url}/v1", headers={"Authorization": f"Bearer {secret}"}).status_code == 401


def test_administer_service_accounts(page: Page, server: Server, http: httpx.Client) -> None:
    sign_in(page, server.key, "/console/#/accounts")
    page.get_by_role("button", name="New service account").click()
    page.get_by_label("Description").fill("of the shop")
    page.get_by_role("button", name="Make the account").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as credentials.json").click()
    made = json.loads(download.value.path().read_text())
    assert made["private_key"].startswith("-----BEGIN")
    page.get_by_role("button", name="I have kept it").click()
    row = page.get_by_role("row").filter(has_text="of the shop")
    expect(row).to_contain_text(made["key_id"])
    check_access(page, "service accounts")
    row.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(row).to_have_count(0)


def test_administer_stores(page: Page, server: Server, http: httpx.Client) -> None:
    sign_in(page, server.key, "/console/#/spaces")
    page.get_by_role("button", name="New", exact=True).click()
    page.get_by_label("Name", exact=True).fill("cellar")
    page.get_by_role("button", name="Make it").click()
    row = page.get_by_role("row").filter(has_text="cellar")
    row.get_by_role("button", name="Rename").click()
    page.get_by_label("Name", exact=True).fill("deep cellar")
    page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    expect(page.get_by_role("link", name="deep cellar")).to_be_visible()
    check_access(page, "spaces")
    row.get_by_role("button", name="End").click()
    end = page.get_by_role("dialog").get_by_role("button", name="End the store")
    expect(end).to_be_disabled()
    page.get_by_label("Write its name to confirm").fill("deep cellar")
    end.click()
    expect(row).to_have_count(0)
    assert "deep cellar" not in [space["name"] for space in http.get("spaces").json()["spaces"]]


def test_everything_by_keyboard_alone(page: Page, server: Server, kv: Client, http: httpx.Client) -> None:
    put(kv, ["a"], "1")
    put(kv, ["b", "c"], '{"x": 1}')
    keys = page.keyboard
    page.goto(place(kv))
    expect(page.get_by_label("Access key")).to_be_focused()
    keys.insert_text(server.key)
    keys.press("Enter")
    page.get_by_role("treeitem").first.wait_for()
    check_access(page, "keyboard")
    # Help, and away again.
    keys.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()
    check_access(page, "help")
    keys.press("Escape")
    # Search, then the tree by arrows.
    keys.press("/")
    expect(page.get_by_label("Go to a prefix or key")).to_be_focused()
    for _ in range(5):
        keys.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('role')") == "tree":
            break
    keys.press("ArrowDown")
    keys.press("ArrowRight")
    expect(page.get_by_role("treeitem", name="c", exact=True)).to_be_visible()
    keys.press("ArrowDown")
    keys.press("Enter")
    assert value_shown(page) == '{"x": 1}'
    # Edit, save, leave the editor.
    keys.press("e")
    expect(page.get_by_role("textbox", name="Value")).to_be_focused()
    keys.press("Control+End")
    keys.press("ArrowLeft")
    keys.type(', "y": 2')
    keys.press("Control+s")
    expect(page.get_by_text("Saved.")).to_be_visible()
    assert stored(kv, ["b", "c"]) == '{"x": 1, "y": 2}'
    # A new key.
    keys.press("n")
    expect(page.get_by_label("Key", exact=True)).to_be_focused()
    keys.type("d")
    keys.press("Enter")
    expect(page.get_by_role("textbox", name="Value")).to_be_focused()
    keys.type("3")
    keys.press("Control+s")
    expect(page.get_by_role("treeitem", name="d", exact=True)).to_be_visible()
    assert stored(kv, ["d"]) == "3"
    # Delete it.
    page.locator("#tree").focus()
    keys.press("End")
    keys.press("Delete")
    expect(page.get_by_role("dialog", name="Delete 1 entry")).to_be_visible()
    keys.press("Tab")
    keys.press("Enter")
    expect(page.get_by_text("1 entry deleted.")).to_be_visible()
    assert stored(kv, ["d"]) is None


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
