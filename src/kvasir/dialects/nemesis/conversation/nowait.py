"""Commands that need no waiting: most reads, and where nothing is made durable, writes. A coroutine each would cost as
much as they do. Pure."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from kvasir.dialects.nemesis.commands.context import Command, Talk
from kvasir.dialects.nemesis.commands.profiles import Profile
from kvasir.dialects.nemesis.conversation.requests import Begun, begin, told
from kvasir.dialects.nemesis.frames import Malformed, NotText, parse
from kvasir.engine import Outcome
from kvasir.errors import KvasirError
from kvasir.keys import pack

log = logging.getLogger(__name__)

#: How a command went, for metrics, and its reply, if it has one.
Went = tuple[str, bytes | None]


def answer(
    talk: Talk, profile: Profile, messages: Sequence[bytes | None], max_depth: int, started: float
) -> tuple[int, list[bytes], dict[tuple[str, str], int], Begun | None]:
    """Carry out the commands at the head of `messages` that need no waiting.

    Returns how many there were, their replies, how often which command went how, and the message behind them, if it
    has been looked at.
    """
    done = 0
    frames: list[bytes] = []
    counts: dict[tuple[str, str], int] = {}
    if talk.store.refresh_nowait() is None:
        return done, frames, counts, None
    # Writes that come together share a call to the store; see `Conversation`.
    may_write = len(messages) == 1 and not talk.store.writes_wait
    for message in messages:
        if message is None:
            break
        try:
            value = parse(message, max_depth)
        except (NotText, Malformed):
            break
        went = _carry_out(talk, profile, value, may_write)
        if went is None:
            return done, frames, counts, begin(profile, value, started)
        (name,) = value
        outcome, frame = went
        if frame is not None:
            frames.append(frame)
        counts[name, outcome] = counts.get((name, outcome), 0) + 1
        done += 1
    return done, frames, counts, None


def _carry_out(talk: Talk, profile: Profile, value: Any, may_write: bool) -> Went | None:
    """None for a command that must wait, or fails, or is none: that is not for here."""
    if value.__class__ is not dict or len(value) != 1:
        return None
    ((name, body),) = value.items()
    command = profile.commands.get(name)
    if command is None or body.__class__ is not dict:
        return None
    if command.shown is not None:
        carry_out = _shown
    elif may_write and command.writes is not None:
        carry_out = _written
    else:
        return None
    return None if command.shape.fault(body) is not None else carry_out(talk, profile, command, body)


def _shown(talk: Talk, profile: Profile, command: Command, body: dict[str, Any]) -> Went | None:
    try:
        space = profile.cached(talk, body)
        if space is None:
            return None
        names = [name for name in body["keys"] if name.__class__ is str]
        if len(names) == 1:
            entries = talk.store.get_nowait(talk.principal, space, (pack(names),))
        elif not names or len(names) > talk.store.limits.batch_keys:
            return None
        else:
            entries = talk.store.get_nowait(talk.principal, space, [pack((name,)) for name in names])
            if entries and sum(len(e.value) for e in entries if e is not None) > talk.limits.reply_bytes:
                return None
        return None if entries is None else ("ok", command.shown(body, names, entries))  # type: ignore[misc]
    except Exception:
        return None  # and fails again, where it is told


def _written(talk: Talk, profile: Profile, command: Command, body: dict[str, Any]) -> Went | None:
    store = talk.store
    try:
        space = profile.cached(talk, body)
        if space is None:
            return None
        writes = command.writes(space.number, store.limits.batch_keys, body)  # type: ignore[misc]
    except Exception:
        return None  # and fails again, where it is told
    if sum([len(write.mutations) for write in writes]) > store.limits.batch_keys:
        return None
    outcomes: Sequence[Outcome] | None
    try:
        outcomes = store.write_many_nowait(talk.principal, space, writes)
    except KvasirError:
        return None  # the caller may not write
    except Exception:
        log.exception("writing failed")
        outcomes = [KvasirError("")] * len(writes)
    return None if outcomes is None else told(profile, Begun(command, body, 0.0), outcomes)
