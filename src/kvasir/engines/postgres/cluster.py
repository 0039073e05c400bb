"""What Citus, which spreads a database over machines, needs to be done differently. Only this module knows its ways.

Each data table is distributed by its space; small tables that every request reads are whole on every node. The system
space is among those: what authentication reads, and the epoch, are where the server is connected, so no worker is
needed by the spaces of the others. Its tables bear the prefix `kvasir_system_`.
"""

from __future__ import annotations

import functools
import re
from typing import Any

from kvasir.engines import watching
from kvasir.engines.postgres.functions import DURABILITY, FAR_FUTURE, PLANS, SET_TTL
from kvasir.errors import Unavailable
from kvasir.keys import COUNTER_BITS

#: Whether the database has the extension. Once the engine has opened it, its tables are then distributed.
HAS_CITUS = "exists (select from pg_extension where extname = 'citus')"

#: Settings of a session that differ from `pool.SESSION`. Citus plans a call of a function for the worker only once it
#: knows the arguments. It would filter the catalog row by row, which costs each new connection a third of a second. And
#: it would wait half a minute for a node that hangs.
SESSION = {
    "plan_cache_mode": "auto",
    "citus.override_table_visibility": "off",
    "citus.node_connection_timeout": "5000",
}

#: Tables by how Citus keeps them: distributed by space, or whole on every node.
DISTRIBUTED = ("kvasir_head", "kvasir_entry", "kvasir_change")
REFERENCE = (
    "kvasir_space", "kvasir_alias", "kvasir_schema",
    "kvasir_system_head", "kvasir_system_entry", "kvasir_system_change",
)  # fmt: skip
#: Functions that Citus may run where their first argument, the space, lives.
BY_SPACE = ("kvasir_set", "kvasir_write", "kvasir_load", "kvasir_watch")

_OF_SYSTEM = re.compile(r"\bkvasir_(head|entry|change|write|load|watch)\b")

#: The system space has no function for Sets alone.
NEVER = 1 << 62

IS_DISTRIBUTED = "select exists (select from pg_dist_partition where logicalrelid = $1::text::regclass)"
#: Functions of Kvasir that not all nodes have, or not as they are to be: and whether Citus is to run them where their
#: space lives.
UNKNOWN_FUNCTIONS = """
    select p.oid, p.proname = any($1) as by_space from pg_proc p
    left join pg_dist_object o on o.classid = 'pg_proc'::regclass and o.objid = p.oid
    where p.pronamespace = quote_ident(current_schema())::regnamespace and p.proname like 'kvasir\\_%'
        and (o.objid is null or p.proname = any($1) and o.distribution_argument_index is null)"""
COORDINATOR = """
    select nodename, nodeport, groupid = (select groupid from pg_dist_local_group) as here
    from pg_dist_node where groupid = 0 and noderole = 'primary'"""
#: The shards with the nodes that have them; each has one, unless a table has copies
PLACEMENTS = """
    select s.shardid, n.groupid, n.nodename, n.nodeport from pg_dist_shard s
    join pg_dist_placement p on p.shardid = s.shardid join pg_dist_node n on n.groupid = p.groupid
    where s.logicalrelid = 'kvasir_head'::regclass and n.noderole = 'primary' and n.isactive"""
#: The epoch as this node has it, without Citus' planner: nothing, if this node does not keep the table any more
LOCAL_EPOCH = """
    select last, kvasir_time() from kvasir_system_head_{0} where space = 1 and exists (
        select from pg_dist_placement p join pg_dist_local_group l on l.groupid = p.groupid
        where p.shardid = {0} and p.shardstate = 1)"""
#: The number in it, if this node keeps the table
SYSTEM_SHARD = """
    select shardid from pg_dist_shard where logicalrelid = 'kvasir_system_head'::regclass
        and to_regclass('kvasir_system_head_' || shardid) is not null"""
SHARDS_OF = """
    select space, get_shard_id_for_distribution_column('kvasir_head'::regclass, space)
    from unnest($1::bigint[]) as g (space)"""
#: What tells one server's data from another's, as the server itself says it and as its neighbours see it
IDENTIFIER = "select system_identifier from pg_control_system()"
IDENTIFIERS = f"""
    select n.nodename, n.nodeport, r.result
    from run_command_on_all_nodes('{IDENTIFIER}', give_warning_for_connection_errors := true) r
    join pg_dist_node n on n.nodeid = r.nodeid where r.success"""  # noqa: S608
#: Moves the epoch once more (see `Pool.write_everywhere`).
MOVE_EPOCH = "update kvasir_system_head set last = last + 1 where space = $1 returning last"

#: Expired entries of the system space, some at a time, and the instant that says so
EXPIRED = """
    with clock as materialized (select coalesce($1::bigint, kvasir_time()) as now)
    select now, array(select key from kvasir_system_entry where expires_at <= now order by expires_at limit $2)
    from clock"""
REMOVE_EXPIRED = "delete from kvasir_system_entry where space = 1 and key = any($1) and expires_at <= $2 returning key"

#: "HOST:PORT" of the nodes, and whether they answer
NODES = """
    select nodename || ':' || nodeport, citus_check_connection_to_node(nodename, nodeport)
    from pg_dist_node where noderole = 'primary' order by nodeid"""
REACHES = "select citus_check_connection_to_node($1, $2)"
#: Those of this schema by table; a copy of a shard is not another one.
SHARDS = """
    select c.relname::text, count(distinct s.shardid) from pg_dist_shard s join pg_class c on c.oid = s.logicalrelid
    where c.relnamespace = quote_ident(current_schema())::regnamespace and c.relname like 'kvasir\\_%'
    group by 1 order by 1"""

#: Runs each statement of a migration on all nodes, which Citus does only one statement and one connection at a time.
SEQUENTIALLY = "set local citus.multi_shard_modify_mode = 'sequential'"
#: For connections that do not have `SESSION`: with many tables, asyncpg's look at types would take minutes.
SEE_ALL = "set citus.override_table_visibility = off"

#: The system space, before the tables are distributed, goes into the tables of its own.
MOVE_SYSTEM_SPACE = tuple(
    statement
    for table in DISTRIBUTED
    for statement in (
        f"insert into @{table.replace('_', '_system_', 1)} select * from @{table} where space = 1",  # noqa: S608
        f"delete from @{table} where space = 1",  # noqa: S608
    )
)

#: `kvasir_set` where the tables are distributed: as `kvasir_write` begins, since no UPDATE may read the clock there.
SET_FUNCTION = f"""
    create or replace function @kvasir_set(
        p_space bigint, p_now bigint, p_durable boolean, p_jobs integer, p_job integer[], p_kind smallint[],
        p_key bytea[], p_number bigint[], p_refresh boolean[], p_value bytea[], p_metadata bytea[]
    ) returns bigint[] language plpgsql volatile {PLANS} as $$
    declare
        v_numbers bigint := p_jobs + cardinality(p_key);
        v_head record;
        v_base bigint;
        v_now bigint;
        v_latest bigint;
        v_replaced bigint[];
    begin{DURABILITY}
        select h.last, h.latest, h.expires_at, h.watched_until into v_head
            from @kvasir_head h where h.space = p_space and not h.ended for update;
        v_now := coalesce(p_now, @kvasir_time());
        if not found or v_head.expires_at <= v_now then
            return null;
        end if;
        v_latest := greatest(v_head.latest, v_now);
        v_base := greatest(v_head.last + 1, v_now << {COUNTER_BITS},
            case when v_latest < {FAR_FUTURE} then v_latest << {COUNTER_BITS} end);
        with done as (
            insert into @kvasir_entry as e
                (space, key, value, versionstamp, sequence, created_at, expires_at, refresh, metadata)
            select h.space, g.key, g.value, v_base + g.job, v_base + p_jobs + g.place - 1, v_latest,
                case g.kind when {SET_TTL} then v_now + g.number else g.number end,
                case when g.refresh then case g.kind when {SET_TTL} then g.number else g.number - v_now end end,
                g.metadata
            from @kvasir_head h cross join unnest(p_job, p_kind, p_key, p_number, p_refresh, p_value, p_metadata)
                with ordinality as g (job, kind, key, number, refresh, value, metadata, place)
            where h.space = p_space
            on conflict (space, key) do update set
                value = excluded.value, versionstamp = excluded.versionstamp, expires_at = excluded.expires_at,
                refresh = excluded.refresh, metadata = excluded.metadata,
                sequence = case when e.expires_at <= v_now then excluded.sequence else e.sequence end,
                created_at = case when e.expires_at <= v_now then excluded.created_at else e.created_at end
            returning e.key, e.sequence
        )
        select array_agg(case when done.sequence < v_base then 1 else 0 end order by g.place) into v_replaced
            from unnest(p_key) with ordinality as g (key, place) join done on done.key = g.key;
        update @kvasir_head h set last = v_base + v_numbers - 1, latest = v_latest, previous = v_head.last
            where h.space = p_space;
        if v_head.watched_until > v_now then
            insert into @kvasir_change (space, upto, since, made_at, kinds, stamps, keys) values (
                p_space, v_base + v_numbers - 1, v_head.last, v_now,
                array_fill({watching.SET}::smallint, array[cardinality(p_key)]),
                array(select v_base + job from unnest(p_job) as g (job)), p_key);
        end if;
        return v_base || v_replaced;
    end $$;
"""  # noqa: S608


@functools.lru_cache(maxsize=256)
def of_system_space(sql: str) -> str:
    """The same statement, which is about one space, for the system space."""
    return _OF_SYSTEM.sub(r"kvasir_system_\1", sql)


def statements(sql: str) -> list[str]:
    """The single statements of a text; those of a function, between $$, stay together."""
    found: list[str] = []
    parts = re.split(r"(\$\$.*?\$\$|--[^\n]*|;)", sql, flags=re.DOTALL)
    statement = ""
    for part in parts:
        if part == ";":
            found.append(statement)
            statement = ""
        elif not part.startswith("--"):
            statement += part
    return [statement.strip() for statement in [*found, statement] if statement.strip()]


def check_schema(schema: str) -> None:
    """Raise `Unavailable` for a schema, its name as in SQL, that Citus cannot work in."""
    if schema.startswith('"'):
        raise Unavailable(
            f"Citus cannot distribute functions in the schema {schema}, whose name needs quotation marks:"
            " choose one of lower-case letters, digits and _"
        )


async def is_distributed(connection: Any, schema: str) -> bool:
    """Whether all tables and functions are distributed, as far as this node knows."""
    for table in (*DISTRIBUTED, *REFERENCE):
        if not await connection.fetchval(IS_DISTRIBUTED, f"{schema}.{table}"):
            return False
    return not await connection.fetch(UNKNOWN_FUNCTIONS, list(BY_SPACE))


async def distribute_tables(connection: Any, schema: str) -> None:
    """Have the tables distributed. What is distributed already is left alone, so that a server starts
    also while a node is away. Call it on the coordinator, in a transaction."""
    if not await connection.fetchval(IS_DISTRIBUTED, f"{schema}.kvasir_system_head"):
        for sql in MOVE_SYSTEM_SPACE:
            await connection.execute(sql.replace("@", f"{schema}."))
    for name in (*DISTRIBUTED, *REFERENCE):
        table = f"{schema}.{name}"
        if await connection.fetchval(IS_DISTRIBUTED, table):
            continue
        if name in REFERENCE:
            await connection.execute("select create_reference_table($1::text::regclass)", table)
        else:
            colocated = "default" if name == DISTRIBUTED[0] else f"{schema}.{DISTRIBUTED[0]}"
            await connection.execute(
                "select create_distributed_table($1::text::regclass, 'space', colocate_with := $2)", table, colocated
            )
        # What was in it has been copied to the nodes, and remains on the coordinator, where no statement sees it.
        await connection.execute("select truncate_local_data_after_distributing_table($1::text::regclass)", table)


async def distribute_functions(connection: Any, schema: str) -> None:
    """The same for the functions, once the tables are distributed."""
    for oid, by_space in await connection.fetch(UNKNOWN_FUNCTIONS, list(BY_SPACE)):
        if by_space:
            await connection.execute(
                "select create_distributed_function($1::oid::regprocedure, 'p_space', colocate_with := $2)",
                oid,
                f"{schema}.kvasir_entry",
            )
        else:
            await connection.execute("select create_distributed_function($1::oid::regprocedure)", oid)
