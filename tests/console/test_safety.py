"""What the console must not do with credentials, keys and values; and what it does not offer to whom."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Page, expect

from kvasir.cli.console import page_of
from tests.support.browser import Browsing
from tests.support.console import check_access, sign_in
from tests.support.native import Client, array
from tests.support.serving import Server

SECRET = "a value that belongs in no address"

#: What a page keeps beside its memory.
KEPT = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"


@pytest.fixture(scope="module")
def v1(server: Server) -> Iterator[httpx.Client]:
    """Whoever administers."""
    with httpx.Client(base_url=f"{server.url}/v1/", headers=server.headers, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def kv(v1: httpx.Client) -> Client:
    """A store with a few entries."""
    kv = Client(v1, v1.post("spaces", json={"name": "safe"}).json()["id"])
    for key in ("inside/one", "inside/two", "outside/three"):
        kv.set(key, {"secret": SECRET})
    return kv


def key_of(v1: httpx.Client, **scope: Any) -> Any:
    return v1.post("keys", json={"name": "test", "role": "viewer"} | scope).json()


def is_valid(server: Server, key: str) -> bool:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.get(f"{server.url}/v1", headers=headers, trust_env=False).status_code == 200


def link_of(v1: httpx.Client) -> str:
    return str(v1.post("console/links").json()["path"])


def by_link(page: Page, path: str) -> Any:
    """Follow a one-time link: the access key that the page got."""
    with page.expect_response("**/v1/console/exchange") as exchange:
        page.goto(path)
    made = exchange.value.json()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    return made


def test_a_link_signs_in_once_and_signing_out_revokes(
    page: Page, browsing: Browsing, v1: httpx.Client, server: Server
) -> None:
    path = link_of(v1)
    code = path.partition("=")[2]
    made = by_link(page, path)
    assert code not in page.url
    assert page.evaluate("history.length") == 2  # the blank page of a new tab, and this one
    assert made["key"] not in page.evaluate(KEPT)
    assert is_valid(server, made["key"])

    other = browsing.page()
    other.goto(path)
    expect(other.get_by_text("has been used")).to_be_visible()
    assert code not in other.url
    expect(other.get_by_label("Access key")).to_be_visible()

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Access key")).to_be_visible()
    assert not is_valid(server, made["key"])
    assert page.evaluate(KEPT) == '[{},{},""]'
    assert server.key not in page.content()
    assert made["key"] not in page.content()
    page.reload()
    expect(page.get_by_label("Access key")).to_be_visible()
    assert all(code not in url for url, _ in browsing.requests)


def test_a_link_opens_by_way_of_a_file(
    page: Page, browsing: Browsing, v1: httpx.Client, server: Server, tmp_path: Path
) -> None:
    """What `kvasir console` writes."""
    file = tmp_path / "console.html"
    file.write_text(page_of(f"{server.url}{link_of(v1)}"))
    page.goto(file.as_uri())
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    assert all(not headers.get("referer") for _, headers in browsing.requests)
    assert browsing.faults == [f"a request to another origin: {file.as_uri()}"]
    browsing.faults.clear()


def test_a_pasted_key_is_forgotten_by_signing_out_and_stays_valid(page: Page, v1: httpx.Client, server: Server) -> None:
    key = key_of(v1)["key"]
    sign_in(page, key)
    assert key not in page.evaluate(KEPT)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Access key")).to_have_value("")
    assert page.evaluate(KEPT) == '[{},{},""]'
    assert key not in page.content()
    assert is_valid(server, key)


def test_a_reload_forgets_unless_the_tab_was_to_remember(page: Page, browsing: Browsing, v1: httpx.Client) -> None:
    key = key_of(v1)["key"]
    sign_in(page, key)
    page.reload()
    expect(page.get_by_label("Access key")).to_be_visible()
    # Whoever chooses this is told where the key will be.
    stay = page.get_by_label("Stay signed in")
    expect(stay).to_have_accessible_description("The browser then keeps the key in the storage of this tab.")
    check_access(page, "sign in")
    stay.check()
    page.get_by_label("Access key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    assert page.evaluate(KEPT).count(key) == page.evaluate("JSON.stringify(sessionStorage)").count(key) == 1
    page.reload()
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    another = page.context.new_page()
    another.goto("/console/")
    expect(another.get_by_label("Access key")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    assert page.evaluate(KEPT) == '[{},{},""]'


def test_a_key_that_is_revoked_signs_the_page_out(page: Page, v1: httpx.Client, kv: Client) -> None:
    made = key_of(v1)
    sign_in(page, made["key"], f"/console/#/s/{kv.id}/tree")
    expect(page.get_by_role("treeitem", name="inside")).to_be_visible()
    v1.delete(f"keys/{made['id']}")
    page.get_by_role("treeitem", name="inside").click()
    expect(page.get_by_label("Access key")).to_be_visible()


#: The names of what changes something, on a button or where it would be.
CHANGES = r"/^(Edit|Save|Create|Expiry|Metadata|Delete|New key|New entry|Import|Make one|Make|Revoke|Rename|End)\b/i"


def test_a_viewer_sees_nothing_that_changes_anything(page: Page, v1: httpx.Client, kv: Client) -> None:
    sign_in(page, key_of(v1)["key"], f"/console/#/s/{kv.id}/tree;/inside/one")
    expect(page.locator("#entry .cm-content")).to_contain_text(SECRET)
    for view in ("Tree", "List"):
        page.get_by_role("button", name=view, exact=True).click()
        expect(page.locator("#tree, #list").first).to_be_visible()
        assert buttons(page) == []
        # Nor by keyboard
        page.locator("#tree, #list").first.focus()
        for press in ("ArrowDown", "Delete", "e", "n"):
            page.keyboard.press(press)
        assert page.locator("dialog[open], #save, .cm-content:not([aria-readonly=true])").count() == 0
    assert kv.get("inside/one").json() == {"secret": SECRET}
    # Nor what is for owners and admins, not even by its address.
    for name in ("plots", "access", "accounts", "spaces"):
        page.goto(f"/console/#/{name}")
        expect(page.get_by_role("heading", name="Choose a space")).to_be_visible()
        assert buttons(page) == []
    assert page.get_by_role("link", name="Access keys").count() == 0


def buttons(page: Page) -> list[str]:
    """The names of buttons that change something."""
    names: list[str] = page.evaluate(
        f"""[...document.querySelectorAll("button, [role=button], [role=menuitem], a, input[type=file]")]
          .filter((each) => each.checkVisibility())
          .map((each) => (each.ariaLabel || each.textContent).trim()).filter((name) => {CHANGES}.test(name))"""
    )
    return names


def test_a_developer_sees_what_a_viewer_does_not(page: Page, v1: httpx.Client, kv: Client) -> None:
    """Or the test before this one would look for the wrong names."""
    sign_in(page, key_of(v1, role="developer")["key"], f"/console/#/s/{kv.id}/tree;/inside/one")
    expect(page.locator("#entry .cm-content")).to_contain_text(SECRET)
    assert {"Edit", "Expiry", "Metadata", "Delete"} <= set(buttons(page))


def test_a_key_limited_to_a_prefix_sees_only_that(page: Page, browsing: Browsing, v1: httpx.Client, kv: Client) -> None:
    sign_in(page, key_of(v1, prefix=["inside"])["key"], f"/console/#/s/{kv.id}/tree")
    page.goto(f"/console/#/s/{kv.id}/tree/inside")
    expect(page.get_by_role("treeitem", name="one")).to_be_visible()
    assert "three" not in page.content()
    assert "outside" not in page.content()
    page.goto(f"/console/#/s/{kv.id}/tree;/outside/three")
    expect(page.locator("#entry")).to_contain_text("limited to a key prefix")
    assert SECRET not in page.content()


def test_a_key_limited_to_a_space_sees_no_other(page: Page, v1: httpx.Client, kv: Client, server: Server) -> None:
    sign_in(page, key_of(v1, spaces=[kv.id])["key"])
    expect(page.get_by_role("link", name="safe")).to_be_visible()
    assert server.store not in page.content()
    page.goto(f"/console/#/s/{server.store}/tree")
    expect(page.get_by_role("alert")).to_be_visible()


def test_addresses_hold_no_secret_and_no_value(
    page: Page, browsing: Browsing, v1: httpx.Client, kv: Client, server: Server
) -> None:
    key = key_of(v1, role="developer")["key"]
    sign_in(page, key, f"/console/#/s/{kv.id}/tree")
    page.get_by_role("treeitem", name="inside").dblclick()
    page.get_by_role("treeitem", name="two").click()
    expect(page.locator("#entry .cm-content")).to_contain_text(SECRET)
    page.get_by_role("button", name="Edit").click()
    editor = page.locator("#entry .cm-content")
    editor.press("ControlOrMeta+a")
    page.keyboard.insert_text(json.dumps({"secret": SECRET, "more": 1}))
    page.locator("#save").click()
    expect(page.locator("#edit")).to_be_visible()
    assert kv.get("inside/two").json()["more"] == 1
    page.get_by_role("button", name="List", exact=True).click()
    expect(page.locator("#list")).to_be_visible()
    page.go_back()

    addresses = [url for url, _ in browsing.requests]
    assert any("/entry?key=" in url for url in addresses)
    for url in [*addresses, page.url]:
        assert key not in url
        assert "belongs" not in url
    # The keys that it shows are in the fragment, which is sent nowhere.
    assert urlsplit(page.url).path == "/console/"
    assert urlsplit(page.url).query == ""
    assert {urlsplit(url).netloc for url in addresses} == {urlsplit(server.url).netloc}
    assert all(not headers.get("referer") for _, headers in browsing.requests)
    sent = [headers for url, headers in browsing.requests if "/v1" in url]
    assert all(headers["authorization"] == f"Bearer {key}" for headers in sent)
    assert not any("cookie" in headers for headers in sent)


#: Texts that are something else to a page that is careless, to a terminal or to a reader.
HOSTILE = (
    "<script>document.title='taken'</script>",
    "<img src=x onerror=\"document.title='taken'\">",
    "\" onmouseover=\"document.title='taken'",
    "javascript:document.title='taken'",
    "{{nonce}}",
    "\u202egnirts\u2066",
    "\u2028\u2029\u0000\u0007\u001b[31m",
    "🜁\ud83d",
    "..",
    "",
)


def test_hostile_keys_and_values_are_shown_as_text(page: Page, v1: httpx.Client, server: Server) -> None:
    kv = Client(v1, v1.post("spaces", json={"name": HOSTILE[0]}).json()["id"])
    texts = [text for text in HOSTILE if "\ud83d" not in text]
    for text in texts:
        metadata = json.dumps({"text": text})
        answer = kv.ask(
            "PUT",
            f"entry?key={array('hostile', text)}",
            content=json.dumps(text),
            headers={"Kvasir-Metadata": metadata},
        )
        assert answer.status_code == 201, (text, answer.text)
    sign_in(page, server.key, f"/console/#/s/{kv.id}/tree/hostile")
    expect(page.get_by_role("treeitem")).to_have_count(len(texts))
    for number in range(len(texts)):
        page.get_by_role("treeitem").nth(number).click()
        expect(page.locator("#entry .cm-content")).to_be_visible()
    page.get_by_role("button", name="List", exact=True).click()
    expect(page.locator("#list").get_by_role("option")).to_have_count(len(texts))
    shown = page.locator("body").inner_text()
    assert "<script>document.title='taken'</script>" in shown
    assert "onerror=" in shown
    # What would turn the rest of the line around, or cannot be seen, is named in its place.
    assert not set("\u202e\u2066\u2028\u2029\x00\x07\x1b") & set(shown)
    assert page.title() == "Data – Kvasir"
    assert page.locator("img, script:not([src])").count() == 0
