"""The console as a test uses it: signed in, on a space with entries, and judged by axe-core."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.support.native import Client, array
from tests.support.serving import wait_until

#: A value that whoever parses and prints it would change.
EXACT = '{"n":12345678901234567890.10,"a" : 1}'

AXE = Path(__file__).parent.parent.parent / ".venv/console/node_modules/axe-core/axe.min.js"

#: Waiting for what a page shows, on a busy machine
expect.set_options(timeout=30_000)


_numbers = itertools.count(1)


def new_space(http: httpx.Client) -> Client:
    """A store with nothing in it."""
    return Client(http, http.post("spaces", json={"name": f"store {next(_numbers)}"}).json()["id"])


def put(kv: Client, key: list[str], text: str, query: str = "", **headers: str) -> str:
    """Store a text, whatever the key; the versionstamp."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = kv.ask("PUT", f"entry?key={array(*key)}{query}", content=text.encode(), headers=named)
    assert answer.status_code in (200, 201), answer.text
    return answer.headers["etag"].strip('"')


def stored(kv: Client, key: list[str]) -> str | None:
    """The stored text of a key."""
    answer = kv.ask("GET", f"entry?key={array(*key)}&extend=false")
    return answer.content.decode() if answer.status_code == 200 else None


def place(kv: Client, view: str = "tree", base: list[str] | None = None, key: list[str] | None = None) -> str:
    """The address of something in a space."""
    parts = ["".join(f"/{quote(part, safe='')}" for part in each) for each in (base or [], key or [])]
    return f"/console/#/s/{kv.id}/{view}{parts[0]}{';' + parts[1] if key else ''}"


def sign_in(page: Page, key: str, address: str = "/console/") -> None:
    """Paste the key, wait for the page."""
    page.goto(address)
    page.get_by_label("Access key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.locator("header.top").wait_for()


#: Notes the texts of what is marked as changed, which lasts too short a time to be looked for.
_NOTE_MARKS = """() => {
  globalThis.marked = new Set();
  const look = () => document.querySelectorAll(".changed").forEach((each) => marked.add(each.textContent.trim()));
  new MutationObserver(look).observe(document.body, {subtree: true, childList: true, attributes: true});
}"""


def note_marks(page: Page) -> None:
    """From now on, for `marked`."""
    page.evaluate(_NOTE_MARKS)


def marked(page: Page, text: str) -> None:
    """Wait until something with this in its text is marked as changed, or has been."""
    seen = "(text) => [...marked].some((each) => each.includes(text))"
    wait_until(lambda: bool(page.evaluate(seen, text)), f"{text} is marked")


def value_shown(page: Page) -> str:
    """The text in the viewer or editor, as CodeMirror has it; only what is on screen of a long one."""
    lines = page.locator(".pane .cm-content .cm-line")
    lines.first.wait_for()
    return "\n".join(lines.all_inner_texts())


#: What axe-core looks for.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def _violations(page: Page, rules: dict[str, Any]) -> list[dict[str, Any]]:
    options = {"resultTypes": ["violations"], "runOnly": rules}
    found: list[dict[str, Any]] = page.evaluate(
        "(options) => axe.run(document, options).then((found) => found.violations)", options
    )
    return found


def check_access(page: Page, view: str) -> None:
    """Nothing that axe-core finds in what is shown; contrast in light and in dark."""
    if not AXE.is_file():
        pytest.skip("axe-core is missing: make .venv/console/ready")
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE.read_text(encoding="utf-8"))
    # What changed is faded in; contrast is judged once it has.
    page.evaluate(
        "document.getAnimations().filter((each) => each.effect.getComputedTiming().endTime < Infinity)"
        ".forEach((each) => each.finish())"
    )
    found = _violations(page, {"type": "tag", "values": RULES})
    is_dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    page.emulate_media(color_scheme="light" if is_dark else "dark")
    found += _violations(page, {"type": "rule", "values": ["color-contrast"]})
    page.emulate_media(color_scheme="dark" if is_dark else "light")
    told = [f"{each['id']}: {each['help']}: {[node['html'][:200] for node in each['nodes']]}" for each in found]
    assert not told, f"{view}:\n" + "\n".join(told)


def as_key(*parts: str) -> str:
    """What to type for any key."""
    return json.dumps(parts)
