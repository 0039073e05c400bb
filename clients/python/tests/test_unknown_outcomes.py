"""No write whose outcome is unknown is sent twice, and what is called unknown is unknown."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from kvasir_client import (
    Client,
    ConditionNotMet,
    Invalid,
    KvasirError,
    NotFound,
    Store,
    Unavailable,
    UnknownOutcome,
)

from clients.python.tests.conftest import Connect
from clients.python.tests.support.cutting import cutting
from clients.python.tests.test_answers import foreign, problem
from tests.support.serving import KEY, Server, free_ports, serving, wait_until

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


class Writer(threading.Thread):
    """Writes keys that nobody else writes, each once, and counts them in a key that all share."""

    def __init__(self, store: Store, name: str) -> None:
        super().__init__(daemon=True)
        self._store = store
        self._name = name
        self.stopped = threading.Event()
        self.outcomes: dict[tuple[str, str], str] = {}
        self.counted: Counter[str] = Counter()
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            while not self.stopped.is_set():
                key = (self._name, str(len(self.outcomes)))
                self.outcomes[key] = self._try(partial(self._store.set, key, 1, if_absent=True))
                self.counted[self._try(lambda: self._store.increment("sum"))] += 1
        except Exception as failure:
            self.failure = failure

    def _try(self, write: Callable[[], object]) -> str:
        try:
            write()
        except UnknownOutcome:
            return "unknown"
        except Unavailable:
            return "not done"
        return "done"  # a ConditionNotMet ends the writer: its own write came twice


def test_no_write_is_sent_twice_through_the_death_of_the_server(connect: Connect, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    store = connect(f"http://127.0.0.1:{port}", key=KEY, attempts=2).store("default")
    writers = [Writer(store, f"writer-{n}") for n in range(4)]

    def done() -> int:
        return sum(writer.counted["done"] for writer in writers)

    for death in range(3):
        with serving(tmp_path, "--no-nemesis", port=port) as server:
            if not death:
                for writer in writers:
                    writer.start()
            before = done()
            wait_until(lambda before=before: done() > before + 30 or any(w.failure for w in writers), "they write")  # type: ignore[misc]
            server.kill()
    for writer in writers:
        writer.stopped.set()
        writer.join()
        assert writer.failure is None
    with serving(tmp_path, "--no-nemesis", port=port):
        there = {entry.key for entry in store.scan()}
        entry = store.get("sum")
    outcomes = {key: outcome for writer in writers for key, outcome in writer.outcomes.items()}
    assert {key for key, outcome in outcomes.items() if outcome == "done"} <= there
    assert not {key for key, outcome in outcomes.items() if outcome == "not done"} & there
    counted: Counter[str] = sum((writer.counted for writer in writers), Counter())
    assert "unknown" in {*outcomes.values(), *counted}, "no kill came in the middle of a write"
    assert entry is not None
    assert counted["done"] <= entry.value <= counted["done"] + counted["unknown"]


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
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.requests.append(self.path)
        status, kind, body = self.script.pop(0)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"0000000000000000000a"')
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_DELETE = do_PUT

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


@pytest.mark.parametrize("status", [200, 304])
def test_an_end_that_is_not_kvasirs_is_no_end(connect: Connect, status: int) -> None:
    with scripted((status, "text/html", b"" if status == 304 else b"<h1>Welcome</h1>")) as (url, _):
        client = connect(url, key="kv_x")
        with pytest.raises(KvasirError, match=str(status)):
            client.store(ULID).end()
        client.close()


def test_an_answer_that_cannot_be_decoded_leaves_a_write_unknown(connect: Connect) -> None:
    with scripted((200, "application/json\r\nContent-Encoding: gzip", b"no gzip")) as (url, requests):
        client = connect(url, key="kv_x")
        with pytest.raises(UnknownOutcome):
            client.store(ULID).set("k", 1)
        client.close()
    assert len(requests) == 1


def stream(*events: str) -> tuple[int, str, bytes]:
    return 200, "text/event-stream", "".join(f"{event}\n\n" for event in events).encode()


def test_a_watch_comes_back_whatever_state_the_server_was_in(connect: Connect) -> None:
    ready = 'id: 0000000000000000000a\nevent: ready\ndata: {"versionstamp":"0000000000000000000a"}'
    failures = [problem(500, "internal"), problem(504, "timeout"), problem(503, "unavailable"), foreign(429)]
    told = [(each.status, each.headers["content-type"], each.body) for each in failures]
    gone = 'event: error\ndata: {"type":"urn:kvasir:error:store_not_found","code":"store_not_found","status":404}'
    with scripted(stream(ready), *told, stream(ready, gone)) as (url, requests):
        client = connect(url, key="kv_x", attempts=1)
        events = client.store(ULID).watch()
        assert [next(events).kind, next(events).kind] == ["ready", "ready"]
        with pytest.raises(NotFound):
            next(events)
        client.close()
    assert len(requests) == 6


def test_an_export_that_is_not_whole_says_why_by_its_class(connect: Connect) -> None:
    line = (
        b'{"error":{"type":"urn:kvasir:error:snapshot_ended","code":"snapshot_ended","status":503,"detail":"held"}}\n'
    )
    with scripted((200, "application/x-ndjson", line)) as (url, _):
        client = connect(url, key="kv_x")
        with pytest.raises(Unavailable, match="not whole: held") as failure:
            list(client.store(ULID).export_pieces())
        client.close()
    assert failure.value.reason == "snapshot_ended"


def test_a_transaction_is_sent_once_whatever_becomes_of_it(connect: Connect) -> None:
    """Also at the end of its `with` statement."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = connect(f"http://127.0.0.1:{silent.getsockname()[1]}", key="kv_x", timeout=0.2)
        with client.store(ULID).transaction() as t:
            t.increment("n")
            with pytest.raises(UnknownOutcome):
                t.commit()
            with pytest.raises(Invalid, match="has been sent"):
                t.commit()
            with pytest.raises(Invalid, match="has been sent"):
                t.increment("n")
        client.close()


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
