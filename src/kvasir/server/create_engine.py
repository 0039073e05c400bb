"""Creates the engine that the settings name. The only module that names all of them.

Each is imported where it is needed: the driver of PostgreSQL alone would take a fifth of the start of a server without.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kvasir.config.table import Config
from kvasir.engine import Engine
from kvasir.server.data_directory import refuse_other_files

if TYPE_CHECKING:
    from kvasir.engines.postgres import PostgresEngine
    from kvasir.engines.postgres.status import Status

    #: For `kvasir db`
    PostgresStatus = Status


def create_engine(config: Config) -> Engine:
    """The engine that the settings name, not yet open. Makes the data directory if the database is to be in it.

    Raises `Invalid` or `Unavailable` if they name something as the database that is none.
    """
    if config.engine_name == "postgresql":
        return create_postgres_engine(config)
    if config.database is None:
        from kvasir.engines.memory import MemoryEngine

        return MemoryEngine()
    from kvasir.engines.sqlite import SqliteEngine

    refuse_other_files(config.database)
    if config.database.parent == config.data_dir:  # otherwise it may not be needed at all
        config.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Values are nobody else's business. SQLite gives its other files the mode of this one.
    os.close(os.open(config.database, os.O_RDWR | os.O_CREAT, 0o600))
    return SqliteEngine(config.database, durable=config.durability == "full", limits=config.limits)


def create_postgres_engine(config: Config) -> PostgresEngine:
    """The same where the settings name PostgreSQL, for `kvasir db`, which asks it for more than an `Engine` has."""
    from kvasir.config.database_url import connection_parameters
    from kvasir.engines.postgres import PostgresEngine

    return PostgresEngine(
        connection_parameters(config.engine),
        durable=config.durability == "full",
        limits=config.limits,
        connections=config.postgres_connections,
    )
