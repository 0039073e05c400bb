"""A libpq URL -> what asyncpg wants to be told. Pure; opens nothing, and no message shows the password."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from kvasir.errors import Invalid

#: Seconds until a server that does not answer counts as unreachable.
CONNECT_SECONDS = 5.0

#: Parameters of libpq that have no meaning here, with the only values they may have, and what to do about others.
FIXED: dict[str, tuple[tuple[str, ...], str]] = {
    "gssencmode": (("disable", "prefer"), "encryption by GSSAPI is not supported; use sslmode"),
    "channel_binding": (("disable", "prefer"), "channel binding is not supported; use sslmode=verify-full"),
    "client_encoding": (("utf8", "UTF8", "utf-8", "UTF-8", "auto"), "texts are always sent as UTF-8"),
    "replication": (("false", "off", "no", "0"), "leave it out"),
    "target_session_attrs": (("any", "read-write", "primary"), "Kvasir needs a server that takes writes"),
}
#: Parameters that Kvasir does by other means.
NEEDLESS = ("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout")
UNKNOWN = ("sslcompression", "sslpassword_callback", "requirepeer", "load_balance_hosts", "hostaddr", "require_auth")


def connect_arguments(url: str) -> dict[str, Any]:
    """Arguments for `asyncpg.connect`. Raises `Invalid` for what cannot be honoured, naming the parameter."""
    try:
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise _invalid("it is no URL") from None
    for name, (allowed, advice) in FIXED.items():
        if name in query and query[name] not in allowed:
            raise _invalid(f"{name}={query[name]}: {advice}")
        if name != "target_session_attrs":
            query.pop(name, None)
    for name in (*NEEDLESS, *UNKNOWN):
        if name in query:
            why = "Kvasir notices a dead server by time limits of its own" if name in NEEDLESS else "it is not known"
            raise _invalid(f"leave out {name}: {why}")
    timeout = query.pop("connect_timeout", None)
    if timeout is not None and not (timeout.isascii() and timeout.isdigit()):
        raise _invalid("connect_timeout must be a whole number of seconds")
    application = query.pop("application_name", query.pop("fallback_application_name", "kvasir"))
    seconds = float(timeout or 0) or CONNECT_SECONDS
    # By hand: urlunsplit forgets the empty host of a Unix socket's URL.
    dsn = f"postgresql://{parts.netloc}{parts.path}" + (f"?{urlencode(query)}" if query else "")
    arguments: dict[str, Any] = {"dsn": dsn, "timeout": seconds, "server_settings": {"application_name": application}}
    if "target_session_attrs" not in query and "," in parts.netloc + query.get("host", ""):
        arguments["target_session_attrs"] = "read-write"
    return arguments


def each_host(dsn: str) -> list[str]:
    """A URL for each of its hosts: the driver would give one time limit to all of them together, which the first
    one uses up when it hangs. Raises `Invalid`."""
    parts = urlsplit(dsn)
    user, at, hosts = parts.netloc.rpartition("@")
    query = dict(parse_qsl(parts.query))
    if hosts or "host" not in query:
        rest = parts.path + (f"?{parts.query}" if parts.query else "")
        return [f"postgresql://{user}{at}{host}{rest}" for host in hosts.split(",")]
    names, ports = query["host"].split(","), query.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(names)
    if len(ports) != len(names):
        raise _invalid("host and port must name as many")
    alone = [query | {"host": name} | ({"port": port} if port else {}) for name, port in zip(names, ports, strict=True)]
    return [f"postgresql://{parts.netloc}{parts.path}?{urlencode(one)}" for one in alone]


def _invalid(why: str) -> Invalid:
    return Invalid(f"the engine's URL cannot be used: {why}")
