"""What goes another way than people mean it: empty choices, odd answers, what ends or changes at the wrong moment."""

from __future__ import annotations

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.support.console import sign_in
from tests.support.serving import Server

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
