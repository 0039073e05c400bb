"""What an operator wants to know about the database: for `kvasir db status`. Changes nothing."""

from __future__ import annotations

from typing import Any

import msgspec

from kvasir.engines.postgres.link import Link
from kvasir.engines.postgres.schema import HAS_CITUS, MIGRATIONS

ABOUT = """
    select current_setting('server_version') as version, current_database() as database,
        quote_ident(current_schema()) as schema, to_regclass('kvasir_schema') is not null as there"""
VERSION = "select coalesce(max(version), 0) from kvasir_schema"
SPACES = "select kind, count(*) as spaces from kvasir_space group by kind order by kind"
SIZES = """
    select name, pg_total_relation_size(name::regclass) as bytes
    from unnest(array['kvasir_entry', 'kvasir_head', 'kvasir_space', 'kvasir_alias']) as name"""
SPREAD_SIZES = SIZES.replace("pg_total", "citus_total")
NODES = "select nodename, nodeport, isactive, shouldhaveshards from pg_dist_node order by nodeid"
SHARDS = """
    select table_name::text as name, count(*) as shards, count(distinct (nodename, nodeport)) as nodes
    from citus_shards where table_name::text like '%kvasir\\_%' group by 1 order by 1"""


class Status(msgspec.Struct, frozen=True):
    """The database as it is; None and empty where there is nothing to tell yet."""

    server_version: str
    database: str
    schema: str
    #: Version of the tables; 0: there are none
    version: int
    #: The version this program makes
    newest: int
    #: Whether a pooler sits in between that lends server processes by the transaction
    pooled: bool
    #: Living and expired spaces by kind
    spaces: dict[str, int]
    #: Bytes by table, indexes included
    tables: dict[str, int]
    #: "host:port" of Citus' nodes; None: no Citus
    nodes: list[str] | None
    #: Shards by table
    shards: dict[str, int]


async def status(link: Link) -> Status:
    """Look at it. Raises `Unavailable`."""
    async with link.alone() as connection, link.snapshot(connection):
        about = await connection.fetchrow(ABOUT)
        version = await connection.fetchval(VERSION) if about["there"] else 0
        citus = await connection.fetchval(HAS_CITUS)
        sizes = SPREAD_SIZES if citus else SIZES
        return Status(
            server_version=about["version"],
            database=about["database"],
            schema=about["schema"],
            version=version,
            newest=len(MIGRATIONS),
            pooled=link.pooled,
            spaces=await _pairs(connection, SPACES) if version else {},
            tables=await _pairs(connection, sizes) if version else {},
            nodes=[f"{row[0]}:{row[1]}" for row in await connection.fetch(NODES)] if citus else None,
            shards=await _pairs(connection, SHARDS) if citus else {},
        )


async def _pairs(connection: Any, sql: str) -> dict[str, int]:
    return {row[0]: row[1] for row in await connection.fetch(sql)}
