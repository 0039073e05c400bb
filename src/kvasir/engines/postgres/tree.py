"""The parts below a prefix, by skipping from one to the next: one statement, one snapshot."""

from __future__ import annotations

from kvasir.engines.postgres.pool import Pool
from kvasir.engines.postgres.read_batcher import ALIVE
from kvasir.engines.tree import MAX_EXPIRED, interrupted_at, page_of
from kvasir.keys import under
from kvasir.model import Children

#: Rows looked at together behind an expired one.
AHEAD = 250

#: Walks from $3 to $4. Each step finds the next living key, or passes over a number of expired ones, and goes on behind
#: that key or, unless the key is itself the child (the prefix, $5 bytes long, and one more part), behind all that is
#: below the child. The first row is no step: it says whether the key $7 is living.
CHILDREN = f"""
    with recursive walk as (
        select 0 as step, null::bytea as key, exists (
            select from kvasir_entry where space = $1 and key = $7 and {ALIVE}) as living,
            $3::bytea as position, null::bytea as child, 0 as found, 0 as expired
        union all
        select walk.step + 1, at.key, at.living,
            case when not at.living or at.key = at.child then at.key else at.child || '\\xff'::bytea end,
            case when at.living then at.child else walk.child end,
            walk.found + case when at.living and at.child is distinct from walk.child then 1 else 0 end,
            walk.expired + case when at.living then 0 else 1 end
        from walk cross join lateral (
            select few.key, few.living,
                case position('\\x0002'::bytea in substring(few.key from $5 + 1)) when 0 then few.key
                    else substring(few.key for $5 + position('\\x0002'::bytea in substring(few.key from $5 + 1)))
                end as child
            from (
                select key, living from (
                    select key, {ALIVE} as living, row_number() over (order by key) as place from kvasir_entry
                    where space = $1 and key > walk.position and key < $4 order by key
                    limit case when walk.step = 0 or walk.living then 1 else {AHEAD} end
                ) as next
                order by living desc, case when living then place else -place end limit 1
            ) as few
        ) as at
        where walk.found <= $6 and walk.expired <= {MAX_EXPIRED // AHEAD}
    )
    select key, living from walk order by step"""  # noqa: S608

#: More than any page has
UNLIMITED = 1 << 30


async def children(
    pool: Pool, space: int, prefix: bytes, after: bytes | None, limit: int | None, now: int | None
) -> Children:
    """See `Engine.children`."""
    position = max(after or b"", prefix)
    entry = interrupted_at(prefix, position)
    most = UNLIMITED if limit is None else limit
    rows = await pool.fetch_of(CHILDREN, space, now, position, under(prefix).end, len(prefix), most, entry)
    if not rows[0]["living"]:
        entry = None
    steps = [(row["key"], row["living"]) for row in rows[1:]]
    # Of the expired keys it passed over only the last counts, at which it gave up.
    seeks = iter([step for number, step in enumerate(steps, 1) if step[1] or number == len(steps)])
    gave_up = bool(steps) and len([living for _, living in steps if not living]) > MAX_EXPIRED // AHEAD
    end = (None, False)

    def seek(_: bytes) -> tuple[bytes | None, bool]:
        step = next(seeks, end)
        return step if step[1] or gave_up else end

    return page_of(prefix, position, entry, limit, seek)
