"""What a database that was filled from another one says about itself, until somebody begins to use it.

A server that starts on it and a command that fills it exclude each other: each writes on the condition that the other
one has not.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from kvasir.control.organisation import FIRST
from kvasir.engine import Engine
from kvasir.errors import Conflicting, KvasirError, Unavailable
from kvasir.keys import pack
from kvasir.model import SYSTEM_SPACE, Check, Commit, Delete, Entry, Query, Set, Write

_USED = (
    "the database to be filled has data of its own, perhaps from a server or a command that has begun to use it;"
    " nothing was changed: name an empty one"
)

#: Where a database that was filled from another one says so, until somebody begins to use it.
COPY_MARK = pack(["copy"])


class CopyMark(Struct, frozen=True):
    """What a copy says about itself."""

    #: See `origin`; None: it is not a copy of anything yet.
    origin: str | None
    #: False: it is being filled, or that was interrupted.
    complete: bool


async def copy_mark(engine: Engine) -> CopyMark | None:
    """What a copy that nobody has begun to use says about itself; None for any other database."""
    mark, _ = await _copy_mark(engine)
    return mark if mark is not None and mark.origin is not None else None


async def _copy_mark(engine: Engine) -> tuple[CopyMark | None, int | None]:
    """The mark as it is stored, and its versionstamp: what a write that depends on it checks."""
    entry = (await engine.get(SYSTEM_SPACE, [COPY_MARK]))[0]
    if entry is None:
        return None, None
    return msgspec.json.decode(entry.value, type=CopyMark), entry.versionstamp


async def claim(engine: Engine, origin: str) -> int:
    """Mark a database as an incomplete copy of the one with this `origin`; the versionstamp of the mark.

    Raises `Conflicting` if the database is none that may be filled from there. A server that starts at the same time
    and this exclude each other: each writes on the condition that the other one has not.
    """
    mark, stamp = await _copy_mark(engine)
    if mark is not None and mark.origin is not None:
        if mark.origin != origin:
            raise Conflicting(
                "the database to be filled is a copy of another one; nothing was changed: name an empty one"
            )
        return await _mark(engine, CopyMark(origin, complete=False), Check(COPY_MARK, stamp))
    if await _has_records(engine) or await engine.list_spaces(limit=1):
        raise Conflicting(_USED)
    if stamp is None:
        # Older than anything that is copied, so that the mark takes no number from it: a write cannot do that. It keeps
        # this place when it is written over, and says nothing until then.
        nothing = Entry(COPY_MARK, msgspec.json.encode(CopyMark(None, complete=True)), 1, 1, created_at=0)
        await engine.load(SYSTEM_SPACE, [nothing])
        stamp = nothing.versionstamp
    stamp = await _mark(engine, CopyMark(origin, complete=False), Check(FIRST, None), Check(COPY_MARK, stamp))
    if await engine.list_spaces(limit=1):
        # A first start makes its store before its record; it is refused now, and takes the store away.
        await engine.write([Write(SYSTEM_SPACE, (Delete(COPY_MARK),), (Check(COPY_MARK, stamp),))])
        raise Conflicting(_USED)
    return stamp


async def _has_records(engine: Engine) -> bool:
    entries = (await engine.page(SYSTEM_SPACE, Query(limit=2, values=False))).entries
    return any(entry.key != COPY_MARK for entry in entries)


async def is_claimed(engine: Engine, stamp: int) -> bool:
    """Whether the mark is still the one that `claim` made."""
    return (await _copy_mark(engine))[1] == stamp


async def complete_copy(engine: Engine, origin: str, stamp: int) -> None:
    """Mark a claimed database as a complete copy. Raises `Conflicting` if the claim is lost."""
    await _mark(engine, CopyMark(origin, complete=True), Check(COPY_MARK, stamp))


async def _mark(engine: Engine, mark: CopyMark, *conditions: Check) -> int:
    mutation = Set(COPY_MARK, msgspec.json.encode(mark))
    outcome = (await engine.write([Write(SYSTEM_SPACE, (mutation,), conditions)]))[0]
    if isinstance(outcome, Commit):
        return outcome.versionstamp
    if isinstance(outcome, KvasirError):
        raise outcome
    raise Conflicting("another program has begun to use the database that is being filled; nothing is certain")


async def take_over(engine: Engine) -> None:
    """Make a complete copy a database of its own, which nothing is copied to any more; others are left as they are.

    Raises `Unavailable` for a copy that is not complete.
    """
    while True:
        mark, stamp = await _copy_mark(engine)
        if mark is None:
            return
        if not mark.complete:
            raise incomplete()
        outcome = (await engine.write([Write(SYSTEM_SPACE, (Delete(COPY_MARK),), (Check(COPY_MARK, stamp),))]))[0]
        if isinstance(outcome, KvasirError):
            raise outcome
        if isinstance(outcome, Commit):
            return


def incomplete() -> Unavailable:
    return Unavailable(
        "the database is being filled by `kvasir copy` or `kvasir load`, or that was interrupted:"
        " let it come to its end, or run it again"
    )
