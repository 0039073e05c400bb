"""Runs `kvasir …` as a person or a script does."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.support.serving import KVASIR, Server, environment


def run(
    *arguments: str, status: int = 0, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [str(KVASIR), *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd=cwd,
        env=environment(**variables),
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done


class Commands:
    """Runs `kvasir …` on the data of a server."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def __call__(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        return run(*arguments, *self.server.database_options, status=status)

    def text(self, *arguments: str) -> str:
        return self(*arguments).stdout.strip()

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "--json").stdout)
