"""Sliding lives: reading an entry that was set with `refresh` starts its life afresh."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from kvasir.engine import Engine
from kvasir.errors import KvasirError, Unavailable
from kvasir.limits import Limits
from kvasir.model import Check, Commit, Entry, Space, Touch, Write
from kvasir.store.clearing import next_clear

#: Rounds of read and touch before an entry that changes all the time is given up.
ROUNDS = 100


async def extend_lives(
    engine: Engine,
    time_in: Callable[[Space], int],
    limits: Limits,
    space: Space,
    keys: Sequence[bytes],
    entries: list[Entry | None],
) -> list[Entry | None]:
    """Extend the life of those entries that were set with `refresh`; returns the entries of these keys afterwards.

    Durable before it returns, since the response promises the new expiry.
    """
    for _ in range(ROUNDS):
        now = time_in(space)
        clear_at = next_clear(space, now)
        due = {entry.key: entry for entry in entries if entry is not None and entry.slides}
        expiries = {key: now + (entry.refresh or 0) for key, entry in due.items()}
        if clear_at is not None:
            expiries = {key: min(expiry, clear_at) for key, expiry in expiries.items()}
        outcomes = await engine.write(
            [
                Write(
                    space.number,
                    (Touch(key, expiries[key], extend=True),),
                    (Check(key, entry.versionstamp),),
                )
                for key, entry in due.items()
            ]
        )
        for outcome in outcomes:
            if isinstance(outcome, KvasirError):
                raise outcome
        if all(isinstance(outcome, Commit) for outcome in outcomes):
            return [
                msgspec.structs.replace(entry, expires_at=max(expiries[entry.key], entry.expires_at or 0))
                if entry is not None and entry.key in expiries
                else entry
                for entry in entries
            ]
        # One has been replaced, removed or has expired since: read them all again, in one snapshot.
        entries = await engine.get(space.number, keys, limits.batch_answer_bytes)
        if not any(entry is not None and entry.slides for entry in entries):
            return entries
    raise Unavailable("the entry changes faster than its expiry can be extended; try again")
