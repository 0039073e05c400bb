"""Listening sockets: every address of a name, any free port, or those that systemd hands over. Knows no protocol."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from kvasir.config.parsers import is_loopback, split_address
from kvasir.config.table import Config
from kvasir.errors import Unavailable

#: The listeners by the names of their settings, and the schemes of their URLs
LISTENERS = {"http": "http", "https": "https", "nemesis": "ws"}

#: Sockets that listen already, by the name of their listener
Given = Mapping[str, list[socket.socket]]

BACKLOG = 1_024

#: The first descriptor that systemd hands over; see sd_listen_fds(3).
FIRST_FD = 3

#: How long a listener has to react to a connection from this process itself.
CONFIRM_SECONDS = 10.0


def inherited() -> Given:
    """The sockets that systemd hands over; one without a listener's name is for HTTP. Raises `Unavailable`.

    They are taken once: neither a second call nor a program that this process starts finds them.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    given: dict[str, list[socket.socket]] = {}
    if pid != str(os.getpid()) or not count.isdigit():
        return given
    for index in range(int(count)):
        name = names[index] if index < len(names) and names[index] in LISTENERS else "http"
        try:
            os.set_inheritable(FIRST_FD + index, False)
            listening = socket.socket(fileno=FIRST_FD + index)
            accepts = listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise Unavailable(f"socket {index + 1} of LISTEN_FDS cannot be used: {error.strerror}") from None
        if not accepts or listening.family not in (socket.AF_INET, socket.AF_INET6):
            raise Unavailable(f"socket {index + 1} of LISTEN_FDS is not a listening TCP socket (ListenStream=)")
        given.setdefault(name, []).append(listening)
    return given


def check(config: Config, given: Given) -> None:
    """Raises `Unavailable` if another program serves an address, or a socket that was handed over must not be served.

    The listeners would not notice the former: workers share their ports, so the system would let them share it, too.
    """
    for name in LISTENERS:
        address = getattr(config, name)
        if address and name not in given:
            _close(_bind(address, share=False))
    if "https" in given and not config.tls_cert:
        raise Unavailable("a socket for https was handed over, but there is no certificate: set tls_cert and tls_key")
    hosts = [listening.getsockname()[0] for listening in given.get("nemesis", ())]
    if config.nemesis_auth == "local" and not all(map(is_loopback, hosts)):
        raise Unavailable("the socket for nemesis is not on a loopback address: choose --nemesis-auth key or none")


def with_free_ports(config: Config, given: Given) -> tuple[Config, Given]:
    """Bind the addresses whose port is 0, once for all workers: the settings with what was bound, and all sockets.

    Raises `Unavailable` with what to do.
    """
    sockets, addresses = dict(given), dict[str, Any]()
    for name in LISTENERS:
        address = getattr(config, name)
        if address and name not in given and split_address(address)[1] == 0:
            sockets[name] = _bind(address, share=False)
            for each in sockets[name]:
                each.listen(BACKLOG)
            addresses[name] = f"{address.rpartition(':')[0]}:{sockets[name][0].getsockname()[1]}"
    return dataclasses.replace(config, **addresses), sockets


def listen(name: str, config: Config, given: Given) -> list[socket.socket]:
    """The sockets of a listener: those handed over, or one for each address of the name in the settings.

    Raises `Unavailable` with what to do.
    """
    if name in given:
        return given[name]
    address = getattr(config, name)
    listening = _bind(address, share=config.workers > 1) if address else []
    for each in listening:
        each.listen(BACKLOG)
    return listening


def addresses(config: Config, given: Given) -> dict[str, list[str]]:
    """The URLs of every listener, by its name."""
    found: dict[str, list[str]] = {}
    for name, scheme in (LISTENERS | ({"nemesis": "wss"} if config.nemesis_tls else {})).items():
        if name in given:
            hosts = [each.getsockname()[:2] for each in given[name]]
            found[name] = [f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}" for host, port in hosts]
        elif address := getattr(config, name):
            found[name] = [f"{scheme}://{address}"]
    return found


def has_console(config: Config, given: Given) -> bool:
    """Whether the setting `console` means on: auto does if HTTP is served on loopback addresses only."""
    if config.console != "auto":
        return config.console == "on"
    found = addresses(config, given)
    urls = [urlsplit(url) for name in ("http", "https") for url in found.get(name, ())]
    return all(is_loopback(url.hostname or "") for url in urls)


def _bind(address: str, *, share: bool) -> list[socket.socket]:
    """`share`: other processes of this server listen there, too."""
    host, port = split_address(address)
    bound: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_ADDRCONFIG)
        for family, sockaddr in dict.fromkeys((each[0], each[4]) for each in found):
            bound.append(listening := socket.socket(family, socket.SOCK_STREAM))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if share:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind((sockaddr[0], port, *sockaddr[2:]))
            port = listening.getsockname()[1]  # chosen for the first address if it was 0
    except OSError as error:
        _close(bound)
        raise Unavailable(
            f"cannot listen on {address}: {error.strerror}. Stop the program that uses it or choose another address"
        ) from None
    return bound


def _close(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        each.close()


async def confirm(addresses: Iterable[tuple[str, int]]) -> None:
    """Raises `Unavailable` unless somebody reacts to a connection to each address, if only by closing it."""
    await asyncio.gather(*[_confirm(*address) for address in addresses])


async def _confirm(host: str, port: int) -> None:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # how to reach a socket on all addresses
    try:
        async with asyncio.timeout(CONFIRM_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"\0\r\n\r\n")  # a request of no protocol, which is neither counted nor logged
                await reader.read(1)
            finally:
                writer.close()
    except ConnectionResetError:
        return
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"listening on {host} port {port}, but it does not answer: {error or 'timeout'}") from None
