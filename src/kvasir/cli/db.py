"""`kvasir db`: create and inspect the tables in PostgreSQL."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import typer

from kvasir.cli.common import ConfigFile, EngineUrl
from kvasir.cli.terminal import Json, print_json, print_table
from kvasir.config import loading
from kvasir.config.table import Config
from kvasir.errors import Invalid

if TYPE_CHECKING:
    from kvasir.server.create_engine import PostgresStatus

app = typer.Typer(help="Create and inspect the tables in PostgreSQL.", no_args_is_help=True)


@app.command("init")
def init(engine: EngineUrl = None, config: ConfigFile = None, json: Json = False) -> None:
    """Create the tables or bring them up to date; with Citus, distribute them over the nodes.

    It is safe to repeat, and to run from two hosts at once. `kvasir serve` does the same when it starts.
    """
    chosen = _chosen(engine, config)

    async def work() -> PostgresStatus:
        from kvasir.server.create_engine import create_postgres_engine

        database = create_postgres_engine(chosen)
        await database.open()
        try:
            return await database.status()
        finally:
            await database.close()

    _show(asyncio.run(work()), json=json)


@app.command("status")
def status(engine: EngineUrl = None, config: ConfigFile = None, json: Json = False) -> None:
    """Show versions, sizes and, with Citus, nodes and shards. Changes nothing."""
    chosen = _chosen(engine, config)

    async def work() -> PostgresStatus:
        from kvasir.server.create_engine import create_postgres_engine

        return await create_postgres_engine(chosen).status()

    _show(asyncio.run(work()), json=json)


def _chosen(engine: str | None, config: ConfigFile) -> Config:
    chosen = loading.load({"engine": engine}, os.environ, config)
    if chosen.engine_name != "postgresql":
        raise Invalid("this command is for PostgreSQL: give --engine postgresql://… or set KVASIR_ENGINE")
    return chosen


def _show(found: PostgresStatus, *, json: bool) -> None:
    if json:
        print_json(found)
        return
    tables = "none yet; `kvasir db init` or `kvasir serve` creates them"
    if found.version:
        tables = f"version {found.version} of {found.newest}"
    rows = [
        ("server", f"PostgreSQL {found.server_version}"),
        ("database", f"{found.database}, schema {found.schema}"),
        ("tables", tables),
        *[(f"  {table}", f"{size:,} bytes") for table, size in found.tables.items()],
        *[(f"{kind}s", f"{count:,}") for kind, count in found.spaces.items()],
        ("citus", "no" if found.nodes is None else ", ".join(found.nodes)),
        *[("  does not answer", node) for node in found.away],
        *[("  reached directly from here", node) for node in found.direct],
        *[(f"  {table}", f"{count} shards") for table, count in found.shards.items()],
    ]
    print_table(("WHAT", "STATE"), rows)
