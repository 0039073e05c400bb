"""Where a server listens: every address of a name, sockets handed over by systemd, and what happens if one fails."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import re
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from kvasir.cli import local_authority
from kvasir.config.table import Config
from kvasir.errors import Unavailable
from kvasir.server import sockets
from tests.support.cli import run
from tests.support.organisations import ORGANISATION
from tests.support.serving import (
    KEY,
    KVASIR,
    PATIENCE_SECONDS,
    Server,
    database_options,
    environment,
    free_ports,
    serving,
    wait_until,
)

#: What systemd does: descriptors from 3 on, and the process id of the very program.
HAND_OVER = """
import os, sys
count, names, *rest = sys.argv[1:]
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count, "LISTEN_FDNAMES": names}
given = [os.dup(int(fd)) for fd in rest[: int(count)]]  # out of the way
for number, fd in enumerate(given):
    os.dup2(fd, 3 + number)
    os.set_inheritable(3 + number, True)
os.closerange(3 + len(given), 64)
os.execv(rest[int(count)], rest[int(count):])
"""

#: What Python runs at its start: a name with two addresses, which this machine's own names may not have.
TWO_ADDRESSES = """
import socket
found = socket.getaddrinfo
def getaddrinfo(host, *rest, **more):
    hosts = ["127.0.0.1", "127.0.0.2"] if host == "two.test" else [host]
    return [address for each in hosts for address in found(each, *rest, **more)]
socket.getaddrinfo = getaddrinfo
"""

LOCALHOST = sorted({each[4][0] for each in socket.getaddrinfo("localhost", 0, type=socket.SOCK_STREAM)})


def status_at(host: object, port: int) -> int:
    with contextlib.closing(http.client.HTTPConnection(str(host), port, timeout=PATIENCE_SECONDS)) as connection:
        connection.request("GET", "/readyz")
        return connection.getresponse().status


@contextlib.contextmanager
def handed_over(directory: Path, given: list[socket.socket], names: str, *options: str) -> Iterator[Server]:
    """A server that has these sockets from systemd; its first is one for HTTP."""
    arguments = [str(KVASIR), "serve", *database_options(directory / "data"), *options]
    fds = [listening.fileno() for listening in given]
    with (directory / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", HAND_OVER, str(len(fds)), names, *map(str, fds), *arguments],
            env=environment(KVASIR_ADMIN_KEY=KEY, KVASIR_ORGANISATION_ID=ORGANISATION),
            pass_fds=fds,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    ports = [listening.getsockname()[1] for listening in given] or [0]
    server = Server(process, ports[0], ports[-1], directory, directory / "data")
    try:
        wait_until(lambda: process.poll() is not None or "listening on" in server.log, "the server listens")
        yield server
    finally:
        server.kill()


def test_a_name_is_served_at_all_its_addresses(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with handed_over(tmp_path, [], "", "--http", f"localhost:{port}", "--no-nemesis") as server:
        assert [status_at(host, port) for host in LOCALHOST] == [200] * len(LOCALHOST)
        assert server.stop() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is an address of every Linux machine only")
def test_a_name_with_two_addresses_is_served_at_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(TWO_ADDRESSES, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    http_port, nemesis_port = free_ports(2)
    names = ["--http", f"two.test:{http_port}", "--nemesis", f"two.test:{nemesis_port}", "--nemesis-auth", "key"]
    with handed_over(tmp_path, [], "", *names) as server:
        for host in ("127.0.0.1", "127.0.0.2"):
            assert (status_at(host, http_port), status_at(host, nemesis_port)) == (200, 404)
        assert server.stop() == 0


@pytest.mark.parametrize("listener", ["https", "nemesis"])
def test_every_listener_takes_names(tmp_path: Path, listener: str) -> None:
    port, plain = free_ports(2)
    tls: list[str] = []
    if listener == "https":
        _, cert, key = local_authority.write(tmp_path / "tls", datetime.now(UTC))
        tls = ["--tls-cert", str(cert), "--tls-key", str(key), "--no-nemesis"]
    options = [f"--{listener}", f"localhost:{port}", "--http", f"127.0.0.1:{plain}", *tls]
    with handed_over(tmp_path, [], "", *options) as server:
        for host in LOCALHOST:
            with socket.create_connection((str(host), port), PATIENCE_SECONDS) as connection:
                trusting = ssl._create_unverified_context() if tls else None  # who answers does not matter here
                with trusting.wrap_socket(connection) if trusting else connection as spoken:
                    spoken.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    assert spoken.recv(100).startswith(b"HTTP/1.1 200 " if tls else b"HTTP/1.1 404 ")
        assert server.stop() == 0


def test_the_name_of_this_machine_is_served_at_all_its_addresses(tmp_path: Path) -> None:
    name = socket.gethostname()
    (port,) = free_ports(1)
    addresses = {each[4][0] for each in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)}
    with handed_over(tmp_path, [], "", "--http", f"{name}:{port}", "--no-nemesis") as server:
        assert [status_at(host, port) for host in addresses] == [200] * len(addresses)
        assert server.stop() == 0


@pytest.mark.parametrize("host", LOCALHOST)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_one_address_of_a_name_in_use_is_enough_to_refuse(tmp_path: Path, host: str, workers: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as taken:
        port = taken.getsockname()[1]
        options = ("--data-dir", str(tmp_path), "--http", f"localhost:{port}", "--no-nemesis", "--workers", workers)
        assert f"cannot listen on localhost:{port}" in run("serve", *options, status=1).stderr


def test_a_name_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    options = ("--data-dir", str(tmp_path), "--http", "no-such-host.invalid:8901", "--no-nemesis")
    assert "cannot listen on no-such-host.invalid:8901" in run("serve", *options, status=1).stderr


def test_a_socket_at_which_nobody_accepts_is_not_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "CONFIRM_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for address in (silent.getsockname(), ("127.0.0.1", free_ports(1)[0])):
            with pytest.raises(Unavailable, match="does not answer"):
                asyncio.run(sockets.confirm([address]))


@pytest.mark.parametrize("failing", [0, 1], ids=["http", "nemesis"])
def test_a_listener_that_fails_ends_the_server_with_an_error(tmp_path: Path, failing: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as http, socket.create_server(("127.0.0.1", 0)) as nemesis:
        given = [http, nemesis]
        with handed_over(tmp_path, given, "http:nemesis") as server:
            assert status_at("127.0.0.1", server.port) == 200
            assert status_at("127.0.0.1", server.nemesis_port) == 404
            given[failing].shutdown(socket.SHUT_RDWR)  # for everybody who has it
            assert server._process.wait(PATIENCE_SECONDS) == 1
            assert "a listener failed" in server.log


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sockets_handed_over_are_served_instead_of_the_addresses(tmp_path: Path, workers: str) -> None:
    with contextlib.ExitStack() as stack:
        given = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        configured = free_ports(2)
        options = ("--http", f"127.0.0.1:{configured[0]}", "--nemesis", f"127.0.0.1:{configured[1]}")
        with handed_over(tmp_path, given, "kvasir.socket:http:nemesis", *options, "--workers", workers) as server:
            assert [status_at("127.0.0.1", listening.getsockname()[1]) for listening in given[:2]] == [200, 200]
            with connect(server.nemesis_url) as caller:
                caller.send('{"SH_NEW":{"name":"a"}}')
                assert json.loads(caller.recv(PATIENCE_SECONDS))["SH_NEW_RSP"]["st"] == 1
            for port in configured:
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", port))
            assert server.stop() == 0


def test_sockets_handed_over_to_another_process_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "2")
    assert sockets.inherited() == {}


def test_a_socket_without_a_login_is_not_served_to_everybody(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listening:
        with pytest.raises(Unavailable, match="not on a loopback address"):
            sockets.check(Config(data_dir=tmp_path, http=None), {"nemesis": [listening]})
        with pytest.raises(Unavailable, match="tls_cert"):
            sockets.check(Config(data_dir=tmp_path, http=None, nemesis=None), {"https": [listening]})


def test_what_is_no_listening_socket_is_refused(tmp_path: Path) -> None:
    with socket.socket() as idle, handed_over(tmp_path, [idle], "http", "--no-nemesis") as server:
        assert server._process.wait(PATIENCE_SECONDS) == 1
        assert "not a listening TCP socket" in server.log


def test_a_process_has_as_many_open_files_as_it_may(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        limits = Path(f"/proc/{server.pid}/limits").read_text()
        (soft, hard) = re.findall(r"Max open files +(\S+) +(\S+)", limits)[0]
        assert soft == hard


@pytest.mark.parametrize(
    ("settings", "on"),
    [
        ({}, True),
        ({"http": "localhost:1", "https": "[::1]:2"}, True),
        ({"http": "0.0.0.0:1"}, False),
        ({"https": "10.0.0.1:2"}, False),
        ({"http": "[::]:1", "console": "on"}, True),
        ({"console": "off"}, False),
    ],
)
def test_the_console_is_on_by_itself_only_where_this_machine_alone_reaches_it(
    settings: dict[str, Any], on: bool
) -> None:
    assert sockets.has_console(Config(**settings), {}) is on


def test_a_socket_handed_over_decides_about_the_console_in_place_of_the_address() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listening:
        assert not sockets.has_console(Config(), {"http": [listening]})
