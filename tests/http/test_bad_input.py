"""Bad input gets its documented answer, changes nothing, and no neighbour notices."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from tests.support.neighbour import Neighbour, beside
from tests.support.raw_http import Client, Cut, Wire, dump, request
from tests.support.serving import KEY, Server, serving, wait_until

DEEP = 10_000

BODIES = {
    "empty": b"",
    "truncated": b'{"value":',
    "truncated in a string": b'{"value":"abc',
    "no object": b"[1]",
    "bare word": b"value",
    "not UTF-8": b'{"value":"\xff"}',
    "UTF-8 of a surrogate": b'{"value":"\xed\xa0\x80"}',
    "UTF-16": '{"value":1}'.encode("utf-16"),
    "two byte order marks": b'\xef\xbb\xbf\xef\xbb\xbf{"value":1}',
    "10,000 levels of arrays": b'{"value":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "10,000 levels of objects": b'{"value":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    "10,000 brackets": b"[" * DEEP,
    "a million brackets": b"[" * 1_000_000,
    "duplicate member": b'{"value":1,"value":2}',
    "duplicate member inside": b'{"value":{"a":1,"a":2}}',
    "duplicate member by escape": b'{"value":{"a":1,"\\u0061":2}}',
    "duplicate option": b'{"value":1,"options":{"ifNotExists":true,"ifNotExists":false}}',
    "huge number": b'{"value":1e999}',
    "endless number": b'{"value":' + b"1" * 100_000 + b"}",
    "NaN": b'{"value":NaN}',
    "Infinity": b'{"value":-Infinity}',
    "lone surrogate": b'{"value":"\\ud800"}',
    "control character": b'{"value":"\x00"}',
    "two values": b'{"value":1}{"value":2}',
    "trailing comma": b'{"value":1,}',
    "comment": b'{"value":1/**/}',
    "no value": b"{}",
    "options no object": b'{"value":1,"options":[]}',
    "metadata no object": b'{"value":1,"options":{"metadata":1}}',
    "huge time": b'{"value":1,"options":{"expireIn":1e300}}',
    "no date": b'{"value":1,"options":{"expireAt":"9999999-99-99"}}',
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_body_is_a_400_and_changes_nothing(server: Server, neighbour: Neighbour, name: str) -> None:
    base = f"/store/{server.store}/kv"
    with Wire(server.port) as wire:
        for method, path in (("PUT", "bad"), ("PUT", "batch"), ("POST", "list"), ("DELETE", "batch")):
            answer = wire.ask(method, f"{base}/{path}", BODIES[name])
            refused = (400, 413) if len(BODIES[name]) > 32_768 else (400,)  # too long for most operations
            if path == "bad":
                assert answer.status in refused, answer
            if answer.status != 200:  # a body may be empty, or of no interest, to the others
                assert answer.status in refused, answer
                error = answer.json()
                assert error["code"] == "too_large" or error["code"].startswith("invalid"), error
                assert error["message"]
        # The connection is as good as before.
        assert wire.ask("GET", f"{base}/bad").status == 404


@pytest.mark.parametrize(
    ("key", "status"),
    [
        ('["a","\\ud800"]', 400),
        ('["\\udc00"]', 400),
        ("[]", 400),
        ('"a"', 400),
        ("[1]", 400),
        ("[null]", 400),
        ('[["a"]]', 400),
        ("{}", 400),
        (f'["{"x" * 2_047}"]', 413),
        (f'["{"x" * 2_046}"]', 200),
        ('["a"' + ',""' * 1_023 + "]", 413),
        ('["","..","/","%2F","\\u0000","\\uffff"]', 200),
    ],
)
def test_a_bad_key_is_named_in_the_answer(server: Server, neighbour: Neighbour, key: str, status: int) -> None:
    base = f"/store/{server.store}/kv"
    with Wire(server.port) as wire:
        for method, path, body in (
            ("POST", "batch", f'{{"keys":[["fine"],{key}]}}'),
            ("DELETE", "batch", f'{{"keys":[["fine"],{key}]}}'),
        ):
            answer = wire.ask(method, f"{base}/{path}", body.encode())
            assert answer.status == status, answer
            if status != 200 and "\\u" not in key:  # a lone surrogate is no JSON at all
                assert answer.json()["fields"][0]["field"].startswith("keys[1]"), answer
        # Each entry of this one has an outcome of its own.
        answer = wire.ask("PUT", f"{base}/batch", f'{{"entries":[{{"key":{key},"value":1}}]}}'.encode())
        assert answer.status in (200, status), answer
        if status != 200:
            assert b"successes" not in answer.body or answer.json()["successes"] == []


def path_of(server: Server, key: str) -> str:
    return f"/store/{server.store}/kv/{key}"


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        ("plain", ["plain"]),
        ("a/b", ["a", "b"]),
        ("a%2Fb", ["a", "b"]),
        ("a%2fb%2Fc", ["a", "b", "c"]),
        ("caf%C3%A9", ["café"]),
        ("a+b", ["a+b"]),
        ("a%20b", ["a b"]),
        ("a%25b", ["a%b"]),
        ("%00", ["\x00"]),
        ("a%3Fb%23c", ["a?b#c"]),
        ("a:b@c&d=e;f,g!h$i'j(k)*l~m", ["a:b@c&d=e;f,g!h$i'j(k)*l~m"]),
        ("%F0%9F%98%80", ["😀"]),
        ("%80", None),
        ("%FF%FE", None),
        ("%C3", None),
        ("%ED%A0%80", None),
        ("%C0%AF", None),
        ("a//b", None),
        ("a/", None),
        ("/a", None),
        ("a%2F", None),
        ("a%2F%2Fb", None),
        ("", None),
    ],
)
def test_odd_percent_encodings(server: Server, neighbour: Neighbour, sent: str, key: list[str] | None) -> None:
    with Wire(server.port) as wire:
        before = Client(server, server.store)
        count = before.count()
        answer = wire.ask("PUT", path_of(server, sent), dump({"value": sent}))
        if key is None:
            assert 400 <= answer.status < 500, answer
            assert answer.json()["message"]
            assert before.count() == count
        else:
            assert answer.status == 200, answer
            assert before.values([tuple(key)]) == {tuple(key): sent}
            assert wire.ask("DELETE", path_of(server, sent)).status == 200


@pytest.mark.parametrize(
    "sent", ["%", "a%", "%zz", "%2", "..", "../..", "./a", "a\x7fb", "%u0041", "a|b", 'a"b<c>', "a\\b", "[a]", "^`{}"]
)
def test_paths_that_mean_nothing_certain_harm_nothing(server: Server, neighbour: Neighbour, sent: str) -> None:
    with Wire(server.port) as wire, Client(server, server.store) as client:
        try:
            answer = wire.ask("PUT", path_of(server, sent), dump({"value": sent}))
        except Cut:
            pass  # hung up on, which is an answer, too
        else:
            assert answer.status == 200 or 400 <= answer.status < 500, answer
            if answer.status == 200:  # whatever key it was taken for, it is the same one for everybody
                assert wire.ask("GET", path_of(server, sent)).json()["value"] == sent
                assert wire.ask("DELETE", path_of(server, sent)).status == 200
        assert client.get("neighbour").status == 200


GARBAGE = {
    "random bytes": os.urandom(10_000),
    "nothing but line ends": b"\r\n" * 10_000,
    "no such version": b"GET / HTTP/9.9\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "no path": b"GET HTTP/1.1\r\nHost: a\r\n\r\n",
    "no method": b" / HTTP/1.1\r\nHost: a\r\n\r\n",
    "space in a header's name": b"GET /healthz HTTP/1.1\r\nHost : a\r\n\r\n",
    "NUL in a header": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
    "folded header": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n",
    "two lengths": b"PUT /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunk": b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
    "negative length": b"PUT /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "length of letters": b"PUT /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: ten\r\n\r\n",
    "length beyond numbers": b"PUT /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    "bad chunk": b"PUT /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "unknown transfer coding": b"PUT /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
    "endless header": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
    "ten thousand headers": b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * 10_000 + b"\r\n",
    "endless path": b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "raw bytes in the path": b"GET /\xff\xfe\x80 HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS hello": bytes.fromhex("16030100f0010000ec0303") + os.urandom(230),
    "HTTP/2 preface and nonsense": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + os.urandom(1_000),
    "HTTP/2 frame beyond its bound": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\x00\x00\x00\x00\x00\x01"
    + b"x" * 1_000,
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_no_http_is_refused_or_hung_up_on(server: Server, neighbour: Neighbour, name: str) -> None:
    with Wire(server.port) as wire:
        try:
            wire.send(GARBAGE[name])
            wire.socket.shutdown(socket.SHUT_WR)
        except (Cut, OSError):
            pass  # it had heard enough
        answered = b""
        try:
            while piece := wire.socket.recv(65_536):
                answered += piece
        except ConnectionError:
            pass
        # 501 and 505 are refusals, too; any other 5xx would be a fault of the server.
        assert not answered.startswith(b"HTTP/1.1 5") or answered[9:12] in (b"501", b"505"), answered


# -- bodies that come slowly, or never ----------------------------------------------------------------------


def test_a_gigabyte_declared_is_refused_before_it_is_sent(server: Server, neighbour: Neighbour) -> None:
    path = path_of(server, "big")
    for more in ("", "Expect: 100-continue\r\n"):
        with Wire(server.port) as wire:
            head = request("PUT", path, more=f"Content-Length: {1 << 30}\r\n{more}").replace(
                b"Content-Length: 0\r\n", b""
            )
            wire.send(head)
            answer = wire.answer()
            assert answer.status == 413, answer
            assert answer.json()["code"] == "too_large"
    with Client(server, server.store) as client:
        assert client.get("big").status == 404


def test_a_body_that_is_cut_off_is_never_taken_for_a_whole_one(server: Server, neighbour: Neighbour) -> None:
    with Client(server, server.store) as client:
        # The part that does come is a whole JSON text by itself.
        part = b'{"value":1}'
        for head in (
            request("PUT", path_of(server, "cut"), part + b" " * 50)[:-50],
            request("PUT", path_of(server, "cut"), more="Transfer-Encoding: chunked\r\n")
            + b"b\r\n" + part + b"\r\n",
        ):  # fmt: skip
            wires = [Wire(server.port) for _ in range(10)]
            for wire in wires:
                wire.send(head)
            for wire in wires[::2]:
                wire.socket.shutdown(socket.SHUT_WR)
            for wire in wires:
                wire.close()
            assert client.put("after", 1).status == 200
            assert client.get("cut").status == 404


def test_a_failure_that_needs_no_body_lets_the_client_send_it_all_the_same(
    server: Server, neighbour: Neighbour
) -> None:
    body = dump({"value": "x" * 100})
    for path, key, status in (("/nowhere", KEY, 404), (path_of(server, "k"), "wrong", 401)):
        with Wire(server.port) as wire:
            for _ in range(2):  # on one connection
                wire.send(request("PUT", path, body, key=key)[: -len(body)])
                neighbour.goes_on()  # the server has seen the head by now
                wire.send(body)
                assert wire.answer().status == status
            chunked = request("PUT", path, key=key, more="Transfer-Encoding: chunked\r\n")
            for _ in range(2):
                wire.send(chunked)
                neighbour.goes_on()
                for piece in (b"5\r\n12345\r\n", b"0\r\n\r\n"):
                    wire.send(piece)
                assert wire.answer().status == status


@pytest.mark.parametrize(
    ("key", "size", "status"), [("wrong", 3_000_000, 401), (KEY, 3_000_000, 404), (KEY, 40_000_000, 413)]
)
def test_a_failure_reaches_a_client_that_sends_a_long_body_first(
    server: Server, neighbour: Neighbour, key: str, size: int, status: int
) -> None:
    path = path_of(server, "k") if status != 404 else "/nowhere"
    body = b" " * size
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(body) // 10, body[: len(body) // 10]) for _ in range(10)) + b"0\r\n\r\n"
    with Wire(server.port) as wire:
        for _ in range(3):  # on one connection
            wire.send(request("PUT", path, body, key=key))
            assert wire.answer().status == status
        if status != 413:
            wire.send(request("PUT", path, key=key, more="Transfer-Encoding: chunked\r\n") + chunked)
            assert wire.answer().status == status


@pytest.mark.parametrize("announced", [True, False])
def test_trailers_are_passed_over(server: Server, neighbour: Neighbour, announced: bool) -> None:
    more = "Transfer-Encoding: chunked\r\n" + ("Trailer: X-Sum\r\n" if announced else "")
    with Wire(server.port) as wire:
        wire.send(request("PUT", path_of(server, "trailed"), more=more) + b'b\r\n{"value":1}\r\n0\r\nX-Sum: 1\r\n\r\n')
        assert wire.answer().status == 200


def test_a_condition_that_was_cut_off_is_not_left_out(server: Server, neighbour: Neighbour) -> None:
    with Client(server, server.store) as client:
        client.put("kept", 1)
        with Wire(server.port) as wire:
            wire.send(
                request("DELETE", path_of(server, "kept"), more="Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n")
            )
            wire.socket.shutdown(socket.SHUT_WR)
            assert wire.answer().status == 400
        assert client.get("kept").status == 200


def test_strangers_do_not_use_up_the_room_for_bodies(tmp_path: Path) -> None:
    with serving(tmp_path, "--limit-bodies-in-flight-bytes", "100000") as server, beside(server) as neighbour:
        head = request("PUT", path_of(server, "k"), b"x" * 50_000, key="wrong")[:-50_000]
        wires = [Wire(server.port) for _ in range(10)]
        for wire in wires:
            wire.send(head)
        neighbour.goes_on()  # the server has seen the heads by now
        with Client(server, server.store) as client:
            assert client.put("k", "x" * 60_000).status == 200
        for wire in wires:
            wire.send(b"x" * 50_000)
            assert wire.answer().status == 401
            wire.close()


def test_slow_senders_are_told_so_and_others_are_served_meanwhile(tmp_path: Path) -> None:
    with serving(tmp_path, "--limit-body-seconds", "1") as server, beside(server) as neighbour:
        wires = [Wire(server.port) for _ in range(100)]
        whole = request("PUT", path_of(server, "slow"), dump({"value": "x" * 1_000}))
        chunked = request("PUT", path_of(server, "slow"), more="Transfer-Encoding: chunked\r\n")
        chunked += b"5\r\n{    \r\n"
        for n, wire in enumerate(wires):
            wire.send(whole[: -n - 1] if n % 2 else chunked)
        neighbour.goes_on()
        for wire in wires:
            answer = wire.answer()
            assert answer.status == 400, answer
            assert "1 s" in answer.json()["message"]
        with Client(server, server.store) as client:
            assert client.get("slow").status == 404


def test_a_body_without_end_is_cut_at_the_limit(tmp_path: Path) -> None:
    with serving(tmp_path, "--limit-body-bytes", "100000") as server, beside(server):
        head = request("PUT", path_of(server, "endless"), more="Transfer-Encoding: chunked\r\n")
        chunk = b"2710\r\n" + b" " * 10_000 + b"\r\n"
        with Wire(server.port) as wire:
            wire.send(head)
            for _ in range(11):
                wire.send(chunk)
            answer = wire.answer()
            assert (answer.status, answer.json()["code"]) == (413, "too_large")


def test_bodies_in_memory_are_bounded_and_the_bound_is_let_go_of(tmp_path: Path) -> None:
    with serving(tmp_path, "--limit-bodies-in-flight-bytes", "1000000") as server, beside(server):
        body = dump({"value": "x" * 300_000})
        whole = request("PUT", path_of(server, "held"), body, more="Expect: 100-continue\r\n")
        wires = [Wire(server.port) for _ in range(3)]
        for wire in wires:
            wire.send(whole[: -len(body)])
            # The server has made room for the body before it asks for it.
            assert wire.answer(head=True).status == 100
            wire.send(body[:-1])

        def crowded() -> bool:
            with Wire(server.port) as wire:
                wire.send(request("PUT", path_of(server, "held"), body))
                return wire.answer().status == 503

        wait_until(crowded, "the server holds as much as it may")
        with Client(server, server.store) as client:
            assert client.put("small", 1).status == 200
            for wire in wires:
                wire.send(body[-1:])
                assert wire.answer().status == 200
            for _ in range(5):
                assert client.put("held", "x" * 300_000).status == 200


def test_slow_readers_keep_nobody_waiting(server: Server, neighbour: Neighbour) -> None:
    with Client(server, server.store) as client:
        assert client.put("wide", "x" * 1_000_000).status == 200
    wires = [Wire(server.port) for _ in range(10)]
    ask = request("POST", f"/store/{server.store}/kv/batch", dump({"keys": [["wide"]] * 10}))
    for wire in wires:
        wire.send(ask)
    neighbour.goes_on()
    for wire in wires:
        answer = wire.answer()
        assert answer.status == 200
        assert len(answer.json()["entries"]) == 10
