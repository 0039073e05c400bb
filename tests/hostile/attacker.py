"""Sends one request again and again from some connections; a process of its own, with little work to do.

    python -m tests.hostile.attacker PORT CONNECTIONS reading|deaf|leaving SECONDS [UPGRADE] < REQUEST

reading: each connection reads its answer, then sends again. deaf: sends as long as the server takes it, reads nothing.
leaving: sends, waits a moment, and leaves. With an UPGRADE (a file), connections send that first, and the request is a
frame. At the end it prints how many requests were sent whole, and the first bytes of an answer.

It stands for clients on other machines, so it takes only what time of the processors the server leaves.
"""

from __future__ import annotations

import os
import selectors
import socket
import sys
import time
from pathlib import Path

STAY_SECONDS = 0.05
READ_BYTES = 1 << 20


class Connection:
    """One of them."""

    def __init__(self, port: int, upgrade: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.is_frames = bool(upgrade)
        if upgrade:
            self.socket.sendall(upgrade)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += self.socket.recv(1)
        self.socket.setblocking(False)
        self.unsent = memoryview(b"")
        self.sent_at = 0.0
        #: Bytes of the answer so far, and how many it has; None: its head is not whole.
        self.received = 0
        self.size: int | None = None
        self.head = b""

    def read(self) -> bool:
        """Take in what came; whether an answer is whole. Raises ConnectionError at the end."""
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise ConnectionResetError
        self.received += len(data)
        if self.size is None:
            self.head += data[:8_192]
            self.size = self._size()
        return self.size is not None and self.received >= self.size

    def _size(self) -> int | None:
        if self.is_frames:
            if len(self.head) < 2:
                return None
            length = self.head[1] & 127
            width = {126: 2, 127: 8}.get(length, 0)
            return 2 + width + (int.from_bytes(self.head[2 : 2 + width], "big") if width else length)
        end = self.head.find(b"\r\n\r\n")
        if end < 0:
            return None
        lower = self.head[:end].lower()
        at = lower.find(b"content-length:")
        return end + 4 + (int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0)

    def reset(self) -> None:
        self.received, self.size, self.head = 0, None, b""


class Attack:
    """All of them."""

    def __init__(self, port: int, mode: str, request: bytes, upgrade: bytes) -> None:
        self._port, self._mode, self._request, self._upgrade = port, mode, request, upgrade
        self._selector = selectors.DefaultSelector()
        self.requests = 0
        self.answer = b""

    def run(self, connections: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for _ in range(connections):
            self._join()
        # Once at least, even if the request takes longer to send than that.
        while (now := time.monotonic()) < deadline or (not self.requests and now < deadline + 20):
            for key, events in self._selector.select(0.01):
                connection = key.data
                try:
                    if events & selectors.EVENT_WRITE:
                        self._write(connection, now)
                    if events & selectors.EVENT_READ:
                        self._read(connection)
                except OSError:
                    self._leave(connection)
            if self._mode == "leaving":
                for key in list(self._selector.get_map().values()):
                    if not key.data.unsent and now - key.data.sent_at > STAY_SECONDS:
                        self._leave(key.data)

    def _join(self) -> None:
        try:
            connection = Connection(self._port, self._upgrade)
        except OSError:
            time.sleep(0.01)
            return
        connection.unsent = memoryview(self._request)
        events = selectors.EVENT_WRITE if self._mode != "reading" else selectors.EVENT_WRITE | selectors.EVENT_READ
        self._selector.register(connection.socket, events, connection)

    def _write(self, connection: Connection, now: float) -> None:
        sent = connection.socket.send(connection.unsent)
        connection.unsent = connection.unsent[sent:]
        if connection.unsent:
            return
        self.requests += 1
        connection.sent_at = now
        if self._mode == "deaf":
            connection.unsent = memoryview(self._request)
        else:
            reads = selectors.EVENT_READ
            self._selector.modify(connection.socket, reads, connection)

    def _read(self, connection: Connection) -> None:
        if self._mode == "leaving":
            connection.socket.recv(READ_BYTES)
        elif connection.read():
            self.answer = self.answer or connection.head[:200]
            connection.reset()
            connection.unsent = memoryview(self._request)
            self._selector.modify(connection.socket, selectors.EVENT_WRITE | selectors.EVENT_READ, connection)

    def _leave(self, connection: Connection) -> None:
        self._selector.unregister(connection.socket)
        connection.socket.close()
        self._join()


def main(port: str, connections: str, mode: str, seconds: str, upgrade: str = "") -> None:
    os.nice(19)
    attack = Attack(int(port), mode, sys.stdin.buffer.read(), Path(upgrade).read_bytes() if upgrade else b"")
    attack.run(int(connections), float(seconds))
    print(attack.requests, attack.answer.split(b"\r\n", 1)[0].decode("latin-1")[:60])  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
