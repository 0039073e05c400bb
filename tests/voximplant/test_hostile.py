"""Bodies that mean harm, at a real server: cut off at the documented bound, with little memory, neighbours unharmed."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from kvasir.limits import VoximplantLimits
from tests.support.serving import wait_until
from tests.support.voximplant_live import Live, read_answer

MIB = 2**20
B = "b0undary"
MULTIPART = f"multipart/form-data; boundary={B}"
FORM = "application/x-www-form-urlencoded"
BOUND = VoximplantLimits().form_bytes
PART = f'--{B}\r\nContent-Disposition: form-data; name="%d"\r\n\r\n1\r\n'
END = f"--{B}--\r\n".encode()


def resident_bytes(pid: int) -> int:
    """Memory of the server's process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def head(server: Live, content_type: str, length: int | None) -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return (
        "POST /platform_api/GetKeyValueKeys?application_id=1 HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: Bearer {server.token()}\r\nContent-Type: {content_type}\r\n{framing}\r\n\r\n"
    ).encode()


class Neighbour:
    """Somebody else on a connection of their own, who goes on working meanwhile."""

    def __init__(self, server: Live) -> None:
        self.calls = 0
        self.wrong: list[object] = []
        self._server = server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Neighbour:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        served = self.calls
        try:
            wait_until(lambda: self.calls > served or bool(self.wrong), "the neighbour is served")
        finally:
            self._stop.set()
            self._thread.join()
        assert self.wrong == []

    def _work(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._server.server.port, timeout=10)
        headers = {"Authorization": f"Bearer {self._server.token()}", "Content-Type": FORM}
        try:
            while not self._stop.is_set():
                body = urlencode(
                    {"key": "neighbour", "value": self.calls, "application_id": 1, "cmd": "SetKeyValueItem"}
                )
                connection.request("POST", "/platform_api", body, headers)
                answer = json.loads(connection.getresponse().read())
                if answer["result"]["value"] != str(self.calls):
                    self.wrong.append(answer)
                self.calls += 1
        except Exception as error:
            self.wrong.append(error)
        finally:
            connection.close()


@contextlib.contextmanager
def unharmed(server: Live) -> Iterator[None]:
    """The server uses little memory for what happens here, and others do not notice."""
    before = resident_bytes(server.server.pid)
    with Neighbour(server):
        yield
    assert resident_bytes(server.server.pid) - before < 16 * MIB


#: name, content type, body (each within the bound on its length), code
BOMBS: list[tuple[str, str, bytes, int | None]] = [
    ("10,000 fields", FORM, b"&".join(b"%d" % number for number in range(10_000)), 101),
    ("10,000 empty fields", FORM, b"=&" * 10_000, 101),
    ("900 parts", MULTIPART, b"".join((PART % number).encode() for number in range(900)) + END, 101),
    ("parts without end", MULTIPART, b"".join((PART % number).encode() for number in range(900)), 101),
    ("unterminated part", MULTIPART, (PART % 1).encode() + b"x" * 60_000, 101),
    ("boundary upon boundary", MULTIPART, f"--{B}\r\n".encode() * 5_000, 101),
    ("nearly boundaries", MULTIPART, (PART % 1).encode() + f"\r\n--{B[:-1]}\r\n".encode() * 4_000 + END, None),
    ("line ends", MULTIPART, (PART % 1).encode() + b"\r\n" * 30_000 + END, None),
    ("header without end", MULTIPART, f"--{B}\r\nX: ".encode() + b"x" * 60_000, 101),
    ("headers without end", MULTIPART, f"--{B}\r\n".encode() + b"X: x\r\n" * 10_000, 101),
    ("percent signs", FORM, b"key=" + b"%" * 60_000, 101),
    ("deep", "application/json", b'{"a":' * 50_000, 101),
    ("members", "application/json", json.dumps(dict.fromkeys(map(str, range(20_000)), 1)).encode(), 101),
]


@pytest.mark.parametrize(("content_type", "body", "code"), [row[1:] for row in BOMBS], ids=[row[0] for row in BOMBS])
def test_bombs(server: Live, content_type: str, body: bytes, code: int | None) -> None:
    with unharmed(server), server.connect() as connection, connection.makefile("rb") as answers:
        for _ in range(5):
            connection.sendall(head(server, content_type, len(body)) + body)
            status, _, answer = read_answer(answers)
            assert status == 200
            assert json.loads(answer).get("error", {}).get("code") == code


@pytest.mark.parametrize("content_type", [FORM, MULTIPART])
@pytest.mark.parametrize("length", [BOUND + 1, 100 * MIB, 2**62])
def test_a_long_body_is_refused_by_its_declared_length(server: Live, content_type: str, length: int) -> None:
    with unharmed(server), server.connect() as connection, connection.makefile("rb") as answers:
        # What a client may well send to its end is answered then, so that it sees the answer; the rest, before.
        connection.sendall(head(server, content_type, length) + b"x" * (length if length < MIB else 0))
        assert_too_long(read_answer(answers))


def assert_too_long(answer: tuple[int, dict[str, str], bytes]) -> None:
    status, _, body = answer
    error: dict[str, Any] = json.loads(body)["error"]
    assert status == 200
    assert error["code"] == 101
    assert f"{BOUND:,}" in error["msg"]


def without_end(send: Callable[[bytes], None], chunk: bytes, total: int) -> bool:
    """Send chunks until the server has enough or all is sent; whether it took everything."""
    framed = b"%x\r\n%s\r\n" % (len(chunk), chunk)
    for _ in range(total // len(chunk)):
        try:
            send(framed)
        except OSError:
            return False
    return True


@pytest.mark.parametrize(
    ("content_type", "start", "chunk"),
    [
        (FORM, b"key=", b"x" * 65_536),
        (FORM, b"a=1", b"&a=1" * 4_096),
        (MULTIPART, f'--{B}\r\nContent-Disposition: form-data; name="key"\r\n\r\n'.encode(), b"x" * 65_536),
        (MULTIPART, b"", (PART % 1).encode() * 500),
    ],
    ids=["value", "fields", "part", "parts"],
)
def test_100_mib_chunked_without_end(server: Live, content_type: str, start: bytes, chunk: bytes) -> None:
    with unharmed(server), server.connect() as connection:
        connection.sendall(head(server, content_type, None))
        without_end(connection.sendall, start or chunk, len(start or chunk))
        assert not without_end(connection.sendall, chunk, 100 * MIB), "the server took all of it"
        # The answer may be lost: what arrives after the server closed the connection resets it.
        with contextlib.suppress(ConnectionResetError), connection.makefile("rb") as answers:
            assert_too_long(read_answer(answers))


def test_gone_in_the_middle_of_a_body(server: Live) -> None:
    with unharmed(server):
        for cut in range(0, 300, 7):
            body = (PART % 1).encode() + END
            with server.connect() as connection:
                connection.sendall((head(server, MULTIPART, len(body)) + body)[: 900 + cut])
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")


def test_strangers_send_nothing(server: Live) -> None:
    """Without a token the body is not even looked at."""
    request = head(server, FORM, 100 * MIB).replace(b"Bearer ", b"Bearer x")
    with unharmed(server), server.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(request)
        assert json.loads(read_answer(answers)[2])["error"]["code"] in (100, 447)
