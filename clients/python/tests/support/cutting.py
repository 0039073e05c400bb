"""A proxy that cuts connections at random bytes, and keeps count of what went through it."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator

#: A write names itself by its key.
NAMED = re.compile(rb"PUT [^ ]*?(write-\d+)")


class CuttingProxy:
    """Forwards connections to a port of this machine; ends each after a random number of bytes, either way."""

    def __init__(self, upstream: int, seed: int, longest: tuple[int, int]) -> None:
        self._upstream = upstream
        self._longest = longest
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        #: How often each write came to this proxy, whole or in part, and which of them it has cut.
        self.seen: Counter[str] = Counter()
        self.cut: set[str] = set()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._start(self._accept)

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                # A connection ends within a request or within an answer: the first, or one of the next.
                limits = [self._random.randrange(longest) for longest in self._longest]
                server = socket.create_connection(("127.0.0.1", self._upstream))
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open |= {client, server}
                state = _Connection()
                self._start(self._forward, client, server, limits[0], state, True)
                self._start(self._forward, server, client, limits[1], state, False)

    def _forward(
        self, source: socket.socket, target: socket.socket, limit: int, state: _Connection, upwards: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65_536):
                if upwards:
                    self._note(piece, state)
                target.sendall(piece[:limit])
                limit -= len(piece)
                if limit <= 0:
                    with self._lock:
                        self.cut.add(state.current)
                    break
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _note(self, piece: bytes, state: _Connection) -> None:
        """Requests are not pipelined and their heads are short: one arrives in one piece."""
        for found in NAMED.finditer(piece):
            with self._lock:
                state.current = found[1].decode()
                self.seen[state.current] += 1

    def sever(self) -> None:
        """End all connections, now."""
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        # A shutdown wakes the thread that accepts; a close alone does not.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.sever()
        for thread in self._threads:
            thread.join()
        for each in self._open:
            each.close()


class _Connection:
    """What a connection carries now."""

    current = ""


@contextlib.contextmanager
def cutting(upstream: int, seed: int, longest: tuple[int, int] = (1_500, 2_500)) -> Iterator[CuttingProxy]:
    """Such a proxy, ended afterwards. `longest`: of the bytes that a connection carries up and down."""
    proxy = CuttingProxy(upstream, seed, longest)
    try:
        yield proxy
    finally:
        proxy.close()
