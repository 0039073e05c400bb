"""HTTP/1.1 over a bare socket: exactly the bytes a test wants to send, and little work to read the answer."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.support.serving import KEY, Server

PATIENCE_SECONDS = 60.0


class Cut(Exception):
    """The connection ended; `begun` tells whether any of the answer had come."""

    def __init__(self, *, begun: bool) -> None:
        super().__init__("the connection ended in the middle of the answer" if begun else "the connection ended")
        self.begun = begun


class Answer(NamedTuple):
    """A status, headers by lower-case name, and the body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self._reader = self.socket.makefile("rb")
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._reader.close()
        self.socket.close()

    def __del__(self) -> None:
        # A test that fails half-way leaves no socket behind; one that nobody listened for has none.
        if hasattr(self, "_reader"):
            self.close()

    def send(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except ConnectionError:
            raise Cut(begun=False) from None

    def answer(self, *, head: bool = False) -> Answer:
        """The next answer. Raises `Cut` if the connection ends before it is whole."""
        line = self._line(begun=False)
        status = int(line.split(b" ", 2)[1])
        headers: dict[str, str] = {}
        while line := self._line(begun=True):
            name, _, value = line.partition(b":")
            headers[name.decode().lower()] = value.strip().decode()
        body = b"" if head else self._exactly(int(headers.get("content-length", "0")))
        return Answer(status, headers, body)

    def _line(self, *, begun: bool) -> bytes:
        try:
            line = self._reader.readline()
        except ConnectionError:
            raise Cut(begun=begun) from None
        if not line.endswith(b"\r\n"):
            raise Cut(begun=begun or bool(line))
        return line[:-2]

    def _exactly(self, length: int) -> bytes:
        try:
            body = self._reader.read(length)
        except ConnectionError:
            raise Cut(begun=True) from None
        if len(body) < length:
            raise Cut(begun=True)
        return body

    def ended(self) -> bool:
        """Whether the server closed the connection; waits for it."""
        try:
            return self._reader.read(1) == b""
        except ConnectionError:
            return True

    def ask(self, method: str, path: str, body: bytes = b"", *, key: str = KEY) -> Answer:
        """One request and its answer."""
        self.send(request(method, path, body, key=key))
        return self.answer()


def request(method: str, path: str, body: bytes = b"", *, key: str = KEY, more: str = "") -> bytes:
    """The bytes of a request; `more`: further header lines, each with its end, perhaps about the body's length."""
    measured = "Content-Length" in more or "Transfer-Encoding" in more
    length = "" if measured or (not body and method in {"GET", "HEAD"}) else f"Content-Length: {len(body)}\r\n"
    return (
        f"{method} {path} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {key}\r\n{length}{more}\r\n".encode() + body
    )


class Client:
    """The Versori API of one store over one connection."""

    def __init__(self, server: Server, store: str) -> None:
        self._base = f"/store/{store}/kv"
        self.wire = Wire(server.port)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.wire.close()

    def get(self, key: str) -> Answer:
        return self.wire.ask("GET", f"{self._base}/{key}")

    def put(self, key: str, value: object, **options: object) -> Answer:
        return self.wire.ask("PUT", f"{self._base}/{key}", dump({"value": value, "options": options}))

    def delete(self, key: str) -> Answer:
        return self.wire.ask("DELETE", f"{self._base}/{key}")

    def batch_set(self, values: dict[tuple[str, ...], object]) -> Answer:
        entries = [{"key": key, "value": value} for key, value in values.items()]
        return self.wire.ask("PUT", f"{self._base}/batch", dump({"entries": entries}))

    def batch_delete(self, keys: Sequence[Sequence[str]]) -> Answer:
        return self.wire.ask("DELETE", f"{self._base}/batch", dump({"keys": keys}))

    def values(self, keys: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], Any]:
        """The values of those keys that are there, however many."""
        found: dict[tuple[str, ...], Any] = {}
        for at in range(0, len(keys), 1_000):
            answer = self.wire.ask("POST", f"{self._base}/batch", dump({"keys": keys[at : at + 1_000]}))
            assert answer.status == 200, answer
            found |= {tuple(entry["key"]): entry["value"] for entry in answer.json()["entries"]}
        return found

    def count(self, *prefix: str) -> int:
        answer = self.wire.ask("POST", f"{self._base}/count", dump({"selector": {"prefix": prefix}}))
        assert answer.status == 200, answer
        return int(answer.json()["count"])


def dump(body: object) -> bytes:
    return json.dumps(body).encode()
