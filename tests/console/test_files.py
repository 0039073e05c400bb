"""What the server answers at / and below /console/, to browsers and to others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page

import kvasir
from tests.support.browser import Browsing
from tests.support.raw_http import Wire
from tests.support.serving import Server, serving

FILES = Path(kvasir.__file__).parent / "console"
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8", "Accept-Encoding": "gzip, deflate, br"}


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, trust_env=False, headers={"Accept-Encoding": "identity"}) as client:
        yield client


def test_a_browser_is_led_from_the_root_to_the_console(http: httpx.Client) -> None:
    for path in ("/", "/console"):
        answer = http.get(path, headers=BROWSER)
        assert (answer.status_code, answer.headers["location"]) == (302, "/console/")
        assert answer.headers["vary"] == "Accept"
    assert http.head("/", headers=BROWSER).status_code == 302


def test_a_program_finds_nothing_at_the_root(http: httpx.Client) -> None:
    for answer in (http.get("/"), http.post("/", headers=BROWSER)):
        assert answer.status_code == 404
        assert answer.json()["code"] == "route_not_found"


def test_the_page_comes_with_a_strict_policy_and_a_nonce_of_its_own(http: httpx.Client) -> None:
    first, second = http.get("/console/"), http.get("/console/")
    nonces = [re.search(r'name="style-nonce" content="([\w-]+)"', answer.text) for answer in (first, second)]
    assert nonces[0] is not None
    assert nonces[1] is not None
    assert nonces[0][1] != nonces[1][1]
    assert first.headers["content-security-policy"] == (
        f"default-src 'none'; script-src 'self'; style-src 'self' 'nonce-{nonces[0][1]}'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert "{{" not in first.text
    assert first.headers["content-type"] == "text/html; charset=utf-8"
    assert first.headers["cache-control"] == "no-store"
    assert first.headers["referrer-policy"] == "no-referrer"
    assert first.headers["x-content-type-options"] == "nosniff"
    assert http.head("/console/").content == b""
    assert http.post("/console/").status_code == 405


def test_every_file_is_served_as_what_it_is(http: httpx.Client) -> None:
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".json": "application/json"}
    for file in FILES.rglob("*"):
        if not file.is_file() or file.name == "index.html":
            continue
        path = f"/console/{file.relative_to(FILES)}"
        whole = http.get(path)
        assert whole.status_code == 200, path
        assert whole.content == file.read_bytes()
        assert whole.headers["content-type"].partition(";")[0] == kinds.get(file.suffix, "text/plain")
        assert whole.headers["cache-control"] == "no-cache"
        assert whole.headers["x-content-type-options"] == "nosniff"
        assert http.get(path, headers={"If-None-Match": f'"x", W/{whole.headers["etag"]}'}).status_code == 304
        assert http.head(path).headers["content-length"] == str(len(whole.content))


def test_large_files_are_compressed_for_those_who_take_it(http: httpx.Client) -> None:
    largest = max((file for file in FILES.rglob("*") if file.suffix in (".js", ".css")), key=lambda f: f.stat().st_size)
    path = f"/console/{largest.relative_to(FILES)}"
    plain = http.get(path)
    small = http.get(path, headers=BROWSER)
    assert small.headers["content-encoding"] == "gzip"
    assert small.headers["vary"] == plain.headers["vary"] == "Accept-Encoding"
    assert small.content == plain.content
    assert int(small.headers["content-length"]) < len(plain.content)
    assert small.headers["etag"] != plain.headers["etag"]
    assert "content-encoding" not in http.get(path, headers={"Accept-Encoding": "gzip;q=0, br"}).headers


def test_the_files_of_one_release_may_be_kept_for_ever(http: httpx.Client) -> None:
    name = next(file.name for file in FILES.iterdir() if file.suffix == ".css")
    release = re.search(r'"/console/([0-9a-f]{16})/', http.get("/console/").text)
    assert release is not None
    kept = http.get(f"/console/{release[1]}/{name}")
    assert kept.content == (FILES / name).read_bytes()
    assert kept.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert http.get(f"/console/{'0' * 16}/{name}").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "nothing.js",
        "../kvasir/keys.py",
        "%2e%2e/keys.py",
        "app",
        "app/",
        "index.html",
        "/etc/passwd",
        "..%2fkeys.py",
        "%00",
    ],
)
def test_nothing_else_is_served(server: Server, path: str) -> None:
    with Wire(server.port) as wire:
        wire.send(f"GET /console/{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert wire.answer().status == 404


def test_off_there_is_no_console_and_the_root_leads_to_the_reference(tmp_path: Path) -> None:
    with serving(tmp_path, "--console", "off") as server, httpx.Client(base_url=server.url, trust_env=False) as http:
        assert http.get("/", headers=BROWSER).headers["location"] == "/docs"
        refused = http.get("/console/", headers=BROWSER)
        assert refused.status_code == 404
        assert "--console on" in refused.json()["message"]
        assert "/console/" not in http.get("/docs").text


def test_the_page_loads_without_a_fault(page: Page, browsing: Browsing) -> None:
    page.goto("/")
    assert page.url.endswith("/console/")
    assert page.title()
    assert all(not headers.get("referer") for _, headers in browsing.requests)


#: Directive of the policy -> what a page would do against it.
VIOLATIONS = {
    "script-src-elem": "document.head.append(Object.assign(document.createElement('script'), {text: '1'}))",
    "script-src": "setTimeout(() => { try { eval('1') } catch {} })",
    "style-src-elem": "document.head.append(Object.assign(document.createElement('style'), {textContent: 'b {}'}))",
    "style-src-attr": "document.body.setAttribute('style', 'color: red')",
    "img-src": "new Image().src = 'http://127.0.0.1:9/x.png'",
    "connect-src": "fetch('http://127.0.0.1:9/').catch(() => {})",
    "form-action": "const form = document.createElement('form'); document.body.append(form); form.submit()",
    "base-uri": "document.head.append(Object.assign(document.createElement('base'), {href: 'http://127.0.0.1:9/'}))",
}


@pytest.mark.parametrize("directive", VIOLATIONS)
def test_the_policy_is_kept_and_a_violation_noticed(page: Page, browsing: Browsing, directive: str) -> None:
    page.goto("/console/")
    with page.expect_console_message(lambda message: message.text.startswith(f"violation of {directive} ")):
        page.evaluate(f"() => {{ {VIOLATIONS[directive]} }}")
    assert browsing.faults
    browsing.faults.clear()


def test_a_style_sheet_with_the_nonce_of_the_page_is_let_in(page: Page) -> None:
    """CodeMirror makes its own."""
    page.goto("/console/")
    page.evaluate("""() => {
      const sheet = document.createElement("style");
      sheet.nonce = document.querySelector("meta[name=style-nonce]").content;
      sheet.textContent = "body { letter-spacing: 3px; }";
      document.head.append(sheet);
    }""")
    assert page.evaluate("getComputedStyle(document.body).letterSpacing") == "3px"


def test_the_reference_leads_to_the_console_and_looks_like_it(page: Page, http: httpx.Client) -> None:
    for reference in ("/docs", "/docs/v1"):
        page.goto(reference)
        page.get_by_role("link", name="Console", exact=True).click()
        page.wait_for_url("**/console/**")
    ours, theirs = (
        re.findall(r"(--[\w-]+): *([^;]+);", http.get(sheet).text)
        for sheet in ("/console/console.css", "/docs/style.css")
    )
    shared = {name for name, _ in ours} & {name for name, _ in theirs}
    assert {"--paper", "--ink", "--line", "--link"} <= shared
    for name in shared:  # in light and in dark
        assert [value for each, value in ours if each == name] == [value for each, value in theirs if each == name]
