"""Kvasir's own records: entries of the system space. Reads and writes them; does not know what they mean.

Every write moves the engine's epoch, so a change takes effect at once in every process.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvasir.engine import Engine
from kvasir.errors import KvasirError
from kvasir.keys import prefix_range
from kvasir.model import SYSTEM_SPACE, Commit, Condition, Conflict, Entry, Mutation, Query, Write


async def read(engine: Engine, key: bytes) -> Entry | None:
    """The record with this key."""
    return (await engine.get(SYSTEM_SPACE, [key]))[0]


async def list_kind(engine: Engine, kind: str) -> list[Entry]:
    """The records whose key begins with this part, oldest first."""
    return (await engine.page(SYSTEM_SPACE, Query(range=prefix_range([kind]), order="oldest"))).entries


async def write(
    engine: Engine, mutations: Sequence[Mutation], conditions: Sequence[Condition] = ()
) -> Commit | Conflict:
    """Apply mutations at one instant if all conditions hold. Raises what the engine gives as the write's failure."""
    (outcome,) = await engine.write([Write(SYSTEM_SPACE, tuple(mutations), tuple(conditions))])
    if isinstance(outcome, KvasirError):
        raise outcome
    return outcome
