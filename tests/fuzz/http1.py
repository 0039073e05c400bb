"""HTTP/1.1: no bytes may raise anything, and however they are cut, they must mean the same: the same requests, and a
refusal or none. The last byte of an input says where it is cut.
"""

from __future__ import annotations

import itertools
from typing import Any, cast

from kvasir.limits import Limits
from kvasir.listeners.http.http1 import Http1
from kvasir.listeners.http.request import KnownHeads, Request


class House:
    """Stands in for the listener and the connection of requests."""

    def __init__(self) -> None:
        self.limits = Limits(head_bytes=1_024, head_lines=10, target_bytes=100)
        self.ids = map(str, itertools.count(1))
        self.now = 0.0
        self.held = 0


#: One for all inputs, so that requests are recognised by the heads of earlier ones.
HEADS = KnownHeads(cast("Any", House()))


def meaning(request: Request) -> tuple[Any, ...]:
    body = b"".join(request._chunks)
    return request.method, request.raw_path, request.query, tuple(request.headers.items()), body, request.keep_alive


def fed(pieces: list[bytes]) -> tuple[list[Any], bool]:
    """(the whole requests, whether what follows them was refused)"""
    house: Any = House()
    house.heads = HEADS
    http = Http1(house, house)
    requests: list[Request] = []
    for piece in pieces:
        at_rest = http.receiving is None and http.head_since is None and not http.ended  # as in `Connection`
        if at_rest and (recognised := HEADS.recognise(piece, None)) is not None:
            requests.append(recognised)
            continue
        http.feed(piece)
        requests += http.requests
        http.requests.clear()
    for number, request in enumerate(requests):
        if request.complete and not request.keep_alive:  # nothing that follows is answered
            return [meaning(each) for each in requests[: number + 1] if each.complete], False
    whole = [meaning(request) for request in requests if request.complete]
    broken = any(request._failure is not None for request in requests)
    return whole, http.refusal is not None or broken


def check(data: bytes) -> None:
    text, step = data[:-1], sum(data[-1:]) % 40 + 1
    if len(text) > 1_000:
        return  # where it is cut then decides which of two bounds is met first
    whole = fed([text])
    for pieces in ([text[at : at + 1] for at in range(len(text))], [text[:step], text[step:]]):
        if fed(pieces) != whole:
            raise AssertionError(f"{fed(pieces)} != {whole}")
