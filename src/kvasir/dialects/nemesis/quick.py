"""Reads that need no waiting: most of them, and a coroutine each would cost as much as they do. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kvasir.dialects.nemesis import wire
from kvasir.dialects.nemesis.intake import Begun, begin
from kvasir.dialects.nemesis.profiles import Profile
from kvasir.dialects.nemesis.talk import Command, Talk
from kvasir.keys import pack


def answer(
    talk: Talk, profile: Profile, messages: Sequence[bytes | None], max_depth: int, started: float
) -> tuple[list[bytes], dict[str, int], Begun | None]:
    """The replies to the reads at the head of `messages`, how many there are of each command, and the message behind
    them, if it has been looked at."""
    frames: list[bytes] = []
    counts: dict[str, int] = {}
    if talk.store.refresh_now() is None:
        return frames, counts, None
    commands = profile.commands
    for message in messages:
        if message is None:
            break
        try:
            value = wire.parse(message, max_depth)
        except (wire.NotText, wire.Malformed):
            break
        if value.__class__ is dict and len(value) == 1:
            ((name, body),) = value.items()
            command = commands.get(name)
            if command is not None and command.shown is not None and body.__class__ is dict:
                frame = _shown(talk, profile, command, body)
                if frame is not None:
                    frames.append(frame)
                    counts[name] = counts.get(name, 0) + 1
                    continue
        return frames, counts, begin(profile, value, started)
    return frames, counts, None


def _shown(talk: Talk, profile: Profile, command: Command, body: dict[str, Any]) -> bytes | None:
    """The reply, or None for a command that must wait, or fails: that is not for here."""
    if command.shape.fault(body) is not None:
        return None
    try:
        space = profile.cached(talk, body)
        if space is None:
            return None
        names = [name for name in body["keys"] if name.__class__ is str]
        if len(names) == 1:
            entries = talk.store.get_now(talk.principal, space, (pack(names),))
        elif not names or len(names) > talk.store.limits.batch_keys:
            return None
        else:
            entries = talk.store.get_now(talk.principal, space, [pack((name,)) for name in names])
            if entries and sum(len(e.value) for e in entries if e is not None) > talk.bounds.reply_bytes:
                return None
        return None if entries is None else command.shown(body, names, entries)  # type: ignore[misc]
    except Exception:
        return None  # and fails again, where it is told
