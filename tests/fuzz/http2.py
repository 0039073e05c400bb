"""Fuzzes HTTP/2: `nice -n 19 python -m tests.fuzz.http2 DIRECTORY tests/fuzz/seeds/http2 -max_total_time=300`.

Needs `pip install atheris`. What it finds goes to DIRECTORY. No bytes behind the preface may raise anything, and
however they are cut, they must mean the same: the same end of the connection, and the same requests in the same order.
Read whole, there may be fewer: those that are reset further on, and those before the end of the connection.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import atheris

with atheris.instrument_imports(include=["kvasir.listeners", "h2", "hpack", "hyperframe"]):
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
    if not house.ended:
        http.look_after(1_000.0, idle=False)
    if house.held:
        raise AssertionError("bytes are held that nobody asked for")
    requests = [(each.method, each.raw_path, each.query, tuple(each._headers.items())) for each in house.requests]
    return requests, house.ended


def test_one_input(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    step = provider.ConsumeIntInRange(1, 40)
    text = provider.ConsumeBytes(len(data))
    whole = fed([text])
    for pieces in ([text[at : at + 1] for at in range(len(text))], [text[:step], text[step:]]):
        requests, ended = fed(pieces)
        rest = iter(requests)
        if ended != whole[1] or not all(request in rest for request in whole[0]):
            raise AssertionError(f"{(requests, ended)} != {whole}")


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()
