"""No write whose outcome is unknown is sent twice, and what is called unknown is unknown."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
from kvasir_client import Client, ConditionNotMet, Store, UnknownOutcome

from clients.python.tests.conftest import Connect
from clients.python.tests.support.cutting import cutting
from tests.support.serving import Server, free_ports

WRITES = 250


@pytest.mark.parametrize("seed", [1, 2])
def test_a_proxy_that_cuts_connections_at_random_bytes(
    connect: Connect, client: Client, kv: Store, server: Server, seed: int
) -> None:
    outcomes: dict[str, str] = {}
    with cutting(server.port, seed) as proxy:
        with_cuts = connect(f"http://127.0.0.1:{proxy.port}", key=server.key)
        store = with_cuts.store(kv.show().id)
        for number in range(WRITES):
            name = f"write-{number}"
            try:
                # Half of them have a condition that only the first of two requests would meet.
                store.set((name,), number, if_absent=bool(number % 2))
            except UnknownOutcome:
                outcomes[name] = "unknown"
            except ConditionNotMet:
                outcomes[name] = "lost to itself"
            else:
                outcomes[name] = "done"
    found = Counter(outcomes.values())
    assert found["lost to itself"] == 0
    assert found["unknown"] > WRITES / 10
    assert found["done"] > WRITES / 10
    there = {name for name in outcomes if kv.get((name,))}
    assert {name for name, outcome in outcomes.items() if outcome == "done"} <= there
    # Not one of them came twice, whatever its outcome: this proxy never says "unavailable" or refuses a connection.
    assert set(proxy.seen.values()) == {1}
    # What is called unknown was cut, and some of it has happened, some has not.
    unknown = {name for name, outcome in outcomes.items() if outcome == "unknown"}
    assert unknown <= proxy.cut | {name for name in unknown if name not in proxy.seen}
    assert unknown & there
    assert unknown - there


def test_reads_come_through_all_the_same(connect: Connect, kv: Store, server: Server) -> None:
    kv.set("k", "x" * 300)
    with cutting(server.port, 3) as proxy:
        store = connect(f"http://127.0.0.1:{proxy.port}", key=server.key, attempts=12).store(kv.show().id)
        for _ in range(40):
            entry = store.get("k")
            assert entry is not None
            assert entry.value == "x" * 300


class Scripted(BaseHTTPRequestHandler):
    """Answers as told, like a proxy or a server in a state that no real one gets into when asked."""

    protocol_version = "HTTP/1.1"
    script: ClassVar[list[tuple[int, str, bytes]]]
    requests: ClassVar[list[str]]

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.requests.append(self.path)
        status, kind, body = self.script.pop(0)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"0000000000000000000a"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def scripted(*script: tuple[int, str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these answers; its address and the requests it has had."""
    handler = type("Handler", (Scripted,), {"script": list(script), "requests": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler.requests  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


ULID = "01J00000000000000000000000"
UNAVAILABLE = (
    503,
    "application/problem+json",
    b'{"type":"urn:kvasir:error:unavailable","code":"unavailable","detail":"the queue is full","status":503}',
)
GOOD = (200, "application/json", b"{}")


def test_a_write_is_sent_again_when_kvasir_says_that_nothing_happened(connect: Connect) -> None:
    with scripted(UNAVAILABLE, UNAVAILABLE, GOOD) as (url, requests):
        client = connect(url, key="kv_x")
        assert client.store(ULID).set("k", 1) == "0000000000000000000a"
        client.close()
    assert len(requests) == 3


def test_a_write_is_not_sent_again_when_a_proxy_says_503(connect: Connect) -> None:
    with scripted((503, "text/html", b"no healthy upstream"), GOOD) as (url, requests):
        client = connect(url, key="kv_x")
        with pytest.raises(UnknownOutcome, match="503"):
            client.store(ULID).set("k", 1)
        client.close()
    assert len(requests) == 1


def test_a_yes_that_is_not_kvasirs_is_no_yes(connect: Connect) -> None:
    with scripted((200, "text/html", b"<h1>Welcome</h1>")) as (url, requests):
        client = connect(url, key="kv_x")
        with pytest.raises(UnknownOutcome):
            client.store(ULID).increment("k")
        client.close()
    assert requests == []


def test_a_write_waits_for_a_server_that_is_just_starting(connect: Connect, server: Server) -> None:
    """A refused connection has carried nothing: the write is sent when there is somebody to send it to."""
    (port,) = free_ports(1)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

    def start() -> None:
        listener.bind(("127.0.0.1", port))
        listener.listen()

    timer = threading.Timer(0.05, start)
    timer.start()
    client = connect(f"http://127.0.0.1:{port}", key="kv_x", attempts=50, timeout=0.5)
    # It connects in the end, and nobody answers: the one request that went out has an unknown outcome.
    with pytest.raises(UnknownOutcome, match="in time"):
        client.store(ULID).set("k", 1)
    timer.join()
    listener.close()


def test_an_answer_that_is_too_late_is_unknown(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = connect(f"http://127.0.0.1:{silent.getsockname()[1]}", key="kv_x", timeout=0.2)
        with pytest.raises(UnknownOutcome, match="in time"):
            client.store(ULID).set("k", 1)
