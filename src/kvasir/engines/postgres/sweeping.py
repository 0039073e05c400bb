"""Reclaims what has expired or ended, in small steps with pauses. Of all servers on a database one sweeps at a time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from kvasir.engines.postgres import cluster, failures
from kvasir.engines.postgres.functions import PLANS
from kvasir.engines.postgres.pool import Pool
from kvasir.errors import KvasirError
from kvasir.model import WriterStats

SWEEP = "select kvasir_sweep($1, $2, $3)"

#: Entries per step, which is one transaction of a few milliseconds.
ROWS = 200
#: The pause after a step that found nothing.
IDLE_SECONDS = 1.0
#: The same on a cluster, where a step asks every shard.
SPREAD_IDLE_SECONDS = 5.0
#: How far back the log of changes reaches (see `changelog`).
KEPT_MILLISECONDS = 60_000
#: The pause after a step that found something, as a multiple of the time it took.
REST = 5.0


#: Removes up to `p_rows` dead entries. Rows that a writer holds are left for the next time, so that nobody waits.
FUNCTION = f"""
    create or replace function @kvasir_sweep(p_now bigint, p_rows integer, p_wait boolean)
    returns integer language plpgsql volatile {PLANS} as $$
    declare
        v_lock bigint := hashtextextended('@kvasir_sweep', 0);
        v_now bigint := coalesce(p_now, @kvasir_time());
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
            select s.number from @kvasir_space s where s.expires_at <= v_now
            order by s.expires_at limit greatest(1, p_rows / 10) for update skip locked
        loop
            delete from @kvasir_alias d where d.space = dead.number;
            delete from @kvasir_space s where s.number = dead.number;
            update @kvasir_head h set ended = true where h.space = dead.number;
            v_swept := v_swept + 1;
        end loop;
        for dead in
            select found.space, array_agg(found.key) as keys from (
                select e.space, e.key from @kvasir_entry e where e.expires_at <= v_now
                order by e.expires_at limit p_rows
            ) as found group by found.space
        loop
            with chosen as (
                select e.key from @kvasir_entry e
                where e.space = dead.space and e.key = any(dead.keys) and e.expires_at <= v_now
                for update skip locked
            )
            delete from @kvasir_entry e
                where e.space = dead.space and e.key = any(array(select chosen.key from chosen));
            get diagnostics v_rows = row_count;
            v_swept := v_swept + v_rows;
        end loop;
        for dead in select h.space from @kvasir_head h where h.ended limit greatest(1, p_rows / 10) loop
            exit when v_swept >= p_rows;
            -- Whoever holds it may be waiting for an entry that was deleted above.
            perform from @kvasir_head h where h.space = dead.space for update skip locked;
            continue when not found;
            delete from @kvasir_entry e where e.space = dead.space and e.key = any(array(
                select i.key from @kvasir_entry i where i.space = dead.space limit p_rows - v_swept));
            get diagnostics v_rows = row_count;
            if v_rows < p_rows - v_swept then
                delete from @kvasir_head h where h.space = dead.space;
            end if;
            v_swept := v_swept + v_rows;
        end loop;
        for dead in
            select old.space, array_agg(old.upto) as numbers from (
                select c.space, c.upto from @kvasir_change c where c.made_at < v_now - {KEPT_MILLISECONDS}
                order by c.made_at limit 10 * p_rows
            ) as old group by old.space
        loop
            delete from @kvasir_change c where c.space = dead.space and c.upto = any(dead.numbers);
        end loop;
        return v_swept;
    end $$;
"""  # noqa: S608


class Sweeper:
    """The background task of one process."""

    def __init__(self, pool: Pool, now: Callable[[], int | None], stats: WriterStats) -> None:
        self._pool = pool
        self._now = now
        self._stats = stats
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the pool must be open."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End it, after the step that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def step(self, *, wait: bool) -> int:
        """See `Engine.sweep`. `wait` for another process that is sweeping, instead of leaving the work to it."""
        rows: list[Any] = await self._pool.write(SWEEP, self._now(), ROWS, wait)
        swept = int(rows[0][0]) + await self._sweep_system_space()
        self._stats.swept += swept
        return swept

    async def _sweep_system_space(self) -> int:
        """The same for the system space where it has tables of its own: they are whole on every node of a cluster."""
        if not self._pool.spread:
            return 0
        ((now, dead),) = await self._pool.fetch(cluster.EXPIRED, self._now(), ROWS)
        return len(await self._pool.write(cluster.REMOVE_EXPIRED, dead, now)) if dead else 0

    async def _run(self) -> None:
        idle = SPREAD_IDLE_SECONDS if self._pool.spread else IDLE_SECONDS
        while True:
            began = time.monotonic()
            try:
                swept = await self.step(wait=False)
            except KvasirError as error:
                failures.log.debug("the sweep was put off: %s", error.message)
                swept = 0
            took = time.monotonic() - began
            # Random, so that processes do not all sweep at the same moment.
            await asyncio.sleep(took * REST if swept else idle * random.uniform(0.5, 1.5))  # noqa: S311
