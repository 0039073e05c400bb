"""What the server does in one round trip: functions in PL/pgSQL. `schema` puts them into the database.

They are VOLATILE and run in READ COMMITTED, where every statement inside sees what was committed before it began. So
what is read after obtaining a lock is what the previous holder of the lock left behind. "Now" is read after the lock,
too: what a function finds expired had expired for everyone.
"""

from __future__ import annotations

from kvasir.engines import watching
from kvasir.keys import COUNTER_BITS

#: Raise it with the first change after a release. A server leaves functions of a higher revision alone (see `schema`).
REVISION = 1

#: The kinds of operations (`p_kind`).
CHECK, PRESENT, SET, SET_TTL, DELETE, DELETE_RANGE, TOUCH, TOUCH_EXTEND, EXPECT, INCREMENT = range(1, 11)
#: Added to the kind of a Set: what it leaves as it is in a living entry.
KEEP_EXPIRY, KEEP_METADATA, KEEP_ALL = 16, 32, 64
#: Added to the kinds of a write's Sets of different keys that follow one another: they may be done together.
RUN = 128

#: Creations from this instant on, which only a load can bring, do not raise the numbers: they would soon run out.
FAR_FUTURE = 1 << 42

# A connection plans each statement once, and the plan must stay good while tables grow from nothing to millions of
# rows. So the planner must never believe that a table is small. (`plan_cache_mode` is the session's: see `pool`.)
PLANS = "set enable_seqscan = off set enable_bitmapscan = off"

DURABILITY = """
        if not p_durable then
            perform set_config('synchronous_commit', 'off', true);
        elsif current_setting('synchronous_commit') = 'off' then
            perform set_config('synchronous_commit', 'on', true);
        end if;"""

_NOW = """
    create or replace function @kvasir_time() returns bigint language sql volatile parallel safe as $$
        select floor(extract(epoch from clock_timestamp()) * 1000)::bigint
    $$;
"""

#: Many unconditional Sets of different keys. Returns the first number handed out, then for each Set 1 if it replaced a
#: living entry, else 0; null: the space is gone. A new entry has a sequence that this call handed out.
SET_FUNCTION = f"""
    create or replace function @kvasir_set(
        p_space bigint, p_now bigint, p_durable boolean, p_jobs integer, p_job integer[], p_kind smallint[],
        p_key bytea[], p_number bigint[], p_refresh boolean[], p_value bytea[], p_metadata bytea[]
    ) returns bigint[] language plpgsql volatile {PLANS} as $$
    declare
        v_numbers bigint := p_jobs + cardinality(p_key);
        v_base bigint;
        v_now bigint;
        v_latest bigint;
        v_since bigint;
        v_watched_until bigint;
        v_replaced bigint[];
    begin{DURABILITY}
        -- If this has to wait for another writer, all of it is evaluated again afterwards.
        update @kvasir_head h
            set last = greatest(h.last + 1, coalesce(p_now, @kvasir_time()) << {COUNTER_BITS}) + v_numbers - 1,
                latest = greatest(h.latest, coalesce(p_now, @kvasir_time())), previous = h.last
            where h.space = p_space and not h.ended
                and (h.expires_at is null or h.expires_at > coalesce(p_now, @kvasir_time()))
            returning h.last - v_numbers + 1, h.latest, h.previous, h.watched_until
            into v_base, v_latest, v_since, v_watched_until;
        if not found then
            return null;
        end if;
        -- The clock was read twice and may have ticked in between, or a later creation was loaded: raise the numbers,
        -- so that no sequence says an earlier instant than the `created_at` of its entry (see `listing`).
        if v_latest > v_base >> {COUNTER_BITS} and v_latest < {FAR_FUTURE} then
            v_base := v_latest << {COUNTER_BITS};
            update @kvasir_head h set last = v_base + v_numbers - 1 where h.space = p_space;
        end if;
        -- The instant of the commit, so that a life is as long as was asked for; not one that a load has brought.
        v_now := least(v_latest, coalesce(p_now, @kvasir_time()));
        with done as (
            insert into @kvasir_entry as e
                (space, key, value, versionstamp, sequence, created_at, expires_at, refresh, metadata)
            select p_space, g.key, g.value, v_base + g.job, v_base + p_jobs + g.place - 1, v_latest,
                case g.kind when {SET_TTL} then v_now + g.number else g.number end,
                case when g.refresh then case g.kind when {SET_TTL} then g.number else g.number - v_now end end,
                g.metadata
            from unnest(p_job, p_kind, p_key, p_number, p_refresh, p_value, p_metadata) with ordinality
                as g (job, kind, key, number, refresh, value, metadata, place)
            order by g.place
            on conflict (space, key) do update set
                value = excluded.value, versionstamp = excluded.versionstamp, expires_at = excluded.expires_at,
                refresh = excluded.refresh, metadata = excluded.metadata,
                sequence = case when e.expires_at <= v_now then excluded.sequence else e.sequence end,
                created_at = case when e.expires_at <= v_now then excluded.created_at else e.created_at end
            returning e.sequence
        )
        select array_agg(case when done.sequence < v_base then 1 else 0 end) into v_replaced from done;
        if v_watched_until > v_now then
            insert into @kvasir_change (space, upto, since, made_at, kinds, stamps, keys) values (
                p_space, v_base + v_numbers - 1, v_since, v_now, array_fill({watching.SET}::smallint,
                array[cardinality(p_key)]), array(select v_base + job from unnest(p_job) as g (job)), p_key);
        end if;
        return v_base || v_replaced;
    end $$;
"""  # noqa: S608

#: Like `kvasir_set`, for Sets of several spaces; `p_jobs` is the most that one of them has. Spaces that are locked
#: or gone are left out: it waits for none, so it cannot deadlock, and a space held by somebody else delays no other.
#: `taken` are the other spaces. For each of their Sets, in the order given, there is its versionstamp, and 1 if it
#: replaced a living entry, else 0.
SET_SPACES_FUNCTION = f"""
    create or replace function @kvasir_set_spaces(
        p_now bigint, p_durable boolean, p_spaces bigint[], p_jobs integer, p_space bigint[], p_job integer[],
        p_kind smallint[], p_key bytea[], p_number bigint[], p_refresh boolean[], p_value bytea[], p_metadata bytea[],
        out taken bigint[], out stamps bigint[], out replaced bigint[]
    ) language plpgsql volatile {PLANS} as $$
    declare
        v_numbers bigint := p_jobs + cardinality(p_key);
        v_now bigint;
        v_watched boolean;
    begin{DURABILITY}
        select array_agg(free.space) into taken from (
            select h.space from @kvasir_head h where h.space = any(p_spaces) and not h.ended for update skip locked
        ) as free;
        v_now := coalesce(p_now, @kvasir_time());
        with moved as (
            -- No sequence may say an earlier instant than the `created_at` of its entry (see `listing`).
            update @kvasir_head h
                set last = v_numbers - 1 + greatest(h.last + 1, v_now << {COUNTER_BITS},
                        case when h.latest < {FAR_FUTURE} then h.latest << {COUNTER_BITS} end),
                    latest = greatest(h.latest, v_now), previous = h.last
                where h.space = any(taken) and not h.ended and (h.expires_at is null or h.expires_at > v_now)
                returning h.space, h.watched_until
        )
        select array_agg(moved.space), bool_or(moved.watched_until > v_now) into taken, v_watched from moved;
        with done as (
            insert into @kvasir_entry as e
                (space, key, value, versionstamp, sequence, created_at, expires_at, refresh, metadata)
            select g.space, g.key, g.value, h.base + g.job, h.base + p_jobs + g.place - 1, h.latest,
                case g.kind when {SET_TTL} then v_now + g.number else g.number end,
                case when g.refresh then case g.kind when {SET_TTL} then g.number else g.number - v_now end end,
                g.metadata
            from unnest(p_space, p_job, p_kind, p_key, p_number, p_refresh, p_value, p_metadata) with ordinality
                as g (space, job, kind, key, number, refresh, value, metadata, place)
            cross join lateral (
                select h.last - v_numbers + 1 as base, h.latest from @kvasir_head h
                    where h.space = g.space and h.space = any(taken) offset 0
            ) as h
            order by g.place
            on conflict (space, key) do update set
                value = excluded.value, versionstamp = excluded.versionstamp, expires_at = excluded.expires_at,
                refresh = excluded.refresh, metadata = excluded.metadata,
                sequence = case when e.expires_at <= v_now then excluded.sequence else e.sequence end,
                created_at = case when e.expires_at <= v_now then excluded.created_at else e.created_at end
            returning e.versionstamp, e.sequence
        )
        select array_agg(done.versionstamp), array_agg(case when done.sequence < done.versionstamp then 1 else 0 end)
            into stamps, replaced from done;
        if v_watched then
            insert into @kvasir_change (space, upto, since, made_at, kinds, stamps, keys)
                select h.space, h.last, h.previous, v_now, array_agg({watching.SET}::smallint order by g.place),
                    array_agg(h.last - v_numbers + 1 + g.job order by g.place), array_agg(g.key order by g.place)
                from unnest(p_space, p_job, p_key) with ordinality as g (space, job, key, place)
                join @kvasir_head h on h.space = g.space
                where h.space = any(taken) and h.watched_until > v_now group by h.space, h.last, h.previous;
        end if;
    end $$;
"""  # noqa: S608

MOVE_EPOCH = f"""
    create or replace function @kvasir_move_epoch(p_now bigint) returns void language plpgsql volatile {PLANS} as $$
    declare
        v_now bigint := coalesce(p_now, @kvasir_time());
    begin
        update @kvasir_head h set last = greatest(h.last + 1, v_now << {COUNTER_BITS}) where h.space = 1;
    end $$;
"""  # noqa: S608

#: Makes aliases lead to a space. Returns null, or the number of the living space that has one of them (of several, the
#: first alias counts); then the caller undoes everything. The primary key decides if two want the same alias.
_CLAIM = """
    create or replace function @kvasir_claim(
        p_space bigint, p_now bigint, p_kind text[], p_organisation text[], p_handle bytea[]
    ) returns bigint language plpgsql volatile as $$
    declare
        g record;
        v_holder bigint;
        v_taken bigint;
        v_first bigint;
    begin
        -- All servers claim in the same order, so that they cannot deadlock.
        for g in
            select * from unnest(p_kind, p_organisation, p_handle) with ordinality
                as d (kind, organisation, handle, place)
            order by d.kind collate "C", d.organisation collate "C", d.handle
        loop
            loop
                insert into @kvasir_alias values (g.kind, g.organisation, g.handle, p_space) on conflict do nothing;
                exit when found;
                select d.space into v_holder from @kvasir_alias d
                    where d.kind = g.kind and d.organisation = g.organisation and d.handle = g.handle for update;
                continue when not found;
                exit when v_holder = p_space;
                perform from @kvasir_space s
                    where s.number = v_holder and (s.expires_at is null or s.expires_at > p_now);
                if found then
                    if v_first is null or g.place < v_first then
                        v_taken := v_holder;
                        v_first := g.place;
                    end if;
                    exit;
                end if;
                update @kvasir_alias d set space = p_space
                    where d.kind = g.kind and d.organisation = g.organisation and d.handle = g.handle;
                exit;
            end loop;
        end loop;
        return v_taken;
    end $$;
"""

#: `p_number` is where the search for a free number begins, unless the clock is ahead of it.
_CREATE_SPACE = f"""
    create or replace function @kvasir_create_space(
        p_now bigint, p_durable boolean, p_number bigint, p_id text, p_organisation text, p_space_kind text,
        p_name bytea, p_created_at bigint, p_expires_at bigint, p_clear_every bigint, p_attributes bytea,
        p_kind text[], p_alias_organisation text[], p_handle bytea[]
    ) returns setof @kvasir_space language plpgsql volatile {PLANS} as $$
    declare
        v_now bigint := coalesce(p_now, @kvasir_time());
        v_number bigint := greatest(p_number, v_now << {COUNTER_BITS} | floor(random() * {1 << COUNTER_BITS})::bigint);
        v_taken bigint;
    begin{DURABILITY}
        begin
            loop
                insert into @kvasir_head values (v_number, v_number, v_now, p_expires_at) on conflict do nothing;
                exit when found;
                v_number := v_number + 1 + floor(random() * 1024)::bigint;
            end loop;
            v_taken := @kvasir_claim(v_number, v_now, p_kind, p_alias_organisation, p_handle);
            if v_taken is not null then
                raise exception using errcode = 'KV001';
            end if;
            insert into @kvasir_space values (v_number, p_id, p_organisation, p_space_kind, p_name, p_created_at,
                p_expires_at, p_clear_every, p_attributes);
        exception when sqlstate 'KV001' then
            null;
        end;
        return query select * from @kvasir_space s where s.number = coalesce(v_taken, v_number);
    end $$;
"""  # noqa: S608

_ALTER_SPACE = f"""
    create or replace function @kvasir_alter_space(
        p_now bigint, p_durable boolean, p_id text, p_name bytea,
        p_add_kind text[], p_add_organisation text[], p_add_handle bytea[],
        p_kind text[], p_organisation text[], p_handle bytea[]
    ) returns setof @kvasir_space language plpgsql volatile {PLANS} as $$
    declare
        v_now bigint := coalesce(p_now, @kvasir_time());
        v_number bigint;
        v_taken bigint;
    begin{DURABILITY}
        select s.number into v_number from @kvasir_space s
            where s.id = p_id and (s.expires_at is null or s.expires_at > v_now) for update;
        if not found then
            return;
        end if;
        begin
            v_taken := @kvasir_claim(v_number, v_now, p_add_kind, p_add_organisation, p_add_handle);
            if v_taken is not null then
                raise exception using errcode = 'KV001';
            end if;
            delete from @kvasir_alias d using unnest(p_kind, p_organisation, p_handle) as g (kind, organisation, handle)
                where d.kind = g.kind and d.organisation = g.organisation and d.handle = g.handle
                    and d.space = v_number;
            update @kvasir_space s set name = coalesce(p_name, s.name) where s.number = v_number;
            perform @kvasir_move_epoch(v_now);
        exception when sqlstate 'KV001' then
            null;
        end;
        return query select * from @kvasir_space s where s.number = coalesce(v_taken, v_number);
    end $$;
"""  # noqa: S608

_END_SPACE = f"""
    create or replace function @kvasir_end_space(p_now bigint, p_durable boolean, p_id text)
    returns boolean language plpgsql volatile {PLANS} as $$
    declare
        v_now bigint := coalesce(p_now, @kvasir_time());
        v_number bigint;
    begin{DURABILITY}
        delete from @kvasir_space s
            where s.id = p_id and (s.expires_at is null or s.expires_at > v_now)
            returning s.number into v_number;
        if not found then
            return false;
        end if;
        delete from @kvasir_alias d where d.space = v_number;
        update @kvasir_head h set ended = true where h.space = v_number;
        perform @kvasir_move_epoch(v_now);
        return true;
    end $$;
"""  # noqa: S608

FUNCTIONS = "".join(
    (_NOW, SET_FUNCTION, SET_SPACES_FUNCTION, MOVE_EPOCH, _CLAIM, _CREATE_SPACE, _ALTER_SPACE, _END_SPACE)
)
