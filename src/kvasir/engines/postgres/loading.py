"""Loads entries of another database as they are: one call of a function, which is a transaction."""

from __future__ import annotations

from collections.abc import Sequence

from kvasir.engines.numbering import check_room
from kvasir.engines.postgres.functions import DURABILITY, PLANS
from kvasir.engines.postgres.pool import Pool
from kvasir.engines.watching import SET
from kvasir.errors import space_gone
from kvasir.model import SYSTEM_SPACE, Entry

#: Returns false if the space is gone. Row by row, each by its key, which Citus can route.
FUNCTION = f"""
    create or replace function @kvasir_load(
        p_space bigint, p_now bigint, p_durable boolean, p_key bytea[], p_value bytea[], p_versionstamp bigint[],
        p_sequence bigint[], p_created_at bigint[], p_expires_at bigint[], p_refresh bigint[], p_metadata bytea[]
    ) returns boolean language plpgsql volatile {PLANS} as $$
    declare
        v_head record;
        g record;
        v_now bigint;
        v_last bigint;
        v_next bigint;
        v_given bigint;
    begin{DURABILITY}
        select h.last, h.latest, h.expires_at, h.watched_until, h.last as since into v_head
            from @kvasir_head h where h.space = p_space and not h.ended for update;
        v_now := coalesce(p_now, @kvasir_time());
        if not found or v_head.expires_at <= v_now then
            return false;
        end if;
        select coalesce(max(e.sequence), 0) into v_last from @kvasir_entry e where e.space = p_space;
        for g in
            select * from unnest(p_key, p_value, p_versionstamp, p_sequence, p_created_at, p_expires_at, p_refresh,
                p_metadata) as g (key, value, versionstamp, sequence, created_at, expires_at, refresh, metadata)
        loop
            v_next := greatest(g.sequence, v_last + 1);
            insert into @kvasir_entry as e
                (space, key, value, versionstamp, sequence, created_at, expires_at, refresh, metadata)
            values (p_space, g.key, g.value, g.versionstamp, v_next, g.created_at, g.expires_at, g.refresh, g.metadata)
            on conflict (space, key) do update set
                value = excluded.value, versionstamp = excluded.versionstamp, created_at = excluded.created_at,
                expires_at = excluded.expires_at, refresh = excluded.refresh, metadata = excluded.metadata,
                sequence = case when e.expires_at <= v_now then excluded.sequence else e.sequence end
            returning e.sequence into v_given;
            v_last := greatest(v_last, v_given);
            v_head.last := greatest(v_head.last, g.versionstamp);
            v_head.latest := greatest(v_head.latest, g.created_at);
        end loop;
        v_last := greatest(v_head.last + 1, v_last);
        update @kvasir_head h set last = v_last, latest = v_head.latest where h.space = p_space;
        if v_head.watched_until > v_now then
            -- Loaded entries keep their versionstamps; to those who watch, the load has one of its own.
            insert into @kvasir_change (space, upto, since, made_at, kinds, stamps, keys) values (
                p_space, v_last, v_head.since, v_now, array_fill({SET}::smallint, array[cardinality(p_key)]),
                array_fill(v_last, array[cardinality(p_key)]), p_key);
        end if;
        return true;
    end $$;
"""  # noqa: S608

CALL = "select kvasir_load($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"


async def load(pool: Pool, space: int, entries: Sequence[Entry], now: int | None, *, durable: bool) -> None:
    """See `Engine.load`."""
    check_room(entries)
    ((is_living,),) = await pool.write_of(
        CALL,
        space,
        now,
        durable,
        [entry.key for entry in entries],
        [entry.value for entry in entries],
        [entry.versionstamp for entry in entries],
        [entry.sequence for entry in entries],
        [entry.created_at for entry in entries],
        [entry.expires_at for entry in entries],
        [entry.refresh for entry in entries],
        [entry.metadata for entry in entries],
    )
    if not is_living:
        raise space_gone()
    if space == SYSTEM_SPACE:
        await pool.confirm()
