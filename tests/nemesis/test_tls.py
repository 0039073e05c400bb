"""The WebSocket listener over TLS, in a process with the certificate of `kvasir dev-cert`: the same bounds hold."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidMessage

from tests.support.cli import run
from tests.support.nemesis import CLOSE, MORE, TEXT, Raw, client, frame
from tests.support.serving import Server, serving, wait_until

ALL = b'{"SH_INFO_ALL":{}}'
LIMITS = (
    ("--nemesis-handshake-seconds", "3"),
    ("--nemesis-message-seconds", "2"),
    ("--nemesis-unread-bytes", "2_000_000"),
    ("--nemesis-connections", "8"),
)


class Secured:
    """A running server, and how its clients trust it."""

    def __init__(self, server: Server, authority: Path) -> None:
        self.server = server
        self.url = f"wss://127.0.0.1:{server.nemesis_port}"
        self.tls = ssl.create_default_context(cafile=authority)

    def raw(self) -> Raw:
        return Raw(self.server.nemesis_port, tls=self.tls)

    def silent(self) -> socket.socket:
        """A connection that has said nothing yet."""
        return socket.create_connection(("127.0.0.1", self.server.nemesis_port), timeout=30)

    def serves(self) -> bool:
        """Whether it answers. Of a thousand connections to a busy machine, aiofastnet 1.2.0 passes on of one nothing of
        what comes right behind the handshake, so that it ends in time as one that says nothing: then another is made.
        """
        for _ in range(3):
            with contextlib.suppress(InvalidMessage), client(self.url, ssl=self.tls) as other:
                return bool(other.ask(ALL.decode())["SH_INFO_ALL_RSP"])
        return False


@contextlib.contextmanager
def secured_server(directory: Path) -> Iterator[Secured]:
    tls = directory / "tls"
    run("dev-cert", str(tls))
    options = ["--nemesis-tls", "--tls-cert", str(tls / "cert.pem"), "--tls-key", str(tls / "key.pem")]
    with serving(directory, *options, *[text for limit in LIMITS for text in limit]) as server:
        yield Secured(server, tls / "ca.pem")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_server(tmp_path_factory.mktemp("secured")) as running:
        yield running


def ended(connection: socket.socket) -> bool:
    """Whether the server ends the connection, with whatever words."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while connection.recv(4_096):
            pass
    return True


def test_the_client_people_use(secured: Secured) -> None:
    values = {"short": "x", "long": "y" * 900_000, "umlaut": "ä"}
    with client(secured.url, ssl=secured.tls) as caller:
        token = caller.session()
        assert caller.do("KV_SET", tkn=token, keys=values)["keys"] == dict.fromkeys(values, 20)
        for name, value in values.items():
            assert caller.do("KV_GET", tkn=token, keys=[name])["keys"] == {name: value}
        # Many requests in one read, many replies in one write.
        for _ in range(200):
            caller.send({"KV_COUNT": {"tkn": token}})
        assert all(caller.receive()["KV_COUNT_RSP"]["cnt"] == 3 for _ in range(200))
    assert re.search(r"listening on .*wss://127\.0\.0\.1:", secured.server.log)


def test_who_does_not_trust_the_authority_does_not_connect(secured: Secured) -> None:
    with pytest.raises(ssl.SSLCertVerificationError), client(secured.url):
        pass
    assert secured.serves()


def test_plain_clients_and_rubbish_are_refused_without_a_line_in_the_log(secured: Secured) -> None:
    lines = secured.server.log.count("\n")
    plain = secured.url.replace("wss:", "ws:")
    with pytest.raises((InvalidMessage, ConnectionError, EOFError)), client(plain):
        pass
    for rubbish in (b"\x16\x03\x01\xff\xff" + b"x" * 100, bytes(1_000), b"GET / HTTP/1.1\r\n\r\n"):
        with secured.silent() as raw:
            raw.sendall(rubbish)
            assert ended(raw)
    assert secured.serves()
    assert secured.server.log.count("\n") == lines, secured.server.log


@pytest.mark.parametrize("how", ["says nothing", "half a hello", "no upgrade", "half an upgrade"])
def test_a_handshake_that_does_not_arrive_ends(secured: Secured, how: str) -> None:
    with secured.silent() as raw:
        if how == "half a hello":
            raw.sendall(b"\x16\x03\x01\x02\x00\x01")
        if not how.endswith("upgrade"):
            assert ended(raw)
            return
        with secured.tls.wrap_socket(raw, server_hostname="localhost") as wrapped:
            if how == "half an upgrade":
                wrapped.sendall(b"GET / HTTP/1.1\r\nHost")
            assert ended(wrapped)


def test_a_head_without_an_end_is_refused(secured: Secured) -> None:
    with secured.silent() as raw, secured.tls.wrap_socket(raw, server_hostname="localhost") as wrapped:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            for _ in range(100):
                wrapped.sendall(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 10_000)
        assert ended(wrapped)
    assert secured.serves()


def test_messages_have_the_same_bounds(secured: Secured) -> None:
    whole = ALL[:-1] + b" " * (2**20 - len(ALL)) + b"}"
    with secured.raw() as raw:
        raw.send(frame(TEXT, whole[:7], final=False), frame(MORE, whole[7:]))
        assert raw.receive() is not None
        raw.send(frame(TEXT, whole + b" "))
        assert raw.closed_with() == 1009
    with secured.raw() as raw:
        for byte in frame(TEXT, ALL):
            raw.send(bytes((byte,)))
        assert raw.receive() is not None
        raw.send(frame(TEXT, b"x", final=False))
        assert raw.closed_with() == 1008


@pytest.mark.only_sqlite("replies that wait for a database may come no faster than they are read")
def test_a_client_that_never_reads_is_cut_off(secured: Secured) -> None:
    with client(secured.url, ssl=secured.tls) as other:
        token = other.session()
        other.do("KV_SET", tkn=token, keys={"big": "x" * 100_000})
        asked = frame(TEXT, json.dumps({"KV_GET": {"tkn": token, "keys": ["big"]}}).encode())
        with secured.raw() as raw:
            raw.send(asked * 400)
            for _ in range(50):  # turns of the server in which nobody reads its replies
                assert other.do("KV_COUNT", tkn=token)["cnt"] == 1
            assert raw.closed_with() == 1013
        assert other.do("KV_COUNT", tkn=token)["cnt"] == 1


def test_connections_are_counted(secured: Secured) -> None:
    with contextlib.ExitStack() as stack:
        raws = [stack.enter_context(secured.raw()) for _ in range(9)]
        assert [raw.status for raw in raws] == [101] * 8 + [503]
    wait_until(secured.serves, "all are gone")


def test_a_stop_answers_and_closes_with_1001(tmp_path: Path) -> None:
    with secured_server(tmp_path) as running, running.raw() as raw, running.silent():
        raw.send(frame(TEXT, ALL))
        assert raw.receive() is not None
        with client(running.url, ssl=running.tls) as caller:
            os.kill(running.server.pid, signal.SIGTERM)
            assert raw.closed_with() == 1001
            raw.send(frame(CLOSE, b"\x03\xe9"))
            with pytest.raises(ConnectionClosed) as closed:
                caller.receive()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1001
        assert running.server.stop() == 0
