"""Spaces and their aliases, over one connection. Each function is one consistent look at the database."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import apsw

from kvasir.engines.sqlite.reading import ALIVE
from kvasir.model import Alias, Space

SPACE = "id, number, organisation, kind, name, created_at, expires_at, clear_every, attributes"

SPACE_BY_ID = f"SELECT {SPACE} FROM space WHERE id = :id AND {ALIVE}"  # noqa: S608
RESOLVE = f"""
    SELECT {SPACE} FROM space WHERE {ALIVE} AND number =
        (SELECT space FROM alias WHERE kind = :kind AND organisation = :organisation AND handle = :handle)"""  # noqa: S608
ALIASES = f"""
    SELECT alias.kind, alias.organisation, alias.handle FROM alias JOIN space ON alias.space = number
    WHERE id = :id AND {ALIVE} ORDER BY 1, 2, 3"""  # noqa: S608
SPACES = f"""
    SELECT {SPACE} FROM space
    WHERE {ALIVE} AND kind <> 'system' AND (:kind IS NULL OR kind = :kind)
      AND (:organisation IS NULL OR organisation = :organisation) AND id > :after
    ORDER BY id LIMIT :limit"""  # noqa: S608
COUNT_SPACES = f"""
    WITH chosen AS MATERIALIZED (
        SELECT number FROM space
        WHERE kind = :kind AND (:organisation IS NULL OR organisation = :organisation) AND {ALIVE})
    SELECT (SELECT count(*) FROM chosen),
           (SELECT count(*) FROM entry INDEXED BY entry_order WHERE space IN chosen)
         - (SELECT count(*) FROM entry INDEXED BY entry_expiry WHERE expires_at <= :now AND space IN chosen)"""  # noqa: S608


def by_id(connection: apsw.Connection, id: str, now: int) -> Space | None:
    """The living space with this ULID."""
    return _space(connection, SPACE_BY_ID, {"id": id, "now": now})


def resolve(connection: apsw.Connection, alias: Alias, now: int) -> Space | None:
    """The living space under an alias."""
    kind, organisation, handle = alias
    return _space(connection, RESOLVE, {"kind": kind, "organisation": organisation, "handle": handle, "now": now})


def _space(connection: apsw.Connection, sql: str, values: dict[str, str | int]) -> Space | None:
    with suppress(UnicodeEncodeError):  # no name contains a lone surrogate
        for row in connection.execute(sql, values):
            return Space(*row)
    return None


def aliases(connection: apsw.Connection, id: str, now: int) -> list[Alias]:
    """The aliases of a living space, sorted."""
    with suppress(UnicodeEncodeError):
        rows = connection.execute(ALIASES, {"id": id, "now": now})
        return [(kind, organisation, handle) for kind, organisation, handle in rows]
    return []


def list_spaces(
    connection: apsw.Connection, organisation: str | None, kind: str | None, after: str, limit: int | None, now: int
) -> list[Space]:
    """Living spaces by ascending ULID."""
    values = {
        "organisation": organisation, "kind": kind, "after": after, "limit": -1 if limit is None else limit, "now": now
    }  # fmt: skip
    return [Space(*row) for row in connection.execute(SPACES, values)]


def count_spaces(connection: apsw.Connection, kind: str, organisation: str | None, now: int) -> tuple[int, int]:
    """(living spaces of this kind, living entries in them)"""
    row: Any = connection.execute(COUNT_SPACES, {"kind": kind, "organisation": organisation, "now": now}).fetchone()
    return row[0], row[1]
