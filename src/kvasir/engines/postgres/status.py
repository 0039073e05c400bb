"""What `kvasir db status` shows an operator about the database. Changes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import asyncpg
import msgspec

from kvasir.engines.postgres import cluster
from kvasir.engines.postgres.address import Host, connect_arguments, hosts
from kvasir.engines.postgres.connection import CANNOT_CONNECT
from kvasir.engines.postgres.failures import failed_connecting
from kvasir.engines.postgres.pool import BUSY_SECONDS, Pool
from kvasir.engines.postgres.schema import MIGRATIONS
from kvasir.errors import KvasirError

ABOUT = """
    select current_setting('server_version') as version, current_database() as database,
        quote_ident(current_schema()) as schema, to_regclass('kvasir_schema') is not null as has_tables"""
VERSION = "select coalesce(max(version), 0) from kvasir_schema"
SPACES = "select kind, count(*) as spaces from kvasir_space group by kind order by kind"
SIZES = """
    select name, pg_total_relation_size(name::regclass) as bytes
    from unnest(array['kvasir_entry', 'kvasir_head', 'kvasir_space', 'kvasir_alias']) as name"""
#: For connections that only look
LOOK = {"target_session_attrs": "any", "timeout": BUSY_SECONDS, "statement_cache_size": 0}
CITUS_SIZES = SIZES.replace("pg_total", "citus_total")


class Status(msgspec.Struct, frozen=True):
    """The database as it is; None or empty where there is nothing to show yet."""

    server_version: str
    database: str
    schema: str
    #: Version of the tables; 0: there are none
    version: int
    #: The version that this program creates
    newest: int
    #: Whether a pooler in between lends server processes by the transaction
    behind_pgbouncer: bool = msgspec.field(name="pooled")  # its name in `kvasir db status --json`
    #: Living and expired spaces by kind
    spaces: dict[str, int]
    #: Bytes by table, indexes included
    tables: dict[str, int]
    #: "host:port" of the nodes of Citus; None: no Citus
    nodes: list[str] | None
    #: Those of them that do not answer; then there are no sizes
    away: list[str]
    #: Those of them that a server on this machine speaks to directly about the spaces they have (see `routing`)
    direct: list[str]
    #: Shards by table
    shards: dict[str, int]


async def status(pool: Pool, parameters: Mapping[str, str]) -> Status:
    """Look at the database. Raises `Unavailable`."""
    async with pool.looking() as connection:
        found = await _status(pool, connection)
        if not found.nodes or found.behind_pgbouncer:
            return found
        known = [tuple(row) for row in await connection.fetch(cluster.IDENTIFIERS)]
        reached = [f"{name}:{port}" for name, port, number in known if await _is(name, port, number, parameters)]
        return msgspec.structs.replace(found, direct=sorted(reached))


async def _is(name: str, port: int, identifier: str, parameters: Mapping[str, str]) -> bool:
    """Whether this address leads to the data with this identifier from here, too."""
    try:
        connection = await asyncpg.connect(host=name, port=port, **connect_arguments(parameters) | LOOK)
        try:
            return str(await connection.fetchval(cluster.IDENTIFIER)) == identifier
        finally:
            await connection.close(timeout=BUSY_SECONDS)
    except CANNOT_CONNECT:
        return False


async def _status(pool: Pool, connection: Any) -> Status:
    async with pool.snapshot(connection):
        about = await connection.fetchrow(ABOUT)
        version = await connection.fetchval(VERSION) if about["has_tables"] else 0
        citus = await connection.fetchval(f"select {cluster.HAS_CITUS}")
        nodes = dict(await connection.fetch(cluster.NODES)) if citus else {}
        away = [name for name, answers in nodes.items() if not answers]
        sizes = CITUS_SIZES if citus else SIZES
        return Status(
            server_version=about["version"],
            database=about["database"],
            schema=about["schema"],
            version=version,
            newest=len(MIGRATIONS),
            behind_pgbouncer=pool.behind_pgbouncer,
            spaces=await _pairs(connection, SPACES) if version else {},
            tables=await _pairs(connection, sizes) if version and not away else {},
            nodes=list(nodes) if citus else None,
            away=away,
            direct=[],
            shards=await _pairs(connection, cluster.SHARDS) if citus else {},
        )


async def _state(host: Host, arguments: dict[str, Any]) -> str:
    """What a host is now: "primary", "standby", or "unreachable: " and why."""
    try:
        connection = await asyncpg.connect(host=host.name, port=host.port, **arguments)
        try:
            recovering = await connection.fetchval("select pg_is_in_recovery()")
        finally:
            await connection.close(timeout=BUSY_SECONDS)
    except CANNOT_CONNECT as error:
        return f"unreachable: {failed_connecting(error).message}"
    return "standby" if recovering else "primary"


async def nodes(pool: Pool, parameters: Mapping[str, str]) -> list[tuple[str, str]]:
    """Every host in the URL, with what it is: a primary, a standby or why it cannot be reached; then Citus's nodes."""
    arguments = connect_arguments(parameters) | LOOK
    found = [
        (f"{host.name or 'localhost'}:{host.port or 5432}", await _state(host, arguments)) for host in hosts(parameters)
    ]
    with contextlib.suppress(KvasirError):
        async with pool.looking() as connection:
            if await connection.fetchval(f"select {cluster.HAS_CITUS}"):
                found += [
                    (name, "node of Citus" if answers else "unreachable: the node of Citus does not answer")
                    for name, answers in await connection.fetch(cluster.NODES)
                ]
    return found


async def _pairs(connection: Any, sql: str) -> dict[str, int]:
    return {row[0]: row[1] for row in await connection.fetch(sql)}
