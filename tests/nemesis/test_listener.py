"""Frames, limits and time: what a connection may do, and how it ends if it does more. Others never notice."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any
from weakref import WeakSet

import pytest
from websockets.exceptions import InvalidStatus

from kvasir.dialects.nemesis.commands import find, update
from kvasir.dialects.nemesis.commands.context import HEAVY_REQUESTS, HEAVY_SEARCHES, INLINE_BYTES
from kvasir.dialects.nemesis.conversation import requests
from kvasir.dialects.nemesis.jsonpath import compiler
from kvasir.limits import WebSocketLimits
from kvasir.listeners.websocket.accepting import Accepted, Accepting
from kvasir.listeners.websocket.connection import Connection
from tests.support.nemesis import BINARY, CLOSE, MORE, PING, PONG, TEXT, Local, Raw, client, frame, local
from tests.support.serving import wait_until
from tests.support.waiting_engine import WaitingEngine

ALL = '{"SH_INFO_ALL":{}}'
NOBODY = b'{"SH_INFO_ALL_RSP":{"totalSessions":0,"totalKeys":0}}'


@pytest.fixture
def server() -> Iterator[Local]:
    with local() as running:
        yield running


def serves(server: Local) -> bool:
    """Whether another client is served as before."""
    with client(server.url) as other:
        return bool(other.ask(ALL)["SH_INFO_ALL_RSP"])


# -- the upgrade ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/anything?x=1", "/session", "/a/b%20c", "/?key=unused"])
def test_any_path_is_served(server: Local, path: str) -> None:
    with client(server.url + path) as caller:
        assert caller.ask(ALL) == json.loads(NOBODY)


def test_the_first_subprotocol_offered_is_echoed(server: Local) -> None:
    with client(server.url, subprotocols=["nemesis", "json"]) as caller:
        assert caller.connection.subprotocol == "nemesis"
    with client(server.url) as caller:
        assert caller.connection.subprotocol is None


def upgraded(server: Local, headers: bytes, version: bytes = b"13") -> bytes:
    """The head of the response to an upgrade request with these headers."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        raw.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Version: " + version + b"\r\n" + headers + b"\r\n"
        )
        return raw.recv(4_096)


@pytest.mark.parametrize("offered", [b"\xe9\xff", b"a b", b'"a"', b"", b", a", b"a\xff, b"])
def test_a_subprotocol_that_is_not_a_token_is_not_echoed(server: Local, offered: bytes) -> None:
    answer = upgraded(server, b"Sec-WebSocket-Protocol: " + offered + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 101 ")
    assert b"sec-websocket-protocol" not in answer.lower()
    assert serves(server)


@pytest.mark.parametrize("version", [b"8", b"7", b"14", b"", b"13, 8", b"\xff"])
def test_other_versions_are_refused_with_the_one_supported(server: Local, version: bytes) -> None:
    answer = upgraded(server, b"", version)
    assert answer.startswith(b"HTTP/1.1 426 ")
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in answer


@pytest.mark.parametrize("origin", [b"http://[", b"http://[x]", b"http://\xff", b"//]["])
def test_an_origin_that_is_not_a_url_is_refused(server: Local, origin: bytes) -> None:
    assert upgraded(server, b"Origin: " + origin + b"\r\n").startswith(b"HTTP/1.1 403 ")


def test_no_compression_is_negotiated(server: Local) -> None:
    with Raw(server.port, "Sec-WebSocket-Extensions: permessage-deflate\r\n") as raw:
        assert raw.status == 101
        assert "sec-websocket-extensions" not in raw.headers


def test_connection_header_of_browsers_that_keep_alive(server: Local) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        raw.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert raw.recv(100).startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("Host: x\r\nConnection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", 101),
        ("Host: x\r\nConnection: upgrade, keep-alive\r\nUpgrade: h2c\r\nUpgrade: WebSocket\r\n", 101),
        ("Host: x\r\nConnection: keep-alive\r\nUpgrade: websocket\r\n", 400),
        ("Host: x\r\nUpgrade: websocket\r\n", 400),
        ("Host: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n", 404),
        ("Connection: Upgrade\r\nUpgrade: websocket\r\n", 400),
        ("Host: x\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", 400),
        ("Host: x\r\nHost: y\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", 400),
    ],
)
def test_lines_of_a_list_header_are_one_list_and_there_is_one_host(server: Local, lines: str, status: int) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        raw.sendall(f"GET / HTTP/1.1\r\n{lines}{key}\r\n".encode())
        assert raw.recv(100).startswith(f"HTTP/1.1 {status} ".encode())


def test_subprotocols_in_several_lines_are_one_list(server: Local) -> None:
    answer = upgraded(server, b"Sec-WebSocket-Protocol: one\r\nSec-WebSocket-Protocol: two\r\n")
    assert b"\r\nSec-WebSocket-Protocol: one\r\n" in answer


def test_a_byte_order_mark_is_skipped(server: Local) -> None:
    with client(server.url) as caller:
        assert caller.ask("\ufeff" + ALL) == json.loads(NOBODY)
        token = caller.ask('\ufeff{"SH_NEW":{"name":"a"}}')["SH_NEW_RSP"]["tkn"]
        caller.send("\ufeff" + json.dumps({"KV_SET": {"tkn": token, "keys": {"a": "\ufeff"}}}, ensure_ascii=False))
        assert caller.receive()["KV_SET_RSP"]["keys"] == {"a": 20}
        assert caller.do("KV_GET", tkn=token, keys=["a"])["keys"] == {"a": "\ufeff"}
        for bad in ("\ufeff\ufeff" + ALL, "\ufeff"):
            assert caller.ask(bad) == {"ERR": {"st": 3, "m": ""}}


def test_a_plain_request_gets_404(server: Local) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (404, b"File Not Found")


def test_foreign_web_pages_are_refused(server: Local) -> None:
    for origin in ("https://evil.example", "null", f"http://evil.example:{server.port}"):
        with pytest.raises(InvalidStatus) as refused, client(server.url, origin=origin):
            pass
        assert refused.value.response.status_code == 403


def test_a_name_that_resolves_to_this_machine_is_not_trusted(server: Local) -> None:
    """The owner of evil.example may point that name at 127.0.0.1, so that origin and host agree."""
    host = f"evil.example:{server.port}"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        raw.sendall(
            f"GET / HTTP/1.1\r\nHost: {host}\r\nOrigin: http://{host}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert raw.recv(100).startswith(b"HTTP/1.1 403 ")


def test_pages_of_this_machine_and_listed_ones_may_connect(server: Local) -> None:
    with client(server.url, origin=f"http://127.0.0.1:{server.port}") as caller:
        assert caller.ask(ALL)
    with (
        local(origins=("https://app.example",)) as listed,
        client(listed.url, origin="https://app.example") as caller,
    ):
        assert caller.ask(ALL)


def test_connections_are_counted() -> None:
    with local(sockets=WebSocketLimits(connections=2)) as server:
        with client(server.url) as first, client(server.url):
            with pytest.raises(InvalidStatus) as refused, client(server.url):
                pass
            assert refused.value.response.status_code == 503
            assert first.ask(ALL)
        wait_until(lambda: server.call(lambda: server.listener.connections) == 0, "both are gone")
        assert serves(server)


def test_connections_that_have_not_asked_for_the_upgrade_are_bounded_too() -> None:
    limits = WebSocketLimits(connections=2, handshake_seconds=600)
    with local(sockets=limits) as server:
        address = "127.0.0.1", server.port

        def opened() -> int:
            return int(server.call(lambda: len(server.listener._opened)))

        with client(server.url) as first:
            with contextlib.ExitStack() as silent:
                for _ in range(limits.accepted - 1):
                    silent.enter_context(socket.create_connection(address))
                wait_until(lambda: opened() == limits.accepted, "all are accepted")
                with socket.create_connection(address, timeout=30) as one_more:
                    assert one_more.recv(1) == b""
                assert opened() == limits.accepted
                assert first.ask(ALL)
            wait_until(lambda: opened() == 1, "the silent ones are gone")
            assert serves(server)
        wait_until(lambda: opened() == 0, "all are gone")


def test_a_connection_that_fails_is_ended_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    look_after, failing, looked = Connection.look_after, list[Connection](), threading.Event()

    def fails(connection: Connection, now: float) -> None:
        if connection in failing:
            raise RuntimeError("planted")
        look_after(connection, now)
        if failing:
            looked.set()

    monkeypatch.setattr(Connection, "look_after", fails)
    with local(round_seconds=0.1) as server, Raw(server.port) as one:
        server.call(lambda: failing.extend(set[Connection]().union(*server.listener._parts)))
        with client(server.url) as other:
            assert one.socket.recv(1) == b""
            looked.clear()
            assert looked.wait(30), "the others are still looked after"
            assert other.ask(ALL)


def test_a_connection_for_which_there_is_no_file_is_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left waiting, it would have the event loop call again and again, until somebody leaves."""
    accept, asked = socket.socket.accept, 0

    def refused_at_first(listening: socket.socket) -> Any:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(listening)

    monkeypatch.setattr(socket.socket, "accept", refused_at_first)
    opened: WeakSet[Accepted] = WeakSet()
    with socket.create_server(("127.0.0.1", 0)) as listening, Accepting(listening, opened, 1) as accepting:
        for closed in (True, False, True):
            with socket.create_connection(listening.getsockname(), timeout=30) as caller:
                if closed:
                    with pytest.raises(ConnectionAbortedError):
                        accepting.accept()
                    assert caller.recv(1) == b""
                else:
                    accepted, _ = accepting.accept()
                    assert len(opened) == 1
        accepted.close()
        assert not opened


def test_a_handshake_that_never_arrives_ends() -> None:
    with local(sockets=WebSocketLimits(handshake_seconds=0.3)) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as slow:
            slow.sendall(b"GET / HTTP/1.1\r\nHost")
            assert slow.recv(100) == b""
        assert serves(server)


# -- frames ---------------------------------------------------------------------------------------------------


def test_fragments_with_control_frames_between(server: Local) -> None:
    message = ALL.encode()
    with Raw(server.port) as raw:
        for piece in (frame(TEXT, message[:5], final=False), frame(PING, b"hello")):
            raw.send(piece)
        assert raw.receive() == (PONG, b"hello")
        raw.send(frame(MORE, b"", final=False), frame(PONG, b"unasked"), frame(MORE, message[5:]))
        assert raw.receive() == (TEXT, NOBODY)


def test_byte_by_byte(server: Local) -> None:
    with Raw(server.port) as raw:
        raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in frame(TEXT, ALL.encode()):
            raw.send(bytes((byte,)))
        assert raw.receive() == (TEXT, NOBODY)


def test_messages_that_arrive_with_the_upgrade(server: Local) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as eager:
        eager.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            + frame(TEXT, ALL.encode())
            * 3
        )
        got = b""
        while got.count(NOBODY) < 3:
            got += eager.recv(4096)


def test_replies_of_every_length_of_header(server: Local) -> None:
    """The listener itself frames several replies to one read."""
    with client(server.url) as caller:
        token = caller.session()
        values = {"a": "x", "b": "y" * 200, "c": "z" * 70_000}
        caller.do("KV_SET", tkn=token, keys=values)
        with Raw(server.port) as raw:
            asked = [json.dumps({"KV_GET": {"tkn": token, "keys": [name]}}).encode() for name in values]
            raw.send(*[frame(TEXT, message) for message in [*asked, b"5"]])
            got = [raw.receive() for _ in range(4)]
    assert [json.loads(reply[1]) for reply in got[:3] if reply] == [
        {"KV_GET_RSP": {"tkn": token, "keys": {name: value}}} for name, value in values.items()
    ]
    assert got[3] == (TEXT, b'{"ERR":{"st":13,"m":""}}')


def test_binary_messages_are_refused_and_the_connection_stays_open(server: Local) -> None:
    with Raw(server.port) as raw:
        raw.send(frame(BINARY, b"{}"), frame(BINARY, b"{", final=False), frame(MORE, b"}"), frame(TEXT, ALL.encode()))
        refusal = (TEXT, b'{"ERR":{"st":2,"m":""}}')
        assert [raw.receive() for _ in range(3)] == [refusal, refusal, (TEXT, NOBODY)]


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_a_close_frame_is_echoed(server: Local, code: int) -> None:
    with Raw(server.port) as raw:
        raw.send(frame(CLOSE, code.to_bytes(2, "big") + b"bye"))
        assert raw.receive() == (CLOSE, code.to_bytes(2, "big") + b"bye")
        assert raw.receive() is None


def test_a_close_frame_without_a_code_is_echoed(server: Local) -> None:
    with Raw(server.port) as raw:
        raw.send(frame(CLOSE, b""))
        assert raw.receive() == (CLOSE, b"")
        assert raw.receive() is None


def test_requests_before_the_close_frame_are_answered(server: Local) -> None:
    with Raw(server.port) as raw:
        raw.send(frame(TEXT, ALL.encode()), frame(TEXT, b"5"), frame(CLOSE, b"\x03\xe8"))
        assert raw.receive() == (TEXT, NOBODY)
        assert raw.receive() == (TEXT, b'{"ERR":{"st":13,"m":""}}')
        assert raw.receive() == (CLOSE, b"\x03\xe8")


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([frame(TEXT, b'{"\xff":{}}')], 1007),
        ([frame(TEXT, b"\xc3\x28")], 1007),
        ([frame(TEXT, b'{"KV_COUNT":{"tkn":"\xed\xa0\x80"}}')], 1007),
        ([frame(TEXT, b"\xf0\x9f", final=False), frame(MORE, b"(")], 1007),
        ([frame(TEXT, b"{}", reserved=4)], 1002),
        ([frame(MORE, b"{}")], 1002),
        ([frame(TEXT, b"{", final=False), frame(TEXT, b"}")], 1002),
        ([frame(3, b"{}")], 1002),
        ([frame(PING, b"", final=False)], 1002),
        ([b"\x81\x02{}"], 1002),
        ([frame(CLOSE, b"\x00\x01")], 1002),
        ([frame(CLOSE, b"\x03\xe8\xff")], 1007),
    ],
)
def test_breaking_the_protocol_ends_the_connection(server: Local, frames: list[bytes], code: int) -> None:
    with Raw(server.port) as raw:
        raw.send(*frames)
        assert raw.closed_with() == code
    assert serves(server)


def test_what_came_before_a_frame_that_breaks_the_protocol_is_answered(server: Local) -> None:
    with Raw(server.port) as raw:
        raw.send(frame(TEXT, ALL.encode()), frame(TEXT, b"5"), frame(TEXT, b"{}", reserved=4))
        assert raw.receive() == (TEXT, NOBODY)
        assert raw.receive() == (TEXT, b'{"ERR":{"st":13,"m":""}}')
        assert raw.closed_with() == 1002


def test_no_reply_follows_a_close_frame(server: Local) -> None:
    """picows sends one by itself, before the messages that came with the broken frame are answered."""
    with Raw(server.port) as raw:
        raw.send(frame(TEXT, ALL.encode()) * 4, frame(3, b"{}"))
        assert raw.closed_with() == 1002
        assert raw.receive() is None
    assert serves(server)


def test_reads_before_a_message_that_is_not_text_are_answered(server: Local) -> None:
    with client(server.url) as caller:
        token = caller.session()
        caller.do("KV_SET", tkn=token, keys={"a": 1})
    waits = json.dumps({"SH_EXISTS": {"tkns": [token]}}).encode()
    reads = json.dumps({"KV_GET": {"tkn": token, "keys": ["a"]}}).encode()
    with Raw(server.port) as raw:
        raw.send(*[frame(TEXT, message) for message in (waits, reads, reads, b"\xff")])
        got = [raw.receive() for _ in range(3)]
        assert [json.loads(reply[1]) for reply in got[1:] if reply] == [
            {"KV_GET_RSP": {"tkn": token, "keys": {"a": 1}}}
        ] * 2
        assert raw.closed_with() == 1007


def test_a_session_that_has_ended_is_gone_for_the_messages_behind(server: Local) -> None:
    with client(server.url) as caller:
        token = caller.session()
    ends, asks = (json.dumps({name: {"tkn": token}}).encode() for name in ("SH_END", "KV_KEYS"))
    with Raw(server.port) as raw:
        raw.send(frame(TEXT, ends), frame(TEXT, b"5"), frame(TEXT, asks))
        got = [raw.receive() for _ in range(3)]
        assert got[2] is not None
        assert json.loads(got[2][1])["KV_KEYS_RSP"]["st"] == 100


def test_a_character_may_be_cut_between_fragments(server: Local) -> None:
    message = '{"ä":1}'.encode()
    with Raw(server.port) as raw:
        raw.send(frame(TEXT, message[:3], final=False), frame(MORE, message[3:]))
        assert raw.receive() == (TEXT, '{"ERR":{"st":10,"m":"ä"}}'.encode())


# -- sizes ----------------------------------------------------------------------------------------------------


def padded(size: int) -> bytes:
    return (ALL[:-1] + " " * (size - len(ALL)) + "}").encode()


def test_the_longest_message_passes_and_one_byte_more_does_not() -> None:
    with local(sockets=WebSocketLimits(max_payload=1024)) as server:
        for cut in (0, 500):
            for size, passes in ((1024, True), (1025, False)):
                message = padded(size)
                frames = [frame(TEXT, message[:cut], final=False), frame(MORE, message[cut:])]
                with Raw(server.port) as raw:
                    raw.send(*(frames if cut else [frame(TEXT, message)]))
                    if passes:
                        assert raw.receive() == (TEXT, NOBODY)
                    else:
                        assert raw.closed_with() == 1009
        assert serves(server)


def test_endless_fragments_end() -> None:
    with local(sockets=WebSocketLimits(max_payload=1024)) as server:
        with Raw(server.port) as raw:
            raw.send(frame(TEXT, b"[", final=False), *[frame(MORE, b"1," * 50, final=False) for _ in range(20)])
            assert raw.closed_with() == 1009
        assert serves(server)


def test_the_default_bound_is_one_mebibyte(server: Local) -> None:
    with Raw(server.port) as raw:
        raw.send(frame(TEXT, padded(2**20)))
        assert raw.receive() == (TEXT, NOBODY)
        raw.send(frame(TEXT, padded(2**20 + 1)))
        assert raw.closed_with() == 1009


@pytest.mark.parametrize("text", ["[" * 10_000 + "]" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000, "[" * 10_000])
def test_ten_thousand_levels_are_not_json(server: Local, text: str) -> None:
    with client(server.url) as caller:
        token = caller.session()
        for message in (text, f'{{"KV_SET":{{"tkn":"{token}","keys":{{"a":{text}}}}}}}'):
            assert caller.ask(message) == {"ERR": {"st": 3, "m": ""}}
        assert caller.do("KV_COUNT", tkn=token)["cnt"] == 0


# -- time -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [frame(TEXT, b"x" * 100)[:50], frame(TEXT, b"x", final=False), b"\x81"])
def test_half_a_message_ends_after_a_while(half: bytes) -> None:
    with local(sockets=WebSocketLimits(message_seconds=0.2), round_seconds=0.2) as server:
        with Raw(server.port) as raw, client(server.url) as other:
            raw.send(half)
            assert raw.closed_with() == 1008
            assert other.ask(ALL)
        assert serves(server)


def test_trickling_does_not_help() -> None:
    with local(sockets=WebSocketLimits(message_seconds=1.0), round_seconds=0.2) as server, Raw(server.port) as raw:
        raw.socket.settimeout(0.1)
        raw.send(frame(TEXT, b"x" * 1_000, final=False))
        closed = False
        for _ in range(200):
            raw.send(frame(MORE, b"x", final=False))
            try:
                closed = raw.socket.recv(2)[:1] == b"\x88"
                break
            except TimeoutError:
                continue
        assert closed


def test_silence_is_pinged_and_then_ends() -> None:
    with (
        local(sockets=WebSocketLimits(ping_seconds=0.2, idle_seconds=1.0), round_seconds=0.1) as server,
        Raw(server.port) as raw,
    ):
        assert raw.receive() == (PING, b"")
        raw.send(frame(PONG, b""))
        assert raw.receive() == (PING, b"")
        assert raw.closed_with() == 1001


# -- clients that do not read, or never end a message ----------------------------------------------------


def test_a_client_that_never_reads_ends_with_1013() -> None:
    with local(sockets=WebSocketLimits(unread_bytes=2_000_000)) as server, client(server.url) as other:
        token = other.session()
        other.do("KV_SET", tkn=token, keys={"big": "x" * 100_000})
        asked = frame(TEXT, json.dumps({"KV_GET": {"tkn": token, "keys": ["big"]}}).encode())
        with Raw(server.port) as raw:
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.send(asked * 400)
            wait_until(lambda: server.call(lambda: server.listener.connections) == 1, "it is cut off")
            assert other.do("KV_COUNT", tkn=token)["cnt"] == 1
        with Raw(server.port) as raw:
            # A client that starts to read in time sees why the connection ends.
            raw.send(asked * 400)
            wait_until(lambda: server.call(lambda: is_ending(server)), "it has read too little for too long")
            assert raw.closed_with() == 1013


def is_ending(server: Local) -> bool:
    return any(connection._closing for part in server.listener._parts for connection in part)


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return True
    return False


class SlowEngine(WaitingEngine):
    """Commits on command."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.calls = 0

    async def write(self, writes: object) -> object:  # type: ignore[override]
        self.calls += 1
        await self.gate.wait()
        return await super().write(writes)  # type: ignore[arg-type]


@pytest.mark.parametrize("limits", [WebSocketLimits(in_flight=50), WebSocketLimits(in_flight_bytes=60_000)])
def test_a_flood_is_read_only_as_fast_as_it_is_answered(limits: WebSocketLimits) -> None:
    engine = SlowEngine()
    with local(sockets=limits, engine=engine) as server, client(server.url) as other:
        token = other.session()
        with Raw(server.port) as raw:
            message = json.dumps({"KV_SET": {"tkn": token, "keys": {"a": "x" * 1_000}}}).encode()
            raw.socket.setblocking(False)
            sent = 0
            flood = frame(TEXT, message) * 64
            with contextlib.suppress(BlockingIOError):
                while sent < 200_000_000:
                    sent += raw.socket.send(flood)
            assert sent < 200_000_000
            # The buffers of the sockets are full; the server has read little.
            taken = server.call(
                lambda: max(c._conversation.unanswered for part in server.listener._parts for c in part)
            )
            assert 50 < taken < 1_000
            assert other.ask("5") == {"ERR": {"st": 13, "m": ""}}
            server.call(engine.gate.set)
            raw.socket.settimeout(30)
            for _ in range(60):
                assert raw.receive() is not None


def test_unfinished_messages_are_bounded_together() -> None:
    with local(sockets=WebSocketLimits(unfinished_bytes=3_500_000)) as server:
        raws = [Raw(server.port) for _ in range(4)]
        half = frame(TEXT, b"x" * 1_000_000)[:-1]
        for raw in raws:
            raw.send(half)
        wait_until(lambda: server.call(lambda: server.listener.connections) == 3, "one too many is cut off", 10)
        for raw in raws:
            raw.socket.close()
            raw._file.close()
        wait_until(lambda: server.call(lambda: server.listener.unfinished) == 0, "all is given back")
        assert serves(server)


# -- the end --------------------------------------------------------------------------------------------------


def test_who_connects_before_the_end_and_asks_after_it_is_refused() -> None:
    with local() as server, socket.create_connection(("127.0.0.1", server.port), timeout=30) as late:
        with Raw(server.port):  # so the server has taken the one before it, too
            asyncio.run_coroutine_threadsafe(server.listener.stop(5), server.loop).result(30)
        late.sendall(
            f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert late.makefile("rb").readline().split()[1] == b"503"
        assert server.listener.connections == 0


def test_stopping_answers_what_has_started_and_closes_with_1001() -> None:
    engine = SlowEngine()
    with local(engine=engine) as server, client(server.url) as caller:
        token = caller.session()
        with Raw(server.port) as raw:
            raw.send(frame(TEXT, json.dumps({"KV_SET": {"tkn": token, "keys": {"a": 1}}}).encode()))
            wait_until(lambda: engine.calls == 1, "the write is under way")
            stopping = asyncio.run_coroutine_threadsafe(server.listener.stop(20), server.loop)
            wait_until(lambda: refuses(server.port), "nobody new is let in")
            server.call(engine.gate.set)
            got = raw.receive()
            assert got is not None
            assert json.loads(got[1]) == {"KV_SET_RSP": {"tkn": token, "keys": {"a": 20}}}
            assert raw.closed_with() == 1001
            raw.send(frame(CLOSE, b"\x03\xe9"))
        stopping.result(30)


def test_who_leaves_while_nothing_is_read_of_it_is_noticed() -> None:
    """TCP says nothing of an end that lies behind what is not read; it says so in answer to whatever is sent."""
    engine = SlowEngine()
    limits = WebSocketLimits(in_flight=4)
    with local(sockets=limits, engine=engine, round_seconds=0.1) as server, client(server.url) as other:
        token = other.session()
        with Raw(server.port) as raw:
            raw.send(*[frame(TEXT, json.dumps({"KV_SET": {"tkn": token, "keys": {"a": 1}}}).encode())] * 20)
            assert raw.receive() == (PING, b"")
        server.call(engine.gate.set)


def test_what_was_not_begun_when_its_client_left_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that is long to parse, and the later batches of a write with many keys."""
    begun, go = threading.Event(), threading.Event()
    parse = requests.parse_request

    def slow(*args: Any, **kwargs: Any) -> Any:
        begun.set()
        assert go.wait(30)
        return parse(*args, **kwargs)

    def keys(name: str) -> dict[str, Any]:
        return {f"{name}{n}": n for n in range(1_500)}

    engine = SlowEngine()
    with local(engine=engine) as server, client(server.url) as other:
        token = other.session()

        def sent(name: str) -> Raw:
            raw = Raw(server.port)
            raw.send(frame(TEXT, json.dumps({"KV_SET": {"tkn": token, "keys": keys(name)}}).encode()))
            return raw

        def is_alone() -> bool:
            return bool(server.call(lambda: server.listener.connections) == 1)

        with monkeypatch.context() as patched:
            patched.setattr(requests, "parse_request", slow)
            raw = sent("parsed")
            assert begun.wait(30)
            raw.__exit__()
            wait_until(is_alone, "the listener knows that it has left")
            go.set()
        raw = sent("written")
        wait_until(lambda: engine.calls == 1, "the first batch is on its way")
        raw.__exit__()
        wait_until(is_alone, "the listener knows that it has left")
        server.call(engine.gate.set)
        # Another message of this kind has its turn behind those.
        assert len(other.do("KV_SET", tkn=token, keys=keys("other"))["keys"]) == 1_500
        count = other.do("KV_COUNT", tkn=token)["cnt"]
    assert count == 2_500


def test_searches_keep_no_other_long_message_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are; and only so many are held after they have been parsed."""
    go = threading.Event()
    parsed: list[str] = []
    searching: list[int] = []
    parse, search, find_by_path = requests.parse_heavy, compiler.find, find._find_by_path

    async def counted(*args: Any, **kwargs: Any) -> Any:
        request = await parse(*args, **kwargs)
        parsed.append(request.name)
        return request

    async def begun(*args: Any) -> bytes:
        searching.append(1)
        return await find_by_path(*args)

    def slow(*args: Any) -> Any:
        assert go.wait(60)
        return search(*args)

    monkeypatch.setattr(requests, "parse_heavy", counted)
    monkeypatch.setattr(find, "_find_by_path", begun)
    monkeypatch.setattr(compiler, "find", slow)
    many = HEAVY_SEARCHES + HEAVY_REQUESTS + 1
    with local() as server, client(server.url) as caller, contextlib.ExitStack() as stack:
        token = caller.session()
        caller.do("KV_SET", tkn=token, keys={"large": ["x" * 2 * INLINE_BYTES]})  # so that it is searched in a thread
        sent = {"tkn": token, "path": "$[0]", "rsp": "keys", "keys": ["large", *map(str, range(3_000))]}
        raws = [stack.enter_context(Raw(server.port)) for _ in range(many)]
        for raw in raws:
            raw.send(frame(TEXT, json.dumps({"KV_FIND": sent}).encode()))
        wait_until(lambda: len(parsed) == many, "all have been parsed")
        wait_until(lambda: len(searching) == HEAVY_SEARCHES, "as many as may be are carried out")
        keys = {f"k{number}": number for number in range(3_000)}
        assert len(caller.do("KV_SET", tkn=token, keys=keys)["keys"]) == 3_000
        assert len(searching) == HEAVY_SEARCHES
        go.set()
        for raw in raws:
            reply = raw.receive()
            assert reply is not None
            assert json.loads(reply[1])["KV_FIND_RSP"]["keys"] == ["large"]
    assert parsed.count("KV_FIND") == many + many - HEAVY_SEARCHES


def test_many_who_change_one_large_value_do_not_make_each_other_begin_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    rewritten: list[str] = []
    rewrite = update._rewritten

    def counted(context: Any, name: str, *more: Any) -> Any:
        rewritten.append(name)
        return rewrite(context, name, *more)

    monkeypatch.setattr(update, "_rewritten", counted)
    with local() as server, client(server.url) as caller:
        token = caller.session()
        caller.do("KV_SET", tkn=token, keys={"k": [{"n": 0}] * 5_000})
        messages = [
            {"KV_UPDATE": {"tkn": token, "key": "k", "path": "$[0].n", "value": 1}},
            {"KV_UPDATE": {"tkn": token, "key": "k", "/1/n": 2}},
            {"KV_APPEND": {"tkn": token, "k": [1]}},
        ] * 3
        with contextlib.ExitStack() as stack:
            callers = [stack.enter_context(client(server.url)) for _ in messages]
            for each, message in zip(callers, messages, strict=True):
                each.send(message)
            for each in callers:
                (answer,) = each.receive().values()
                assert answer["st"] == 1
    assert rewritten == ["k"] * len(messages)
