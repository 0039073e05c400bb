"""Clients that send the head of a request at a byte a second each: `python -m bench.dribble PORT CLIENTS`."""

from __future__ import annotations

import contextlib
import itertools
import socket
import sys
import time

HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Padding: " + b"x" * 1_000


def main(port: int, clients: int) -> None:
    """Go on until the process is ended; who is cut off begins again."""
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(clients)]
    sent = [0] * clients
    print("connected", flush=True)
    for turn in itertools.count():
        began = time.monotonic()
        # A tenth of them at a time, so that they do not all send at once.
        for client in range(turn % 10, clients, 10):
            try:
                connections[client].send(HEAD[sent[client] : sent[client] + 1])
                sent[client] = (sent[client] + 1) % len(HEAD)
            except OSError:
                with contextlib.suppress(OSError):
                    connections[client].close()
                    connections[client] = socket.create_connection(("127.0.0.1", port))
                sent[client] = 0
        time.sleep(max(0.0, began + 0.1 - time.monotonic()))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
