"""The registry: spaces and the aliases that lead to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from kvasir.engines.postgres.pool import Pool
from kvasir.engines.postgres.read_batcher import ALIVE, NOW
from kvasir.errors import Unavailable
from kvasir.model import Alias, Space

SPACE = "number, id, organisation, kind, name, created_at, expires_at, clear_every, attributes"

BY_ID = f"select {SPACE} from kvasir_space where id = $1 and {ALIVE}"  # noqa: S608
RESOLVE = f"""
    select {SPACE} from kvasir_space where {ALIVE} and number =
        (select space from kvasir_alias where kind = $1 and organisation = $3 and handle = $4)"""  # noqa: S608
ALIASES = f"""
    select d.kind, d.organisation, d.handle from kvasir_alias d join kvasir_space s on s.number = d.space
    where s.id = $1 and {ALIVE}"""  # noqa: S608
LIST = f"""
    select {SPACE} from kvasir_space
    where {ALIVE} and id > $1 and organisation = coalesce($3, organisation) and kind = coalesce($4, kind)
    order by id limit $5"""  # noqa: S608
COUNT = f"""
    select count(*)::bigint, coalesce(sum(
        (select count(*) from kvasir_entry e where e.space = s.number
            and (e.expires_at is null or e.expires_at > coalesce($2::bigint, kvasir_time())))), 0)::bigint
    from kvasir_space s where s.kind = $1 and ($3::text is null or s.organisation = $3) and {ALIVE}"""  # noqa: S608
#: The same where the tables are distributed: Citus has no subqueries that look at another table for each row.
_OF_KIND = "kind = $1 and ($3::text is null or organisation = $3)"
COUNT_SPREAD = f"""
    select (select count(*) from kvasir_space where {_OF_KIND} and {ALIVE}), (
        select count(*) from kvasir_entry e join kvasir_space s on s.number = e.space
        where {_OF_KIND} and (s.expires_at is null or s.expires_at > {NOW})
            and (e.expires_at is null or e.expires_at > {NOW}))"""  # noqa: S608

CREATE = "select * from kvasir_create_space($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)"
ALTER = "select * from kvasir_alter_space($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
END = "select kvasir_end_space($1, $2, $3)"

#: A text of the database cannot hold U+0000 nor half a surrogate pair; bytes cannot hold the latter.
NO_TEXT = re.compile(r"[\0\ud800-\udfff]")
NO_BYTES = re.compile(r"[\ud800-\udfff]")

#: How often an alias may change hands while a space is being created under it.
ATTEMPTS = 10


class Registry:
    """See the methods of `kvasir.engine.Engine`."""

    def __init__(self, pool: Pool, now: Callable[[], int | None], *, durable: bool) -> None:
        self._pool = pool
        self._now = now
        self._durable = durable
        #: The highest number given to this process, so that spaces it creates later have higher numbers.
        self._highest = 0

    async def create(self, space: Space, aliases: Sequence[Alias]) -> Space:
        """See `Engine.create_space`."""
        for _ in range(ATTEMPTS):
            rows = await self._pool.write(
                CREATE, self._now(), self._durable, self._highest + 1, space.id, space.organisation, space.kind,
                space.name.encode(), space.created_at, space.expires_at, space.clear_every, space.attributes,
                *_columns(aliases),
            )  # fmt: skip
            if rows:
                created = _space(rows[0])
                self._highest = max(self._highest, created.number)
                return created
            # The space that had the alias has just ended.
        raise Unavailable("the aliases of the space keep changing hands; nothing was written, try again")

    async def alter(self, id: str, name: str | None, add: Sequence[Alias], remove: Sequence[Alias]) -> Space | None:
        """See `Engine.alter_space`."""
        if NO_TEXT.search(id):
            return None
        remove = [alias for alias in remove if _can_exist(alias)]
        rows = await self._pool.write(
            ALTER, self._now(), self._durable, id, None if name is None else name.encode(),
            *_columns(add), *_columns(set(remove) - set(add)),
        )  # fmt: skip
        if rows:
            await self._pool.confirm()
        return _space(rows[0]) if rows else None

    async def end(self, id: str) -> bool:
        """See `Engine.end_space`."""
        if NO_TEXT.search(id):
            return False
        ((was_living,),) = await self._pool.write(END, self._now(), self._durable, id)
        if was_living:
            await self._pool.confirm()
        return bool(was_living)

    async def by_id(self, id: str) -> Space | None:
        """See `Engine.get_space`."""
        if NO_TEXT.search(id):
            return None
        rows = await self._pool.fetch(BY_ID, id, self._now())
        return _space(rows[0]) if rows else None

    async def resolve(self, alias: Alias) -> Space | None:
        """See `Engine.resolve`."""
        if not _can_exist(alias):
            return None
        kind, organisation, handle = alias
        rows = await self._pool.fetch(RESOLVE, kind, self._now(), organisation, handle.encode())
        return _space(rows[0]) if rows else None

    async def aliases(self, id: str) -> list[Alias]:
        """See `Engine.aliases`."""
        if NO_TEXT.search(id):
            return []
        rows = await self._pool.fetch(ALIASES, id, self._now())
        return sorted((kind, organisation, handle.decode()) for kind, organisation, handle in rows)

    async def living(self, organisation: str | None, kind: str | None, after: str, limit: int | None) -> list[Space]:
        """See `Engine.list_spaces`."""
        rows = await self._pool.fetch(LIST, after, self._now(), organisation, kind, limit)
        return [_space(row) for row in rows]

    async def count(self, kind: str, organisation: str | None) -> tuple[int, int]:
        """See `Engine.count_spaces`."""
        ((spaces, entries),) = await self._pool.fetch(
            COUNT_SPREAD if self._pool.spread else COUNT, kind, self._now(), organisation
        )
        return spaces, entries


def _can_exist(alias: Alias) -> bool:
    """Whether the database can hold such an alias. It refuses to look for one that it cannot hold."""
    kind, organisation, handle = alias
    return not (NO_TEXT.search(kind) or NO_TEXT.search(organisation) or NO_BYTES.search(handle))


def _columns(aliases: Sequence[Alias] | set[Alias]) -> tuple[list[str], list[str], list[bytes]]:
    ordered = list(dict.fromkeys(aliases))
    return (
        [kind for kind, _, _ in ordered],
        [organisation for _, organisation, _ in ordered],
        [handle.encode() for _, _, handle in ordered],
    )


def _space(row: Any) -> Space:
    number, id, organisation, kind, name, *rest = row
    return Space(id, number, organisation, kind, name.decode(), *rest)
