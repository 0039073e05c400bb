"""Spaces whose keys are cleared again and again: no entry may outlive the next time. Pure."""

from __future__ import annotations

import msgspec

from kvasir.model import Delete, DeleteRange, Mutation, Set, Space, Touch


def next_clear(space: Space, now: int) -> int | None:
    """When the keys of a space with `clear_every` are cleared next; None for other spaces."""
    if space.clear_every is None:
        return None
    elapsed = max(0, now - space.created_at)
    return space.created_at + (elapsed // space.clear_every + 1) * space.clear_every


def was_cleared_since(space: Space, since: int, now: int) -> bool:
    """Whether the keys have been cleared: a write that began before may have expired at once, so it is repeated."""
    clear_at = next_clear(space, since)
    return clear_at is not None and clear_at <= now


def clamp_expiry(mutation: Mutation, clear_at: int | None, now: int) -> Mutation:
    """The mutation, changed so that no entry lives longer than until `clear_at`."""
    if clear_at is None or isinstance(mutation, Delete | DeleteRange):
        return mutation
    wanted = mutation.expires_at
    if isinstance(mutation, Set) and mutation.ttl is not None:
        wanted = now + mutation.ttl
    expires_at = clear_at if wanted is None else min(wanted, clear_at)
    if isinstance(mutation, Touch):
        return msgspec.structs.replace(mutation, expires_at=expires_at)
    return msgspec.structs.replace(mutation, expires_at=expires_at, ttl=None)
