"""What others change, through whatever API, shows on the open page by itself."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from kvasir.keys import millisecond_of
from tests.support import nemesis
from tests.support.console import sign_in
from tests.support.serving import Server, environment
from tests.support.voximplant_live import CLIENTS, ROOT, Live, live

#: Notes when each versionstamp was first on screen.
NOTE = """() => {
  globalThis.seen = {};
  const note = () => {
    const stamp = document.querySelector("#entry .facts code")?.textContent;
    if (stamp && !(stamp in seen)) seen[stamp] = Date.now();
  };
  note();
  new MutationObserver(note).observe(document.body, {subtree: true, childList: true, characterData: true});
}"""


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """With TLS, which the official client of Voximplant demands."""
    with live(tmp_path_factory.mktemp("live")) as running:
        yield running


@pytest.fixture(scope="module")
def server(live_server: Live) -> Server:
    return live_server.server


def space_of(server: Server, kind: str, name: str) -> str:
    """The ULID of a space."""
    found = httpx.get(f"{server.url}/v1/spaces?kind={kind}", headers=server.headers, trust_env=False).json()["spaces"]
    return next(str(space["id"]) for space in found if space["name"] == name)


def follow(page: Page, server: Server, space: str, write: Callable[[int], None]) -> None:
    """Open the entry `live`, then have it written, twice; it is shown each time."""
    write(1)
    sign_in(page, server.key, f"/console/#/s/{space}/tree;/live")
    shown, tree = page.locator("#entry .cm-content"), page.get_by_role("treeitem")
    expect(shown).to_contain_text("1")
    expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()
    page.evaluate(NOTE)
    write(2)
    expect(shown).to_contain_text("2")
    write(3)
    expect(shown).to_contain_text("3")
    expect(tree).to_have_count(1)
    seen: dict[str, int] = page.evaluate("seen")
    late = [at - millisecond_of(int(stamp, 16)) for stamp, at in seen.items()][1:]
    assert len(late) == 2
    print(f"shown {late[0]} ms and {late[1]} ms after the commit")  # noqa: T201  # a figure to read, with -s


def test_a_change_through_the_versori_api_shows(page: Page, server: Server) -> None:
    def write(number: int) -> None:
        address = f"{server.url}/api/v2/store/{server.store}/kv/live"
        httpx.put(address, json={"value": number}, headers=server.headers, trust_env=False).raise_for_status()

    follow(page, server, server.store, write)


def test_a_change_by_a_client_of_nemesisdb_shows(page: Page, server: Server) -> None:
    with nemesis.client(server.nemesis_url) as client:
        token = client.session("console")

        def write(number: int) -> None:
            assert client.do("KV_SET", tkn=token, keys={"live": number})["keys"]["live"] in (20, 21)

        follow(page, server, space_of(server, "session", "console"), write)


def test_a_change_by_the_voximplant_client_shows(page: Page, live_server: Live) -> None:
    if not (CLIENTS / "ready").exists():
        pytest.fail("the official clients are missing; `make .venv/clients/ready` installs them")
    server = live_server.server

    def write(number: int) -> None:
        program = {
            "credentials": str(live_server.credentials_file),
            "endpoint": f"localhost:{live_server.https_port}",
            "readme": False,
            "calls": [("set_key_value_item", ["live", f"number {number}", None, "myapp", 3_600])],
        }
        script = ROOT / "tests" / "voximplant" / "clients" / "use_python.py"
        trust = {name: str(live_server.ca) for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")}
        done = subprocess.run(
            [CLIENTS / "python" / "bin" / "python", script],
            input=json.dumps(program),
            env=environment(**trust, NO_PROXY="*", no_proxy="*"),
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        (outcome,) = json.loads(done.stdout)
        assert "returned" in outcome, outcome

    follow(page, server, space_of(server, "application", "myapp"), write)


def test_a_deletion_and_an_end_by_others_show(page: Page, server: Server) -> None:
    """A key that goes leaves the tree, and a prefix with it."""
    address = f"{server.url}/v1/spaces/{server.store}/entries"

    def send(method: str, path: str, **more: Any) -> None:
        httpx.request(method, address + path, headers=server.headers, trust_env=False, **more).raise_for_status()

    for key in ("going/1", "going/2", "staying"):
        send("PUT", f"/{key}", content=b"1")
    sign_in(page, server.key, f"/console/#/s/{server.store}/tree;/staying")
    tree = page.get_by_role("tree")
    going = tree.get_by_role("treeitem", name="going")
    expect(going).to_be_visible()
    expect(page.get_by_role("status").filter(has_text="Live")).to_be_visible()
    send("DELETE", "?prefix=going")
    expect(going).to_have_count(0)
    send("DELETE", "/staying")
    expect(page.locator("#entry").get_by_role("button", name="Make one")).to_be_visible()
    expect(tree.get_by_role("treeitem", name="staying")).to_have_count(0)
