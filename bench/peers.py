"""Beside what users would start instead: Webdis with Redis (C), Deno KV behind its own HTTP server; all durable.

Each peer and Kvasir are loaded in turns; what counts are the ratios of the medians. Redis appends and syncs before it
answers (`appendfsync always`). Values of 150 bytes; PUTs go round 1,000 keys, GETs ask for one.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench.harness import TURNS, Load, Report, answers, fdatasync_microseconds, wrk
from tests.support.serving import Server, free_ports, serving, wait_until

CONNECTIONS = (1, 16, 32, 128)
VALUE = "x" * 150

#: Where `npm install --prefix .venv/peers deno` puts it.
DENO = Path(__file__).parents[1] / ".venv" / "peers" / "node_modules" / ".bin" / "deno"

DENO_SERVER = """
const kv = await Deno.openKv(Deno.args[0]);
Deno.serve({ hostname: "127.0.0.1", port: Number(Deno.args[1]), onListen() {} }, async (request) => {
  const key = [new URL(request.url).pathname];
  if (request.method === "PUT") {
    const { versionstamp } = await kv.set(key, await request.json());
    return Response.json({ versionstamp });
  }
  return Response.json(await kv.get(key));
});
"""

PUT = """
wrk.method = "PUT"
wrk.body = '%s'
local n = 0
function request() n = n + 1; return wrk.format(nil, wrk.path .. (n %% 1000)) end
"""


class Peer(NamedTuple):
    """A running server: where keys are written (a number follows) and read, and what is sent."""

    put: str
    get: str
    body: str
    headers: dict[str, str]

    def load(self, operation: str, connections: int, script: str = "") -> Load:
        if operation == "GET":
            return wrk(self.get, connections=connections, headers=self.headers, script=script)
        return wrk(self.put, connections=connections, headers=self.headers, script=PUT % self.body + script)


#: The least ratio of Kvasir's rate to the peer's, by operation and connections.
TARGETS = {
    ("Webdis", "GET"): {32: 1.3, 128: 0.97},
    ("Webdis", "PUT"): {32: 0.82, 128: 0.80},
    ("Deno KV", "GET"): {32: 3.0, 128: 2.8},
    ("Deno KV", "PUT"): {32: 3.5, 128: 5.0},
}


def run(report: Report) -> None:
    """See the module."""
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(kvasir())
        peers: dict[str, Peer] = {}
        for name, start in (("Webdis", webdis), ("Deno KV", _deno)):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            peer = stack.enter_context(start(folder))
            if peer is not None:
                peers[name] = peer
        for operation in ("GET", "PUT"):
            for connections in CONNECTIONS:
                _compare(report, ours, peers, operation, connections)


def _compare(report: Report, ours: Peer, peers: dict[str, Peer], operation: str, connections: int) -> None:
    loads: dict[str, list[Load]] = {name: [] for name in ("Kvasir", *peers)}
    for _ in range(TURNS):
        for name, those in loads.items():
            those.append((ours if name == "Kvasir" else peers[name]).load(operation, connections))
    rate, p50, p99 = (
        {name: statistics.median(load[at] for load in those) for name, those in loads.items()} for at in range(3)
    )
    for name in loads:
        what = f"{name}: {operation}, {connections} connections"
        report.figure(what, rate[name], f"/s, median {p50[name]:.2f} ms, 99th percentile {p99[name]:.2f} ms")
    for name in peers:
        ratio = rate["Kvasir"] / rate[name]
        bound = TARGETS[name, operation].get(connections)
        what = f"{operation} / {name}, {connections} connections"
        if bound is None:
            report.figure(what, ratio, "×")
        else:
            report.target(what, ratio, bound)
            if name == "Webdis":
                report.target(f"its 99th percentile / {name}'s", p99["Kvasir"] / p99[name], 1.5, most=True)
    if operation == "PUT" and connections == 1:
        report.target(
            "one PUT alone / bare fdatasync", p50["Kvasir"] * 1_000 / fdatasync_microseconds(), 3.5, most=True
        )


@contextlib.contextmanager
def kvasir() -> Iterator[Peer]:
    """A server of ours."""
    with tempfile.TemporaryDirectory() as directory, serving(Path(directory), "--no-nemesis") as server:
        peer = of(server)
        peer.load("PUT", 16)
        yield peer


def of(server: Server) -> Peer:
    """A server of Kvasir's as a peer of others."""
    base = f"{server.url}/api/v2/store/{server.store}/kv/"
    return Peer(f"{base}k", f"{base}k1", json.dumps({"value": VALUE}), server.headers)


@contextlib.contextmanager
def webdis(folder: Path) -> Iterator[Peer | None]:
    """Webdis with Redis, with their data in a folder; None if they are not installed."""
    if not shutil.which("webdis") or not shutil.which("redis-server"):
        print("  Webdis and Redis are missing: apt-get install webdis redis-server", flush=True)
        yield None
        return
    redis, port = free_ports(2)
    config = {"redis_host": "127.0.0.1", "redis_port": redis, "http_host": "127.0.0.1", "http_port": port}
    (folder / "webdis.json").write_text(json.dumps(config | {"threads": 2, "daemonize": False, "verbosity": 0}))
    durable = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--dir", str(folder)]
    with (
        _running("redis-server", "--port", str(redis), "--bind", "127.0.0.1", *durable),
        _running("webdis", str(folder / "webdis.json"), cwd=folder),
    ):
        base = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{base}/PING"), "Webdis answers")
        peer = Peer(f"{base}/SET/k", f"{base}/GET/k1", VALUE, {})
        peer.load("PUT", 16)
        yield peer


@contextlib.contextmanager
def _deno(folder: Path) -> Iterator[Peer | None]:
    program = shutil.which("deno") or (str(DENO) if DENO.exists() else None)
    if program is None:
        print("  Deno is missing: npm install --prefix .venv/peers deno", flush=True)
        yield None
        return
    (port,) = free_ports(1)
    (folder / "server.js").write_text(DENO_SERVER)
    command = [program, "run", "--quiet", "--unstable-kv", "--allow-all", str(folder / "server.js")]
    with _running(*command, str(folder / "deno.db"), str(port)):
        base = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(f"{base}/k1"), "Deno answers")
        peer = Peer(f"{base}/k", f"{base}/k1", json.dumps({"value": VALUE}), {})
        peer.load("PUT", 16)
        yield peer


@contextlib.contextmanager
def _running(*command: str, cwd: Path | None = None) -> Iterator[None]:
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)
