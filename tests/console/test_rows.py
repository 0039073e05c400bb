"""What people do with the console, in a browser: finding, reading, changing, removing.

Each test stands for a row of what people do, in turn in light and in dark, and on PostgreSQL the other way round. With
KVASIR_CONSOLE_THEMES=all each is in both.
"""

from __future__ import annotations

import json

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import Browsing
from tests.support.console import EXACT, as_key, check_access, place, put, sign_in, stored, value_shown
from tests.support.native import Client
from tests.support.serving import Server


@pytest.fixture
def page(themed: Page) -> Page:
    return themed


# -- find -------------------------------------------------------------------------------------------------


def test_find(page: Page, server: Server, kv: Client, http: httpx.Client) -> None:
    http.post("spaces", json={"name": "billing", "kind": "application"})
    sign_in(page, server.key)
    spaces = page.get_by_role("navigation", name="Spaces")
    expect(spaces.get_by_role("link", name="billing").first).to_be_visible()
    name = http.get(f"spaces/{kv.id}").json()["name"]
    spaces.get_by_role("link", name=name, exact=True).click()
    tree = page.get_by_role("tree")
    expect(tree.get_by_role("treeitem")).to_have_text(["config", "exact", "products", "session"])
    check_access(page, "tree")
    # Open a part, and what is below it comes.
    products = tree.get_by_role("treeitem", name="products", exact=True)
    expect(products).to_have_attribute("aria-expanded", "false")
    products.locator(".twist").click()
    expect(tree.get_by_role("treeitem")).to_have_text(["config", "exact", "products", "0", "1", "2", "session"])
    # Jump to a prefix; it is in the fragment, and nowhere else in the address.
    page.get_by_label("Go to a prefix or key").fill("products")
    page.keyboard.press("Enter")
    expect(tree.get_by_role("treeitem")).to_have_text(["0", "1", "2"])
    assert page.evaluate("[location.pathname, location.search]") == ["/console/", ""]
    # A count is made when asked for.
    keys = page.locator(".keys")
    keys.get_by_role("button", name="Count").click()
    expect(keys.locator("output")).to_have_text("4 entries")
    # What is not there leads to what comes next, if anything does.
    for text, end in (("prod", ";/products"), ("products/1/x", ";/products/2"), ("nothing/here", ";/products")):
        page.get_by_label("Go to a prefix or key").fill(text)
        page.keyboard.press("Enter")
        page.wait_for_url(f"**{end}")
        expect(page.get_by_text("This is what comes next.").last).to_be_visible()
        expect(tree.locator(".chosen")).to_have_text(end.rpartition("/")[2])
    page.get_by_label("Go to a prefix or key").fill("z")
    page.keyboard.press("Enter")
    expect(page.locator("#jump-failure")).to_contain_text("none comes after them")


def test_find_far_down_among_many(page: Page, server: Server, kv: Client) -> None:
    lines = (json.dumps({"key": ["many", f"{number:04}"], "value": number}) for number in range(700))
    assert kv.ask("POST", "import", content="\n".join(lines)).json()["set"] == 700
    # An address leads there without all that comes before it.
    sign_in(page, server.key, place(kv, key=["many", "0650"]))
    tree = page.get_by_role("tree")
    expect(tree.locator(".chosen")).to_have_text("0650")
    expect(tree.get_by_role("treeitem", name="0000", exact=True)).to_have_count(0)
    check_access(page, "cut tree")
    # New keys take their places, but for those before what is loaded.
    put(kv, ["many", "0650a"], "1")
    put(kv, ["many", "0001a"], "1")
    expect(tree.get_by_role("treeitem", name="0650a", exact=True)).to_be_visible()
    before = tree.get_by_role("treeitem", name="Show from the first one on")
    before.click()
    expect(tree.get_by_role("treeitem", name="0001a", exact=True)).to_be_visible()
    # The same by keyboard.
    page.goto(place(kv, key=["many", "0600"]))
    expect(tree.locator(".chosen")).to_have_text("0600")
    tree.focus()
    page.keyboard.press("ArrowUp")
    expect(before).to_contain_class("active")
    page.keyboard.press("Enter")
    expect(tree.get_by_role("treeitem", name="0000", exact=True)).to_be_visible()


def test_find_by_newest_and_by_metadata(page: Page, server: Server, kv: Client) -> None:
    sign_in(page, server.key, place(kv, "list"))
    items = page.locator("#list").get_by_role("option")
    expect(items.first).to_contain_text("session/abc")
    expect(items).to_have_count(7)
    check_access(page, "list")
    page.get_by_label("Filter by metadata").fill('{"by": "ada"}')
    page.get_by_role("button", name="Filter").click()
    expect(items).to_have_count(1)
    expect(items.first).to_contain_text("config/mail")


# -- read -------------------------------------------------------------------------------------------------


def test_read(page: Page, server: Server, kv: Client) -> None:
    before = kv.entry("session", "abc")
    sign_in(page, server.key, place(kv, key=["session", "abc"]))
    assert value_shown(page) == '{"user": "ada"}'
    facts = page.locator(".facts")
    expect(facts).to_contain_text(before["versionstamp"])
    expect(facts).to_contain_text("in 1 h 59 min")
    expect(facts).to_contain_text("15 bytes")
    check_access(page, "entry")
    # Looking has changed nothing: a sliding life is where it was.
    assert kv.entry("session", "abc") == before


def test_read_text_as_it_is_stored(page: Page, server: Server, kv: Client) -> None:
    sign_in(page, server.key, place(kv, key=["exact"]))
    assert value_shown(page) == EXACT
    # One line is folded where the cursor is, and unfolded.
    content = page.locator(".pane .cm-content")
    content.press("Control+Home")
    content.press("Control+Shift+BracketLeft")
    expect(content).to_have_text("{…}")
    content.press("Control+Shift+BracketRight")
    assert value_shown(page) == EXACT
    page.get_by_role("button", name="Indent").click()
    expect(page.locator(".pane .cm-content .cm-line")).to_have_count(4)
    assert value_shown(page).split() == ["{", '"n":', "12345678901234567890.10,", '"a":', "1", "}"]
    page.locator(".cm-foldGutter").get_by_title("Fold line", exact=True).first.click()
    expect(page.locator(".pane .cm-content .cm-line")).to_have_count(1)
    # The next one is indented, too.
    page.goto(place(kv, key=["config", "mail"]))
    expect(page.locator(".facts")).to_contain_text('{"by":"ada","ticket":17.50}')
    expect(page.locator(".pane .cm-content .cm-line")).to_have_count(3)


# -- change -----------------------------------------------------------------------------------------------


def test_change_keeps_digits_spaces_expiry_and_metadata(page: Page, server: Server, kv: Client) -> None:
    put(kv, ["exact"], EXACT, "&ttl=2h", kvasir_metadata='{"by":"ada"}')
    before = kv.entry("exact")
    sign_in(page, server.key, place(kv, key=["exact"]))
    page.get_by_role("button", name="Edit").click()
    editor = page.get_by_role("textbox", name="Value")
    expect(editor).to_be_focused()
    editor.press("Control+End")
    editor.press("ArrowLeft")
    page.keyboard.type(', "b": 2')
    check_access(page, "editor")
    page.keyboard.press("Control+s")
    expect(page.get_by_text("Saved.")).to_be_visible()
    assert stored(kv, ["exact"]) == '{"n":12345678901234567890.10,"a" : 1, "b": 2}'
    after = kv.entry("exact")
    assert (after["expires_at"], after["metadata"]) == (before["expires_at"], before["metadata"])


def test_change_is_checked_before_it_is_sent(page: Page, server: Server, kv: Client) -> None:
    sign_in(page, server.key, place(kv, key=["exact"]))
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Value").press("Control+End")
    page.keyboard.type("]")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("This is no JSON yet")
    assert stored(kv, ["exact"]) == EXACT


def test_change_makes_a_new_key_with_a_life_and_metadata(page: Page, server: Server, kv: Client) -> None:
    sign_in(page, server.key, place(kv))
    page.get_by_role("tree").wait_for()
    page.locator(".keys").get_by_role("button", name="New key").click()
    check_access(page, "new key")
    page.get_by_label("Key", exact=True).fill(as_key("odd/part", ""))
    page.get_by_label("in", exact=True).check()
    page.get_by_label("How long").fill("3")
    page.get_by_label("Metadata").fill('{"x": 1.0}')
    page.get_by_role("button", name="Write its value").click()
    page.get_by_role("textbox", name="Value").press_sequentially("[1.0")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("Saved.").or_(page.get_by_role("alert"))).to_be_visible()
    page.keyboard.type("]") if stored(kv, ["odd/part", ""]) is None else None
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("Saved.")).to_be_visible()
    entry = kv.entry("odd/part", "")
    assert entry["metadata"] == {"x": 1.0}
    assert entry["expires_at"] is not None


def test_change_expiry_and_metadata(page: Page, server: Server, kv: Client) -> None:
    sign_in(page, server.key, place(kv, key=["exact"]))
    page.get_by_role("button", name="Expiry").click()
    page.get_by_label("in", exact=True).check()
    check_access(page, "expiry")
    page.get_by_role("button", name="Set expiry").click()
    expect(page.locator("#expires")).to_contain_text("in 23 h 59 min")
    page.get_by_role("button", name="Metadata").click()
    page.get_by_label("A JSON object").fill('{"n": 12345678901234567890}')
    page.get_by_role("button", name="Save metadata").click()
    expect(page.locator(".facts")).to_contain_text('{"n": 12345678901234567890}')
    assert stored(kv, ["exact"]) == EXACT
    assert kv.entry("exact")["expires_at"] is not None


def test_change_never_overwrites_others(page: Page, server: Server, kv: Client, browsing: Browsing) -> None:
    """Two browsers edit one key: the second sees both versions, and whichever button is pressed nothing is lost."""
    other = browsing.page()
    for each in (page, other):
        sign_in(each, server.key, place(kv, key=["config", "mail"]))
        each.get_by_role("button", name="Edit").click()
    first, second = '{"host": "one"}', '{"host": "two"}'
    for each, text in ((page, first), (other, second)):
        each.get_by_role("textbox", name="Value").press("Control+a")
        each.keyboard.type(text)
    page.keyboard.press("Control+s")
    expect(page.get_by_text("Saved.")).to_be_visible()
    # A draft is left alone by what others do.
    expect(other.get_by_text("Somebody has changed this entry")).to_be_visible()
    assert value_shown(other) == second
    other.get_by_role("button", name="Save").click()
    expect(other.get_by_role("textbox", name="Their version")).to_have_text(first)
    expect(other.get_by_role("textbox", name="My version")).to_have_text(second)
    check_access(other, "merge")
    assert stored(kv, ["config", "mail"]) == first
    # Theirs is taken; mine may be taken up again, and goes over theirs.
    other.get_by_role("button", name="Use theirs").click()
    other.get_by_role("button", name="Take it up again").click()
    other.get_by_role("button", name="Save mine over theirs").click()
    expect(other.get_by_text("Saved over their version.")).to_be_visible()
    assert stored(kv, ["config", "mail"]) == second
    other.get_by_role("button", name="Open theirs as a draft").click()
    expect(other.get_by_role("textbox", name="Value")).to_have_text(first)


# -- remove -----------------------------------------------------------------------------------------------


def test_remove_one_and_undo(page: Page, server: Server, kv: Client) -> None:
    put(kv, ["exact"], EXACT, "&ttl=2h&refresh=true", kvasir_metadata='{"n":1.50}')
    before = kv.entry("exact")
    sign_in(page, server.key, place(kv, key=["exact"]))
    page.get_by_role("button", name="Delete", exact=True).click()
    dialog = page.get_by_role("dialog", name="Delete 1 entry")
    check_access(page, "delete")
    dialog.get_by_role("button", name="Delete 1 entry").click()
    expect(page.get_by_text("1 entry deleted.")).to_be_visible()
    assert stored(kv, ["exact"]) is None
    expect(page.locator("#entry").get_by_role("button", name="Make one")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("The entry is back.")).to_be_visible()
    assert stored(kv, ["exact"]) == EXACT
    assert (kv.entry("exact")["metadata"], kv.entry("exact")["refresh"]) == (before["metadata"], before["refresh"])


def test_remove_a_selection(page: Page, server: Server, kv: Client) -> None:
    sign_in(page, server.key, place(kv, "list", base=["products"]))
    items = page.locator("#list").get_by_role("option")
    expect(items).to_have_count(4)
    items.filter(has_text="products/0").locator(".tick").click()
    items.filter(has_text="products/2").locator(".tick").click()
    page.locator("#delete-selected").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete 2 entries").click()
    expect(page.get_by_text("2 entries deleted.")).to_be_visible()
    assert [stored(kv, ["products", str(number)]) is None for number in range(3)] == [True, False, True]


def test_remove_a_prefix_of_whole_parts(page: Page, server: Server, kv: Client) -> None:
    for key in (["test"], ["test", "a"], ["test", "b", "c"], ["test2"], ["test2", "a"]):
        put(kv, key, "1")
    sign_in(page, server.key, place(kv, key=["test"]))
    pane = page.get_by_role("region", name="Entry")
    pane.get_by_role("button", name="Delete all").click()
    expect(page.locator("#number")).to_have_text("3 entries")
    # It grows between the count and the click: nothing goes, and the present number is shown.
    put(kv, ["test", "d"], "1")
    page.get_by_role("dialog").get_by_role("button", name="Delete 3 entries").click()
    expect(page.get_by_role("alert")).to_contain_text("Nothing was deleted")
    expect(page.locator("#number")).to_have_text("4 entries")
    page.get_by_role("dialog").get_by_role("button", name="Delete 4 entries").click()
    expect(page.get_by_text("4 entries deleted.")).to_be_visible()
    assert kv.ask("GET", "count?prefix=test").json() == {"count": 0}
    assert kv.ask("GET", "count?prefix=test2").json() == {"count": 2}
    expect(page.get_by_role("treeitem", name="test", exact=True)).to_have_count(0)
