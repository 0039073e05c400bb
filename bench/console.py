"""The console in a real Chromium on a store of 1,000,000 keys: how long people wait, and what the tab holds."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, expect

from bench.harness import Report, anonymous_mib
from tests.support.browser import Browsing, chromium
from tests.support.console import place, put, sign_in
from tests.support.native import Client
from tests.support.serving import Server, serving

#: Ten parts with so many entries below each; the last has them as direct children, the others below 100 parts.
EACH = int(os.environ.get("KVASIR_BENCH_ENTRIES", "100_000"))

#: Remembers tasks of 50 ms and more from the start.
WATCH_TASKS = """
window.tasks = [];
new PerformanceObserver((list) => tasks.push(...list.getEntries().map((each) => each.duration)))
  .observe({ type: "longtask", buffered: true });
"""

#: Milliseconds from an action to the first element that fits a selector, painted
TIMED = """
async ([action, selector]) => {
  const began = performance.now();
  document.querySelector(action).click();
  while (!document.querySelector(selector)) await new Promise(requestAnimationFrame);
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - began;
}
"""

#: Loads all children by going to the end again and again, then goes through all of them page by page.
SCROLL = """
async (count) => {
  const box = document.querySelector("#tree");
  const frame = () => new Promise(requestAnimationFrame);
  tasks.length = 0;
  for (let height = 0; box.scrollHeight < count * 26; height = box.scrollHeight) {
    box.scrollTop = box.scrollHeight;
    await frame();
  }
  box.scrollTop = 0;
  const step = box.scrollHeight / 600;
  for (let at = 0; at < 600; at += 1) { box.scrollTop += step; await frame(); }
  await new Promise((done) => setTimeout(done, 200));
  return Math.max(0, ...tasks);
}
"""


def run(report: Report) -> None:
    """See the module."""
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory)) as server, chromium() as browser:
        headers = {"Authorization": f"Bearer {server.key}"}
        with httpx.Client(base_url=f"{server.url}/v1/", headers=headers, timeout=600, trust_env=False) as http:
            kv = Client(http, http.post("spaces", json={"name": "large"}).json()["id"])
            began = time.perf_counter()
            answer = kv.ask("POST", "import", content=_lines())
            assert answer.json()["set"] == 10 * EACH, answer.text
            report.figure(f"import of {10 * EACH:,} entries", time.perf_counter() - began, "s")
            _first_paint(report, browser, server)
            _tree(report, browser, server, kv)
            _value(report, browser, server, kv)
            _live(report, browser, server, kv)


def _lines() -> Iterator[bytes]:
    for part in range(10):
        for first in range(0, EACH, 1_000):
            middle = [] if part == 9 else [f"{first // 1_000:03}"]
            keys = ([f"part{part}", *middle, f"{number:06}"] for number in range(first, first + 1_000))
            yield b"".join(b'{"key":%b,"value":{"n":1}}\n' % json.dumps(key).encode() for key in keys)


def _page(browser: Browser, server: Server) -> tuple[Browsing, Page]:
    browsing = Browsing(browser, server.url)
    context = browsing.context(viewport={"width": 1280, "height": 800})
    context.add_init_script(WATCH_TASKS)
    return browsing, context.new_page()


def _first_paint(report: Report, browser: Browser, server: Server) -> None:
    painted = []
    for _ in range(5):
        browsing, page = _page(browser, server)
        page.goto("/console/")
        page.get_by_label("Access key").wait_for()
        painted.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
        browsing.close()
    report.target("first paint, median of 5", sorted(painted)[2], 300, "ms", most=True)


def _tree(report: Report, browser: Browser, server: Server, kv: Client) -> None:
    browsing, page = _page(browser, server)
    page.goto(place(kv))
    page.get_by_label("Access key").fill(server.key)
    report.target(
        "first tree after signing in", page.evaluate(TIMED, ["button.primary", "#tree-0"]), 1_000, "ms", most=True
    )
    opened = []
    # From the last to the first, so that the numbers of the rows above stay.
    for number in range(10, 0, -1):
        action = f'[role=treeitem][aria-posinset="{number}"][aria-level="1"] .twist'
        child = f"#tree-{number}[aria-level='2']:not(.more)"
        opened.append(page.evaluate(TIMED, [action, child]))
        page.locator(action).click()
    report.target("opening a node, slowest of 10", max(opened), 300, "ms", most=True)
    browsing.close()
    _scroll(report, browser, server, kv)


def _scroll(report: Report, browser: Browser, server: Server, kv: Client) -> None:
    """Three times, each in a tab of its own. A task that the machine keeps waiting is long without any work in it."""
    longest: list[float] = []
    worked: list[float] = []
    for _ in range(3):
        browsing, page = _page(browser, server)
        sign_in(page, server.key, place(kv, base=["part9"]))
        page.locator("#tree-0").wait_for()
        browser.start_tracing(page=page, categories=["toplevel", "__metadata"])
        longest.append(page.evaluate(SCROLL, EACH))
        worked.append(_most_work(browser.stop_tracing()))
        memory = _memory(browser, page)
        browsing.close()
    what = f"longest task, through {EACH:,} children"
    report.target(f"{what}, median of 3", sorted(longest)[1], 100, "ms", most=True)
    report.figure("  of the three, the longest (0: none of 50 ms)", max(longest), "ms")
    report.target("  processor time of the task that has most of it", max(worked), 100, "ms", most=True)
    report.target("memory of the tab with them", memory, 150, "MiB", most=True)


def _most_work(trace: bytes) -> float:
    """Milliseconds of processor time of the task of a page that took most."""
    events: list[dict[str, Any]] = json.loads(trace)["traceEvents"]
    pages = {
        (each["pid"], each["tid"])
        for each in events
        if each["name"] == "thread_name" and each["args"]["name"] == "CrRendererMain"
    }
    return float(max(each.get("tdur", 0) for each in events if (each["pid"], each["tid"]) in pages)) / 1_000


def _memory(browser: Browser, page: Page) -> float:
    """Anonymous memory of the page's process."""
    page.context.new_cdp_session(page).send("HeapProfiler.collectGarbage")
    processes: list[dict[str, Any]] = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    return max(anonymous_mib(each["id"]) for each in processes if each["type"] == "renderer")


def _value(report: Report, browser: Browser, server: Server, kv: Client) -> None:
    rows = {"rows": [{"n": n, "text": "x" * 1_000} for n in range(1_000)]}
    for name, value in (("one line", json.dumps(rows)), ("many lines", json.dumps(rows, indent=1))):
        put(kv, ["large value"], value)
        browsing, page = _page(browser, server)
        sign_in(page, server.key, place(kv))
        page.locator("#tree-0").wait_for()
        page.evaluate("tasks.length = 0")
        shown = page.evaluate(TIMED, ["[role=treeitem]", ".pane .cm-line"])
        page.wait_for_timeout(1_000)
        report.target(f"value of {len(value):,} bytes in {name}", shown, 1_000, "ms", most=True)
        report.figure("  longest task", max([0, *page.evaluate("tasks")]), "ms")
        browsing.close()


def _live(report: Report, browser: Browser, server: Server, kv: Client) -> None:
    browsing, page = _page(browser, server)
    put(kv, ["followed"], "0")
    sign_in(page, server.key, place(kv, key=["followed"]))
    page.locator(".live.live").wait_for()
    line = page.locator(".pane .cm-line")
    line.wait_for()
    taken = []
    with httpx.Client(headers={"Authorization": f"Bearer {server.key}"}, trust_env=False) as http:
        for number in range(1, 21):
            began = time.perf_counter()
            url = f"{server.url}/api/v2/store/{kv.id}/kv"
            http.put(f"{url}/followed", json={"value": number}).raise_for_status()
            expect(line).to_have_text(str(number))
            taken.append((time.perf_counter() - began) * 1_000)
    report.target("a change through the Versori API shows, slowest of 20", max(taken), 500, "ms", most=True)
    browsing.close()
