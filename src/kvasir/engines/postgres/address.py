"""libpq's connection parameters -> the arguments of asyncpg. Pure; opens nothing.

asyncpg takes some parameters for TLS only in a URL, so those are all that is in the URL it gets: it parses URLs with
`urlsplit`, which refuses some of libpq's, and not the same ones in every Python.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

#: Seconds until a server that does not answer counts as unreachable.
CONNECT_SECONDS = 5.0

#: What libpq calls it and what asyncpg does.
ARGUMENTS = {
    "user": "user",
    "password": "password",
    "passfile": "passfile",
    "dbname": "database",
    "service": "service",
    "sslmode": "ssl",
    "krbsrvname": "krbsrvname",
    "gsslib": "gsslib",
    "target_session_attrs": "target_session_attrs",
}
IN_URL = (
    "sslnegotiation", "sslcert", "sslkey", "sslpassword", "sslrootcert", "sslcrl",
    "ssl_min_protocol_version", "ssl_max_protocol_version",
)  # fmt: skip


class Host(msgspec.Struct, frozen=True):
    """One of the hosts a database may be on: a name, an address or the directory of a Unix socket."""

    #: None: what the environment says, else this machine
    name: str | None
    #: None: what the environment says, else 5432
    port: int | None


def hosts(parameters: Mapping[str, str]) -> list[Host]:
    """The hosts in the order in which to try them, which may be another one each time (`load_balance_hosts=random`).

    asyncpg gets one at a time: several would share one time limit, which the first uses up if it hangs.
    """
    names = parameters.get("host", "").split(",")
    ports = parameters.get("port", "").split(",")
    if len(ports) == 1:
        ports *= len(names)
    found = [Host(name or None, int(port) if port else None) for name, port in zip(names, ports, strict=True)]
    if parameters.get("load_balance_hosts") == "random":
        random.shuffle(found)
    return found


def connect_arguments(parameters: Mapping[str, str]) -> dict[str, Any]:
    """Arguments for `asyncpg.connect`, all but the host and its port."""
    rest = {name: value for name, value in parameters.items() if name not in ("host", "port", "load_balance_hosts")}
    arguments: dict[str, Any] = {ARGUMENTS[name]: rest.pop(name) for name in ARGUMENTS if name in rest}
    if "," in parameters.get("host", ""):
        arguments.setdefault("target_session_attrs", "read-write")
    arguments["timeout"] = float(rest.pop("connect_timeout", 0)) or CONNECT_SECONDS
    if in_url := {name: rest.pop(name) for name in IN_URL if name in rest}:
        arguments["dsn"] = f"postgresql://?{urlencode(in_url, quote_via=quote)}"
    application = rest.pop("fallback_application_name", "kvasir")
    arguments["server_settings"] = {"application_name": application} | rest
    return arguments
