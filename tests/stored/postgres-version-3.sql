SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE @.kvasir_space (
    number bigint NOT NULL,
    id text NOT NULL COLLATE pg_catalog."C",
    organisation text NOT NULL COLLATE pg_catalog."C",
    kind text NOT NULL COLLATE pg_catalog."C",
    name bytea NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint,
    clear_every bigint,
    attributes bytea NOT NULL
);
CREATE FUNCTION @.kvasir_alter_space(p_now bigint, p_durable boolean, p_id text, p_name bytea, p_add_kind text[], p_add_organisation text[], p_add_handle bytea[], p_kind text[], p_organisation text[], p_handle bytea[]) RETURNS SETOF @.kvasir_space
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
    declare
        v_now bigint := coalesce(p_now, @.kvasir_clock());
        v_number bigint;
        v_taken bigint;
    begin
        if not p_durable then
            perform set_config('synchronous_commit', 'off', true);
        elsif current_setting('synchronous_commit') = 'off' then
            perform set_config('synchronous_commit', 'on', true);
        end if;
        select s.number into v_number from @.kvasir_space s
            where s.id = p_id and (s.expires_at is null or s.expires_at > v_now) for update;
        if not found then
            return;
        end if;
        begin
            v_taken := @.kvasir_claim(v_number, v_now, p_add_kind, p_add_organisation, p_add_handle);
            if v_taken is not null then
                raise exception using errcode = 'KV001';
            end if;
            delete from @.kvasir_alias d using unnest(p_kind, p_organisation, p_handle) as g (kind, organisation, handle)
                where d.kind = g.kind and d.organisation = g.organisation and d.handle = g.handle
                    and d.space = v_number;
            update @.kvasir_space s set name = coalesce(p_name, s.name) where s.number = v_number;
        update @.kvasir_head h set last = greatest(h.last + 1, coalesce(p_now, @.kvasir_clock()) << 20)
            where h.space = 1;
        exception when sqlstate 'KV001' then
            null;
        end;
        return query select * from @.kvasir_space s where s.number = coalesce(v_taken, v_number);
    end $$;
CREATE FUNCTION @.kvasir_claim(p_space bigint, p_now bigint, p_kind text[], p_organisation text[], p_handle bytea[]) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
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
                insert into @.kvasir_alias values (g.kind, g.organisation, g.handle, p_space) on conflict do nothing;
                exit when found;
                select d.space into v_holder from @.kvasir_alias d
                    where d.kind = g.kind and d.organisation = g.organisation and d.handle = g.handle for update;
                continue when not found;
                exit when v_holder = p_space;
                perform from @.kvasir_space s
                    where s.number = v_holder and (s.expires_at is null or s.expires_at > p_now);
                if found then
                    if v_first is null or g.place < v_first then
                        v_taken := v_holder;
                        v_first := g.place;
                    end if;
                    exit;
                end if;
                update @.kvasir_alias d set space = p_space
                    where d.kind = g.kind and d.organisation = g.organisation and d.handle = g.handle;
                exit;
            end loop;
        end loop;
        return v_taken;
    end $$;
CREATE FUNCTION @.kvasir_clock() RETURNS bigint
    LANGUAGE sql PARALLEL SAFE
    AS $$
        select floor(extract(epoch from clock_timestamp()) * 1000)::bigint
    $$;
CREATE FUNCTION @.kvasir_create_space(p_now bigint, p_durable boolean, p_number bigint, p_id text, p_organisation text, p_space_kind text, p_name bytea, p_created_at bigint, p_expires_at bigint, p_clear_every bigint, p_attributes bytea, p_kind text[], p_alias_organisation text[], p_handle bytea[]) RETURNS SETOF @.kvasir_space
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
    declare
        v_now bigint := coalesce(p_now, @.kvasir_clock());
        v_number bigint := greatest(p_number, v_now << 20 | floor(random() * 1048576)::bigint);
        v_taken bigint;
    begin
        if not p_durable then
            perform set_config('synchronous_commit', 'off', true);
        elsif current_setting('synchronous_commit') = 'off' then
            perform set_config('synchronous_commit', 'on', true);
        end if;
        begin
            loop
                insert into @.kvasir_head values (v_number, v_number, v_now, p_expires_at) on conflict do nothing;
                exit when found;
                v_number := v_number + 1 + floor(random() * 1024)::bigint;
            end loop;
            v_taken := @.kvasir_claim(v_number, v_now, p_kind, p_alias_organisation, p_handle);
            if v_taken is not null then
                raise exception using errcode = 'KV001';
            end if;
            insert into @.kvasir_space values (v_number, p_id, p_organisation, p_space_kind, p_name, p_created_at,
                p_expires_at, p_clear_every, p_attributes);
        exception when sqlstate 'KV001' then
            null;
        end;
        return query select * from @.kvasir_space s where s.number = coalesce(v_taken, v_number);
    end $$;
CREATE FUNCTION @.kvasir_end_space(p_now bigint, p_durable boolean, p_id text) RETURNS boolean
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
    declare
        v_number bigint;
    begin
        if not p_durable then
            perform set_config('synchronous_commit', 'off', true);
        elsif current_setting('synchronous_commit') = 'off' then
            perform set_config('synchronous_commit', 'on', true);
        end if;
        delete from @.kvasir_space s
            where s.id = p_id and (s.expires_at is null or s.expires_at > coalesce(p_now, @.kvasir_clock()))
            returning s.number into v_number;
        if not found then
            return false;
        end if;
        delete from @.kvasir_alias d where d.space = v_number;
        update @.kvasir_head h set ended = true where h.space = v_number;
        update @.kvasir_head h set last = greatest(h.last + 1, coalesce(p_now, @.kvasir_clock()) << 20)
            where h.space = 1;
        return true;
    end $$;
CREATE FUNCTION @.kvasir_functions() RETURNS text
    LANGUAGE sql IMMUTABLE
    AS $$ select '1 c34a0fae5eb97300776af421d4de6e6a947c1abea45f51a9368d5910421851b8' $$;
CREATE FUNCTION @.kvasir_load(p_space bigint, p_now bigint, p_durable boolean, p_key bytea[], p_value bytea[], p_versionstamp bigint[], p_sequence bigint[], p_created_at bigint[], p_expires_at bigint[], p_refresh bigint[], p_metadata bytea[]) RETURNS boolean
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
    declare
        v_head record;
        g record;
        v_now bigint;
        v_last bigint;
        v_next bigint;
        v_given bigint;
    begin
        if not p_durable then
            perform set_config('synchronous_commit', 'off', true);
        elsif current_setting('synchronous_commit') = 'off' then
            perform set_config('synchronous_commit', 'on', true);
        end if;
        select h.last, h.latest, h.expires_at into v_head
            from @.kvasir_head h where h.space = p_space and not h.ended for update;
        v_now := coalesce(p_now, @.kvasir_clock());
        if not found or v_head.expires_at <= v_now then
            return false;
        end if;
        select coalesce(max(e.sequence), 0) into v_last from @.kvasir_entry e where e.space = p_space;
        for g in
            select * from unnest(p_key, p_value, p_versionstamp, p_sequence, p_created_at, p_expires_at, p_refresh,
                p_metadata) as g (key, value, versionstamp, sequence, created_at, expires_at, refresh, metadata)
        loop
            v_next := greatest(g.sequence, v_last + 1);
            insert into @.kvasir_entry as e
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
        update @.kvasir_head h set last = greatest(v_head.last + 1, v_last), latest = v_head.latest
            where h.space = p_space;
        return true;
    end $$;
CREATE FUNCTION @.kvasir_now() RETURNS bigint
    LANGUAGE plpgsql
    AS $$
    begin
        raise exception 'this database belongs to a newer Kvasir: stop this server and start the newer one'
            using errcode = '57P03';
    end $$;
CREATE FUNCTION @.kvasir_set(p_space bigint, p_now bigint, p_durable boolean, p_jobs integer, p_job integer[], p_kind smallint[], p_key bytea[], p_number bigint[], p_refresh boolean[], p_value bytea[], p_metadata bytea[]) RETURNS bigint[]
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
    declare
        v_numbers bigint := p_jobs + cardinality(p_key);
        v_base bigint;
        v_now bigint;
        v_latest bigint;
        v_replaced bigint[];
    begin
        if not p_durable then
            perform set_config('synchronous_commit', 'off', true);
        elsif current_setting('synchronous_commit') = 'off' then
            perform set_config('synchronous_commit', 'on', true);
        end if;
        -- If this has to wait for another writer, all of it is evaluated again afterwards.
        update @.kvasir_head h
            set last = greatest(h.last + 1, coalesce(p_now, @.kvasir_clock()) << 20) + v_numbers - 1,
                latest = greatest(h.latest, coalesce(p_now, @.kvasir_clock()))
            where h.space = p_space and not h.ended
                and (h.expires_at is null or h.expires_at > coalesce(p_now, @.kvasir_clock()))
            returning h.last - v_numbers + 1, h.latest into v_base, v_latest;
        if not found then
            return null;
        end if;
        -- The clock was read twice and may have ticked in between, or a later creation was loaded: raise the numbers,
        -- so that no sequence says an earlier instant than the `created_at` of its entry (see `listing`).
        if v_latest > v_base >> 20 and v_latest < 4398046511104 then
            v_base := v_latest << 20;
            update @.kvasir_head h set last = v_base + v_numbers - 1 where h.space = p_space;
        end if;
        v_now := coalesce(p_now, @.kvasir_clock());
        with done as (
            insert into @.kvasir_entry as e
                (space, key, value, versionstamp, sequence, created_at, expires_at, refresh, metadata)
            select p_space, g.key, g.value, v_base + g.job, v_base + p_jobs + g.place - 1, v_latest,
                case g.kind when 4 then v_now + g.number else g.number end,
                case when g.refresh then case g.kind when 4 then g.number else g.number - v_now end end,
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
        return v_base || v_replaced;
    end $$;
CREATE FUNCTION @.kvasir_set_spaces(p_now bigint, p_durable boolean, p_spaces bigint[], p_jobs integer, p_space bigint[], p_job integer[], p_kind smallint[], p_key bytea[], p_number bigint[], p_refresh boolean[], p_value bytea[], p_metadata bytea[], OUT taken bigint[], OUT stamps bigint[], OUT replaced bigint[]) RETURNS record
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
    declare
        v_numbers bigint := p_jobs + cardinality(p_key);
        v_now bigint;
    begin
        if not p_durable then
            perform set_config('synchronous_commit', 'off', true);
        elsif current_setting('synchronous_commit') = 'off' then
            perform set_config('synchronous_commit', 'on', true);
        end if;
        select array_agg(free.space) into taken from (
            select h.space from @.kvasir_head h where h.space = any(p_spaces) and not h.ended for update skip locked
        ) as free;
        v_now := coalesce(p_now, @.kvasir_clock());
        with moved as (
            -- No sequence may say an earlier instant than the `created_at` of its entry (see `listing`).
            update @.kvasir_head h
                set last = v_numbers - 1 + greatest(h.last + 1, v_now << 20,
                        case when h.latest < 4398046511104 then h.latest << 20 end),
                    latest = greatest(h.latest, v_now)
                where h.space = any(taken) and not h.ended and (h.expires_at is null or h.expires_at > v_now)
                returning h.space
        )
        select array_agg(moved.space) into taken from moved;
        with done as (
            insert into @.kvasir_entry as e
                (space, key, value, versionstamp, sequence, created_at, expires_at, refresh, metadata)
            select g.space, g.key, g.value, h.base + g.job, h.base + p_jobs + g.place - 1, h.latest,
                case g.kind when 4 then v_now + g.number else g.number end,
                case when g.refresh then case g.kind when 4 then g.number else g.number - v_now end end,
                g.metadata
            from unnest(p_space, p_job, p_kind, p_key, p_number, p_refresh, p_value, p_metadata) with ordinality
                as g (space, job, kind, key, number, refresh, value, metadata, place)
            cross join lateral (
                select h.last - v_numbers + 1 as base, h.latest from @.kvasir_head h
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
    end $$;
CREATE FUNCTION @.kvasir_sweep(p_now bigint, p_rows integer, p_wait boolean) RETURNS integer
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
    declare
        v_lock bigint := hashtextextended('@.kvasir_sweep', 0);
        v_now bigint := coalesce(p_now, @.kvasir_clock());
        dead record;
        v_rows integer;
        v_swept integer := 0;
    begin
        perform set_config('synchronous_commit', 'off', true);
        if p_wait then
            perform pg_advisory_xact_lock(v_lock);
        elsif not pg_try_advisory_xact_lock(v_lock) then
            return 0;
        end if;
        for dead in
            select s.number from @.kvasir_space s where s.expires_at <= v_now
            order by s.expires_at limit greatest(1, p_rows / 10) for update skip locked
        loop
            delete from @.kvasir_alias d where d.space = dead.number;
            delete from @.kvasir_space s where s.number = dead.number;
            update @.kvasir_head h set ended = true where h.space = dead.number;
            v_swept := v_swept + 1;
        end loop;
        for dead in
            select found.space, array_agg(found.key) as keys from (
                select e.space, e.key from @.kvasir_entry e where e.expires_at <= v_now
                order by e.expires_at limit p_rows
            ) as found group by found.space
        loop
            with chosen as (
                select e.key from @.kvasir_entry e
                where e.space = dead.space and e.key = any(dead.keys) and e.expires_at <= v_now
                for update skip locked
            )
            delete from @.kvasir_entry e
                where e.space = dead.space and e.key = any(array(select chosen.key from chosen));
            get diagnostics v_rows = row_count;
            v_swept := v_swept + v_rows;
        end loop;
        for dead in select h.space from @.kvasir_head h where h.ended limit greatest(1, p_rows / 10) loop
            exit when v_swept >= p_rows;
            -- Whoever holds it may be waiting for an entry that was deleted above.
            perform from @.kvasir_head h where h.space = dead.space for update skip locked;
            continue when not found;
            delete from @.kvasir_entry e where e.space = dead.space and e.key = any(array(
                select i.key from @.kvasir_entry i where i.space = dead.space limit p_rows - v_swept));
            get diagnostics v_rows = row_count;
            if v_rows < p_rows - v_swept then
                delete from @.kvasir_head h where h.space = dead.space;
            end if;
            v_swept := v_swept + v_rows;
        end loop;
        return v_swept;
    end $$;
CREATE FUNCTION @.kvasir_write(p_space bigint, p_now bigint, p_durable boolean, p_jobs integer, p_writes integer, p_job integer[], p_write integer[], p_kind smallint[], p_key bytea[], p_number bigint[], p_refresh boolean[], p_value bytea[], p_metadata bytea[]) RETURNS bigint[]
    LANGUAGE plpgsql
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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
        v_results bigint[] := array_fill(null::bigint, array[cardinality(p_kind)]);
        v_failed integer := -1;
        v_failures integer := 0;
    begin
        if not p_durable then
            perform set_config('synchronous_commit', 'off', true);
        elsif current_setting('synchronous_commit') = 'off' then
            perform set_config('synchronous_commit', 'on', true);
        end if;
        select h.last, h.latest, h.expires_at into v_head
            from @.kvasir_head h where h.space = p_space and not h.ended for update;
        v_now := coalesce(p_now, @.kvasir_clock());
        if not found or v_head.expires_at <= v_now then
            return null;
        end if;
        v_latest := greatest(v_head.latest, v_now);
        v_base := greatest(v_head.last + 1, v_now << 20);
        if v_latest < 4398046511104 then
            -- No sequence may say an earlier instant than the `created_at` of its entry (see `listing`).
            v_base := greatest(v_base, v_latest << 20);
        end if;
        for op in
            select * from unnest(p_job, p_write, p_kind, p_key, p_number, p_refresh, p_value, p_metadata)
                with ordinality as g (job, write, kind, key, number, refresh, value, metadata, place)
        loop
            continue when op.write = v_failed;
            v_count := null;
            if op.kind in (3, 4) then
                v_expires := case op.kind when 4 then v_now + op.number else op.number end;
                v_sequence := v_base + p_jobs + op.place - 1;
                insert into @.kvasir_entry as e
                    (space, key, value, versionstamp, sequence, created_at, expires_at, refresh, metadata)
                values (p_space, op.key, op.value, v_base + op.job, v_sequence, v_latest, v_expires,
                    case when op.refresh then v_expires - v_now end, op.metadata)
                on conflict (space, key) do update set
                    value = excluded.value, versionstamp = excluded.versionstamp, expires_at = excluded.expires_at,
                    refresh = excluded.refresh, metadata = excluded.metadata,
                    sequence = case when e.expires_at <= v_now then excluded.sequence else e.sequence end,
                    created_at = case when e.expires_at <= v_now then excluded.created_at else e.created_at end
                returning case when e.sequence < v_sequence then 1 else 0 end into v_count;
            elsif op.kind = 5 then
                delete from @.kvasir_entry e where e.space = p_space and e.key = op.key
                    returning case when e.expires_at <= v_now then 0 else 1 end into v_count;
                v_count := coalesce(v_count, 0);
            elsif op.kind = 6 then
                with gone as (
                    delete from @.kvasir_entry e where e.space = p_space and e.key >= op.key and e.key < op.value
                        returning e.expires_at
                )
                select count(*) into v_count from gone where gone.expires_at is null or gone.expires_at > v_now;
            else
                select e.versionstamp, e.expires_at into v_old
                    from @.kvasir_entry e where e.space = p_space and e.key = op.key;
                v_actual := case when v_old.expires_at <= v_now then null else v_old.versionstamp end;
                if op.kind in (7, 8) then
                    v_count := case when v_actual is null then 0 else 1 end;
                    if v_count = 1 and (op.kind = 7
                            or (v_old.expires_at is not null
                                and (op.number is null or op.number > v_old.expires_at))) then
                        update @.kvasir_entry e set expires_at = op.number
                            where e.space = p_space and e.key = op.key;
                    end if;
                elsif v_actual is null and op.kind = 2
                        or v_actual is distinct from op.number and op.kind = 1 then
                    v_count := coalesce(v_actual, -1);
                    v_failed := op.write;
                    v_failures := v_failures + 1;
                end if;
            end if;
            v_results[op.place] := v_count;
        end loop;
        -- If every write failed, no number was handed out, and the epoch (in the system space) stays where it is.
        if v_failures < p_writes then
            update @.kvasir_head h set last = v_base + p_jobs + cardinality(p_kind) - 1, latest = v_latest
                where h.space = p_space;
        end if;
        return v_base || v_results;
    end $$;
CREATE TABLE @.kvasir_alias (
    kind text NOT NULL COLLATE pg_catalog."C",
    organisation text NOT NULL COLLATE pg_catalog."C",
    handle bytea NOT NULL,
    space bigint NOT NULL
);
CREATE TABLE @.kvasir_entry (
    space bigint NOT NULL,
    key bytea NOT NULL,
    value bytea NOT NULL,
    versionstamp bigint NOT NULL,
    sequence bigint NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint,
    refresh bigint,
    metadata bytea
)
WITH (fillfactor='90');
CREATE TABLE @.kvasir_head (
    space bigint NOT NULL,
    last bigint NOT NULL,
    latest bigint NOT NULL,
    expires_at bigint,
    ended boolean DEFAULT false NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE @.kvasir_schema (
    version integer NOT NULL
);
INSERT INTO @.kvasir_alias VALUES ('store', '01JZX0W7M2Q4T8V6B3N5C9D1EF', '\x64656661756c74', 1883116677909882196);
INSERT INTO @.kvasir_alias VALUES ('application', '01JZX0W7M2Q4T8V6B3N5C9D1EF', '\x31', 1883116677929235606);
INSERT INTO @.kvasir_alias VALUES ('application-name', '01JZX0W7M2Q4T8V6B3N5C9D1EF', '\x73686f70', 1883116677929235606);
INSERT INTO @.kvasir_alias VALUES ('session-name', '', '\x63617274', 1883116677930477022);
INSERT INTO @.kvasir_alias VALUES ('session-token', '', '\x34323432', 1883116677930477022);
INSERT INTO @.kvasir_entry VALUES (1, '\x0266697273742d6f7267616e69736174696f6e00', '\x2230314a5a583057374d3251345438563642334e3543394431454622', 1883116677915213824, 1883116677915213827, 1795880010524, NULL, NULL, NULL);
INSERT INTO @.kvasir_entry VALUES (1, '\x026163636573732d6b6579000261646d696e00', '\x7b226964223a2261646d696e222c226f7267616e69736174696f6e223a2230314a5a583057374d3251345438563642334e35433944314546222c22726f6c65223a226f776e6572222c226e616d65223a227468652073657474696e672061646d696e5f6b6579222c22646967657374223a2237663032623839323566623766623432623362356262643862396462336635376234393438363339343362383865626465333261326632323862326263323636222c22637265617465645f6174223a313739353838303031303533317d', 1883116677922553856, 1883116677922553858, 1795880010531, NULL, NULL, NULL);
INSERT INTO @.kvasir_entry VALUES (1, '\x026163636573732d6b65792d64696765737400023766303262383932356662376662343262336235626264386239646233663537623439343836333934336238386562646533326132663232386232626332363600', '\x2261646d696e22', 1883116677922553856, 1883116677922553859, 1795880010531, NULL, NULL, NULL);
INSERT INTO @.kvasir_entry VALUES (1883116677909882196, '\x0270726f647563747300023100', '\x7b226e616d65223a20226d656164222c20227072696365223a20392e35307d', 1883116677925699584, 1883116677925699585, 1795880010534, NULL, NULL, '\x7b226279223a20226d65227d');
INSERT INTO @.kvasir_entry VALUES (1883116677909882196, '\x0270726f647563747300023200', '\x31323334353637383930313233343536373839302e3130', 1883116677926748160, 1883116677926748161, 1795880010535, 4102444800000, 2306564789465, NULL);
INSERT INTO @.kvasir_entry VALUES (1883116677909882196, '\x026772c3bcc39f6500', '\x22f09f8daf22', 1883116677927796736, 1883116677927796737, 1795880010536, NULL, NULL, NULL);
INSERT INTO @.kvasir_entry VALUES (1883116677929235606, '\x02746573743a3100', '\x2276616c75653122', 1883116677929893888, 1883116677929893889, 1795880010538, 4102444800000, NULL, NULL);
INSERT INTO @.kvasir_entry VALUES (1883116677930477022, '\x026974656d00', '\x5b312c325d', 1883116677930942464, 1883116677930942465, 1795880010539, NULL, NULL, NULL);
INSERT INTO @.kvasir_entry VALUES (1, '\x026163636573732d6b6579000230314b303030303030303030303030303030303030303030303100', '\x7b226964223a2230314b3030303030303030303030303030303030303030303031222c226f7267616e69736174696f6e223a2230314a5a583057374d3251345438563642334e35433944314546222c22726f6c65223a22766965776572222c226e616d65223a22726561646572222c22646967657374223a2265666565623431653562366332633533633732326666316338613536333864386530336666623034643330353534633736653538353763303832393330306562222c22637265617465645f6174223a313739353838303031303533392c22707265666978223a5b2270726f6475637473225d7d', 1883116677930942464, 1883116677930942467, 1795880010539, NULL, NULL, NULL);
INSERT INTO @.kvasir_entry VALUES (1, '\x026163636573732d6b65792d64696765737400026566656562343165356236633263353363373232666631633861353633386438653033666662303464333035353463373665353835376330383239333030656200', '\x2230314b303030303030303030303030303030303030303030303122', 1883116677930942464, 1883116677930942468, 1795880010539, NULL, NULL, NULL);
INSERT INTO @.kvasir_head VALUES (1883116677909882196, 1883116677927796737, 1795880010536, NULL, false);
INSERT INTO @.kvasir_head VALUES (1883116677929235606, 1883116677929893889, 1795880010538, NULL, false);
INSERT INTO @.kvasir_head VALUES (1883116677930477022, 1883116677930942465, 1795880010539, 4102444800000, false);
INSERT INTO @.kvasir_head VALUES (1, 1883116677930942468, 1795880010539, NULL, false);
INSERT INTO @.kvasir_schema VALUES (1);
INSERT INTO @.kvasir_schema VALUES (2);
INSERT INTO @.kvasir_schema VALUES (3);
INSERT INTO @.kvasir_space VALUES (1883116677909882196, '01M8HCMGRNZ1FBQDVHMC825VPC', '01JZX0W7M2Q4T8V6B3N5C9D1EF', 'store', '\x64656661756c74', 1795880010517, NULL, NULL, '\x7b7d');
INSERT INTO @.kvasir_space VALUES (1883116677929235606, '01M8HCMGS9A6V14F2XXJWBPQVH', '01JZX0W7M2Q4T8V6B3N5C9D1EF', 'application', '\x73686f70', 1795880010537, NULL, NULL, '\x7b226170706c69636174696f6e5f6964223a317d');
INSERT INTO @.kvasir_space VALUES (1883116677930477022, '01M8HCMGSARTFADVJJRYV080E6', '01JZX0W7M2Q4T8V6B3N5C9D1EF', 'session', '\x63617274', 1795880010538, 4102444800000, NULL, '\x7b22746f6b656e223a2234323432222c22736861726564223a747275652c226475726174696f6e223a333630307d');
ALTER TABLE ONLY @.kvasir_alias
    ADD CONSTRAINT kvasir_alias_pkey PRIMARY KEY (kind, organisation, handle);
ALTER TABLE ONLY @.kvasir_entry
    ADD CONSTRAINT kvasir_entry_pkey PRIMARY KEY (space, key);
ALTER TABLE ONLY @.kvasir_head
    ADD CONSTRAINT kvasir_head_pkey PRIMARY KEY (space);
ALTER TABLE ONLY @.kvasir_schema
    ADD CONSTRAINT kvasir_schema_pkey PRIMARY KEY (version);
ALTER TABLE ONLY @.kvasir_space
    ADD CONSTRAINT kvasir_space_id_key UNIQUE (id);
ALTER TABLE ONLY @.kvasir_space
    ADD CONSTRAINT kvasir_space_pkey PRIMARY KEY (number);
CREATE INDEX kvasir_alias_space ON @.kvasir_alias USING btree (space);
CREATE INDEX kvasir_entry_expiry ON @.kvasir_entry USING btree (expires_at) WHERE (expires_at IS NOT NULL);
CREATE INDEX kvasir_entry_lagging ON @.kvasir_entry USING btree (space, created_at, sequence) WHERE (created_at > (sequence >> 20));
CREATE UNIQUE INDEX kvasir_entry_order ON @.kvasir_entry USING btree (space, sequence);
CREATE INDEX kvasir_head_ended ON @.kvasir_head USING btree (space) WHERE ended;
CREATE INDEX kvasir_space_expiry ON @.kvasir_space USING btree (expires_at) WHERE (expires_at IS NOT NULL);
