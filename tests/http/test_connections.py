"""What very many connections cost that say nothing or little, and that they do not keep a server from stopping."""

from __future__ import annotations

import contextlib
import http.client
import re
import resource
import selectors
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.http_client import client
from tests.support.serving import PATIENCE_SECONDS, Server, serving, wait_until

SILENT = 2_000
#: Of the process, beside what the system has of each
MOST_BYTES_EACH = 12 * 1_024


def resident(server: Server) -> int:
    """Bytes of memory of the server's process."""
    (kilobytes,) = re.findall(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{server.pid}/status").read_text())
    return int(kilobytes) * 1_024


@contextlib.contextmanager
def connections(server: Server, count: int, said: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections, on which this was sent."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        made = []
        for _ in range(count):
            made.append(stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE_SECONDS)))
            made[-1].sendall(said)
        yield made


def all_ended(made: list[socket.socket]) -> bool:
    """Whether the server ends every one of these connections before anybody loses patience."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    with selectors.DefaultSelector() as selector:
        for each in made:
            selector.register(each, selectors.EVENT_READ)
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(0.1):
                if not key.fileobj.recv(65_536):  # type: ignore[union-attr]
                    selector.unregister(key.fileobj)
        return not selector.get_map()


def open_sockets(server: Server) -> int:
    links = Path(f"/proc/{server.pid}/fd").iterdir()
    found = 0
    for link in links:
        with contextlib.suppress(OSError):
            found += str(link.readlink()).startswith("socket:")
    return found


@pytest.mark.parametrize("said", [b"", b"G"])
def test_connections_that_say_nothing_cost_little_and_end(tmp_path: Path, said: bytes) -> None:
    options = ("--limit-idle-seconds", "8", "--limit-head-seconds", "8", "--no-nemesis")
    with serving(tmp_path, *options) as server:
        # Warm-up: what any first connections cost stays out of the account.
        with connections(server, 200, said):
            wait_until(lambda: open_sockets(server) > 200, "the first are there")
        wait_until(lambda: open_sockets(server) < 10, "the first are gone")
        before = resident(server)
        with connections(server, SILENT, said) as made:
            wait_until(lambda: open_sockets(server) >= SILENT, "all are accepted")
            assert resident(server) - before < SILENT * MOST_BYTES_EACH
            assert client.get(f"{server.url}/readyz").status_code == 200
            assert all_ended(made)


def test_a_stop_does_not_wait_for_what_is_no_whole_request(tmp_path: Path) -> None:
    with serving(tmp_path, "--drain-seconds", "30") as server, contextlib.ExitStack() as stack:
        made = []
        for said in (b"", b"GE", b"GET /readyz HT", b"GET / HTTP/1.1\r\nHost: "):
            made += stack.enter_context(connections(server, 100, said))
        idle = stack.enter_context(contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)))
        idle.request("GET", "/healthz")
        idle.getresponse().read()
        upgrading = stack.enter_context(socket.create_connection(("127.0.0.1", server.nemesis_port)))
        upgrading.sendall(b"GET / HTTP/1.1\r\nUpg")
        assert client.get(f"{server.url}/readyz").status_code == 200
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 5.0  # room for a busy machine; the drain time is much longer
        assert all_ended(made)
