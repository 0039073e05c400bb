"""Spaces whose keys are cleared again and again: no entry outlives its period. Pure."""

from __future__ import annotations

import msgspec

from kvasir.model import Delete, DeleteRange, Mutation, Set, Space, Touch


def period_end(space: Space, now: int) -> int | None:
    """When the keys of a space with `clear_every` are cleared next; None for other spaces."""
    if space.clear_every is None:
        return None
    elapsed = max(0, now - space.created_at)
    return space.created_at + (elapsed // space.clear_every + 1) * space.clear_every


def ended(space: Space, since: int, now: int) -> bool:
    """Whether a period has ended since: a write that began then may have been born dead, and is done again."""
    end = period_end(space, since)
    return end is not None and end <= now


def ending(mutation: Mutation, end: int | None, now: int) -> Mutation:
    """The mutation, with nothing that outlives its period."""
    if end is None or isinstance(mutation, Delete | DeleteRange):
        return mutation
    wanted = mutation.expires_at
    if isinstance(mutation, Set) and mutation.ttl is not None:
        wanted = now + mutation.ttl
    expires_at = end if wanted is None else min(wanted, end)
    if isinstance(mutation, Touch):
        return msgspec.structs.replace(mutation, expires_at=expires_at)
    return msgspec.structs.replace(mutation, expires_at=expires_at, ttl=None)
