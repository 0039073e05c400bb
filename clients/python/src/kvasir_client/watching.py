"""Watching, as steps: Server-Sent Events, and coming back after a lost connection. Does no I/O."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from kvasir_client.answers import Retries, exchange, told, unreadable
from kvasir_client.entries import Event, entry_with_text
from kvasir_client.errors import KvasirError
from kvasir_client.times import instant
from kvasir_client.wire import Give, Lost, Open, Pause, Read, Request, Steps

EVENT_STREAM = "text/event-stream"

#: The server sends a comment every 15 s; after this much silence the connection counts as lost.
SILENCE = 45.0

#: Seconds between attempts to come back grow to this.
LONGEST_PAUSE = 5.0


def watch(request: Request, retries: Retries) -> Steps[None]:
    """Gives events, for ever: a lost connection is made again, and what was missed is told, or "resync" says so.

    Raises a `KvasirError` that is no passing one: the access key has been revoked, the store has ended.
    """
    last = ""
    attempt = 0
    while True:
        headers = {"Accept": EVENT_STREAM} | ({"Last-Event-ID": last} if last else {})
        again = Request(request.method, request.path, request.query, headers)
        try:
            answer = yield from exchange(again, retries, send=Open(again, SILENCE, events=True))
            if not answer.headers.get("content-type", "").startswith(EVENT_STREAM):
                raise unreadable(answer, again)
            while (message := (yield Read())) is not None:
                if message.event == "error":
                    raise told(message.data)
                event = event_of(message.event, message.data)
                if event is not None:
                    attempt = 0
                    yield Give(event)
                last = message.id or last
        except Lost:
            pass
        except KvasirError as error:
            # The first connection must succeed; afterwards a server may be away for as long as it takes.
            if not last or not (error.retryable or (error.status or 0) >= 500):
                raise
        attempt += 1
        yield Pause(min(retries.pause(min(attempt, 10)), LONGEST_PAUSE))


def event_of(kind: str, text: str) -> Event | None:
    """What a Server-Sent Event says; None for one of a kind that is not known. Raises `KvasirError`."""
    try:
        data = json.loads(text) if text else {}
        if kind == "set":
            return _set(data, text)
        look = _KINDS.get(kind)
        return look(data) if look else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        raise KvasirError("an event of the stream cannot be read: is this the address of a Kvasir server?") from None


def _set(data: Any, text: str) -> Event:
    entry = entry_with_text(text) if "text" in data else None
    return Event("set", tuple(data["key"]), entry, data["versionstamp"])


_KINDS: dict[str, Callable[[Any], Event]] = {
    "ready": lambda data: Event("ready", versionstamp=data.get("versionstamp")),
    "delete": lambda data: Event("delete", tuple(data["key"]), versionstamp=data.get("versionstamp")),
    "delete_prefix": lambda data: Event("delete_prefix", tuple(data["prefix"]), versionstamp=data.get("versionstamp")),
    "expiry": lambda data: Event(
        "expiry",
        tuple(data["key"]),
        versionstamp=data.get("versionstamp"),
        expires_at=instant(data["expires_at"]) if data["expires_at"] else None,
    ),
    "resync": lambda data: Event("resync", versionstamp=data.get("versionstamp")),
}
