"""`watch`: the changes of some keys as Server-Sent Events (the HTML standard, section 9.2).

Only the last event of a versionstamp carries an id, so that a client that comes back with `Last-Event-ID` misses none
of a transaction. Nothing is told about the end of a life: `expires_at` has said it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from kvasir.dialects.http import Response, Stream
from kvasir.dialects.native import keytext, listings, problems, rendering, streams
from kvasir.dialects.native.bodies import blame
from kvasir.dialects.native.calls import Call, Services
from kvasir.dialects.native.exporting import members
from kvasir.engine import Watch
from kvasir.errors import KvasirError, Unavailable
from kvasir.keys import pack, parse_versionstamp, under, unpack, versionstamp_text
from kvasir.limits import Limits
from kvasir.model import Change, Changes, KeyRange, Space
from kvasir.store.permissions import only

EVENT_STREAM = "text/event-stream"

#: Proxies that are said to (X-Accel-Buffering is nginx's) pass each event on at once.
HEADERS = (*problems.HEADERS, ("X-Accel-Buffering", "no"))

#: A comment keeps proxies from ending a quiet connection.
COMMENT_SECONDS = 15.0

#: Longer values are not in an event; whoever needs one reads it.
TEXT_BYTES = 65_536

EVERYTHING = KeyRange(b"", b"\xff")

#: No versionstamp is as high, so a client that comes back with what is none is told to read again.
UNKNOWN = (1 << 63) - 1


class Stopping(KvasirError):
    """The server stops: every watch ends with `bye`, at once."""


class Watches:
    """The open watches of this process."""

    def __init__(self) -> None:
        self._open: set[Watch] = set()
        self._stopping = False

    @contextlib.contextmanager
    def joined(self, watch: Watch) -> Iterator[None]:
        """Have a watch told that the server stops. It is closed afterwards."""
        self._open.add(watch)
        try:
            if self._stopping:
                raise Unavailable("the server is stopping; connect to another, or in a moment")
            yield
        finally:
            self._open.discard(watch)
            watch.close()

    def stop(self) -> None:
        """End all, and begin no other."""
        self._stopping = True
        for watch in list(self._open):
            watch.fail(Stopping("the server is stopping"))


async def watch(services: Services, call: Call) -> Response:
    """A stream of events."""
    space = await call.space(services)
    ranges = _ranges(call, services.store.limits)
    chunks = await streams.begin(_events(services, call, space, ranges))
    return Stream(
        200, b"", call.operation.name, headers=HEADERS, content_type=EVENT_STREAM, chunks=chunks, endless=True
    )


def _ranges(call: Call, limits: Limits) -> list[KeyRange]:
    keys = call.query.get("key")
    if keys is None:
        return [listings.range_of(call, limits) or EVERYTHING]
    if "prefix" in call.query or "all" in call.query:
        raise blame("", "key", "contradicts prefix; give one of them")
    packed = [pack(keytext.of_query(text, "key")) for text in keys]
    limits.check_keys(packed)
    return [only(key) for key in sorted(set(packed))]


async def _events(services: Services, call: Call, space: Space, ranges: list[KeyRange]) -> AsyncGenerator[bytes, None]:
    last = call.request.header("last-event-id")
    since = None if not last else parse_versionstamp(last)
    with services.slots.take(call.principal, "watches", services.store.limits.credential_watches):
        watch = await services.store.watch(
            call.principal,
            space,
            ranges,
            since=UNKNOWN if since == -1 else since,
            recheck=lambda: call.authenticate(services),
        )
        with services.watches.joined(watch):
            first = await anext(watch)
            yield _begun("resync" if first.resync else "ready", first.upto) + _told(first.changes, first.upto)
            try:
                async for changes in _or_comments(watch):
                    yield b":\n\n" if changes is None else _changed(changes)
            except Stopping:
                yield b"event: bye\ndata: {}\n\n"
            except KvasirError as error:
                # The response has begun, so this is how its failure is told.
                yield _event("error", problems.problem(error, call.operation.name, call.request.id))


async def _or_comments(watch: Watch) -> AsyncGenerator[Changes | None, None]:
    """What a watch tells; None whenever it has had nothing to tell for a while."""
    pending: asyncio.Future[Changes] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(watch))
            done, _ = await asyncio.wait((pending,), timeout=COMMENT_SECONDS)
            if not done:
                yield None
                continue
            changes, pending = pending, None
            try:
                told = changes.result()
            except StopAsyncIteration:
                return
            yield told
    finally:
        if pending is not None:
            pending.cancel()


def _changed(changes: Changes) -> bytes:
    head = _begun("resync", changes.upto) if changes.resync else b""
    return head + _told(changes.changes, changes.upto)


def _told(changes: list[Change], upto: int) -> bytes:
    events: list[bytes] = []
    for at, change in enumerate(changes):
        following = changes[at + 1].versionstamp if at + 1 < len(changes) else None
        # Up to the last event of a versionstamp, the changes before the next one are told; up to the very last, all.
        id = None if following == change.versionstamp else upto if following is None else change.versionstamp
        events.append(_event(*_said(change), id))
    return b"".join(events)


def _said(change: Change) -> tuple[str, dict[str, Any] | bytes]:
    """The name of an event, and its data."""
    stamp = versionstamp_text(change.versionstamp)
    if change.kind == "delete_range":
        return _range_said(change, stamp)
    key = unpack(change.key)
    if change.entry is None:
        return "delete", {"key": key, "versionstamp": stamp}
    if change.kind == "expiry":
        return "expiry", {
            "key": key,
            "expires_at": rendering.instant(change.entry.expires_at),
            "versionstamp": versionstamp_text(change.entry.versionstamp),
        }
    return "set", b"{%b}" % members(change.entry, text=len(change.entry.value) <= TEXT_BYTES)


def _range_said(change: Change, stamp: str) -> tuple[str, dict[str, Any]]:
    start, end = change.key, change.end or b""
    if end == start + b"\x00":
        return "delete", {"key": unpack(start), "versionstamp": stamp}
    if not start and end >= b"\xff":
        return "delete_prefix", {"prefix": [], "versionstamp": stamp}
    if start.endswith(b"\x00") and end == under(start).end:
        return "delete_prefix", {"prefix": unpack(start), "versionstamp": stamp}
    # Another API removes keys whose first part begins with a text, or the watched part of such a range is odd.
    return "resync", {"versionstamp": stamp}


def _begun(name: str, upto: int) -> bytes:
    return _event(name, {"versionstamp": versionstamp_text(upto)}, upto)


def _event(name: str, data: dict[str, Any] | bytes, id: int | None = None) -> bytes:
    text = data if isinstance(data, bytes) else rendering.json(data)
    return b"%bevent: %b\ndata: %b\n\n" % (
        b"" if id is None else b"id: %020x\n" % id,
        name.encode(),
        text,
    )
