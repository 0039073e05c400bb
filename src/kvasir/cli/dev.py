"""`kvasir dev`: a server for tests, with a clock, faults and a journal, that forgets everything when it ends."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer


def dev(
    seed: Annotated[
        Path | None,
        typer.Option("--seed", metavar="FILE", help="What it contains: a dump, JSON lines, YAML or TOML."),
    ] = None,
    nemesis: Annotated[bool, typer.Option("--nemesis", help="Serve the NemesisDB API, too.")] = False,
    https: Annotated[
        bool, typer.Option("--https", help="Serve HTTPS, too, with a certificate made for this run.")
    ] = False,
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Port for HTTP; 0: any free one.")] = 0,
    until_stdin_closes: Annotated[
        bool,
        typer.Option("--until-stdin-closes", help="End when standard input does: with the process that started it."),
    ] = False,
    in_container: Annotated[
        bool, typer.Option("--in-container", help="Let other machines reach the APIs, though never the controls.")
    ] = False,
    lenient: Annotated[
        bool, typer.Option("--lenient", help="Ignore what the services ignore: misplaced members, misspelt parameters.")
    ] = False,
    log_level: Annotated[str, typer.Option("--log-level", help="debug, info, warning or error.")] = "warning",
) -> None:
    """Start a test bed, and print one JSON line that says where everything is.

    Addresses, ids, keys and the address of the controls are in the line: docs/testing.md.
    """
    from kvasir.control.service_accounts import new_private_key

    with ExitStack() as stack:
        # In a thread of its own, while everything else is imported.
        private_key = stack.enter_context(ThreadPoolExecutor(1)).submit(new_private_key)
        certificate = None
        from kvasir.testbed.server import Certificate, Options, run

        if https:
            from kvasir.cli import local_authority

            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kvasir-dev-tls-")))
            certificate = Certificate(*local_authority.write(directory, datetime.now(UTC)))
        options = Options(seed, nemesis, certificate, port, until_stdin_closes, in_container, lenient, log_level)
        raise typer.Exit(run(options, private_key.result()))
