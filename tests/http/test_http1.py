"""HTTP/1.1 as protocol code: what strict and sloppy clients and attackers send, whole, byte by byte, and with a tail.

The cases are those of RFC 9112, and of the test suites of h11 and llhttp.
"""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvasir.dialects.http import Response
from kvasir.limits import Limits
from kvasir.listeners.http.connection import render
from kvasir.listeners.http.http1 import Http1
from kvasir.listeners.http.request import KnownHeads, Request

LIMITS = Limits(head_bytes=1_000, head_lines=20, target_bytes=500)
TAIL = b"GET /tail HTTP/1.1\r\nHost: t\r\n\r\n"


class House:
    """Stands in for the listener and the connection of requests."""

    def __init__(self) -> None:
        self.limits = LIMITS
        self.ids = map(str, itertools.count(1))
        self.now = 1.0
        self.held = 0


#: One for all tests, so that requests are recognised by the heads of earlier ones.
HEADS = KnownHeads(cast("Any", House()))


def http1() -> Http1:
    house: Any = House()
    house.heads = HEADS
    return Http1(house, house)


def body_of(request: Request) -> bytes:
    return b"".join(request._chunks)


def fed(*pieces: bytes) -> tuple[list[Any], int | None]:
    """(method, path, query, body, whether the connection goes on) of each whole request; the status of a refusal."""
    http = http1()
    requests: list[Request] = []
    for piece in pieces:
        at_rest = http.receiving is None and http.head_since is None and not http.ended  # as in `Connection`
        if at_rest and (recognised := HEADS.recognise(piece, None)) is not None:
            requests.append(recognised)
            continue
        http.feed(piece)
        requests += http.requests
        http.requests.clear()
    status = http.refusal[0] if http.refusal is not None else None
    if requests and not requests[-1].complete:
        assert status is None
        if requests.pop()._failure is not None:
            status = 400
    assert all(request.complete for request in requests)
    return [(each.method, each.raw_path, each.query, body_of(each), each.keep_alive) for each in requests], status


def each_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def get(*lines: str, first: str = "GET /a HTTP/1.1", host: bool = True) -> bytes:
    head = [first, *(["Host: h"] if host else []), *lines]
    return "".join(line + "\r\n" for line in [*head, ""]).encode("latin-1")


def put(*lines: str, body: bytes = b"") -> bytes:
    return get(*lines, first="PUT /a HTTP/1.1") + body


CHUNKED = "Transfer-Encoding: chunked"

# ruff: noqa: E501
#: What is served: its bytes, and method, path, query, body and whether the connection goes on.
GOOD: dict[str, tuple[bytes, tuple[str, str, str, bytes, bool]]] = {
    "plain": (get(), ("GET", "/a", "", b"", True)),
    "empty lines before the request": (b"\r\n\r\n" + get(), ("GET", "/a", "", b"", True)),
    "query": (get(first="GET /a?b=c&d HTTP/1.1"), ("GET", "/a", "b=c&d", b"", True)),
    "absolute form": (get(first="GET http://h:1/a/b?c HTTP/1.1"), ("GET", "/a/b", "c", b"", True)),
    "absolute form without a path": (get(first="GET http://h HTTP/1.1"), ("GET", "/", "", b"", True)),
    "asterisk form": (get(first="OPTIONS * HTTP/1.1"), ("OPTIONS", "*", "", b"", True)),
    "names in capitals": (get("CONNECTION: CLOSE"), ("GET", "/a", "", b"", False)),
    "close": (get("Connection: close"), ("GET", "/a", "", b"", False)),
    "close among others": (get("Connection: x, close"), ("GET", "/a", "", b"", False)),
    "two Connection lines": (get("Connection: keep-alive", "Connection: Upgrade", "Upgrade: h2c"), ("GET", "/a", "", b"", True)),
    "upgrade with chunks": (put("Connection: Upgrade", "Upgrade: h2c", CHUNKED, body=b"2\r\nab\r\n0\r\n\r\n"), ("PUT", "/a", "", b"ab", True)),
    "upgrade and close": (put("Connection: close, Upgrade", "Upgrade: h2c", "Content-Length: 2", body=b"ab"), ("PUT", "/a", "", b"ab", False)),
    "upgrade that is not taken": (get("Connection: Upgrade", "Upgrade: websocket"), ("GET", "/a", "", b"", True)),
    "upgrade with a body": (put("Connection: Upgrade", "Upgrade: h2c", "Content-Length: 2", body=b"ab"), ("PUT", "/a", "", b"ab", True)),
    "HTTP/1.0": (get(first="GET /a HTTP/1.0"), ("GET", "/a", "", b"", False)),
    "HTTP/1.0 without a host": (get(first="GET /a HTTP/1.0", host=False), ("GET", "/a", "", b"", False)),
    "HTTP/1.0 that goes on": (get("Connection: keep-alive", first="GET /a HTTP/1.0"), ("GET", "/a", "", b"", True)),
    "no space after the colon": (get("X:1"), ("GET", "/a", "", b"", True)),
    "spaces around a value": (get("X:  \t1 \t "), ("GET", "/a", "", b"", True)),
    "empty value": (get("X:"), ("GET", "/a", "", b"", True)),
    "bytes beyond ASCII in a value": (get("X: \xff"), ("GET", "/a", "", b"", True)),
    "length": (put("Content-Length: 3", body=b"abc"), ("PUT", "/a", "", b"abc", True)),
    "length 0": (put("Content-Length: 0"), ("PUT", "/a", "", b"", True)),
    "length with zeros in front": (put("Content-Length: 003", body=b"abc"), ("PUT", "/a", "", b"abc", True)),
    "a body of a GET": (get("Content-Length: 1") + b"x", ("GET", "/a", "", b"x", True)),
    "no length, no body": (put(), ("PUT", "/a", "", b"", True)),
    "chunks": (put(CHUNKED, body=b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), ("PUT", "/a", "", b"abcde", True)),
    "chunks in capitals": (put("Transfer-Encoding: CHUNKED", body=b"A\r\n0123456789\r\n0\r\n\r\n"), ("PUT", "/a", "", b"0123456789", True)),
    "no chunk": (put(CHUNKED, body=b"0\r\n\r\n"), ("PUT", "/a", "", b"", True)),
    "chunk size with zeros": (put(CHUNKED, body=b"0003\r\nabc\r\n000\r\n\r\n"), ("PUT", "/a", "", b"abc", True)),
    "chunk extension": (put(CHUNKED, body=b'3;a=b;c="d e"\r\nabc\r\n0;e\r\n\r\n'), ("PUT", "/a", "", b"abc", True)),
    "trailer": (put(CHUNKED, body=b"1\r\na\r\n0\r\nX-Sum: 1\r\nHost: i\r\n\r\n"), ("PUT", "/a", "", b"a", True)),
    "as many lines as may be": (get(*["X: 1"] * 19), ("GET", "/a", "", b"", True)),
    "as long a target as may be": (get(first=f"GET /{'x' * 499} HTTP/1.1"), ("GET", "/" + "x" * 499, "", b"", True)),
}  # fmt: skip

#: What is refused, and how.
BAD: dict[str, tuple[bytes, int]] = {
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "HTTP/2.0": (get(first="GET / HTTP/2.0"), 505),
    "HTTP/1.2": (get(first="GET / HTTP/1.2"), 400),
    "no such version": (get(first="GET / HTTP/9.9"), 400),
    "lower-case version": (get(first="GET / http/1.1"), 400),
    "no method": (get(first=" / HTTP/1.1"), 400),
    "unknown method": (get(first="FROB / HTTP/1.1"), 400),
    "lower-case method": (get(first="get / HTTP/1.1"), 400),
    "no target": (get(first="GET  HTTP/1.1"), 400),
    "control character in the target": (get(first="GET /a\x01 HTTP/1.1"), 400),
    "DEL in the target": (get(first="GET /\x7f HTTP/1.1"), 400),
    "bytes beyond ASCII in the target": (get(first="GET /\xff HTTP/1.1"), 400),
    "space in the target": (get(first="GET /a b HTTP/1.1"), 400),
    "tunnel": (get(first="CONNECT h:80 HTTP/1.1"), 405),
    "no host": (get(host=False), 400),
    "two hosts": (get("Host: i"), 400),
    "the same host twice": (get("Host: h"), 400),
    "two hosts in HTTP/1.0": (get("Host: i", first="GET / HTTP/1.0"), 400),
    "bare line feeds": (get().replace(b"\r\n", b"\n"), 400),
    "bare line feed after a header": (get("X: 1").replace(b"X: 1\r", b"X: 1"), 400),
    "bare line feed at the end of the head": (get()[:-2] + b"\n", 400),
    "bare carriage return in a value": (get("X: a\rb"), 400),
    "space before the colon": (get("X : 1"), 400),
    "tab in a name": (get("X\ty: 1"), 400),
    "no name": (get(": 1"), 400),
    "no colon": (get("X"), 400),
    "NUL in a value": (get("X: \0"), 400),
    "control character in a value": (get("X: \x01"), 400),
    "folded header": (get("X: 1", " 2"), 400),
    "folded first header": (b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400),
    "length and chunks": (put("Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"), 400),
    "chunks and length": (put(CHUNKED, "Content-Length: 5", body=b"0\r\n\r\n"), 400),
    "two lengths": (put("Content-Length: 1", "Content-Length: 2", body=b"ab"), 400),
    "the same length twice": (put("Content-Length: 1", "Content-Length: 1", body=b"a"), 400),
    "list of lengths": (put("Content-Length: 1, 1", body=b"a"), 400),
    "length with a sign": (put("Content-Length: +1", body=b"a"), 400),
    "negative length": (put("Content-Length: -1"), 400),
    "length in letters": (put("Content-Length: ten"), 400),
    "hexadecimal length": (put("Content-Length: 0x1", body=b"a"), 400),
    "length with a space inside": (put("Content-Length: 1 1", body=b"a" * 11), 400),
    "empty length": (put("Content-Length:"), 400),
    "length beyond 64 bits": (put("Content-Length: 99999999999999999999999"), 400),
    "unknown transfer coding": (put("Transfer-Encoding: gzip"), 501),
    "transfer coding before chunks": (put("Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
    "chunks before a transfer coding": (put("Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"), 400),
    "chunks twice": (put("Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"), 400),
    "two transfer codings": (put(CHUNKED, CHUNKED, body=b"0\r\n\r\n"), 400),
    "something like chunks": (put("Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), 501),
    "quoted chunks": (put('Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"), 501),
    "chunks in HTTP/1.0": (get(CHUNKED, first="PUT /a HTTP/1.0") + b"0\r\n\r\n", 501),
    "chunk size with a prefix": (put(CHUNKED, body=b"0x1\r\na\r\n0\r\n\r\n"), 400),
    "chunk size with a sign": (put(CHUNKED, body=b"+1\r\na\r\n0\r\n\r\n"), 400),
    "chunk size with a space": (put(CHUNKED, body=b"1 \r\na\r\n0\r\n\r\n"), 400),
    "chunk size with a space in front": (put(CHUNKED, body=b" 1\r\na\r\n0\r\n\r\n"), 400),
    "no chunk size": (put(CHUNKED, body=b"\r\na\r\n0\r\n\r\n"), 400),
    "chunk size beyond 64 bits": (put(CHUNKED, body=b"fffffffffffffffff\r\na\r\n"), 400),
    "bare line feed after a chunk size": (put(CHUNKED, body=b"1\na\r\n0\r\n\r\n"), 400),
    "no line end after a chunk": (put(CHUNKED, body=b"1\r\naX0\r\n\r\n"), 400),
    "bare line feed after a chunk": (put(CHUNKED, body=b"1\r\na\n0\r\n\r\n"), 400),
    "bare line feed in an extension": (put(CHUNKED, body=b"1;a\nb\r\na\r\n0\r\n\r\n"), 400),
    "chunk that is longer than it says": (put(CHUNKED, body=b"1\r\nab\r\n0\r\n\r\n"), 400),
    "one line too many": (get(*["X: 1"] * 20), 431),
    "head too long": (get("X: " + "x" * 1_000), 431),
    "target too long": (get(first=f"GET /{'x' * 500} HTTP/1.1"), 414),
    "two authorizations": (get("Authorization: a", "Authorization: b"), 400),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_served(name: str) -> None:
    data, expected = GOOD[name]
    for pieces in ([data], each_byte(data)):
        assert fed(*pieces) == ([expected], None)
    # What follows is a request of its own, unless the connection was to end.
    tail = [("GET", "/tail", "", b"", True)] if expected[-1] else []
    for pieces in ([data + TAIL], each_byte(data + TAIL), [data, TAIL]):
        assert fed(*pieces) == ([expected, *tail], None)


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(name: str) -> None:
    data, status = BAD[name]
    for pieces in ([data], each_byte(data), [data + TAIL], each_byte(data + TAIL)):
        requests, refused = fed(*pieces)
        assert (requests, refused) == ([], status)
    # Good requests before it are served.
    assert fed(TAIL + data) == ([("GET", "/tail", "", b"", True)], status)


def test_repeatedheaders_are_one_list_and_cookies_one_line() -> None:
    http = http1()
    http.feed(get("X: 1", "x: 2", "Cookie: a=b", "cookie: c=d"))
    assert http.requests[0].headers == {"host": "h", "x": "1, 2", "cookie": "a=b; c=d"}


def test_a_trailer_is_no_header() -> None:
    http = http1()
    http.feed(put(CHUNKED, body=b"0\r\nAuthorization: x\r\n\r\n"))
    assert http.requests[0].header("authorization") is None


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\nx"])
def test_an_endless_head_is_refused(start: bytes) -> None:
    http = http1()
    http.feed(start)
    for _ in range(150):
        http.feed(b"x" * 10)
    assert http.refusal is not None
    assert http.refusal[0] in (414, 431)


@pytest.mark.parametrize("start", [b"0\r\nX: ", b"0\r\nX", b"1;x", b"1\r\na\r\n1;x="])
def test_an_endless_trailer_or_extension_ends_the_request(start: bytes) -> None:
    http = http1()
    http.feed(put(CHUNKED, body=start))
    (request,) = http.requests
    for _ in range(150):
        http.feed(b"x" * 10)
    assert request._failure is not None
    assert http.ended


def test_a_body_in_crumbs_takes_little_more_memory_than_its_bytes() -> None:
    http, many = http1(), 100_000
    http.feed(put(CHUNKED))
    tracemalloc.start()
    try:
        for _ in range(many // 1_000):
            http.feed(b"2\r\nab\r\n" * 1_000)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken < 2 * 2 * many
    http.feed(b"5000\r\n%b\r\n1\r\nc\r\n0\r\n\r\n" % (b"x" * 0x5000))
    assert body_of(http.requests[0]) == b"ab" * many + b"x" * 0x5000 + b"c"


def test_an_endless_row_of_short_trailers_ends_the_request() -> None:
    http = http1()
    http.feed(put(CHUNKED, body=b"0\r\n"))
    for _ in range(300):
        http.feed(b"X: 1\r\n")
    assert http.requests[0]._failure is not None


@given(st.sampled_from(sorted(GOOD)), st.sampled_from(sorted({**GOOD, **BAD})), st.data())
def test_however_it_is_cut_it_means_the_same(first: str, second: str, data: st.DataObject) -> None:
    whole = GOOD[first][0] + {**GOOD, **BAD}[second][0]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert fed(*pieces) == fed(whole)


@pytest.mark.parametrize("name", GOOD)
def test_a_head_that_is_known_means_what_it_meant(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data, expected = GOOD[name]
    fed(data)
    assert fed(data) == ([expected], None)
    line, _, rest = data.partition(b"\r\n")
    # The same head below another first line, and with too short a body or the beginning of another request.
    for first in (f"{line.decode()}"[:-1], "GET /b HTTP/1.0", "GET http://i/b HTTP/1.1", "POST /b?c HTTP/1.1", "x", ""):
        for end in (rest, rest[:-1], rest + TAIL[:9], rest + b"\r\n"):
            again = first.encode() + b"\r\n" + end
            recognised = fed(again)
            monkeypatch.setattr(HEADS, "recognise", lambda *_: None)
            assert recognised == fed(again)
            monkeypatch.undo()


@pytest.mark.parametrize("byte", range(256))
def test_a_target_below_which_the_head_is_known_is_checked(byte: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fed(get())
    data = get().replace(b"/a", b"/a" + bytes([byte]) + b"b")
    recognised = fed(data)
    monkeypatch.setattr(HEADS, "recognise", lambda *_: None)
    assert recognised == fed(data)


@given(st.binary(max_size=300), st.integers(0, 300))
def test_random_bytes_are_refused_or_wait_for_more(data: bytes, cut: int) -> None:
    assert fed(data[:cut], data[cut:])[1] in (None, 400, 405, 414, 431, 501, 505)


def test_a_response_in_bytes() -> None:
    response = Response(200, b'{"a":1}', "GetKV", headers=(("Allow", "GET"),))
    date = b"Thu, 01 Jan 1970 00:00:00 GMT"
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
        b"x-request-id: r-1\r\ncontent-length: 7\r\nAllow: GET\r\n"
    )
    assert render(response, "r-1", date, body=True, close=False) == head + b'\r\n{"a":1}'
    assert render(response, "r-1", date, body=False, close=True) == head + b"connection: close\r\n\r\n"
