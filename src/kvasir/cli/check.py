"""`kvasir check`: examine the database."""

from __future__ import annotations

import typer

from kvasir.cli.common import ConfigFile, Database, DataDir, EngineUrl, Json, administer, print_json


def check(data_dir: DataDir = None, engine: EngineUrl = None, config: ConfigFile = None, json: Json = False) -> None:
    """Examine the whole database; the exit status is 1 if anything is wrong. A server may be running."""

    async def work(database: Database) -> tuple[list[str], int, int]:
        faults = await database.engine.check()
        stats = await database.engine.stats()
        return faults, stats.spaces, stats.entries

    faults, spaces, entries = administer(work, data_dir, engine, config, writes=False)
    if json:
        print_json({"sound": not faults, "faults": faults, "spaces": spaces, "entries": entries})
    else:
        for fault in faults:
            typer.echo(fault)
        if not faults:
            typer.echo(f"sound: {spaces:,} spaces, {entries:,} entries")
    if faults:
        raise typer.Exit(1)
