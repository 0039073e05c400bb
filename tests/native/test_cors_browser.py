"""Pages of other origins, in a real browser: those that are named may use the APIs, and no others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.support.browser import chromium
from tests.support.serving import Server, serving

#: Sends a request and gives what the page can see of the answer; "refused" if the browser keeps it from the page.
ASK = """async ([method, url, headers, body]) => {
  try {
    const answer = await fetch(url, {method, headers, body: body ?? undefined, cache: "no-store"});
    return {status: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.text()};
  } catch (error) {
    return "refused";
  }
}"""


class _Page(BaseHTTPRequestHandler):
    """An empty page at every address."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>elsewhere</title>")

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """The port of a server of pages."""
    pages = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = threading.Thread(target=pages.serve_forever)
    thread.start()
    yield str(pages.server_port)
    pages.shutdown()
    thread.join()
    pages.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, elsewhere: str) -> Iterator[Server]:
    """It names one origin."""
    with serving(tmp_path_factory.mktemp("server"), "--cors-origin", f"http://127.0.0.1:{elsewhere}") as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium("--host-resolver-rules=MAP *.example.org 127.0.0.1") as running:
        yield running


@pytest.fixture
def page(browser: Browser, elsewhere: str) -> Iterator[Page]:
    """A page of the origin that is named."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{elsewhere}/")
        yield page


def ask(page: Any, server: Server, method: str, path: str, body: str | None = None, **headers: str) -> Any:
    sent = server.headers | {name.replace("_", "-"): text for name, text in headers.items()}
    return page.evaluate(ASK, [method, f"{server.url}{path}", sent, body])


def test_a_page_of_a_named_origin_does_all_that_the_api_can(page: Page, server: Server) -> None:
    entry = f"/v1/spaces/{server.store}/entries/cors"
    made = ask(page, server, "PUT", entry, "1", If_None_Match="*", Kvasir_Metadata='{"a":1}', Content_Type="text/plain")
    assert made["status"] == 201
    tag = made["headers"]["etag"]
    got = ask(page, server, "GET", entry, If_None_Match='"0"')
    assert (got["status"], got["body"], got["headers"]["etag"]) == (200, "1", tag)
    assert {"kvasir-created-at", "x-request-id"} <= set(got["headers"])
    assert ask(page, server, "PUT", entry, "2", If_Match=tag)["status"] == 200
    renamed = ask(page, server, "POST", "/v1/spaces", '{"name": "cors"}', Content_Type="application/json")
    space = page.evaluate("JSON.parse", renamed["body"])["id"]
    assert ask(page, server, "PATCH", f"/v1/spaces/{space}", '{"name": "cross"}')["status"] == 200
    gone = ask(page, server, "DELETE", entry)
    assert (gone["status"], gone["headers"]["kvasir-count"]) == (204, "1")
    versori = ask(page, server, "PUT", f"/api/v2/store/{server.store}/kv/cors", '{"value": 1}')
    assert versori["status"] == 200


def test_a_page_sees_why_it_is_refused(page: Page, server: Server) -> None:
    entry = f"/v1/spaces/{server.store}/entries/refused"
    ask(page, server, "PUT", entry, "1")
    conflict = ask(page, server, "PUT", entry, "2", If_None_Match="*")
    assert (conflict["status"], '"code":"conflict"' in conflict["body"]) == (412, True)
    assert conflict["headers"]["etag"]
    for path, headers, status in (
        (f"{entry}/none", {}, 404),
        (entry, {"Authorization": "Bearer unknown"}, 401),
        ("/v1/nothing", {}, 404),
        (f"/api/v2/store/{server.store}/kv/none", {}, 404),
        (f"/v1/spaces/{server.store}/entries/a//b", {}, 400),
    ):
        assert ask(page, server, "GET", path, **headers)["status"] == status


def test_a_page_watches(page: Page, server: Server) -> None:
    """And says where it was, which an EventSource of the browser could not do with a credential."""
    page.evaluate(
        """async ([url, headers]) => {
          const answer = await fetch(url, {headers});
          globalThis.told = "";
          (async () => {
            for await (const piece of answer.body.pipeThrough(new TextDecoderStream())) globalThis.told += piece;
          })();
        }""",
        [
            f"{server.url}/v1/spaces/{server.store}/watch?prefix=watched",
            server.headers | {"Last-Event-ID": "0" * 20},
        ],
    )
    page.wait_for_function("told.includes('event: ')")
    ask(page, server, "PUT", f"/v1/spaces/{server.store}/entries/watched/1", "1")
    page.wait_for_function("told.includes('event: set')")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1.example.org"])
def test_a_page_of_another_origin_is_refused(browser: Browser, server: Server, elsewhere: str, host: str) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"http://{host}:{elsewhere}/")
        assert ask(page, server, "GET", "/v1") == "refused"
        assert ask(page, server, "PUT", f"/v1/spaces/{server.store}/entries/never", "1") == "refused"
    assert not server_has(server, "never")


def test_a_page_without_an_origin_is_refused(page: Page, server: Server) -> None:
    """Any page can make itself one: a sandboxed frame, whose origin is `null`."""
    page.evaluate(
        """() => {
          const frame = document.createElement("iframe");
          frame.sandbox = "allow-scripts";
          frame.name = "sandboxed";
          frame.srcdoc = "<!doctype html>";
          document.body.append(frame);
        }"""
    )
    frame = page.locator("iframe[name=sandboxed]").element_handle().content_frame()
    assert frame is not None
    assert frame.evaluate("origin") == "null"
    assert ask(frame, server, "GET", "/v1") == "refused"
    assert ask(frame, server, "PUT", f"/v1/spaces/{server.store}/entries/null", "1") == "refused"
    assert not server_has(server, "null")


def test_apis_that_have_no_such_setting_stay_closed(page: Page, server: Server) -> None:
    for path in ("/platform_api/GetKeyValueItems", "/metrics", "/console/", "/healthz"):
        assert ask(page, server, "GET", path) == "refused"


def server_has(server: Server, key: str) -> bool:
    return server._get(f"/v1/spaces/{server.store}/entries/{key}")[0] == 200
