"""What a URL of PostgreSQL may say, and what can never work with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from kvasir.config.tls import holds_certificates, unreadable
from kvasir.limits import Limits

#: A row of an index has room for 2,704 bytes; a space's number and two lengths are among them, with the name of a
#: store the kind of its alias and the ULID of an organisation.
POSTGRES_KEY_BYTES = 2_600

#: A character may take four bytes.
POSTGRES_NAME_CHARACTERS = POSTGRES_KEY_BYTES // 4

#: What libpq knows, from none to the strictest.
SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

#: Parameters that name files, and the mode from which on they are used.
SSL_FILES = {"sslcert": "allow", "sslkey": "allow", "sslrootcert": "require", "sslcrl": "require"}


def too_long_for_postgres(limits: Limits) -> Iterator[tuple[str, str]]:
    for name, most in (("key_bytes", POSTGRES_KEY_BYTES), ("store_name_characters", POSTGRES_NAME_CHARACTERS)):
        if getattr(limits, name) > most:
            yield f"limit_{name}", f"must be {most:,} or less with PostgreSQL, whose indexes hold no more"


def wrong_database(address: str) -> str | None:
    """What in a URL of PostgreSQL can never work. Shows no part of it that could be of the password."""
    try:
        url = urlsplit(address)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
    except ValueError:
        return (
            "must be a URL; `/`, `?`, `#`, `@`, `[` and `]` in a password are written as %2F, %3F, %23, %40, %5B, %5D"
        )
    hosts = url.netloc.rpartition("@")[2].split(",")
    ports = [host.rpartition("]")[2].partition(":")[2] for host in hosts] + query.get("port", "").split(",")
    if not all(
        port == "" or (port.isascii() and port.isdigit() and len(port) < 6 and 0 < int(port) < 65_536) for port in ports
    ):
        return (
            "must have a number from 1 to 65,535 as port; "
            "`/`, `?`, `#` and `@` in a password are written as %2F, %3F, %23 and %40"
        )
    return _wrong_database_tls(query)


def _wrong_database_tls(query: Mapping[str, str]) -> str | None:
    mode = query.get("sslmode", "prefer").replace("_", "-")
    if mode not in SSL_MODES:
        return f"must have as sslmode one of: {', '.join(SSL_MODES)}"
    for name, since in SSL_FILES.items():
        if query.get(name) and SSL_MODES.index(mode) >= SSL_MODES.index(since):
            file = Path(query[name])
            fault = unreadable(file)
            if fault is None and since == "require" and not holds_certificates(file):
                fault = f"must be a file of certificates (PEM); {file} holds none"
            if fault:
                return f"{name} {fault}"
    return None
