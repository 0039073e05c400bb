"""What the first start says: the ids, the owner key, shown this once, and a line to paste. Text only."""

from __future__ import annotations

from kvasir.config.parsers import split_address
from kvasir.config.table import Config
from kvasir.control.bootstrap import FirstStart

_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what to connect to when all addresses are served

_PLACES = {"memory": "memory", "postgresql": "PostgreSQL"}


def welcome(first: FirstStart, config: Config) -> str:
    """The text for standard output. It holds the new key, so it must go nowhere else.

    A key that the operator chose is not repeated; the line to paste takes it from the operator's own variable.
    """
    key = f"'Authorization: Bearer {first.key}'" if first.key else '"Authorization: Bearer $KVASIR_ADMIN_KEY"'
    lines = [
        f"A new database in {config.data_dir if config.database else _PLACES[config.engine_name]}.",
        "",
        f"  organisation  {first.organisation}",
        f"  store         {first.store}  (default)",
    ]
    if first.key:
        lines += [
            f"  owner key     {first.key}",
            "                Shown this once: only a hash of it is kept.",
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
    """Where a client on this machine reaches the HTTP listener; None: there is none."""
    for scheme, address in (("http", config.http), ("https", config.https)):
        if address:
            host, port = split_address(address)
            host = _ANYWHERE.get(host, host)
            return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
    return None


def announce(first: FirstStart | None, config: Config) -> None:
    """Show what the first start made; the owner key is never shown again."""
    if first is not None:
        print(welcome(first, config), flush=True)  # noqa: T201  # the answer to a command
