"""What people do with the console, in a browser: moving data, watching, looking, administering, the keyboard."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.support.console import (
    EXACT,
    check_access,
    marked,
    new_space,
    note_marks,
    place,
    put,
    sign_in,
    stored,
    value_shown,
)
from tests.support.native import Client
from tests.support.serving import Server, wait_until

#: In place of the dialog that asks where to save, which no test can press: a file system of the browser's own.
OWN_FILES = """
globalThis.showSaveFilePicker = async ({ suggestedName }) =>
  (await navigator.storage.getDirectory()).getFileHandle(suggestedName, { create: true });
"""

#: The names and texts of its files.
FILES = """
async () => {
  const found = {};
  for await (const [name, file] of (await navigator.storage.getDirectory()).entries())
    found[name] = await (await file.getFile()).text();
  return found;
}
"""


@pytest.fixture
def page(themed: Page) -> Page:
    return themed


# -- move data --------------------------------------------------------------------------------------------


def test_move_data(page: Page, server: Server, kv: Client, http: httpx.Client, tmp_path: Path) -> None:
    page.add_init_script("delete globalThis.showSaveFilePicker")
    sign_in(page, server.key, place(kv))
    page.get_by_role("tree").wait_for()
    with page.expect_download() as download:
        page.locator(".keys").get_by_role("button", name="Export").click()
    expect(page.get_by_text("7 entries exported.")).to_be_visible()
    file = tmp_path / "export.ndjson"
    download.value.save_as(file)
    lines = file.read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1]) == {"end": {"entries": 7}}
    assert json.loads(lines[1])["text"] == EXACT
    other = new_space(http)
    page.goto(place(other))
    page.get_by_role("button", name="Import").click()
    page.get_by_label("A file of lines").set_input_files(file)
    page.get_by_role("button", name="Dry run").click()
    expect(page.locator("#report")).to_contain_text("7 entries would be set")
    check_access(page, "import")
    assert other.ask("GET", "count").json() == {"count": 0}
    page.get_by_role("dialog").get_by_role("button", name="Import").click()
    expect(page.locator("#report")).to_contain_text("7 entries set")
    assert stored(other, ["exact"]) == EXACT


def test_move_data_to_a_file_that_is_written_piece_by_piece(page: Page, server: Server, kv: Client) -> None:
    page.add_init_script(OWN_FILES)
    sign_in(page, server.key, place(kv, base=["products"]))
    page.get_by_role("tree").wait_for()
    export = page.locator(".keys").get_by_role("button", name="Export")
    export.click()
    expect(page.get_by_text("4 entries exported.")).to_be_visible()
    files = page.evaluate(FILES)
    assert list(files) == ["kvasir-products.ndjson"]
    lines = files["kvasir-products.ndjson"].splitlines(keepends=True)
    assert json.loads(lines[0])["key"] == ["products"]
    assert json.loads(lines[-1]) == {"end": {"entries": 4}}
    # What is cut on the way does not take the place of a whole file.
    body = "".join(lines[:3])
    page.route("**/export?*", lambda route: route.fulfill(body=body, content_type="application/x-ndjson"))
    export.click()
    expect(page.get_by_role("alert")).to_contain_text("was cut before its end")
    check_access(page, "export")
    assert page.evaluate(FILES) == files
    page.get_by_role("dialog").get_by_role("button", name="Close").click()


# -- watch ------------------------------------------------------------------------------------------------


def test_watch(page: Page, server: Server, kv: Client) -> None:
    sign_in(page, server.key, place(kv, key=["exact"]))
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    note_marks(page)
    put(kv, ["exact"], "[1.0]")
    expect(page.locator(".pane .cm-line")).to_have_text("[1.0]")
    marked(page, "[1.0]")
    put(kv, ["new"], "1")
    new = page.get_by_role("treeitem", name="new", exact=True)
    expect(new).to_be_visible()
    marked(page, "new")
    kv.delete("new")
    expect(new).to_have_count(0)
    # Paused, the page stays as it is; afterwards nothing has been missed.
    page.get_by_role("button", name="Pause live changes").click()
    expect(page.get_by_text("Paused", exact=True)).to_be_visible()
    put(kv, ["exact"], "[2.0]")
    put(kv, ["later"], "1")
    page.get_by_role("button", name="Pause live changes").click()
    expect(page.locator(".pane .cm-line")).to_have_text("[2.0]")
    expect(page.get_by_role("treeitem", name="later", exact=True)).to_be_visible()


def test_watch_a_list(page: Page, server: Server, kv: Client) -> None:
    sign_in(page, server.key, place(kv, "list"))
    items = page.locator("#list").get_by_role("option")
    expect(items).to_have_count(7)
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    note_marks(page)
    put(kv, ["exact"], "[1.0]")
    expect(items.first).to_contain_text("exact")
    expect(items.first).to_contain_text("[1.0]")
    marked(page, "exact")
    kv.delete("exact")
    expect(items).to_have_count(6)


# -- administer -------------------------------------------------------------------------------------------


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


# -- keyboard ---------------------------------------------------------------------------------------------


def test_everything_by_keyboard_alone(page: Page, server: Server, http: httpx.Client) -> None:
    kv = new_space(http)
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
    keys.press("Escape")
    expect(page.locator("#save")).to_be_focused()
    keys.press("Enter")
    expect(page.get_by_text("Saved.")).to_be_visible()
    assert stored(kv, ["b", "c"]) == '{"x": 1, "y": 2}'
    expect(page.locator("#tree")).to_be_focused()
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
    expect(page.locator("#tree")).to_be_focused()
    keys.press("End")
    keys.press("Delete")
    expect(page.get_by_role("dialog", name="Delete 1 entry")).to_be_visible()
    keys.press("Tab")
    keys.press("Enter")
    expect(page.get_by_text("1 entry deleted.")).to_be_visible()
    assert stored(kv, ["d"]) is None
    expect(page.locator("#tree")).to_be_focused()
    # All of a list.
    page.goto(place(kv, "list"))
    expect(page.locator("#list").get_by_role("option")).to_have_count(2)
    page.locator("#list").focus()
    keys.press("Control+a")
    expect(page.get_by_text("2 selected")).to_be_visible()
    keys.press("Delete")
    expect(page.get_by_role("dialog", name="Delete 2 entries")).to_be_visible()
    keys.press("Escape")
    expect(page.locator("#list")).to_be_focused()


def test_the_keyboard_goes_on_where_a_jump_has_led(page: Page, server: Server, kv: Client) -> None:
    sign_in(page, server.key, place(kv))
    page.get_by_role("treeitem").first.wait_for()
    keys = page.keyboard
    box, tree, entry_list = page.get_by_label("Go to a prefix or key"), page.locator("#tree"), page.locator("#list")
    active = page.locator(".row.active")
    # Among the keys below a prefix, which load first; nothing is active but by an arrow.
    keys.press("/")
    keys.type("products")
    keys.press("Enter")
    expect(tree).to_be_focused()
    expect(page.get_by_role("treeitem")).to_have_text(["0", "1", "2"])
    expect(active).to_have_count(0)
    check_access(page, "jump")
    expect(page.locator("#delete")).to_be_visible()
    keys.press("Delete")
    dialog = page.get_by_role("dialog", name="Delete 1 entry")
    expect(dialog.locator(".key")).to_have_text("products")
    keys.press("Escape")
    expect(tree).to_be_focused()
    keys.press("ArrowDown")
    expect(active).to_have_text("0")
    # At a key, in the tree that is there.
    keys.press("/")
    keys.press("Control+a")
    keys.type("products/1")
    keys.press("Enter")
    expect(tree).to_be_focused()
    expect(active).to_have_text("1")
    expect(page.locator(".pane .cm-content")).to_have_text('{"name": "mead 1"}')
    keys.press("e")
    expect(page.get_by_role("textbox", name="Value")).to_be_focused()
    page.get_by_role("button", name="Cancel").click()
    # In the list, too.
    page.get_by_role("button", name="List", exact=True).click()
    keys.press("/")
    keys.press("Control+a")
    keys.type("config")
    keys.press("Enter")
    expect(entry_list.get_by_role("option")).to_have_count(1)
    expect(entry_list).to_be_focused()
    # What leads nowhere is left in the box; Escape leaves that.
    keys.press("/")
    keys.press("Control+a")
    keys.type("zzz")
    keys.press("Enter")
    expect(page.locator("#jump-failure")).to_be_visible()
    expect(box).to_be_focused()
    keys.press("Escape")
    expect(entry_list).to_be_focused()
    keys.press("?")
    expect(page.get_by_role("dialog", name="Keyboard")).to_be_visible()


def test_delete_is_for_the_entry_that_is_open_wherever_the_focus_is(page: Page, server: Server, kv: Client) -> None:
    sign_in(page, server.key, place(kv, "list", key=["exact"]))
    items = page.locator("#list").get_by_role("option")
    expect(items).to_have_count(7)
    keys = page.keyboard
    dialog = page.get_by_role("dialog", name="Delete 1 entry")
    # Never from a field
    page.get_by_label("Filter by metadata").focus()
    keys.press("Delete")
    page.get_by_label("Order").focus()
    keys.press("Delete")
    # Nor from the editor
    keys.press("Escape")
    page.get_by_role("button", name="Edit").click()
    expect(page.get_by_role("textbox", name="Value")).to_be_focused()
    keys.press("Delete")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#edit")).to_be_visible()
    expect(dialog).to_have_count(0)
    page.get_by_role("button", name="Tree", exact=True).focus()
    keys.press("Delete")
    expect(dialog.locator(".key")).to_have_text("exact")
    keys.press("Escape")
    # In the list if nothing is selected there
    page.locator("#list").focus()
    keys.press("Delete")
    expect(dialog.locator(".key")).to_have_text("exact")
    keys.press("Tab")
    keys.press("Enter")
    expect(page.get_by_text("1 entry deleted.")).to_be_visible()
    assert stored(kv, ["exact"]) is None
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("The entry is back.")).to_be_visible()
    assert stored(kv, ["exact"]) == EXACT


# -- look -------------------------------------------------------------------------------------------------


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
    # Under the pointer all plots tell what they were then.
    last = page.locator("figure").filter(has_text=re.compile("^Entries"))
    expect(last.locator(".legend b")).to_have_text(re.compile(r"^\d"))
    expect(last.locator(".at")).to_have_text("")
    last.locator(".u-over").hover(position={"x": 5, "y": 40})
    expect(last.locator(".at")).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))
    expect(figures.first.locator(".at")).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))
    expect(last.locator(".legend b")).to_have_text(re.compile(r"^\d"))
