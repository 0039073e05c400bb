"""The function that applies any writes to a space, one operation after the other. `functions` says what all share."""

from __future__ import annotations

from kvasir.engines import watching
from kvasir.engines.postgres.functions import (
    CHECK,
    DELETE,
    DELETE_RANGE,
    DURABILITY,
    EXPECT,
    FAR_FUTURE,
    INCREMENT,
    KEEP_ALL,
    KEEP_EXPIRY,
    KEEP_METADATA,
    PLANS,
    PRESENT,
    RUN,
    SET,
    SET_TTL,
    TOUCH,
    TOUCH_EXTEND,
)
from kvasir.keys import COUNTER_BITS

#: The SQLSTATE of a write that cannot be incremented after it has changed something; its detail is the write's number.
NOT_INCREMENTED = "KV002"

_CONDITIONS = f"({CHECK}, {PRESENT}, {EXPECT})"
#: Whether the entry `e` that a Set finds is alive
_LIVING = "coalesce(e.expires_at > v_now, true)"

#: A run of Sets of different keys in one statement, instead of one each: where the tables are distributed, planning
#: costs more than doing. The row of the space is there to say where the entries belong.
_RUN = f"""
                v_run := op.place - 1 + (select count(*) from unnest(p_write, p_kind) as g (write, kind)
                    where g.write = op.write and g.kind & {RUN} > 0);
                with done as (
                    insert into @kvasir_entry as e
                        (space, key, value, versionstamp, sequence, created_at, expires_at, refresh, metadata)
                    select h.space, g.key, g.value, v_base + op.job, v_base + p_jobs + op.place + g.place - 2, v_latest,
                        case g.kind & 15 when {SET_TTL} then v_now + g.number else g.number end,
                        case when g.refresh then
                            case g.kind & 15 when {SET_TTL} then g.number else g.number - v_now end end,
                        g.metadata
                    from @kvasir_head h cross join unnest(
                        p_kind[op.place:v_run], p_key[op.place:v_run], p_number[op.place:v_run],
                        p_refresh[op.place:v_run], p_value[op.place:v_run], p_metadata[op.place:v_run]
                    ) with ordinality as g (kind, key, number, refresh, value, metadata, place)
                    where h.space = p_space
                    on conflict (space, key) do update set
                        value = excluded.value, versionstamp = excluded.versionstamp, expires_at = excluded.expires_at,
                        refresh = excluded.refresh, metadata = excluded.metadata,
                        sequence = case when e.expires_at <= v_now then excluded.sequence else e.sequence end,
                        created_at = case when e.expires_at <= v_now then excluded.created_at else e.created_at end
                    returning e.key, e.sequence
                )
                select array_agg(case when done.sequence < v_base + p_jobs + g.place - 1 then 1 else 0 end
                        order by g.place)
                    into v_counts
                    from unnest(p_key) with ordinality as g (key, place) join done on done.key = g.key
                    where g.place between op.place and v_run;
                v_results[op.place:v_run] := v_counts;
                v_changed := true;
                if v_head.watched_until > v_now then
                    v_kinds := v_kinds || array_fill({watching.SET}::smallint, array[cardinality(v_counts)]);
                    v_stamps := v_stamps || array_fill(v_base + op.job, array[cardinality(v_counts)]);
                    v_keys := v_keys || p_key[op.place:v_run];
                    v_ends := v_ends || array_fill(null::bytea, array[cardinality(v_counts)]);
                end if;
                continue;"""  # noqa: S608

_SET = f"""
                v_expires := case v_kind when {SET_TTL} then v_now + op.number else op.number end;
                v_sequence := v_base + p_jobs + op.place - 1;
                insert into @kvasir_entry as e
                    (space, key, value, versionstamp, sequence, created_at, expires_at, refresh, metadata)
                values (p_space, op.key, op.value, v_base + op.job, v_sequence, v_latest, v_expires,
                    case when op.refresh then v_expires - v_now end, op.metadata)
                on conflict (space, key) do update set
                    value = excluded.value, versionstamp = excluded.versionstamp,
                    expires_at = case when op.kind & {KEEP_EXPIRY} > 0 and {_LIVING} then e.expires_at
                        else excluded.expires_at end,
                    refresh = case when op.kind & {KEEP_EXPIRY} > 0 and {_LIVING} then e.refresh
                        else excluded.refresh end,
                    metadata = case when op.kind & {KEEP_METADATA} > 0 and {_LIVING} then e.metadata
                        else excluded.metadata end,
                    sequence = case when e.expires_at <= v_now then excluded.sequence else e.sequence end,
                    created_at = case when e.expires_at <= v_now then excluded.created_at else e.created_at end
                    where op.kind & {KEEP_ALL} = 0 or not {_LIVING}
                returning case when e.sequence < v_sequence then 1 else 0 end into v_count;
                v_log := case when found then {watching.SET} end;"""  # noqa: S608

#: The text of the integer that a value is
_DIGITS = r"substring(convert_from(v_old.value, 'UTF8') from '^[ \t\n\r]*(-?(?:0|[1-9][0-9]{0,18}))[ \t\n\r]*$')"
_BOUNDS = f"between {-(1 << 63)} and {(1 << 63) - 1}"

#: The key has an entry: a Set that keeps all precedes each increment.
_INCREMENT = f"""
                select e.value into v_old from @kvasir_entry e where e.space = p_space and e.key = op.key;
                v_sum := {_DIGITS}::numeric;
                if v_sum {_BOUNDS} and v_sum + op.number {_BOUNDS} then
                    v_count := v_sum + op.number;
                    update @kvasir_entry e
                        set value = convert_to(v_count::text, 'UTF8'), versionstamp = v_base + op.job
                        where e.space = p_space and e.key = op.key;
                    v_log := {watching.SET};
                elsif v_changed then
                    raise exception using errcode = '{NOT_INCREMENTED}', detail = op.write;
                else
                    v_failed := op.write;
                    v_failures := v_failures + 1;
                end if;"""  # noqa: S608

_CONDITION = f"""
                select e.versionstamp, e.expires_at into v_old
                    from @kvasir_entry e where e.space = p_space and e.key = op.key;
                v_actual := case when v_old.expires_at <= v_now then null else v_old.versionstamp end;
                if v_kind in ({TOUCH}, {TOUCH_EXTEND}) then
                    v_count := case when v_actual is null then 0 else 1 end;
                    if v_count = 1 and (v_kind = {TOUCH}
                            or (v_old.expires_at is not null
                                and (op.number is null or op.number > v_old.expires_at))) then
                        update @kvasir_entry e set expires_at = op.number
                            where e.space = p_space and e.key = op.key;
                        v_log := {watching.EXPIRY};
                    end if;
                elsif v_actual is null and v_kind = {PRESENT}
                        or v_actual is distinct from op.number and v_kind = {CHECK} then
                    v_count := coalesce(v_actual, -1);
                end if;"""  # noqa: S608

#: Any writes, operation by operation; `p_write` says which belong together. Returns the first number handed out, then
#: for each mutation its count or sum, for each condition null if it is met, else the key's versionstamp or -1 for none,
#: or the count of the range. What follows an unmet condition in the same write is skipped, but for other conditions; an
#: increment that is refused has no sum. A single null: the space is gone.
FUNCTION = f"""
    create or replace function @kvasir_write(
        p_space bigint, p_now bigint, p_durable boolean, p_jobs integer, p_writes integer,
        p_job integer[], p_write integer[], p_kind smallint[],
        p_key bytea[], p_number bigint[], p_refresh boolean[], p_value bytea[], p_metadata bytea[]
    ) returns bigint[] language plpgsql volatile {PLANS} as $$
    declare
        v_head record;
        op record;
        v_old record;
        v_now bigint;
        v_base bigint;
        v_latest bigint;
        v_sequence bigint;
        v_expires bigint;
        v_actual bigint;
        v_count bigint;
        v_sum numeric;
        v_kind integer;
        v_results bigint[] := array_fill(null::bigint, array[cardinality(p_kind)]);
        v_write integer := -1;
        v_changed boolean;
        v_failed integer := -1;
        v_failures integer := 0;
        v_log smallint;
        v_run bigint := 0;
        v_counts bigint[];
        v_kinds smallint[] := '{{}}';
        v_stamps bigint[] := '{{}}';
        v_keys bytea[] := '{{}}';
        v_ends bytea[] := '{{}}';
    begin{DURABILITY}
        select h.last, h.latest, h.expires_at, h.watched_until into v_head
            from @kvasir_head h where h.space = p_space and not h.ended for update;
        v_now := coalesce(p_now, @kvasir_time());
        if not found or v_head.expires_at <= v_now then
            return null;
        end if;
        v_latest := greatest(v_head.latest, v_now);
        v_base := greatest(v_head.last + 1, v_now << {COUNTER_BITS});
        if v_latest < {FAR_FUTURE} then
            -- No sequence may say an earlier instant than the `created_at` of its entry (see `listing`).
            v_base := greatest(v_base, v_latest << {COUNTER_BITS});
        end if;
        for op in
            select * from unnest(p_job, p_write, p_kind, p_key, p_number, p_refresh, p_value, p_metadata)
                with ordinality as g (job, write, kind, key, number, refresh, value, metadata, place)
        loop
            v_kind := op.kind & 15;
            continue when op.place <= v_run or op.write = v_failed and v_kind not in {_CONDITIONS};
            v_changed := op.write = v_write and v_changed;
            v_write := op.write;
            v_count := null;
            v_log := null;
            if op.kind & {RUN} > 0 then{_RUN}
            elsif v_kind in ({SET}, {SET_TTL}) then{_SET}
            elsif v_kind = {DELETE} then
                delete from @kvasir_entry e where e.space = p_space and e.key = op.key
                    returning case when e.expires_at <= v_now then 0 else 1 end into v_count;
                v_count := coalesce(v_count, 0);
                v_log := case when v_count > 0 then {watching.DELETE} end;
            elsif v_kind = {DELETE_RANGE} then
                with gone as (
                    delete from @kvasir_entry e where e.space = p_space and e.key >= op.key and e.key < op.value
                        returning e.expires_at
                )
                select count(*) into v_count from gone where gone.expires_at is null or gone.expires_at > v_now;
                v_log := case when v_count > 0 then {watching.RANGE} end;
            elsif v_kind = {EXPECT} then
                select count(*) into v_count from @kvasir_entry e
                    where e.space = p_space and e.key >= op.key and e.key < op.value and {_LIVING};
                v_count := nullif(v_count, op.number);
            elsif v_kind = {INCREMENT} then{_INCREMENT}
            else{_CONDITION}
            end if;
            if v_kind in {_CONDITIONS} and v_count is not null and op.write <> v_failed then
                v_failed := op.write;
                v_failures := v_failures + 1;
            end if;
            v_results[op.place] := v_count;
            if v_log is not null then
                v_changed := true;
                if v_head.watched_until > v_now then
                    v_kinds := v_kinds || v_log;
                    v_stamps := v_stamps || (v_base + op.job);
                    v_keys := v_keys || op.key;
                    v_ends := v_ends || case when v_kind = {DELETE_RANGE} then op.value end;
                end if;
            end if;
        end loop;
        -- If every write failed, no number was handed out, and the epoch (in the system space) stays where it is.
        if v_failures < p_writes then
            update @kvasir_head h set last = v_base + p_jobs + cardinality(p_kind) - 1, latest = v_latest
                where h.space = p_space;
            if v_head.watched_until > v_now then
                insert into @kvasir_change values (p_space, v_base + p_jobs + cardinality(p_kind) - 1, v_head.last,
                    v_now, v_kinds, v_stamps, v_keys, v_ends);
            end if;
        end if;
        return v_base || v_results;
    end $$;
"""  # noqa: S608
