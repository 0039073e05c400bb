"""The log of what writes have changed, kept for a space while somebody watches it, and read by who watches.

A row tells all that one transaction did to a space, from its last number before (`since`) to the one afterwards
(`upto`). Every write takes a number, so rows that join without a gap up to the present last number leave no write out.
A write that was not logged shows as a gap, whoever forgot to log it and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from kvasir.engines.postgres import cluster
from kvasir.engines.postgres.functions import PLANS
from kvasir.engines.postgres.pool import Pool
from kvasir.engines.watching import Logged, Watchers
from kvasir.model import SYSTEM_SPACE

#: How long writes are logged once nobody asks for it any more: a watch that begins again soon needs the log.
LEASE_MILLISECONDS = 60_000

#: Has the writes of a space logged from now on; returns its last number before, null if it is gone. Writers that hold
#: the lock of its row finish first, and later ones see this.
FUNCTION = f"""
    create or replace function @kvasir_watch(p_space bigint, p_now bigint)
    returns bigint language plpgsql volatile {PLANS} as $$
    declare
        v_until bigint := coalesce(p_now, @kvasir_time()) + {LEASE_MILLISECONDS};
        v_last bigint;
    begin
        perform set_config('synchronous_commit', 'off', true);
        update @kvasir_head h set watched_until = v_until where h.space = p_space and not h.ended
            returning h.last into v_last;
        return v_last;
    end $$;
"""  # noqa: S608

WATCH = "select kvasir_watch($1, $2)"
LAST = "select space, last from kvasir_head where space = any($1) and not ended"
#: What a change takes in memory beside its keys, roughly
CHANGE_BYTES = 32
#: The last number of a space beside each of the next rows of its log, all in one snapshot: the first of them, and those
#: behind it up to so many bytes; and how many there were to choose from. Of a transaction with one of the versionstamps
#: given, its row says only that it was there.
NEXT = f"""
    select h.last, c.since, c.upto, c.kinds, c.stamps, c.keys, c.ends, c.bytes, c.found from kvasir_head h
    left join lateral (
        select * from (
            select c.*, b.bytes, count(*) over () as found, coalesce(sum(b.bytes)
                over (order by c.upto rows between unbounded preceding and 1 preceding), 0) as before
            from (
                select c.since, c.upto, case when p.passed then '{{}}' else c.kinds end as kinds,
                    case when p.passed then '{{}}' else c.stamps end as stamps,
                    case when p.passed then '{{}}' else c.keys end as keys,
                    case when not p.passed then c.ends end as ends
                from kvasir_change c
                cross join lateral (
                    select exists (
                        select from unnest($5::bigint[]) as stamp
                            where stamp > c.since and stamp <= c.upto and stamp = any(c.stamps)
                    ) as passed
                ) as p
                where c.space = $1 and c.upto > $2 order by c.upto limit $3
            ) as c
            cross join lateral (
                select coalesce(sum({CHANGE_BYTES} + coalesce(octet_length(key), 0)), 0)::bigint as bytes
                from unnest(c.keys || c.ends) as key
            ) as b
        ) as c where c.before < $4::bigint
    ) as c on true
    where h.space = $1 and not h.ended order by c.upto"""  # noqa: S608

#: Rows, and bytes, read at a time
ROWS, READ_BYTES = 200, 4 << 20


class News(Struct):
    """What was committed in a space behind some position."""

    #: Those that somebody watches
    changes: list[Logged]
    #: The changes are all up to here; None: some are missing.
    upto: int | None
    #: The last number of the space; None: it is gone
    last: int | None
    #: What was read for it, whoever watches that
    bytes: int = 0


async def last(pool: Pool, spaces: Sequence[int]) -> dict[int, int]:
    """The last numbers of the living ones among these spaces."""
    ordinary = [space for space in spaces if space != SYSTEM_SPACE or not pool.spread]
    found = dict(await pool.fetch(LAST, ordinary)) if ordinary else {}
    if len(ordinary) < len(spaces):
        found |= dict(await pool.fetch(cluster.of_system_space(LAST), [SYSTEM_SPACE]))
    return found


async def read(
    pool: Pool, watchers: Watchers, space: int, position: int, most: int, passed: Iterable[int] = ()
) -> News:
    """What was committed behind `position`: the next rows, up to so many bytes and the rest of the row they end in.

    `passed`: versionstamps of transactions that are known to concern nobody.
    """
    rows = await pool.fetch_of(NEXT, space, position, ROWS, most, list(passed))
    if not rows:
        return News([], None, None)
    last = int(rows[0][0])
    rows = [row for row in rows if row["upto"] is not None]
    if position > last:
        return News([], None, last)
    changes: list[Logged] = []
    upto = position
    for row in rows:
        # A watch that begins again may do so amid a row.
        if row["since"] > upto:
            return News([], None, last)
        changes += watchers.concerning(_logged(space, row), position)
        upto = row["upto"]
    if upto < last and (not rows or len(rows) == rows[0]["found"] < ROWS):
        return News([], None, last)
    return News(changes, upto, last, sum(row["bytes"] for row in rows))


def _logged(space: int, row: Any) -> list[Logged]:
    ends = row["ends"] or [None] * len(row["keys"])
    columns = zip(row["kinds"], row["stamps"], row["keys"], ends, strict=True)
    return [(kind, space, stamp, key, end) for kind, stamp, key, end in columns]
