"""`kvasir check`: examine the database."""

from __future__ import annotations

import typer

from kvasir.cli.common import ConfigFile, Database, DataDir, EngineUrl, Where
from kvasir.cli.terminal import Json, contents, print_json
from kvasir.printable import printable


def check(data_dir: DataDir = None, engine: EngineUrl = None, config: ConfigFile = None, json: Json = False) -> None:
    """Examine the whole database; the exit status is 1 if anything is wrong. A server may be running."""

    async def work(database: Database) -> tuple[list[str], list[str], int, int]:
        from kvasir.control.clock_warning import clock_warning

        faults = await database.engine.check()
        warning = await clock_warning(database.engine)
        stats = await database.engine.stats()
        return faults, [warning] if warning else [], stats.spaces, stats.entries

    faults, warnings, spaces, entries = Where(data_dir, engine, config).administer(work, writes=False)
    if json:
        found = {"sound": not faults, "faults": faults, "warnings": warnings}
        print_json(found | {"spaces": spaces, "entries": entries})
    else:
        for fault in faults:
            typer.echo(printable(fault))
        if not faults:
            typer.echo(f"sound: {contents(spaces, entries)}")
        for warning in warnings:
            typer.echo(f"warning: {warning}", err=True)
    if faults:
        raise typer.Exit(1)
