"""Listening sockets: every address of a name. Knows no protocol."""

from __future__ import annotations

import socket

from kvasir.config.parsers import split_address
from kvasir.errors import Unavailable

BACKLOG = 1_024


def listen(address: str, *, share: bool = False) -> list[socket.socket]:
    """Sockets that listen at every address of a name. Raises `Unavailable` with what to do.

    `share`: other processes of this server listen there, too.
    """
    host, port = split_address(address)
    listening: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG)
        for family, sockaddr in dict.fromkeys((each[0], each[4]) for each in found):
            listening.append(
                socket.create_server(sockaddr, family=family, backlog=BACKLOG, reuse_port=share, dualstack_ipv6=False)
            )
    except OSError as error:
        for each in listening:
            each.close()
        raise Unavailable(
            f"cannot listen on {address}: {error.strerror}. Stop the program that uses it or choose another address"
        ) from None
    return listening
