"""What somebody leaves on the page on going: drafts and offers to undo, which are for nobody else."""

from __future__ import annotations

from typing import Any

import httpx
from playwright.sync_api import Page, Route, expect

from tests.support.console import EXACT, check_access, place, sign_in
from tests.support.native import Client

#: What somebody is writing over EXACT
DRAFT = '{"secret": "in a draft"}'


def new_key(http: httpx.Client, **limits: Any) -> Any:
    return http.post("keys", json={"name": "test", "role": "developer"} | limits).json()


def leave_work(page: Page, kv: Client) -> None:
    """The offer to undo a removal, and a draft over another entry, which stays open."""
    page.goto(place(kv, key=["products", "0"]))
    page.locator("#delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete 1 entry").click()
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    page.goto(place(kv, key=["exact"]))
    page.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Value").press("ControlOrMeta+a")
    page.keyboard.insert_text(DRAFT)


def sign_in_here(page: Page, key: str) -> None:
    """Without leaving the page."""
    page.get_by_label("Access key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.locator("header.top").wait_for()


def refuse(page: Page) -> None:
    """As after the end of the key. The server knows it still, so that the same person can come back."""
    page.route("**/count?*", lambda route: route.fulfill(status=401, body=""))
    page.locator(".keys").get_by_role("button", name="Count").click()
    expect(page.get_by_role("alert")).to_contain_text("no longer takes this access key")
    page.unroute("**/count?*")


def expect_nothing_left(page: Page) -> None:
    """For somebody whose key does not open the entry that is being written over."""
    expect(page.locator("#entry")).to_contain_text("limited to a key prefix")
    expect(page.locator("#save")).to_have_count(0)
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)
    assert "in a draft" not in page.content()


def test_signing_out_asks_before_drafts_go_and_leaves_nothing(page: Page, http: httpx.Client, kv: Client) -> None:
    sign_in(page, new_key(http)["key"])
    leave_work(page, kv)
    page.get_by_role("button", name="Sign out").click()
    dialog = page.get_by_role("dialog", name="Sign out")
    expect(dialog).to_contain_text("1 draft that is not saved will be gone")
    check_access(page, "sign out")
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("textbox", name="Value")).to_have_text(DRAFT)
    page.get_by_role("button", name="Sign out").click()
    dialog.get_by_role("button", name="Sign out, drop what is not saved").click()
    expect(page.get_by_label("Access key")).to_be_visible()
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)
    sign_in_here(page, new_key(http, role="viewer", prefix=["config"])["key"])
    expect_nothing_left(page)


def test_signing_out_without_a_draft_leaves_no_offer_to_undo(page: Page, http: httpx.Client, kv: Client) -> None:
    sign_in(page, new_key(http)["key"])
    leave_work(page, kv)
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Take it up again")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Access key")).to_be_visible()
    expect(page.locator(".notice")).to_have_count(0)
    sign_in_here(page, new_key(http)["key"])
    expect(page.locator("#edit")).to_be_visible()
    expect(page.locator(".notice")).to_have_count(0)


def test_work_outlives_a_refusal_for_the_same_person_alone(page: Page, http: httpx.Client, kv: Client) -> None:
    key = new_key(http)["key"]
    sign_in(page, key)
    leave_work(page, kv)
    refuse(page)
    expect(page.get_by_text("1 draft that is not saved")).to_be_visible()
    check_access(page, "door with a draft behind it")
    sign_in_here(page, key)
    expect(page.get_by_role("textbox", name="Value")).to_have_text(DRAFT)
    expect(page.get_by_role("button", name="Undo")).to_be_visible()
    refuse(page)
    sign_in_here(page, new_key(http, role="viewer", prefix=["config"])["key"])
    expect_nothing_left(page)
    # Nor is it there again for whoever comes back.
    page.get_by_role("button", name="Sign out").click()
    sign_in_here(page, key)
    expect(page.locator(".pane .cm-content")).to_have_text(EXACT)
    expect(page.get_by_role("button", name="Undo")).to_have_count(0)


def test_a_link_of_the_same_rights_goes_on_where_a_key_has_ended(page: Page, http: httpx.Client, kv: Client) -> None:
    """Keys that links make end after half a day, and the next link makes another one."""
    made, again = new_key(http), new_key(http)
    sign_in(page, made["key"])
    leave_work(page, kv)
    http.delete(f"keys/{made['id']}").raise_for_status()
    expect(page.get_by_role("alert")).to_contain_text("no longer takes this access key")
    path = http.post("console/links", headers={"Authorization": f"Bearer {again['key']}"}).json()["path"]
    page.goto(path)
    expect(page.get_by_role("textbox", name="Value")).to_have_text(DRAFT)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".notice")).to_contain_text("The entry is back")
    refuse(page)
    page.goto(http.post("console/links").json()["path"])
    expect(page.locator(".pane .cm-content")).to_have_text(EXACT)


def test_an_answer_that_comes_late_is_for_nobody_else(page: Page, http: httpx.Client, kv: Client) -> None:
    """Somebody deletes an entry; before the answer comes, the key has ended and another one is signed in."""
    made = new_key(http)
    sign_in(page, made["key"], place(kv, key=["exact"]))
    waiting: list[Route] = []
    page.route("**/entry?*", lambda each: waiting.append(each) if each.request.method == "DELETE" else each.fallback())
    page.locator("#delete").click()
    with page.expect_request(lambda request: request.method == "DELETE"):
        page.get_by_role("dialog").get_by_role("button", name="Delete 1 entry").click()
    http.delete(f"keys/{made['id']}").raise_for_status()
    expect(page.get_by_role("alert")).to_contain_text("no longer takes this access key")
    sign_in_here(page, new_key(http)["key"])
    with page.expect_event("requestfinished", lambda request: request.method == "DELETE"):
        waiting[0].fulfill(status=204)
    # What the page tells next is all that it tells.
    page.get_by_role("button", name="Copy the key").click()
    expect(page.locator(".notice")).to_have_count(1)
    expect(page.locator(".notice")).not_to_contain_text("deleted")
