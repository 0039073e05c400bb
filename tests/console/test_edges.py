"""What goes another way than people mean it: empty choices, odd answers, what ends or changes at the wrong moment."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import pytest
from playwright.sync_api import FilePayload, Page, Route, expect

from tests.support.browser import Browsing
from tests.support.console import EXACT, check_access, new_space, place, put, sign_in, stored, value_shown
from tests.support.native import Client
from tests.support.serving import Server


def answering(status: int, body: str) -> Callable[[Route], None]:
    """What `Page.route` takes: this answer in place of the server's."""
    return lambda route: route.fulfill(status=status, body=body)


# -- change -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("life", ["sliding", "past"])
def test_an_entry_that_has_gone_is_made_again_with_its_life(page: Page, server: Server, kv: Client, life: str) -> None:
    sliding = life == "sliding"
    put(kv, ["exact"], EXACT, "&ttl=2h&refresh=true" if sliding else "&ttl=2h", kvasir_metadata='{"n":1.50}')
    if not sliding:
        # As if its end had come while somebody was writing.
        end = kv.entry("exact")["expires_at"]

        def expired(route: Route) -> None:
            text = route.fetch().text()
            route.fulfill(body=text.replace(end, "2020-01-01T00:00:00.000Z"), content_type="application/json")

        page.route("**/entry?*", expired)
    sign_in(page, server.key, place(kv, key=["exact"]))
    page.get_by_role("button", name="Edit").click()
    page.unroute("**/entry?*")
    page.get_by_role("textbox", name="Value").press("Control+a")
    page.keyboard.type("[1.0]")
    kv.delete("exact")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("has been removed meanwhile, or has expired")
    check_access(page, "make it again")
    page.get_by_role("button", name="Make it again").click()
    expect(page.get_by_text("Saved." if sliding else "Saved without an end")).to_be_visible()
    entry = kv.entry("exact")
    assert stored(kv, ["exact"]) == "[1.0]"
    assert entry["metadata"] == {"n": 1.5}
    if sliding:
        assert entry["refresh"] == 7_200_000
    else:
        assert (entry["expires_at"], entry["refresh"]) == (None, None)


def test_what_is_said_of_a_draft_follows_the_typing(page: Page, server: Server, kv: Client) -> None:
    sign_in(page, server.key, place(kv, key=["exact"]))
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Value").press("Control+a")
    page.keyboard.type('{"a":1')
    page.keyboard.press("Control+s")
    expect(page.get_by_role("alert")).to_contain_text("This is no JSON yet: it ends too early.")
    check_access(page, "no JSON yet")
    lay_out = page.get_by_role("button", name="Lay out")
    expect(lay_out).to_be_disabled()
    page.keyboard.type("}")
    expect(page.get_by_role("alert")).to_have_count(0)
    expect(lay_out).to_be_enabled()
    page.keyboard.type(" 2")
    expect(lay_out).to_be_disabled()
    page.keyboard.press("Backspace")
    expect(lay_out).to_be_enabled()
    lay_out.click()
    expect(page.locator(".pane .cm-line")).to_have_count(3)
    assert stored(kv, ["exact"]) == EXACT
    # What the server says of a save stays, whatever is typed.
    page.route("**/entry?*", answering(503, "{}"))
    page.keyboard.press("Control+s")
    expect(page.get_by_role("alert")).to_contain_text("The server failed.")
    page.keyboard.type(" ")
    expect(page.get_by_role("textbox", name="Value").locator(".cm-line").last).to_have_text("} ")
    expect(page.get_by_role("alert")).to_be_visible()


def test_no_broken_text_is_laid_out_before_it_is_checked(page: Page, server: Server, kv: Client) -> None:
    """The button is pressed in the moment between a key press and the check that follows it."""
    sign_in(page, server.key, place(kv, key=["exact"]))
    page.get_by_role("button", name="Edit").click()
    editor = page.get_by_role("textbox", name="Value")
    editor.press("Control+End")
    page.keyboard.type(" ")
    expect(page.get_by_role("button", name="Lay out")).to_be_enabled()
    page.evaluate("""() => {
      const layOut = [...document.querySelectorAll("button")].find((each) => each.textContent.trim() === "Lay out");
      new MutationObserver(() => layOut.click()).observe(document.querySelector("#entry .cm-content"), {
        childList: true, characterData: true, subtree: true,
      });
    }""")
    page.keyboard.type("]")
    expect(page.get_by_role("alert")).to_contain_text("This is no JSON yet")
    assert value_shown(page) == f"{EXACT} ]"


# -- remove -----------------------------------------------------------------------------------------------


def test_a_selection_that_is_removed_in_part_says_how_much(page: Page, server: Server, http: httpx.Client) -> None:
    kv = new_space(http)
    lines = (json.dumps({"key": [f"{number:04}"], "value": number}) for number in range(700))
    assert kv.ask("POST", "import", content="\n".join(lines)).json()["set"] == 700
    sign_in(page, server.key, place(kv, "list"))
    page.get_by_label("Order").select_option("key")
    rows = page.locator("#list").get_by_role("option")
    rows.first.wait_for()
    while rows.first.get_attribute("aria-setsize") == "-1":
        page.locator("#list").press("End")
    page.locator("#list").press("Control+a")
    page.locator("#list").press("Delete")
    dialog = page.get_by_role("dialog", name="Delete 700 entries")
    expect(dialog).to_be_visible()
    # One of the second transaction changes: the first is done.
    put(kv, ["0600"], '"changed"')
    page.get_by_role("button", name="Delete 700 entries").click()
    alert = page.get_by_role("dialog").get_by_role("alert")
    expect(alert).to_contain_text("500 entries are deleted, 200 are not: 1 entry of these changed since you looked.")
    assert kv.ask("GET", "count").json() == {"count": 200}
    expect(page.get_by_role("dialog", name="Delete 200 entries")).to_contain_text("0500")
    # Pressed again, it counts on from there, and does none twice.
    page.get_by_role("button", name="Delete 200 entries").click()
    expect(alert).to_contain_text("500 entries are deleted, 200 are not")
    page.get_by_role("button", name="Delete 200 entries").wait_for()
    assert kv.ask("GET", "count").json() == {"count": 200}


def test_all_of_a_list_can_be_selected_at_once(page: Page, server: Server, http: httpx.Client) -> None:
    """With nothing selected before; of a list that is loaded in part, by what is."""
    kv = new_space(http)
    sign_in(page, server.key, place(kv, "list"))
    everything = page.get_by_role("checkbox", name="Select all")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    expect(everything).to_be_disabled()
    put(kv, ["a"], "1")
    expect(everything).to_be_enabled()
    lines = (json.dumps({"key": [f"{number:03}"], "value": number}) for number in range(199))
    assert kv.ask("POST", "import", content="\n".join(lines)).json()["set"] == 199
    page.reload()
    sign_in(page, server.key, place(kv, "list"))
    expect(page.get_by_role("checkbox", name="Select all that are loaded")).to_be_enabled()
    page.locator("#list").press("End")
    expect(page.get_by_role("checkbox", name="Select all", exact=True)).to_be_visible()
    everything.check()
    expect(page.get_by_text("200 selected")).to_be_visible()
    page.locator("#delete-selected").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete 200 entries").click()
    expect(page.get_by_text("200 entries deleted.")).to_be_visible()
    assert kv.ask("GET", "count").json() == {"count": 0}


# -- find -------------------------------------------------------------------------------------------------


def test_a_closed_part_of_the_tree_goes_with_its_last_key(page: Page, server: Server, http: httpx.Client) -> None:
    kv = new_space(http)
    for key in (["a", "b", "c"], ["a", "b", "d"], ["e", "f"], ["g"]):
        put(kv, key, "1")
    sign_in(page, server.key, place(kv))
    items = page.get_by_role("treeitem")
    expect(items).to_have_text(["a", "e", "g"])
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    items.nth(0).locator(".twist").click()
    expect(items).to_have_text(["a", "b", "e", "g"])
    kv.ask("DELETE", "entries?prefix=a/b/c").raise_for_status()
    kv.delete("e/f")
    expect(items).to_have_text(["a", "b", "g"])
    kv.delete("a/b/d")
    expect(items).to_have_text(["g"])
    # What went while nobody looked goes once it is opened.
    put(kv, ["h", "i"], "1")
    expect(items).to_have_text(["g", "h"])
    page.get_by_role("button", name="Pause live changes").click()
    kv.delete("h/i")
    items.nth(1).locator(".twist").click()
    expect(items).to_have_text(["g"])


#: Parts that look alike to whoever passes over spaces.
ALIKE = ["a b", "a  b", "a\u00a0b", "a\u2003b", "a\u3000b", " a b", "a b ", "  a b"]


def test_keys_that_differ_by_spaces_alone_look_different(page: Page, server: Server, http: httpx.Client) -> None:
    kv = new_space(http)
    for part in ALIKE:
        put(kv, [part, "x"], ' "  spaces  "')
        put(kv, [part], ' "\u2068\u206a\u3164\u00a0"')
    sign_in(page, server.key, place(kv))
    items = page.get_by_role("treeitem")
    expect(items).to_have_count(len(ALIKE))
    assert len(set(items.all_inner_texts())) == len(ALIKE)
    # The same in the heading of the entry, the way up and the list.
    headings, ways = set(), set()
    for number in range(len(ALIKE)):
        items.nth(number).click()
        expect(page.locator(".pane .cm-content .cm-specialChar")).to_have_count(4)
        headings.add(page.locator(".pane-head h1").inner_text())
        page.goto(place(kv, base=[ALIKE[number]]))
        expect(items).to_have_text(["x"])
        ways.add(page.get_by_role("navigation", name="Where the keys begin").inner_text())
        page.goto(place(kv))
        expect(items).to_have_count(len(ALIKE))
    assert (len(headings), len(ways)) == (len(ALIKE), len(ALIKE))
    page.goto(place(kv, "list"))
    keys = page.locator("#list .item-key")
    expect(keys).to_have_count(2 * len(ALIKE))
    assert len(set(keys.all_inner_texts())) == 2 * len(ALIKE)
    expect(page.locator("#list .item-text").first).not_to_contain_text("U+0020")


def test_a_filtered_list_keeps_an_entry_whose_value_grows_long(page: Page, server: Server, kv: Client) -> None:
    sign_in(page, server.key, place(kv, "list"))
    page.get_by_label("Filter by metadata").fill('{"by": "ada"}')
    page.get_by_role("button", name="Filter").click()
    items = page.locator("#list").get_by_role("option")
    expect(items).to_have_count(1)
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    # Longer than what a watch tells.
    put(kv, ["config", "mail"], json.dumps("x" * 70_000), kvasir_metadata='{"by":"ada"}')
    expect(items).to_contain_text("(long)")
    put(kv, ["exact"], json.dumps("x" * 70_000), kvasir_metadata='{"by":"ada"}')
    expect(items).to_have_count(2)
    put(kv, ["config", "mail"], json.dumps("x" * 70_000), kvasir_metadata='{"by":"bob"}')
    expect(items.filter(has_text="config/mail")).to_have_count(0)
    expect(items).to_have_count(1)


# -- watch ------------------------------------------------------------------------------------------------


def test_a_space_that_ends_is_no_longer_shown_as_if_it_were_there(
    page: Page, server: Server, kv: Client, http: httpx.Client
) -> None:
    name = http.get(f"spaces/{kv.id}").json()["name"]
    sign_in(page, server.key, place(kv, key=["config", "mail"]))
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    # What somebody is writing stays, to be copied.
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Value").press("Control+a")
    page.keyboard.type("[1, 2]")
    http.delete(f"spaces/{kv.id}").raise_for_status()
    status = page.get_by_role("status").filter(has_text="This space has ended")
    expect(status).to_be_visible()
    expect(page.get_by_role("tree")).to_have_count(0)
    expect(page.get_by_role("navigation", name="Spaces").get_by_role("link", name=name, exact=True)).to_have_count(0)
    assert value_shown(page) == "[1, 2]"
    check_access(page, "ended")
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#entry")).to_have_count(0)
    page.reload()
    sign_in(page, server.key, place(kv))
    expect(page.get_by_role("status").filter(has_text="No such space")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("none that this access key opens")


def test_a_proxy_that_finds_no_server_ends_no_space(page: Page, server: Server, kv: Client) -> None:
    page.route("**/watch*", answering(404, "<html></html>"))
    sign_in(page, server.key, place(kv))
    expect(page.get_by_text("Not reached; trying again")).to_be_visible()
    page.unroute("**/watch*")
    expect(page.get_by_text("Live", exact=True)).to_be_visible()


def test_what_is_open_stays_open_when_changes_were_missed(page: Page, server: Server, http: httpx.Client) -> None:
    kv = new_space(http)
    for key in (["a", "b", "c"], ["a", "d"], ["e", "f"], ["e", "f2"], ["g", "h"]):
        put(kv, key, "1")
    sign_in(page, server.key, place(kv, key=["a", "b", "c"]))
    items = page.get_by_role("treeitem")
    expect(items).to_have_text(["a", "b", "c", "d", "e", "g"])
    items.nth(4).locator(".twist").click()
    expect(items).to_have_text(["a", "b", "c", "d", "e", "f", "f2", "g"])
    items.nth(2).click()
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    page.get_by_role("button", name="Pause live changes").click()
    kv.delete("e/f")
    kv.delete("a/d")
    put(kv, ["a", "b", "c2"], "1")
    put(kv, ["g", "h2"], "1")
    # As after a restart, the server no longer knows what came after the last event: it says `resync`.
    future = {"last-event-id": "f" * 20}
    page.route("**/watch*", lambda route: route.continue_(headers=route.request.headers | future))
    page.get_by_role("button", name="Pause live changes").click()
    expect(items).to_have_text(["a", "b", "c", "c2", "e", "f2", "g"])
    expect(items.nth(2)).to_contain_class("active")
    items.nth(6).locator(".twist").click()
    expect(items).to_have_text(["a", "b", "c", "c2", "e", "f2", "g", "h", "h2"])


#: As if the tab went behind another one, or came back.
TURN = """(state) => {
  Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


def test_a_hidden_tab_has_no_watch_and_misses_nothing(
    page: Page, browsing: Browsing, server: Server, kv: Client
) -> None:
    """Over HTTP/1.1 a browser has six connections to a host, for all tabs."""
    sign_in(page, server.key, place(kv, key=["exact"]))
    expect(page.get_by_text("Live", exact=True)).to_be_visible()
    with page.expect_event("requestfailed", lambda request: "/watch" in request.url):
        page.evaluate(TURN, "hidden")
    put(kv, ["exact"], "[1.0]")
    put(kv, ["new"], "1")
    assert value_shown(page) == EXACT
    with page.expect_request("**/watch*") as again:
        page.evaluate(TURN, "visible")
    assert again.value.headers["last-event-id"]
    expect(page.locator(".pane .cm-line")).to_have_text("[1.0]")
    expect(page.get_by_role("treeitem", name="new", exact=True)).to_be_visible()
    # A look elsewhere that is shorter costs nothing; what somebody has paused stays so.
    page.get_by_role("button", name="Pause live changes").click()
    page.evaluate(TURN, "hidden")
    page.evaluate(TURN, "visible")
    expect(page.get_by_text("Paused", exact=True)).to_be_visible()
    assert sum("/watch" in url for url, _ in browsing.requests) == 2


# -- sign in ----------------------------------------------------------------------------------------------


def test_a_link_is_followed_where_the_console_is_open(
    page: Page, browsing: Browsing, server: Server, kv: Client, http: httpx.Client
) -> None:
    links = [http.post("console/links").json()["path"] for _ in range(2)]
    codes = [link.partition("=")[2] for link in links]
    old = http.post("keys", json={"name": "old", "role": "developer"}).json()
    sign_in(page, old["key"], place(kv, key=["exact"]))
    expect(page.locator(".who")).to_contain_text("developer")
    before = page.evaluate("history.length")
    with page.expect_response("**/v1/console/exchange") as exchange:
        page.goto(links[0])
    first = exchange.value.json()["id"]
    expect(page.locator(".who")).to_contain_text("owner")
    assert value_shown(page) == EXACT
    assert page.url.endswith(place(kv, key=["exact"]))
    # Used, it changes nothing.
    page.goto(links[0])
    refused = page.get_by_text("This link does not sign you in")
    expect(refused).to_be_visible()
    expect(page.locator(".who")).to_contain_text("owner")
    page.get_by_role("button", name="Close the notice").click()
    expect(refused).to_have_count(0)
    # What is not saved is asked about first.
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Value").press("Control+a")
    page.keyboard.type("[1, 2]")
    page.goto(links[1])
    dialog = page.get_by_role("dialog", name="Sign in by this link")
    expect(dialog).to_contain_text("1 draft that is not saved")
    assert codes[1] not in page.url
    check_access(page, "link")
    dialog.get_by_role("button", name="Cancel").click()
    page.goto(links[0])
    dialog.get_by_role("button", name="Sign in").click()
    expect(refused).to_be_visible()
    assert value_shown(page) == "[1, 2]"
    page.goto(links[1])
    with page.expect_response("**/v1/console/exchange") as exchange:
        dialog.get_by_role("button", name="Sign in").click()
    assert exchange.value.status == 201
    expect(page.locator(".pane .cm-content")).to_have_text(EXACT)
    expect(page.locator(".who")).to_contain_text("owner")
    # The key of the first link was this page's alone, and the code is in no history and no request's address.
    assert first not in [key["id"] for key in http.get("keys").json()["keys"]]
    for _ in range(page.evaluate("history.length") - before):
        page.go_back()
        assert not any(code in page.url for code in codes)
    assert not any(code in url for url, _ in browsing.requests for code in codes)


# -- administer -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("view", "path"), [("access", "keys"), ("accounts", "service-accounts")])
def test_no_space_chosen_is_not_all_of_them(
    page: Page, server: Server, http: httpx.Client, view: str, path: str
) -> None:
    name = f"only-for-{view}"
    chosen = http.post("spaces", json={"name": name, "kind": "application"}).json()["id"]
    before = http.get(path).content
    sign_in(page, server.key, f"/console/#/{view}")
    page.get_by_role("button", name="New").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox").first.fill("chosen")
    dialog.get_by_label("only", exact=True).check()
    dialog.get_by_role("button", name="Make the").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Choose at least one")
    assert http.get(path).content == before
    # What is chosen is all that it opens.
    dialog.get_by_role("checkbox", name=name).check()
    dialog.get_by_role("button", name="Make the").click()
    expect(page.get_by_text("It is shown this once.")).to_be_visible()
    made = http.get(path).json()[path.replace("-", "_")][-1]
    assert made.get("spaces", made.get("applications")) == [chosen]


def test_the_key_that_is_signed_in_is_named_and_marked(page: Page, server: Server, http: httpx.Client) -> None:
    key = http.post("keys", json={"name": "the cellar's", "role": "admin"}).json()
    sign_in(page, key["key"], "/console/#/access")
    who = page.locator(".who")
    expect(who).to_have_text("the cellar's admin")
    own = page.get_by_role("row").filter(has_text="the cellar's")
    expect(own).to_contain_text("this page")
    expect(own.get_by_role("button", name="Revoke")).to_have_count(0)
    expect(page.get_by_text("this page")).to_have_count(1)
    # By a link, it is the key that this made.
    page.goto(http.post("console/links").json()["path"])
    expect(who).to_have_text("console owner")
    expect(page.get_by_role("row").filter(has_text="this page")).to_contain_text("console")


# -- move data --------------------------------------------------------------------------------------------


def of_lines(content: bytes) -> FilePayload:
    """A file to import."""
    return {"name": "some.ndjson", "mimeType": "application/x-ndjson", "buffer": content}


def test_an_import_ends_whatever_a_proxy_answers(page: Page, server: Server, kv: Client) -> None:
    sign_in(page, server.key, place(kv))
    page.get_by_role("button", name="Import").click()
    page.get_by_label("A file of lines").set_input_files(of_lines(b'{"key": ["a"], "text": "1"}\n'))
    dialog = page.get_by_role("dialog")
    for status, body in ((413, "<html><h1>413 Request Entity Too Large</h1></html>"), (502, "null"), (200, "")):
        page.route("**/import?*", answering(status, body))
        dialog.get_by_role("button", name="Import").click()
        expect(dialog.get_by_role("alert")).to_have_text(f"The server answered {status}.")
        expect(dialog.get_by_role("button", name="Import")).to_be_enabled()
        page.unroute("**/import?*")
    dialog.get_by_role("button", name="Import").click()
    expect(page.locator("#report")).to_contain_text("1 entry set")
    # A key that has ended meanwhile ends the session, as it does everywhere.
    page.route("**/import?*", answering(401, "<html></html>"))
    dialog.get_by_role("button", name="Import").click()
    expect(page.get_by_role("alert")).to_contain_text("no longer takes this access key")
    page.unroute("**/import?*")
    page.get_by_label("Access key").fill(server.key)
    page.get_by_role("button", name="Sign in").click()
    page.locator("header.top").wait_for()
    expect(dialog).to_have_count(0)


def test_an_import_tells_what_became_of_this_try(page: Page, server: Server, kv: Client) -> None:
    sign_in(page, server.key, place(kv))
    page.get_by_role("button", name="Import").click()
    lines = b'{"key": ["a"], "text": "1"}\n{"key": ["exact"], "text": "1"}\nnone\n'
    page.get_by_label("A file of lines").set_input_files(of_lines(lines))
    dialog = page.get_by_role("dialog")
    page.route("**/import?*", answering(502, ""))
    dialog.get_by_role("button", name="Import").click()
    expect(dialog.get_by_role("alert")).to_have_text("The server answered 502.")
    page.unroute("**/import?*")
    dialog.get_by_role("button", name="Dry run").click()
    expect(page.locator("#report p").first).to_have_text(
        "Dry run, nothing was written: 2 entries would be set, 0 kept, 1 refused, of 3 lines."
    )
    expect(dialog.get_by_role("alert")).to_have_count(0)
    dialog.get_by_role("button", name="Import").click()
    expect(page.locator("#report p").first).to_have_text("2 entries set, 0 kept, 1 refused, of 3 lines.")
