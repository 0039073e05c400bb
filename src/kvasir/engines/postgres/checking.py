"""Checks a whole database for what must hold between its tables, and measures its size."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from kvasir.engines.postgres import cluster
from kvasir.engines.postgres.pool import Pool
from kvasir.engines.soundness import entry_fault, list_fault
from kvasir.keys import COUNTER_BITS
from kvasir.model import SYSTEM_SPACE, Stats

PREFETCH_ROWS = 500

#: Within the rows of each space
OF_SPACE = (
    ("select count(*) from kvasir_entry e where not exists (select from kvasir_head h where h.space = e.space)",
     "entries belong to no space"),
    ("select count(*) from kvasir_entry e join kvasir_head h on h.space = e.space"
     " where greatest(e.sequence, e.versionstamp) > h.last", "entries are newer than the last number handed out"),
    ("select count(*) from kvasir_entry e join kvasir_head h on h.space = e.space"
     " where e.created_at > h.latest", "entries were created after the latest creation"),
)  # fmt: skip
#: Between the registry and the spaces. A cluster refuses subqueries that look from the one at the other for each row,
#: and outer joins of the registry: a difference of counts says the same.
_HEADED = "kvasir_head h join kvasir_space s on s.number = h.space and not h.ended"
REGISTRY = (
    ("select count(*) from kvasir_alias d where not exists (select from kvasir_space s where s.number = d.space)",
     "aliases lead to no space"),
    (f"select (select count(*) from kvasir_space) - (select count(*) from {_HEADED} and s.expires_at"  # noqa: S608
     " is not distinct from h.expires_at)", "spaces have no record of their last number"),
    (f"select (select count(*) from kvasir_head h where h.space <> 1 and not h.ended)"  # noqa: S608
     f" - (select count(*) from {_HEADED})", "records of last numbers belong to no space"),
)  # fmt: skip
SYSTEM = "select count(*) from kvasir_head where space = $1 and not ended"
ENTRIES = "select space, sequence, key, value, metadata from kvasir_entry"

AHEAD = f"""
    select coalesce(greatest(0, max(greatest(h.last >> {COUNTER_BITS}, h.latest)) - coalesce($1, kvasir_time())), 0)
    from kvasir_head h where not h.ended"""  # noqa: S608

SPACES = "select count(*) from kvasir_space"
#: As the planner does it: rows per page when last analyzed, times the number of pages now. Small tables are counted.
ESTIMATE = """
    select case when c.reltuples > 0 and c.relpages > 1000
        then (c.reltuples / c.relpages * (pg_relation_size(c.oid) / current_setting('block_size')::int))::bigint
        else (select count(*) from kvasir_entry) end
    from pg_class c where c.oid = 'kvasir_entry'::regclass"""
EXPIRED = "select count(*) from kvasir_entry where expires_at <= coalesce($1, kvasir_time())"
SIZE = """
    select sum(pg_total_relation_size(name::regclass))::bigint
    from unnest(array['kvasir_entry', 'kvasir_head', 'kvasir_space', 'kvasir_alias']) as name"""
CITUS_ESTIMATE = "select count(*) from kvasir_entry"
CITUS_SIZE = """
    select sum(citus_total_relation_size(name::regclass))::bigint
    from unnest(array['kvasir_entry', 'kvasir_head', 'kvasir_space', 'kvasir_alias']) as name"""


async def check(pool: Pool) -> list[str]:
    """One sentence for every fault; empty if the database is sound. One snapshot.

    Raises `Unavailable` if the database, or a node of it, is away or goes away meanwhile.
    """
    faults: list[str] = []
    async with pool.looking() as connection, pool.snapshot(connection):
        async for fault in _faults(pool, connection):
            if not list_fault(faults, fault):
                break
    return faults


async def _faults(pool: Pool, connection: Any) -> AsyncIterator[str]:
    if not await connection.fetchval(pool.text(SYSTEM, SYSTEM_SPACE), SYSTEM_SPACE):
        yield "Kvasir's own space is missing"
    for sql, what in REGISTRY:
        if count := await connection.fetchval(sql):
            yield f"{count} {what}"
    # On a cluster, the system space has tables of its own.
    for made_for in (str, cluster.of_system_space) if pool.spread else (str,):
        for sql, what in OF_SPACE:
            if count := await connection.fetchval(made_for(sql)):
                yield f"{count} {what}"
        async for space, sequence, key, value, metadata in connection.cursor(made_for(ENTRIES), prefetch=PREFETCH_ROWS):
            if fault := entry_fault(key, value, metadata):
                yield f"entry {sequence} of space {space}: {fault}"


async def milliseconds_ahead(pool: Pool, now: int | None) -> int:
    """See `Engine.milliseconds_ahead`. `now`: None is the clock of the database."""
    ((ahead,),) = await pool.fetch(AHEAD, now)
    return int(ahead)


async def measure(pool: Pool, now: int | None) -> Stats:
    """See `Engine.stats`. `now`: None is the clock of the database."""
    ((spaces,),) = await pool.fetch(SPACES)
    ((entries,),) = await pool.fetch(CITUS_ESTIMATE if pool.spread else ESTIMATE)
    ((size,),) = await pool.fetch(CITUS_SIZE if pool.spread else SIZE)
    ((expired,),) = await pool.fetch(EXPIRED, now)
    return Stats(spaces, entries, size, expired)
