"""HTTP/2: no bytes behind the preface may raise anything, and however they are cut, they must mean the same: the same
end of the connection, and the same requests in the same order. The last byte of an input says where it is cut.

Read whole, there may be fewer requests: without those that are reset further on, or come before the connection's end.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from kvasir.dialects.http import Response
from kvasir.limits import Limits
from kvasir.listeners.http.http2 import PREFACE, Http2


class House:
    """Stands in for the listener and the connection; answers every second request at once."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.ids = map(str, itertools.count(1))
        self.now = 0.0
        self.date = b"Thu, 01 Jan 1970 00:00:00 GMT"
        self.draining = False
        self.held = self.unread = 0
        self.requests: list[Any] = []
        self.ended = False

    def handle(self, request: Any) -> None:
        self.requests.append(request)
        if len(self.requests) % 2:
            request.owner.answer(request, Response(200, b"x" * 100, "Op"))

    def write(self, data: bytes) -> None:
        pass

    def has_room(self) -> bool:
        return True

    def count_unread(self, size: int) -> None:
        self.unread = size

    def soon(self, work: Callable[[], None]) -> None:
        work()

    def finish(self) -> None:
        self.ended = True


def fed(pieces: list[bytes]) -> tuple[Any, ...]:
    house: Any = House()
    http = Http2(house, house)
    for piece in [PREFACE, *pieces]:
        if not house.ended:
            http.feed(piece)
        while http.requests:
            http.handle_next()
    if not house.ended:
        http.look_after(1_000.0, idle=False)
    if house.held:
        raise AssertionError("bytes are held that nobody asked for")
    requests = [(each.method, each.raw_path, each.query, tuple(each.headers.items())) for each in house.requests]
    return requests, house.ended


def check(data: bytes) -> None:
    text, step = data[:-1], sum(data[-1:]) % 40 + 1
    whole = fed([text])
    for pieces in ([text[at : at + 1] for at in range(len(text))], [text[:step], text[step:]]):
        requests, ended = fed(pieces)
        rest = iter(requests)
        if ended != whole[1] or not all(request in rest for request in whole[0]):
            raise AssertionError(f"{(requests, ended)} != {whole}")
