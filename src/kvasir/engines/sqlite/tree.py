"""The parts below a prefix, by skipping from one to the next, over one connection: one consistent look."""

from __future__ import annotations

from typing import Any

import apsw

from kvasir.engines.sqlite.reading import get_one
from kvasir.keys import child_of, under
from kvasir.model import Child, Children

SEEK = """
    SELECT key, expires_at IS NULL OR expires_at > ? FROM entry INDEXED BY entry_key
    WHERE space = ? AND key > ? AND key < ? ORDER BY key"""

#: A page steps over at most so many expired entries.
MAX_EXPIRED = 10_000


def children(
    connection: apsw.Connection, space: int, prefix: bytes, after: bytes | None, limit: int | None, now: int
) -> Children:
    """See `Engine.children`."""
    cursor = connection.cursor()
    with connection:
        page = _Walk(cursor, space, prefix, now).page(max(after or b"", prefix), limit)
        cursor.close(True)  # a statement that has not ended holds on to its snapshot
    return page


class _Walk:
    """One page, from left to right."""

    def __init__(self, cursor: apsw.Cursor, space: int, prefix: bytes, now: int) -> None:
        self._cursor = cursor
        self._space = space
        self._prefix = prefix
        self._end = under(prefix).end
        self._now = now
        self._left = MAX_EXPIRED

    def page(self, position: bytes, limit: int | None) -> Children:
        found: list[Child] = []
        #: A child that has an entry, and perhaps something below it
        entry = self._interrupted(position)
        while True:
            key, living = self._seek(position)
            if entry is not None and key is not None and key < under(entry).end:
                if not living:
                    return Children(found, key)
                found.append(Child(entry, entry=True, below=True))
                position = under(entry).end
                entry = None
                continue
            if entry is not None:
                found.append(Child(entry, entry=True, below=False))
                position = under(entry).end
                entry = None
            if key is None:
                return Children(found, None)
            if not living:
                return Children(found, key)
            if len(found) == limit:
                return Children(found, position)
            child = child_of(self._prefix, key)
            if key == child:
                entry = position = child
            else:
                found.append(Child(child, entry=False, below=True))
                position = under(child).end

    def _interrupted(self, position: bytes) -> bytes | None:
        """The child with an entry among whose keys the last page stopped."""
        if position == self._prefix or position.endswith(b"\xff"):
            return None
        child = child_of(self._prefix, position)
        return child if get_one(self._cursor, self._space, child, self._now) else None

    def _seek(self, position: bytes) -> tuple[bytes | None, bool]:
        """The first living key behind the position, or the expired one at which there were too many; and which."""
        row: Any
        for row in self._cursor.execute(SEEK, (self._now, self._space, position, self._end)):
            if row[1]:
                return row[0], True
            self._left -= 1
            if self._left <= 0:
                return row[0], False
        return None, False
