"""A page of children, made of what seeks find. Pure."""

from __future__ import annotations

from collections.abc import Callable

from kvasir.keys import child_of, under
from kvasir.model import Child, Children

#: A page steps over about so many expired entries.
MAX_EXPIRED = 10_000

#: From a position to the first living key behind it, or the expired one at which there were too many; and which.
Seek = Callable[[bytes], tuple[bytes | None, bool]]


def interrupted_at(prefix: bytes, position: bytes) -> bytes | None:
    """The child among whose keys an earlier page stopped; None: it stopped behind a child.

    None for a position beside the prefix, too, which no page has given: what is there is no child.
    """
    below = prefix < position < under(prefix).end
    return child_of(prefix, position) if below and not position.endswith(b"\xff") else None


def page_of(prefix: bytes, position: bytes, entry: bytes | None, limit: int | None, seek: Seek) -> Children:
    """The children behind a position, by one or two seeks each.

    `entry`: the child whose keys the position is among, if it has an entry; it is still to be told.
    """
    found: list[Child] = []
    while True:
        key, living = seek(position)
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
        child = child_of(prefix, key)
        if key == child:
            entry = position = child
        else:
            found.append(Child(child, entry=False, below=True))
            position = under(child).end
