"""URLs of PostgreSQL. The only module that takes one apart; the engine is handed what it says, never the URL.

The rules are libpq's (its manual, "Connection URIs"), which the standard library's `urlsplit` does not know: several
hosts, each with its port, [IPv6] addresses among them; any character but `/` and `@` in a password. No message shows a
part of a URL that could belong to a password.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote

from kvasir.config.tls import holds_certificates, unreadable
from kvasir.limits import Limits

#: A row of an index has room for 2,704 bytes; a space's number and two lengths are among them, with the name of a
#: store the kind of its alias and the ULID of an organisation.
POSTGRES_KEY_BYTES = 2_600

#: A character may take four bytes.
POSTGRES_NAME_CHARACTERS = POSTGRES_KEY_BYTES // 4

#: From no encryption to the strictest.
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

#: Parameters that name files, and the mode from which on they are used.
SSL_FILES = {"sslcert": "allow", "sslkey": "allow", "sslrootcert": "require", "sslcrl": "require"}

TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
CHOICES: dict[str, tuple[str, ...]] = {
    "sslmode": SSL_MODES,
    "sslnegotiation": ("postgres", "direct"),
    "ssl_min_protocol_version": TLS_VERSIONS,
    "ssl_max_protocol_version": TLS_VERSIONS,
    "gsslib": ("gssapi", "sspi"),
    "target_session_attrs": ("any", "read-write", "primary"),
    "load_balance_hosts": ("disable", "random"),
}

#: Parameters that the driver does not have: the values that ask for what it does anyhow, and advice about all others.
FIXED: dict[str, tuple[tuple[str, ...], str]] = {
    "gssencmode": (("disable", "prefer"), "encryption by GSSAPI is not supported; use sslmode"),
    "channel_binding": (("disable", "prefer"), "channel binding is not supported; use sslmode=verify-full"),
    "client_encoding": (("utf8", "UTF8", "utf-8", "UTF-8", "auto"), "text is always sent as UTF-8"),
    "replication": (("false", "off", "no", "0"), "Kvasir makes no replication connections"),
}
UNSUPPORTED: dict[str, str] = {
    **dict.fromkeys(
        ("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"),
        "Kvasir notices a dead server by its own time limits",
    ),
    **dict.fromkeys(
        (
            "hostaddr", "require_auth", "requirepeer", "gssdelegation",
            "sslcertmode", "sslcompression", "sslcrldir", "sslkeylogfile", "sslsni",
            "min_protocol_version", "max_protocol_version", "scram_client_key", "scram_server_key",
            "oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope",
        ),
        "it is not supported",
    ),
    "database": "libpq calls it dbname",
}  # fmt: skip

_USER = re.compile(r"(?:([^:@/]*)(?::([^@/]*))?@)?")
_REST = re.compile(r"([^/?]*)(?:/([^?@]*))?(?:\?(.*))?", re.DOTALL)
_HOST = re.compile(r"(?:\[([^\[\]]+)\]|([^:\[\]@]*))(?::(.*))?", re.DOTALL)
#: What the database has no room for in a text.
_NO_TEXT = re.compile(r"[\0\ud800-\udfff]")
_NOT_ESCAPED = re.compile(r"%(?![0-9A-Fa-f]{2})|%00")

ESCAPES = "`/`, `@` and `%` in a password are written as %2F, %40 and %25"
NOT_A_URL = f"must be a URL as libpq has it; {ESCAPES}"


def too_long_for_postgres(limits: Limits) -> Iterator[tuple[str, str]]:
    """Limits above what PostgreSQL can hold: the setting and its fault."""
    for name, largest in (("key_bytes", POSTGRES_KEY_BYTES), ("store_name_characters", POSTGRES_NAME_CHARACTERS)):
        if getattr(limits, name) > largest:
            yield f"limit_{name}", f"must be {largest:,} or less with PostgreSQL, whose indexes hold no more"


def database_fault(url: str) -> str | None:
    """Why no database can be reached with this URL, as words that follow the name of a setting."""
    try:
        return _tls_file_fault(connection_parameters(url))
    except ValueError as error:
        return str(error)


def connection_parameters(url: str) -> dict[str, str]:
    """What the URL says, by libpq's names: `host` and `port` (lists, with commas), `dbname`, `password`, `sslmode` ….

    Empty ones are left out, since they mean the default. Names that libpq does not know are settings of the session.
    Raises ValueError, with words that follow the name of a setting, for what cannot work or is not supported.
    """
    parameters = _parse(url)
    _check_hosts(parameters.get("host", ""), parameters.get("port", ""))
    if "sslmode" in parameters:
        parameters["sslmode"] = parameters["sslmode"].replace("_", "-")
    for name, values in CHOICES.items():
        if parameters.get(name, values[0]) not in values:
            raise ValueError(f"must have as {name} one of: {', '.join(values)}")
    for name, (values, advice) in FIXED.items():
        if parameters.pop(name, values[0]) not in values:
            raise ValueError(f"must have {' or '.join(values)} as {name}, or leave it out: {advice}")
    for name, why in UNSUPPORTED.items():
        if name in parameters:
            raise ValueError(f"must not have {name}: {why}")
    if not re.fullmatch("[0-9]{0,6}", parameters.get("connect_timeout", "")):
        raise ValueError("must have a whole number of seconds as connect_timeout")
    if parameters.get("sslnegotiation") == "direct" and _ssl_mode(parameters) < SSL_MODES.index("require"):
        raise ValueError("must have require, verify-ca or verify-full as sslmode with sslnegotiation=direct")
    return {name: value for name, value in parameters.items() if value}


def _parse(url: str) -> dict[str, str]:
    """As libpq's `conninfo_uri_parse_options` does it; but an `@` in the name of a database, which more often ends a
    password that has a `/` in it, must be escaped."""
    given = url.partition("://")[2]
    credentials = _USER.match(given)
    rest = _REST.fullmatch(given, credentials.end()) if credentials else None
    if not credentials or not rest or _NO_TEXT.search(url):
        raise ValueError(NOT_A_URL)
    hosts, ports = [], []
    for item in rest[1].split(","):
        host = _HOST.fullmatch(item)
        if not host:
            raise ValueError(f"{NOT_A_URL}; an IPv6 address is written as [::1]")
        hosts.append(host[1] or host[2])
        ports.append(host[3] or "")
    parts = {
        "user": credentials[1],
        "password": credentials[2],
        "host": ",".join(hosts),
        "port": ",".join(ports),
        "dbname": rest[2],
    }
    return {name: _decoded(part) for name, part in parts.items() if part} | dict(_query(rest[3] or ""))


def _query(query: str) -> Iterator[tuple[str, str]]:
    for pair in query.removesuffix("&").split("&") if query else ():
        name, equals, value = pair.partition("=")
        if not name or not equals or "=" in value:
            raise ValueError(f"must have parameters of the form NAME=VALUE after `?`; {ESCAPES}")
        # As JDBC has it.
        yield ("sslmode", "require") if pair == "ssl=true" else (_decoded(name), _decoded(value))


def _decoded(part: str) -> str:
    if _NOT_ESCAPED.search(part):
        raise ValueError(NOT_A_URL)
    try:
        return unquote(part, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("must have only UTF-8 in what is written with %") from None


def _check_hosts(hosts: str, ports: str) -> None:
    for port in ports.split(","):
        if port and not (re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65_536):
            raise ValueError(
                f"must have a number from 1 to 65,535 as port; {ESCAPES}, and an IPv6 address is written as [::1]"
            )
    if "," in ports and ports.count(",") != hosts.count(","):
        raise ValueError("must have one port for all hosts, or one for each")
    for host in hosts.split(","):
        if host.startswith("/"):
            continue
        try:
            good = "@" not in host and (not host or bool(host.encode("idna")))
        except UnicodeError:  # an empty or overlong part, or a character that no name has
            good = False
        if not good:
            raise ValueError(f"must have names, addresses or directories of Unix sockets as hosts; {ESCAPES}")


def _ssl_mode(parameters: Mapping[str, str]) -> int:
    return SSL_MODES.index(parameters.get("sslmode", "prefer"))


def _tls_file_fault(parameters: Mapping[str, str]) -> str | None:
    for name, since in SSL_FILES.items():
        if name in parameters and _ssl_mode(parameters) >= SSL_MODES.index(since):
            file = Path(parameters[name])
            fault = unreadable(file)
            if fault is None and since == "require" and not holds_certificates(file):
                fault = f"must be a file of certificates (PEM); {file} holds none"
            if fault:
                return f"{name} {fault}"
    return None
