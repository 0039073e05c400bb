"""Prints which modules of ours a request runs through, in the order of their first call: `-m tools.request_path`.

It starts a server on SQLite, fills every cache by asking the same thing many times, and traces the event loop and the
writer's thread from before the request until its answer is there. Only calls of functions count. What runs now and
then by itself is left out by tracing several times; the nouns, which everybody uses, are no part of the path.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
from websockets.sync.client import connect

from tests.support.serving import KEY, PATIENCE_SECONDS, environment, free_ports, wait_until

NOUNS = frozenset({"kvasir", "model", "errors", "limits", "keys", "jsontext", "metrics"})

WARM_UPS = 20
#: Each request is traced so often; a module that is not there every time is not on its path.
TRACES = 5


class OneSegment(http.client.HTTPConnection):
    """Sends head and body at once; a body that comes after its head, now and then, is waited for on another path."""

    _held = b""

    def send(self, data: Any) -> None:
        self._held += data

    def getresponse(self) -> http.client.HTTPResponse:
        held, self._held = self._held, b""
        super().send(held)
        return super().getresponse()


class TracedServer:
    """A server in a process of its own, and one client of it."""

    def __init__(self, directory: Path) -> None:
        self._port, self._nemesis_port = free_ports(2)
        self._environment = environment(KVASIR_DATA_DIR=str(directory / "data"), KVASIR_ADMIN_KEY=KEY)
        self._log = (directory / "server.log").open("w+b")
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tools.traced_server", "serve"),
                *("--http", f"127.0.0.1:{self._port}", "--nemesis", f"127.0.0.1:{self._nemesis_port}"),
            ],
            env=self._environment,
            cwd=Path(__file__).parent.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._http = OneSegment("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)

    def close(self) -> None:
        """End the server."""
        self._http.close()
        self._process.terminate()
        self._process.communicate(timeout=PATIENCE_SECONDS)
        self._log.close()

    def is_ready(self) -> bool:
        """Whether it answers. Raises `RuntimeError` if the process has ended."""
        if self._process.poll() is not None:
            self._log.seek(0)
            raise RuntimeError(self._log.read().decode())
        try:
            return bool(self.ask("GET", "/readyz"))
        except OSError:
            self._http.close()
            return False

    def ask(self, method: str, path: str, body: bytes = b"", token: str = KEY, kind: str = "application/json") -> Any:
        """The JSON of an answer."""
        self._http.request(method, path, body, {"Authorization": f"Bearer {token}", "Content-Type": kind})
        response = self._http.getresponse()
        text = response.read()
        if response.status != http.client.OK or b'"error"' in text:
            raise RuntimeError(f"{method} {path}: {response.status} {text!r}")
        return json.loads(text)

    def command(self, *arguments: str) -> str:
        """Standard output of an administrative command."""
        return subprocess.run(
            [sys.executable, "-c", "from kvasir.cli import main; main()", *arguments],
            env=self._environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def websocket(self) -> contextlib.AbstractContextManager[Any]:
        """A connection to the NemesisDB API."""
        return connect(f"ws://127.0.0.1:{self._nemesis_port}", additional_headers={"Authorization": f"Bearer {KEY}"})

    def path_of(self, request: Callable[[], Any]) -> list[str]:
        """The modules that a request runs through."""
        for _ in range(WARM_UPS):
            request()
        traces = [self._trace(request) for _ in range(TRACES)]
        always = set.intersection(*map(set, traces)) - NOUNS
        return [module for module in traces[-1] if module in always]

    def _trace(self, request: Callable[[], Any]) -> list[str]:
        self._say("begin")
        request()
        return self._say("end")

    def _say(self, command: str) -> list[str]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the server has no pipes")
        stdin.write(command + "\n")
        stdin.flush()
        modules: list[str] = json.loads(stdout.readline())
        return modules


@contextlib.contextmanager
def traced_server() -> Iterator[TracedServer]:
    """A server that is ready, with its data in a directory of its own."""
    with tempfile.TemporaryDirectory() as directory, contextlib.closing(TracedServer(Path(directory))) as server:
        wait_until(server.is_ready, "the traced server is ready")
        yield server


def paths() -> dict[str, list[str]]:
    """What each kind of request runs through."""
    with traced_server() as server, server.websocket() as websocket:
        organisation = json.loads(server.command("key", "list", "--json"))[0]["organisation"]
        store = server.ask("GET", f"/o/{organisation}/store")["stores"][0]["id"]
        key = f"/store/{store}/kv/users/42"

        def say(command: str, body: dict[str, Any]) -> Any:
            websocket.send(json.dumps({command: body}))
            return json.loads(websocket.recv())

        token = say("SH_NEW", {"name": "session"})["SH_NEW_RSP"]["tkn"]
        form, credentials = _voximplant(server)
        kind = "application/x-www-form-urlencoded"
        return {
            "PUT": server.path_of(lambda: server.ask("PUT", key, b'{"value":{"name":"Ada"}}')),
            "GET": server.path_of(lambda: server.ask("GET", key)),
            "KV_SET": server.path_of(lambda: say("KV_SET", {"tkn": token, "keys": {"name": "Ada"}})),
            "SetKeyValueItem": server.path_of(
                lambda: server.ask("POST", "/platform_api/SetKeyValueItem", form, credentials, kind)
            ),
        }


def _voximplant(server: TracedServer) -> tuple[bytes, str]:
    """(a form that sets an item, the token of a service account)"""
    server.command("application", "create", "--name", "app", "--id", "1")
    account = json.loads(server.command("service-account", "create", "--role", "Developer"))
    now = int(time.time())
    claims = {"iss": str(account["account_id"]), "iat": now - 5, "exp": now + 600}
    token = jwt.encode(claims, account["private_key"], "RS256", headers={"kid": account["key_id"]})
    form = {"application_id": "1", "key": "products:1", "value": "tea", "ttl": "600"}
    return urllib.parse.urlencode(form).encode(), token


if __name__ == "__main__":
    for request, modules in paths().items():
        print(f"{request}: {len(modules)} modules", *modules, sep="\n  ")
