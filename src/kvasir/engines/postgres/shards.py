"""Writes to a shard as to any table, on the node that has it. Citus would plan each statement inside a function anew.

Each shard has functions of its own: those of a database without Citus, with the names of the tables replaced by those
of the shard. All nodes have all of them, so a shard may move. Before one is called, `kvasir_here` takes the lock that
Citus takes for a write, which no shard moves past, and then looks whether this node has the shard. If it has not, or
there is no such function yet, the statements go through Citus. So does all that is no write.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from kvasir.engines.postgres import loading, write_function
from kvasir.engines.postgres.functions import PLANS, SET_FUNCTION, SET_SPACES_FUNCTION

#: How long Sets of several spaces wait together for a shard that is being moved.
LOCK_MILLISECONDS = 100

#: A statement put together at each call would be planned each time.
GENERIC = "set plan_cache_mode = force_generic_plan"

#: The number of a space's shard in `kvasir_head`, locked until the end of the transaction, if this node can write to it
#: directly: it has the only placement. Else null. Citus lets the owner of a table lock its shards.
HERE = """
    create or replace function @kvasir_here(p_space bigint) returns bigint language plpgsql volatile as $$
    declare
        v_shard bigint := get_shard_id_for_distribution_column('@kvasir_head'::regclass, p_space);
    begin
        if to_regproc('@kvasir_set_' || v_shard) is null or not pg_has_role(
                (select c.relowner from pg_class c where c.oid = '@kvasir_head'::regclass), 'usage') then
            return null;
        end if;
        -- 5 is PostgreSQL's ShareLock. The shards of the other tables move only together with this one.
        perform lock_shard_metadata(5, array[v_shard]);
        return (select v_shard from pg_dist_placement p where p.shardid = v_shard having count(*) = 1
            and bool_and(p.shardstate = 1 and p.groupid = (select l.groupid from pg_dist_local_group l)));
    end $$;
"""

#: Living entries with these keys, space by space: those of one follow one another. If a shard is not here, the last row
#: is of nulls, and nothing counts. A shard that is here after it was read was here when it was read.
GET = f"""
    create or replace function @kvasir_get(p_space bigint[], p_now bigint, p_key bytea[]) returns table (
        key bytea, value bytea, versionstamp bigint, sequence bigint, created_at bigint, expires_at bigint,
        refresh bigint, metadata bytea, space bigint
    ) language plpgsql volatile {GENERIC} {PLANS} as $$
    declare
        v_now bigint := coalesce(p_now, @kvasir_time());
        v_first integer := 1;
        v_last integer := 0;
        v_shard bigint;
        v_shards bigint[] := array[]::bigint[];
        v_here boolean := true;
        v_space bigint;
        v_key bytea[];
    begin
        while v_here and v_first <= cardinality(p_space) loop
            v_space := p_space[v_first];
            while p_space[v_last + 1] = v_space loop
                v_last := v_last + 1;
            end loop;
            v_key := p_key[v_first:v_last];
            v_shard := get_shard_id_for_distribution_column('@kvasir_entry'::regclass, v_space);
            v_shards := v_shards || v_shard;
            v_here := to_regclass('@kvasir_entry_' || v_shard) is not null;
            if v_here then
                {{choice}}
            end if;
            v_first := v_last + 1;
        end loop;
        if not v_here or exists (
            select from unnest(v_shards) as g (shard) where not exists (
                select from pg_dist_placement p join pg_dist_local_group l on l.groupid = p.groupid
                where p.shardid = g.shard and p.shardstate = 1)
        ) then
            return query select null::bytea, null::bytea, null::bigint, null::bigint, null::bigint, null::bigint,
                null::bigint, null::bytea, null::bigint;
        end if;
    end $$;
"""  # noqa: S608
_GET_AT = """return query select e.key, e.value, e.versionstamp, e.sequence, e.created_at, e.expires_at, e.refresh,
    e.metadata, e.space from @kvasir_entry_{} e
    where e.space = v_space and e.key = any(v_key) and (e.expires_at is null or e.expires_at > v_now);"""
CALL_GET = "select * from kvasir_get($1, $2, $3)"

#: Shard by shard, if the spaces are in such an order, so that the order of the Sets stays. Those that are not on this
#: node are left out, too, and those whose writes are held up because they move: they wait by themselves.
SET_SPACES = re.sub(
    r"\n    declare.*\$\$;",
    """
    declare
        v_of bigint[] := '{}';
        v_shards bigint[] := '{}';
        v_free bigint[] := '{}';
        v_here bigint[];
        v_spaces bigint[] := '{}';
        v_space bigint;
        v_shard bigint;
        v_place integer := 0;
        v_first integer := 1;
        v_last integer := 0;
        v_done record;
    begin
        foreach v_space in array p_spaces loop
            v_shard := get_shard_id_for_distribution_column('@kvasir_head'::regclass, v_space);
            v_of := v_of || v_shard;
            if v_shard <> all (v_shards) then
                v_shards := v_shards || v_shard;
            end if;
        end loop;
        -- As `kvasir_here` does it, but those that move are left out. Citus lets only the owner of a table do it.
        begin
            perform lock_shard_metadata(5, v_shards);
            v_free := v_shards;
        exception
            when insufficient_privilege then
                return;
            when lock_not_available then
                foreach v_shard in array v_shards loop
                    begin
                        perform lock_shard_metadata(5, array[v_shard]);
                        v_free := v_free || v_shard;
                    exception when lock_not_available then
                        null;
                    end;
                end loop;
        end;
        select array_agg(here.shard) into v_here from (
            select p.shardid as shard from pg_dist_placement p where p.shardid = any(v_free) group by p.shardid
            having count(*) = 1
                and bool_and(p.shardstate = 1 and p.groupid = (select l.groupid from pg_dist_local_group l))
        ) as here;
        foreach v_space in array p_spaces loop
            v_place := v_place + 1;
            v_spaces := v_spaces || v_space;
            while p_space[v_last + 1] = v_space loop
                v_last := v_last + 1;
            end loop;
            continue when v_of[v_place] = v_of[v_place + 1];
            if v_of[v_place] = any(v_here) then
                v_done := @kvasir_set_at(v_of[v_place], p_now, p_durable, v_spaces, p_jobs,
                    p_space[v_first:v_last], p_job[v_first:v_last], p_kind[v_first:v_last], p_key[v_first:v_last],
                    p_number[v_first:v_last], p_refresh[v_first:v_last], p_value[v_first:v_last],
                    p_metadata[v_first:v_last]);
                taken := taken || v_done.taken;
                stamps := stamps || v_done.stamps;
                replaced := replaced || v_done.replaced;
            end if;
            v_first := v_last + 1;
            v_spaces := '{}';
        end loop;
    end $$;""",
    SET_SPACES_FUNCTION.replace(PLANS, f"{PLANS} set lock_timeout = {LOCK_MILLISECONDS}"),
    flags=re.DOTALL,
)

#: `kvasir_set_spaces` of a shard, by its number
SET_AT = """
    create or replace function @kvasir_set_at(p_shard bigint, {parameters}) language plpgsql volatile as $$
    declare
        v_done record;
    begin
        {choice}
        taken := v_done.taken;
        stamps := v_done.stamps;
        replaced := v_done.replaced;
    end $$;
"""

#: What each shard has
FUNCTIONS = (SET_FUNCTION, SET_SPACES_FUNCTION, write_function.FUNCTION, loading.FUNCTION)

#: The shards that belong together, by their numbers in head, entry and change; those without functions, or all.
SHARDS = """
    select h.shardid, e.shardid, c.shardid from pg_dist_shard h
    join pg_dist_shard e on e.shardminvalue = h.shardminvalue and e.logicalrelid = ($1 || '.kvasir_entry')::regclass
    join pg_dist_shard c on c.shardminvalue = h.shardminvalue and c.logicalrelid = ($1 || '.kvasir_change')::regclass
    where h.logicalrelid = ($1 || '.kvasir_head')::regclass
        and ($2 or to_regproc($1 || '.kvasir_set_' || h.shardid) is null)"""

_HEAD = re.compile(r"create or replace function @(kvasir_\w+)\((.*?)\) returns (\S+) language.*?\bbegin\b", re.DOTALL)


def direct(sql: str) -> str:
    """The same function of a space, which begins by leaving the work to that of the shard, if it can."""
    found = _HEAD.search(sql)
    if found is None:
        raise ValueError(sql)
    name, parameters, result = found.groups()
    names = re.findall(r"\bp_\w+", parameters)
    places = ", ".join(f"${place}" for place in range(1, len(names) + 1))
    block = f"""
        declare
            v_here bigint := @kvasir_here(p_space);
            v_done {result};
        begin
            if v_here is not null then
                execute format('select @{name}_%s({places})', v_here) into v_done using {", ".join(names)};
                return v_done;
            end if;
        end;"""
    return sql[: found.end()] + block + sql[found.end() :]


def of_shard(sql: str, head: int, entry: int, change: int) -> str:
    """The same function, for a shard: by its number in each table. As its tables are known, so is its plan."""
    own = {"entry": entry, "change": change}
    renamed = re.sub(
        r"@kvasir_(head|entry|change|set_spaces|set|write|load)\b", lambda m: f"{m[0]}_{own.get(m[1], head)}", sql
    )
    # Its caller has set the rest of `PLANS`.
    return renamed.replace(PLANS, GENERIC)


def set_at(shards: Sequence[int]) -> str:
    """`SET_AT` for these shards: it does nothing for others, which are as if they were elsewhere."""
    parameters = SET_SPACES_FUNCTION.partition("(")[2].partition(") language")[0]
    names = ", ".join(re.findall(r"\bp_\w+", parameters))
    choice = _choice("p_shard", shards, f"v_done := @kvasir_set_spaces_{{}}({names});", "return;")
    return SET_AT.format(parameters=parameters.strip(), choice=choice)


def get(shards: Sequence[int]) -> str:
    """`GET` for these shards: others are as if they were elsewhere."""
    return GET.format(choice=_choice("v_shard", shards, _GET_AT, "v_here := false;"))


def _choice(variable: str, shards: Sequence[int], statement: str, otherwise: str) -> str:
    """What to do for the shard that a variable has: the statement with its number in it, or something else."""
    shards = sorted(shards)
    if len(shards) == 1:
        return f"if {variable} = {shards[0]} then {statement.format(shards[0])} else {otherwise} end if;"
    half = len(shards) // 2
    lower, upper = (_choice(variable, part, statement, otherwise) for part in (shards[:half], shards[half:]))
    return f"if {variable} < {shards[half]} then {lower} else {upper} end if;"


async def all_have_functions(connection: Any, schema: str) -> bool:
    """Whether no shard is without its functions, as far as this node knows."""
    return not await connection.fetch(SHARDS, schema, False)


async def make_functions(connection: Any, schema: str, *, renew: bool) -> None:
    """Give each shard its functions, all anew or where it has none. Call it on the coordinator."""
    lacking = await connection.fetch(SHARDS, schema, renew)
    for head, entry, change in lacking:
        for sql in FUNCTIONS:
            await connection.execute(of_shard(sql, head, entry, change).replace("@", f"{schema}."))
    if lacking:
        every = await connection.fetch(SHARDS, schema, True)
        for sql in (set_at([head for head, _, _ in every]), get([entry for _, entry, _ in every])):
            await connection.execute(sql.replace("@", f"{schema}."))
