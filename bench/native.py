"""Kvasir's own API: single keys beside the Versori API, export of a million entries, import."""

from __future__ import annotations

import asyncio
import re
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import httpx

from bench.harness import TURNS, Report, anonymous_mib, wrk
from bench.versori import _fill
from tests.support.raw_http import request
from tests.support.serving import Server, serving

MANY = 1_000_000

PUT = """
wrk.method = "PUT"
wrk.body = '{body}'
wrk.headers["Content-Type"] = "application/json"
local n = 0
function request() n = n + 1; return wrk.format(nil, wrk.path .. (n % 10000)) end
"""

VALUE = '"\' .. string.rep("x", 100) .. \'"'


def run(report: Report) -> None:
    """See the module."""
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory), "--no-nemesis") as server:
        _beside_versori(report, server)
    with tempfile.TemporaryDirectory() as directory:
        with serving(Path(directory), "--no-nemesis") as server:
            store = server.store
            server.stop()
        asyncio.run(_fill(server.data_dir / "kvasir.db", store, MANY))
        with serving(Path(directory), "--no-nemesis", "--limit-unread-seconds", "5") as server:
            _export(report, server)
            _attacks(report, server)


def _beside_versori(report: Report, server: Server) -> None:
    store = server.store
    bases = {"Versori": f"{server.url}/store/{store}/kv/", "/v1": f"{server.url}/v1/spaces/{store}/entries/"}
    bodies = {"Versori": '{"value":' + VALUE + "}", "/v1": VALUE}
    with httpx.Client(headers=server.headers, trust_env=False) as client:
        assert client.put(f"{bases['/v1']}read", content=b'"' + b"x" * 100 + b'"').status_code == 201
    for connections in (32, 128):
        rates: dict[tuple[str, str], list[float]] = {}
        # Many short turns, each in the other order: what else the machine does counts for both.
        for turn in range(5 * TURNS):
            for name, base in sorted(bases.items(), reverse=bool(turn % 2)):
                script = PUT.replace("{body}", bodies[name])
                put = wrk(base, connections=connections, headers=server.headers, script=script, seconds=1)
                get = wrk(base + "read", connections=connections, headers=server.headers, seconds=1)
                rates.setdefault(("durable PUT", name), []).append(put.per_second)
                rates.setdefault(("GET", name), []).append(get.per_second)
        for method in ("GET", "durable PUT"):
            own, other = (rates[method, name] for name in ("/v1", "Versori"))
            ratio = statistics.median([mine / theirs for mine, theirs in zip(own, other, strict=True)])
            report.figure(f"{method} by /v1, {connections} connections", statistics.median(own), "/s")
            report.target(f"{method} by /v1 / by Versori, {connections} connections", ratio, 0.95)


class Watched(threading.Thread):
    """Remembers the most memory that a process had, while it runs."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self._pid = server.pid
        self.rest = self.most = anonymous_mib(self._pid)
        self.leave = threading.Event()

    def run(self) -> None:
        while not self.leave.wait(0.05):
            self.most = max(self.most, anonymous_mib(self._pid))

    @property
    def above_rest(self) -> float:
        self.leave.set()
        self.join()
        return self.most - self.rest


#: What a line of an export tells, row by row.
ROWS = "SELECT key, value, metadata, refresh, created_at, expires_at, versionstamp FROM entry ORDER BY space, key"


def _export(report: Report, server: Server) -> None:
    path = server.data_dir / "kvasir.db"
    bare, exported = [], []
    # By itself: to look at the memory of a process takes time from it.
    watched = Watched(server)
    watched.start()
    for _ in range(2):
        _received(server)
    memory = watched.above_rest
    for _ in range(TURNS):
        began = time.perf_counter()
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        rows = 0
        for _row in connection.execute(ROWS):
            rows += 1
        connection.close()
        bare.append(rows / (time.perf_counter() - began))
        began = time.perf_counter()
        entries = _received(server)
        exported.append(entries / (time.perf_counter() - began))
        assert entries >= MANY
    bare_rate, rate = statistics.median(bare), statistics.median(exported)
    report.figure("rows of a bare SQLite loop", bare_rate, "/s")
    report.figure("export of 1,000,000, entries", rate, "/s")
    report.target("export / bare SQLite loop, entries", rate / bare_rate, 0.5)
    report.target("memory above rest during exports of 1,000,000", memory, 64, "MiB", most=True)


def _received(server: Server) -> int:
    """Export everything; the number of entries that the last line tells.

    Nothing else is looked at: to take a body apart in Python would cost more than to make it.
    """
    buffer = bytearray(1 << 20)
    tail = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=600) as connection:
        connection.sendall(request("GET", f"/v1/spaces/{server.store}/export"))
        while not tail.endswith(b"\r\n0\r\n\r\n"):
            size = connection.recv_into(buffer)
            assert size, tail
            tail = (tail + buffer[max(0, size - 200) : size])[-200:]
    told = re.search(rb'\{"end":\{"entries":(\d+)\}\}\n\r\n0\r\n\r\n$', tail)
    assert told is not None, tail
    return int(told[1])


def _attacks(report: Report, server: Server) -> None:
    """What clients can make the server hold: exports that nobody reads, endless imports, a thousand watches."""
    for name, attack, bound in (
        ("20 exports that nobody reads", _unread_exports, 64),
        ("20 imports that never end", _endless_imports, 64),
        ("1,000 watches with one key", _watches, 96),
    ):
        watched = Watched(server)
        watched.start()
        attack(server)
        report.target(f"memory above rest: {name}", watched.above_rest, bound, "MiB", most=True)


def _opened(server: Server, data: bytes, many: int) -> Iterator[socket.socket]:
    for _ in range(many):
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        connection.sendall(data)
        yield connection


def _unread_exports(server: Server) -> None:
    held = list(_opened(server, request("GET", f"/v1/spaces/{server.store}/export"), 20))
    time.sleep(8)
    for each in held:
        each.close()


def _endless_imports(server: Server) -> None:
    head = request("POST", f"/v1/spaces/{server.store}/import", more="Transfer-Encoding: chunked\r\n")
    held = list(_opened(server, head, 20))
    line = b'{"key":["endless"],"value":"' + b"x" * 10_000 + b'"}\n'
    piece = b"%x\r\n%b\r\n" % (len(line), line)
    ends = time.monotonic() + 5
    while time.monotonic() < ends:
        for each in list(held):
            try:
                each.sendall(piece)
            except OSError:
                held.remove(each)
    for each in held:
        each.close()


def _watches(server: Server) -> None:
    asked = request("GET", f"/v1/spaces/{server.store}/watch?key=watched")
    held = list(_opened(server, asked, 1_000))
    for each in held:
        assert each.recv(12) == b"HTTP/1.1 200"
    refused = next(_opened(server, asked, 1))
    assert refused.recv(12) == b"HTTP/1.1 503"
    with httpx.Client(headers=server.headers, trust_env=False, timeout=60) as client:
        for number in range(50):
            url = f"{server.url}/v1/spaces/{server.store}/entries/watched"
            assert client.put(url, content=b"%d" % number).status_code in (200, 201)
    for each in (*held, refused):
        each.close()
