"""One connection to PostgreSQL, as this engine needs it of its driver."""

from __future__ import annotations

import contextlib
import types
from collections.abc import Iterable
from typing import Any, ClassVar

import asyncpg

#: What the driver raises if no connection can be made
CANNOT_CONNECT = (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)


#: Numbers of types below this are PostgreSQL's own, the same in every database.
BUILT_IN_TYPES = 16_384


class Connection(asyncpg.Connection):  # type: ignore[misc]
    """One that can always be closed, even if the server no longer answers, and asks about types only once."""

    #: What is known of a type: rows of asyncpg's question, by their "oid"
    _known: ClassVar[dict[int, dict[int, Any]]] = {}

    async def _introspect_types(self, typeoids: Iterable[int], timeout: float | None) -> tuple[Any, Any]:  # noqa: ASYNC109
        # asyncpg knows no arrays beforehand, and asks in each connection, which costs most of what it takes to connect.
        wanted = list(typeoids)
        if all(oid in self._known for oid in wanted):
            found = {number: row for oid in wanted for number, row in self._known[oid].items()}
            # Without a name it would prepare the statement again that it asked for.
            return list(found.values()), types.SimpleNamespace(name="known")
        rows, statement = await super()._introspect_types(wanted, timeout)
        if max(wanted) < BUILT_IN_TYPES:
            found = {row["oid"]: row for row in rows}
            self._known.update(dict.fromkeys(wanted, found))
        return rows, statement

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - as asyncpg has it
        # asyncpg's pool closes connections in tasks of its own; nobody would retrieve their exceptions.
        with contextlib.suppress(*CANNOT_CONNECT):
            await super().close(timeout=timeout)
