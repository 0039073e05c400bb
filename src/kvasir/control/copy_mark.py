"""The mark of a database that is a copy of another one and that nobody uses yet.

A server that starts on a database and a command that fills it exclude each other: each writes on the condition that
the other has not. Copies no data itself.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from kvasir.control import records
from kvasir.control.organisation import FIRST
from kvasir.engine import Engine
from kvasir.errors import Conflicting, Unavailable
from kvasir.keys import pack
from kvasir.model import SYSTEM_SPACE, Check, Commit, Delete, Entry, Query, Set

#: Key of the record. It is there from the start of a copy until a server or a command begins to use the copy.
COPY_MARK = pack(["copy"])


class CopyMark(Struct, frozen=True):
    """What a copy says about itself."""

    #: Of the database that it is a copy of (see `organisation.origin`); None: it is not a copy of anything yet
    origin: str | None
    #: False: it is being filled, or that was interrupted
    complete: bool


async def read(engine: Engine) -> CopyMark | None:
    """The mark of a copy that nobody uses yet; None for any other database."""
    mark, _ = await _read(engine)
    return mark if mark is not None and mark.origin is not None else None


async def _read(engine: Engine) -> tuple[CopyMark | None, int | None]:
    """The mark as it is stored, and its versionstamp, which a write that depends on it checks."""
    entry = await records.read(engine, COPY_MARK)
    if entry is None:
        return None, None
    return msgspec.json.decode(entry.value, type=CopyMark), entry.versionstamp


async def claim(engine: Engine, origin: str) -> int:
    """Mark a database as an incomplete copy of the one with this `origin`. Returns the versionstamp of the mark.

    Raises `Conflicting` if the database has data of its own or is a copy of another one.
    """
    mark, stamp = await _read(engine)
    if mark is not None and mark.origin is not None:
        if mark.origin != origin:
            raise Conflicting(
                "the target database is a copy of another database; nothing was changed: choose an empty one"
            )
        return await _write(engine, CopyMark(origin, complete=False), Check(COPY_MARK, stamp))
    if await _has_records(engine) or await engine.list_spaces(limit=1):
        raise _in_use()
    if stamp is None:
        # Loaded, not written: a write would take a versionstamp and a sequence above those of the entries to come.
        # The mark keeps this place when it is overwritten, and means nothing until then.
        blank = Entry(COPY_MARK, msgspec.json.encode(CopyMark(None, complete=True)), 1, 1, created_at=0)
        await engine.load(SYSTEM_SPACE, [blank])
        stamp = blank.versionstamp
    stamp = await _write(engine, CopyMark(origin, complete=False), Check(FIRST, None), Check(COPY_MARK, stamp))
    if await engine.list_spaces(limit=1):
        # A first start creates its store before its organisation. It fails now, and removes the store.
        await records.write(engine, [Delete(COPY_MARK)], [Check(COPY_MARK, stamp)])
        raise _in_use()
    return stamp


async def _has_records(engine: Engine) -> bool:
    entries = (await engine.page(SYSTEM_SPACE, Query(limit=2, values=False))).entries
    return any(entry.key != COPY_MARK for entry in entries)


async def is_claimed(engine: Engine, stamp: int) -> bool:
    """Whether the mark is still the one that `claim` wrote."""
    return (await _read(engine))[1] == stamp


async def complete(engine: Engine, origin: str, stamp: int) -> None:
    """Mark a claimed database as a complete copy. Raises `Conflicting` if the claim is lost."""
    await _write(engine, CopyMark(origin, complete=True), Check(COPY_MARK, stamp))


async def _write(engine: Engine, mark: CopyMark, *conditions: Check) -> int:
    outcome = await records.write(engine, [Set(COPY_MARK, msgspec.json.encode(mark))], conditions)
    if not isinstance(outcome, Commit):
        raise claim_lost()
    return outcome.versionstamp


async def begin_use(engine: Engine) -> None:
    """Turn a complete copy into an ordinary database, which nothing is copied to any more; leave others as they are.

    Raises `Unavailable` for an incomplete copy.
    """
    while True:
        mark, stamp = await _read(engine)
        if mark is None:
            return
        if not mark.complete:
            raise incomplete()
        if isinstance(await records.write(engine, [Delete(COPY_MARK)], [Check(COPY_MARK, stamp)]), Commit):
            return


async def refuse_incomplete(engine: Engine) -> None:
    """Raise `Unavailable` for an incomplete copy, as `begin_use` does, and change nothing."""
    mark, _ = await _read(engine)
    if mark is not None and not mark.complete:
        raise incomplete()


def _in_use() -> Conflicting:
    return Conflicting(
        "the target database has data of its own, perhaps from a server or a command that has just started to use it;"
        " nothing was changed: choose an empty one"
    )


def claim_lost() -> Conflicting:
    """The failure of a copy whose target somebody else has begun to use."""
    return Conflicting(
        "another program has begun to use the target database; the copy is incomplete and may have been changed"
    )


def incomplete() -> Unavailable:
    """The failure of a server or a command that finds an incomplete copy."""
    return Unavailable(
        "the database is being filled by `kvasir copy` or `kvasir load`, which has not finished or was interrupted:"
        " let it finish, or run it again"
    )
