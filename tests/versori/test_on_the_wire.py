"""What sloppy clients send, byte for byte: heads, paths and bodies that mean one certain thing, or are refused."""

from __future__ import annotations

import asyncio
import gzip
import json

import httpx
import pytest

from kvasir.limits import Limits
from tests.support.raw_http import Answer, Wire, request
from tests.support.serving import KEY, Server

LIMITS = Limits()
MARK = b"\xef\xbb\xbf"


def ask(server: Server, data: bytes) -> Answer:
    """The answer to these bytes on a connection of their own."""
    with Wire(server.port) as wire:
        wire.send(data)
        return wire.answer()


def path(server: Server, key: str) -> str:
    return f"/store/{server.store}/kv/{key}"


def value(server: Server, key: str) -> object:
    """The value of a key; None if it is not there."""
    answer = ask(server, request("GET", path(server, key)))
    return answer.json()["value"] if answer.status == 200 else None


# -- heads ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "hosts", "status"),
    [
        ("1.1", [], 400),
        ("1.1", ["a"], 200),
        ("1.1", ["a", "a"], 400),
        ("1.1", ["a", "b"], 400),
        ("1.0", [], 200),
        ("1.0", ["a"], 200),
        ("1.0", ["a", "b"], 400),
    ],
)
def test_a_request_names_one_host(server: Server, version: str, hosts: list[str], status: int) -> None:
    lines = [f"GET /o/{server.organisation}/store HTTP/{version}", f"Authorization: Bearer {KEY}"]
    lines += [f"Host: {host}" for host in hosts]
    assert ask(server, "".join(f"{line}\r\n" for line in [*lines, ""]).encode()).status == status


def test_lines_of_a_list_header_are_one_list(server: Server) -> None:
    lines = "Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    with Wire(server.port) as wire:
        for _ in range(2):
            wire.send(request("PUT", path(server, "listed"), b'{"value":1}', more=lines))
            assert wire.answer().status == 200


def test_head_of_a_key_is_get_without_the_body(server: Server) -> None:
    with Wire(server.port) as wire:
        assert wire.ask("PUT", path(server, "headed"), b'{"value":"abc"}').status == 200
        got = wire.ask("GET", path(server, "headed"))
        for key, status in (("headed", 200), ("missing", 404)):
            wire.send(request("HEAD", path(server, key)))
            answer = wire.answer(head=True)
            assert answer.status == status
            assert answer.headers["content-type"] == got.headers["content-type"]
            if status == 200:
                assert answer.headers["content-length"] == got.headers["content-length"]
        assert wire.ask("GET", path(server, "headed")).json()["value"] == "abc"  # nothing was left on the connection


# -- paths ----------------------------------------------------------------------------------------------------


def test_the_replacement_character_is_a_character(server: Server) -> None:
    with Wire(server.port) as wire:
        assert wire.ask("PUT", path(server, "%EF%BF%BD"), b'{"value":"U+FFFD"}').status == 200
        entries = wire.ask("POST", path(server, "batch"), json.dumps({"keys": [["\ufffd"]]}).encode()).json()["entries"]
        assert [entry["value"] for entry in entries] == ["U+FFFD"]
        for broken in ("%FF", "%ED%BF%BF", "%EF%BF"):
            assert wire.ask("GET", path(server, broken)).status == 400


@pytest.mark.parametrize("key", ["a%2", "a%", "%zz", "a%2/b", "%u0041", "%%41"])
def test_a_broken_percent_encoding_is_no_second_name_of_a_key(server: Server, key: str) -> None:
    for method, body in (("PUT", b'{"value":1}'), ("GET", b""), ("DELETE", b"")):
        answer = ask(server, request(method, path(server, key), body))
        assert (answer.status, answer.json()["code"]) == (400, "invalid")
        assert "percent sign" in answer.json()["message"]
    assert ask(server, request("PUT", path(server, "a%252"), b'{"value":1}')).status == 200
    batch = ask(server, request("POST", path(server, "batch"), b'{"keys":[["a%2"]]}')).json()
    assert [entry["key"] for entry in batch["entries"]] == [["a%2"]]


@pytest.mark.parametrize("owner", ["%FF", "%00", "%EF%BF%BD", "%2", "%C4%B1"])
def test_a_store_that_is_no_text_is_no_store(server: Server, owner: str) -> None:
    for method, body in (("PUT", b'{"value":1}'), ("GET", b""), ("POST", b"{}")):
        key = "list" if method == "POST" else "a"
        answer = ask(server, request(method, f"/store/{owner}/kv/{key}", body))
        assert (answer.status, answer.json()["code"]) == (404, "store_not_found")
    assert ask(server, request("GET", f"/o/{owner}/store")).status == 403


def test_the_key_batch_by_a_body_for_one_key(server: Server) -> None:
    with Wire(server.port) as wire:
        assert wire.ask("PUT", path(server, "batch"), b'{"value":"one","options":{}}').json()["committed"] is True
        assert wire.ask("GET", path(server, "batch")).json()["value"] == "one"
        assert wire.ask("PUT", path(server, "batch/below"), b'{"value":1}').status == 200
        assert wire.ask("DELETE", path(server, "batch"), b'{"options":{}}').json()["count"] == 1
        assert wire.ask("DELETE", path(server, "batch"), b'{"options":{"cascade":true}}').json()["count"] == 1


# -- bodies ---------------------------------------------------------------------------------------------------


def test_a_byte_order_mark_is_skipped(server: Server) -> None:
    with Wire(server.port) as wire:
        key = path(server, "marked")
        assert wire.ask("PUT", key, MARK + b'{"value":{"a": 1},"options":{"expireIn":60000}}').status == 200
        got = wire.ask("GET", key)
        assert b'{"a": 1}' in got.body
        assert "expiresAt" in got.json()
        assert wire.ask("POST", path(server, "batch"), MARK + b'{"keys":[["marked"]]}').json()["entries"]
        batch = wire.ask("PUT", path(server, "batch"), MARK + b'{"entries":[{"key":["marked"],"value":[1,  2]}]}')
        assert len(batch.json()["successes"]) == 1
        assert b"[1,  2]" in wire.ask("GET", key).body
        listed = wire.ask("POST", path(server, "list"), MARK + b'{"selector":{"filter":{"metadata":{"no":1}}}}')
        assert listed.json()["data"] == []
        assert (
            wire.ask("POST", path(server, "count"), MARK + b'{"selector":{"prefix":["marked"]}}').json()["count"] == 1
        )
        assert wire.ask("DELETE", key, MARK + b'{"options":{"cascade":true}}').json()["count"] == 1
        named = wire.ask("POST", f"/o/{server.organisation}/store", MARK + b'{"name":"marked"}')
        assert named.status == 200
        refused = wire.ask("PUT", key, '{"value":1}'.encode("utf-16"))
        assert (refused.status, "UTF-16" in refused.json()["message"]) == (400, True)


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "aws-chunked"])
@pytest.mark.parametrize("encoded", [True, False])
def test_an_encoded_body_is_refused_by_name(server: Server, coding: str, encoded: bool) -> None:
    body = b'{"value":1,"keys":[["a"]]}'
    sent = gzip.compress(body) if encoded else body
    calls = [("PUT", "coded"), ("PUT", "batch"), ("POST", "batch"), ("POST", "list"), ("POST", "count")]
    with Wire(server.port) as wire:
        for method, key in [*calls, ("DELETE", "coded"), ("DELETE", "batch")]:
            wire.send(request(method, path(server, key), sent, more=f"Content-Encoding: {coding}\r\n"))
            answer = wire.answer()
            assert (answer.status, answer.json()["code"]) == (415, "unsupported_encoding")
            assert repr(coding) in answer.json()["message"]
            assert answer.headers["accept-encoding"] == "identity"
        wire.send(
            request("PUT", path(server, "coded"), more=f"Content-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n")
        )
        wire.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(sent), sent))
        assert wire.answer().status == 415
    assert value(server, "coded") is None


@pytest.mark.parametrize("coding", ["identity", "Identity", "", "identity, identity"])
def test_a_body_that_says_it_is_not_encoded_is_taken(server: Server, coding: str) -> None:
    sent = request("PUT", path(server, "plain"), b'{"value":1}', more=f"Content-Encoding: {coding}\r\n")
    assert ask(server, sent).status == 200
    # Without a body there is nothing that could be encoded.
    assert ask(server, request("GET", path(server, "plain"), more="Content-Encoding: gzip\r\n")).status == 200


@pytest.mark.parametrize(
    ("method", "rest", "most"),
    [
        ("PUT", "a", LIMITS.set_body_bytes),
        ("DELETE", "a", LIMITS.query_body_bytes),
        ("POST", "list", LIMITS.query_body_bytes),
        ("POST", "count", LIMITS.query_body_bytes),
        ("POST", "batch", LIMITS.keys_body_bytes),
        ("DELETE", "batch", LIMITS.keys_body_bytes),
        ("PUT", "batch", LIMITS.batch_body_bytes),
    ],
)
def test_a_body_too_long_for_its_operation_is_refused_before_it_comes(
    server: Server, method: str, rest: str, most: int
) -> None:
    answer = ask(server, request(method, path(server, rest), more=f"Content-Length: {most + 1}\r\n"))
    assert (answer.status, answer.json()["code"]) == (413, "too_large")


def test_a_filter_by_metadata_is_no_longer_than_metadata_may_be(server: Server) -> None:
    with Wire(server.port) as wire:
        for longer, status in ((0, 200), (1, 413)):
            filter = {"metadata": {"m": "x" * (LIMITS.metadata_bytes - len('{"m":""}') + longer)}}
            body = json.dumps({"selector": {"filter": filter}}, separators=(",", ":"))
            assert wire.ask("POST", path(server, "list"), body.encode()).status == status


async def _over_http2(server: Server) -> list[httpx.Response]:
    async with httpx.AsyncClient(http1=False, http2=True, base_url=server.url, headers=server.headers) as client:
        key = path(server, "http2")
        return [
            await client.put(key, content=b'{"value":1}', headers={"Content-Encoding": "gzip"}),
            await client.put(key, content=MARK + b'{"value":1}'),
            await client.get(path(server, "a%2")),
            await client.head(key),
        ]


def test_http2_says_the_same(server: Server) -> None:
    answers = asyncio.run(_over_http2(server))
    assert [answer.status_code for answer in answers] == [415, 200, 400, 200]
    assert answers[-1].content == b""
