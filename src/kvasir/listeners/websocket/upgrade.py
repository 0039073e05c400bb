"""Responses to a request to open a connection, and the origins that may. Pure."""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from collections.abc import Callable

from picows import WSListener, WSUpgradeRequest, WSUpgradeResponse, WSUpgradeResponseWithListener

#: The headers of a client that is part of a trace (W3C Trace Context, W3C Baggage)
TRACE = ("traceparent", "tracestate", "baggage")

#: A token of RFC 9110, as every name of a subprotocol is
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def members(request: WSUpgradeRequest, name: str) -> list[str]:
    """The members of a list header, of all its lines (RFC 9110, section 5.3)."""
    return [member.strip() for line in request.headers.getall(name, ()) for member in line.split(",")]


def names(request: WSUpgradeRequest, header: str, member: str) -> bool:
    """Whether a list header names this, in any case. If it does, the header is left with that alone: picows, which
    looks at it next, knows no lists."""
    if member.lower() not in [each.lower() for each in members(request, header)]:
        return False
    request.headers[header] = member
    return True


def _no_header(_name: str) -> str | None:
    return None


def trace_of(request: WSUpgradeRequest) -> Callable[[str], str | None]:
    """The headers of W3C Trace Context by name, without the others, which need not be kept."""
    found = {name: request.headers[name] for name in TRACE if name in request.headers}
    return found.get if found else _no_header


def refuse(status: int, why: bytes, headers: dict[str, str] | None = None) -> WSUpgradeResponseWithListener:
    """The response to a request that is not accepted."""
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_error_response(status, why, headers), None)


def accept(offered: list[str], connection: WSListener) -> WSUpgradeResponseWithListener:
    """The response to a valid request. It echoes the first subprotocol offered, whatever its name."""
    headers = {"Sec-WebSocket-Protocol": offered[0]} if offered and _TOKEN.fullmatch(offered[0]) else None
    return WSUpgradeResponseWithListener(WSUpgradeResponse.create_101_response(headers), connection)


def _is_address(netloc: str) -> bool:
    try:
        name = urllib.parse.urlsplit(f"//{netloc}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def origin_allowed(origin: str | None, host: str, listed: tuple[str, ...]) -> bool:
    """Whether a web page of this origin may connect; programs other than browsers send none.

    A page may connect to the address it came from, if that is an IP address or localhost. Any other name could be
    pointed at 127.0.0.1 by its owner, and the browsers of strangers would connect (DNS rebinding).
    """
    if origin is None or origin in listed:
        return True
    try:
        netloc = urllib.parse.urlsplit(origin).netloc
    except ValueError:
        return False
    return netloc.lower() == host.lower() and _is_address(netloc)
