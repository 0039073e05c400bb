"""What the first start prints: the ids, the owner key, which is shown only this once, and a command to paste."""

from __future__ import annotations

from kvasir.config.parsers import split_address
from kvasir.config.table import Config
from kvasir.control.bootstrap import FirstStart

#: Where to connect to a server that listens on all addresses.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104

_DATABASES = {"memory": "memory", "postgresql": "PostgreSQL"}


def welcome(first: FirstStart, config: Config) -> str:
    """The text for standard output. It contains the new key, so it must not go anywhere else.

    A key that the operator chose is not repeated; the command takes it from the operator's own variable.
    """
    key = f"'Authorization: Bearer {first.key}'" if first.key else '"Authorization: Bearer $KVASIR_ADMIN_KEY"'
    lines = [
        f"Created a new database in {config.data_dir if config.database else _DATABASES[config.engine_name]}.",
        "",
        f"  organisation  {first.organisation}",
        f"  store         {first.store}  (default)",
    ]
    if first.key:
        lines += [
            f"  owner key     {first.key}",
            "                Shown only this once: the database keeps nothing but a hash of it.",
        ]
    if address := base_url(config):
        ca = f"--cacert {config.tls_cert} " if address.startswith("https:") else ""
        lines += [
            "",
            "Set a key:",
            "",
            f'  curl {ca}-X PUT -H {key} -d \'{{"value": "hello"}}\' {address}/api/v2/store/{first.store}/kv/greeting',
        ]
    return "\n".join(lines) + "\n"


def base_url(config: Config) -> str | None:
    """The URL of the HTTP listener for a client on this machine; None if there is none."""
    for scheme, address in (("http", config.http), ("https", config.https)):
        if address:
            host, port = split_address(address)
            host = _LOOPBACK.get(host, host)
            return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    return None


def announce(first: FirstStart | None, config: Config) -> None:
    """Print what the first start has created, if this is it."""
    if first is not None:
        print(welcome(first, config), flush=True)  # noqa: T201  # the answer to a command
