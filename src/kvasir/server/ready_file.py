"""The file that tells programs where a server listens, once it serves. It holds no secret."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from kvasir.config.table import Config
from kvasir.errors import Unavailable
from kvasir.server import whole_file


def write(path: Path, addresses: Mapping[str, list[str]], organisation: str, pid: int) -> None:
    """Write the file, whole or not at all, for its owner alone. Raises `Unavailable`.

    `addresses`: the URLs of each listener by its name, of which the file has the first; `pid` is the process to stop.
    """
    facts = {name: urls[0] for name, urls in addresses.items()} | {"organisation": organisation, "pid": pid}
    try:
        whole_file.write(path, json.dumps(facts).encode(), 0o600)
    except OSError as error:
        raise Unavailable(f"the ready file {path} cannot be written: {error.strerror}") from None


def remove(config: Config) -> None:
    """Remove the file, if there is one, when the server ends."""
    if config.ready_file is not None:
        config.ready_file.unlink(missing_ok=True)
