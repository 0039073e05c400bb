"""Who may open a connection: the answers to an HTTP request that asks for one. Pure."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse

from picows import WSListener, WSUpgradeResponse, WSUpgradeResponseWithListener

#: A token of RFC 9110, which every name of a subprotocol is.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def refusal(status: int, why: bytes, headers: dict[str, str] | None = None) -> WSUpgradeResponseWithListener:
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status, why, headers), None)


def welcome(offered: str, connection: WSListener) -> WSUpgradeResponseWithListener:
    """The answer to a good request: the first subprotocol offered is the one that is spoken, whatever its name."""
    first = offered.split(",", maxsplit=1)[0].strip()
    headers = {"Sec-WebSocket-Protocol": first} if _TOKEN.fullmatch(first) else None
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(headers), connection)


def _is_address(netloc: str) -> bool:
    try:
        name = urllib.parse.urlsplit(f"//{netloc}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def may_come_from(origin: str | None, host: str, listed: tuple[str, ...]) -> bool:
    """Whether a web page of this origin may connect; other programs name none.

    A page of this very server's address is welcome, unless the address is a name: whoever owns a name can point
    it at 127.0.0.1 and let strangers' browsers connect.
    """
    if origin is None or origin in listed:
        return True
    try:
        netloc = urllib.parse.urlsplit(origin).netloc
    except ValueError:
        return False
    return netloc.lower() == host.lower() and _is_address(netloc)
