"""Who may open a connection: the answers to an HTTP request that asks for one. Pure."""

from __future__ import annotations

import ipaddress
import urllib.parse

from picows import WSUpgradeResponse, WSUpgradeResponseWithListener


def refusal(status: int, why: bytes) -> WSUpgradeResponseWithListener:
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status, why), None)


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
    netloc = urllib.parse.urlsplit(origin).netloc
    return netloc.lower() == host.lower() and _is_address(netloc)
