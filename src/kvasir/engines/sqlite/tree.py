"""The parts below a prefix, by skipping from one to the next, over one connection: one consistent look."""

from __future__ import annotations

from typing import Any

import apsw

from kvasir.engines.sqlite.reading import get_one
from kvasir.engines.tree import MAX_EXPIRED, interrupted_at, page_of
from kvasir.keys import under
from kvasir.model import Children

SEEK = """
    SELECT key, expires_at IS NULL OR expires_at > ? FROM entry INDEXED BY entry_key
    WHERE space = ? AND key > ? AND key < ? ORDER BY key"""


def children(
    connection: apsw.Connection, space: int, prefix: bytes, after: bytes | None, limit: int | None, now: int
) -> Children:
    """See `Engine.children`."""
    cursor = connection.cursor()
    left = MAX_EXPIRED

    def seek(position: bytes) -> tuple[bytes | None, bool]:
        nonlocal left
        row: Any
        for row in cursor.execute(SEEK, (now, space, position, under(prefix).end)):
            if row[1]:
                return row[0], True
            left -= 1
            if left <= 0:
                return row[0], False
        return None, False

    with connection:
        position = max(after or b"", prefix)
        entry = interrupted_at(prefix, position)
        if entry is not None and get_one(cursor, space, entry, now) is None:
            entry = None
        page = page_of(prefix, position, entry, limit, seek)
        cursor.close(True)  # a statement that has not ended holds on to its snapshot
    return page
