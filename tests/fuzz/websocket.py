"""Frames of WebSockets at a listener, over a real socket: whole or in pieces, they get the same replies.

Before a frame that breaks the protocol there may be fewer: picows does not deliver what it has read together with one.

An input is a row of frames: a byte as in a frame's head (FIN, reserved bits, opcode), a byte with the length of the
payload, the payload; behind a byte 0xFF the payload is sent as it is, without a head. The last byte of the input says
where the bytes are cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

from kvasir.limits import WebSocketLimits
from kvasir.listeners.websocket import WebSocketListener
from tests.fuzz import Ears
from tests.fuzz.messages import new_dialect
from tests.support.nemesis import frame

LIMITS = WebSocketLimits(max_payload=300, message_seconds=60.0, unfinished_bytes=2_000)

EARS = Ears()
LOOP = asyncio.new_event_loop()

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)

RAW, PONG, CLOSE = 0xFF, 0x8A, 0x88

#: Close codes for clients that break the protocol
BROKEN = (1002, 1007, 1009)


def check(data: bytes) -> None:
    text, step = b"".join(frames(data[:-1])), sum(data[-1:]) % 40 + 1
    whole = LOOP.run_until_complete(told([text]))
    pieces = LOOP.run_until_complete(told([text[at : at + step] for at in range(0, len(text), step)]))
    EARS.check()
    if whole is None or pieces is None or whole == pieces:
        return
    # A pong is sent at once, ahead of replies to messages before its ping.
    expected, got = (sorted(frames_from(each), key=lambda frame: frame[0] != PONG) for each in (whole, pieces))
    if expected == got:
        return
    # The client closes its side right behind all that, which the listener may notice before it has closed, too.
    closed = [bool(each) and each[-1][0] == CLOSE for each in (expected, got)]
    assert closed.count(True) == 1 or any(is_refusal(each[-1]) for each in (expected, got) if each), (whole, pieces)
    fewer, more = sorted((expected[: -closed[0] or None], got[: -closed[1] or None]), key=len)
    rest = iter(more)
    assert all(each in rest for each in fewer if each[0] != PONG), (whole, pieces)


def is_refusal(frame: bytes) -> bool:
    """Whether it closes the connection because the client broke the protocol."""
    return frame[0] == CLOSE and int.from_bytes(frame[2:4], "big") in BROKEN


def frames(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + 1 < len(data):
        head, length = data[at], data[at + 1]
        payload = data[at + 2 : at + 2 + length]
        at += 2 + length
        if head == RAW:
            yield payload
        else:
            yield frame(head & 15, payload, final=bool(head & 0x80), reserved=head >> 4 & 7)


def frames_from(data: bytes) -> Iterator[bytes]:
    """The frames of a server, with their heads."""
    at = 0
    while at < len(data):
        length, start = data[at + 1] & 127, at + 2
        if length > 125:
            start += 2 if length == 126 else 8
            length = int.from_bytes(data[at + 2 : start], "big")
        yield data[at : start + length]
        at = start + length


class Collector(asyncio.Protocol):
    """Whoever listens to the listener."""

    def __init__(self) -> None:
        self.data = b""
        self.upgraded: asyncio.Future[None] = LOOP.create_future()
        self.ended: asyncio.Future[bool] = LOOP.create_future()

    def data_received(self, data: bytes) -> None:
        self.data += data
        if b"\r\n\r\n" in self.data and not self.upgraded.done():
            self.upgraded.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set_result(error is None)


async def told(pieces: list[bytes]) -> bytes | None:
    """All that the listener sends to somebody who sends these pieces, and then nothing more.

    None: nobody knows, since the listener did not wait for the last of them, so the system may have dropped some.
    """
    listener = WebSocketListener(new_dialect(), LIMITS)
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    await listener.start(listening)
    transport, collector = await LOOP.create_connection(Collector, "127.0.0.1", port)
    try:
        async with asyncio.timeout(20):
            transport.write(UPGRADE)
            await collector.upgraded
            for piece in pieces:
                transport.write(piece)
                await asyncio.sleep(0)
            with contextlib.suppress(OSError):  # the listener may have cut the connection
                transport.write_eof()
            whole = await collector.ended
    finally:
        transport.abort()
        await listener.stop(0)
    head, _, data = collector.data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    return data if whole else None
