"""`kvasir status`: how a running server does, on one screen."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from kvasir.cli.common import ConfigFile, DataDir, EngineUrl
from kvasir.cli.status import asking, screen
from kvasir.cli.status.figures import Figures, figures
from kvasir.cli.terminal import Json, print_json
from kvasir.config import loading
from kvasir.config.table import Config
from kvasir.errors import Invalid, Unavailable
from kvasir.printable import printable

#: The pause between the two looks from which one screen is made, unless somebody watches.
LOOK_SECONDS = 1.0

#: A screen of its own, which the terminal takes away again, without a cursor.
_ENTER, _LEAVE, _HOME, _CLEAR_LINE, _CLEAR_REST = (
    "\x1b[?1049h\x1b[?25l",
    "\x1b[?25h\x1b[?1049l",
    "\x1b[H",
    "\x1b[K",
    "\x1b[J",
)


def status(
    url: Annotated[
        str | None, typer.Option("--url", help="Address of the server. [default: the one in the settings]")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow it until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option("--interval", metavar="SECONDS", help="How often, with --watch.")] = 2.0,
    data_dir: DataDir = None,
    engine: EngineUrl = None,
    config: ConfigFile = None,
    json: Json = False,
) -> None:
    """Show how a running server does: load, latencies, commits, sizes, and warnings with what to do.

    The exit status is 1 if there is no answer, or if there are warnings. The server is asked at the address in the
    settings or the environment, as for `kvasir serve`; with PostgreSQL, so is each of its hosts.
    """
    if not 0.1 <= interval <= 3_600:
        raise Invalid("--interval must be a number of seconds from 0.1 to 3600")
    chosen = loading.load({"data_dir": data_dir, "engine": engine}, os.environ, config)
    address = url.rstrip("/") if url else _address(chosen)
    if watch:
        _watch(address, chosen, interval, json=json)
        return
    before = asking.look(address)
    time.sleep(LOOK_SECONDS)
    found = figures(before, asking.look(address), _nodes(chosen))
    if json:
        print_json(found)
    else:
        typer.echo("\n".join(screen.lines(found, shutil.get_terminal_size((80, 24)).columns, 1_000)))
    if found.warnings:
        raise typer.Exit(1)


def _address(chosen: Config) -> str:
    """Where the server that has these settings is. Raises `Invalid`."""
    from kvasir.server.welcome import base_url

    if chosen.ready_file is not None and (told := asking.told(chosen.ready_file)):
        return told
    address = base_url(chosen)
    if address is None or address.endswith(":0"):
        raise Invalid("the settings do not say where the server is: give --url, or --http as for `kvasir serve`")
    return address


def _nodes(chosen: Config) -> list[tuple[str, str]]:
    """The hosts and, with Citus, the nodes of PostgreSQL, with what each is; none on other engines."""
    if chosen.engine_name != "postgresql":
        return []
    from kvasir.server.create_engine import create_postgres_engine

    return asyncio.run(create_postgres_engine(chosen).nodes())


def _watch(address: str, chosen: Config, interval: float, *, json: bool) -> None:
    terminal = sys.stdout.isatty() and not json
    try:
        if terminal:
            sys.stdout.write(_ENTER)
        for found in _followed(address, chosen, interval):
            if json:
                print_json({"error": found} if isinstance(found, str) else found)
            else:
                _draw(found, terminal=terminal)
    except KeyboardInterrupt:
        pass
    finally:
        if terminal:
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()


def _followed(address: str, chosen: Config, interval: float) -> Iterator[Figures | str]:
    """The figures of each interval; where there is no answer, why."""
    before = None
    while True:
        began = time.monotonic()
        try:
            now = asking.look(address)
            if before is not None:
                yield figures(before, now, _nodes(chosen))
            before = now
        except Unavailable as error:
            before = None
            yield error.message
        time.sleep(max(0.05, (interval if before else LOOK_SECONDS) - (time.monotonic() - began)))


def _draw(found: Figures | str, *, terminal: bool) -> None:
    width, height = shutil.get_terminal_size((80, 24))
    lines = [printable(found)[:width]] if isinstance(found, str) else screen.lines(found, width, height - 1)
    if terminal:
        sys.stdout.write(_HOME + "".join(f"{line}{_CLEAR_LINE}\r\n" for line in lines) + _CLEAR_REST)
        sys.stdout.flush()
    else:
        typer.echo("\n".join([*lines, ""]))
