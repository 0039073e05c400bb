"""HTTP/1.1, HTTP/2 without and with TLS, on one port each: long connections, many requests on one, and rude clients."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h2.config
import h2.connection
import h2.events
import httpx
import pytest

from tests.support.cli import run
from tests.support.neighbour import Neighbour, beside
from tests.support.raw_http import Client, Cut, Wire, dump, request
from tests.support.serving import Server, free_ports, serving, wait_until

# -- HTTP/1.1 -----------------------------------------------------------------------------------------------


def test_a_connection_serves_hundreds_of_requests(server: Server, neighbour: Neighbour) -> None:
    with Client(server, server.store) as client:
        for n in range(300):
            assert client.put(f"alive/{n % 7}", n).status == 200
            assert client.get(f"alive/{n % 7}").json()["value"] == n


def test_pipelined_requests_are_answered_in_order(server: Server, neighbour: Neighbour) -> None:
    base = f"/store/{server.store}/kv"
    with Wire(server.port) as wire:
        wire.send(b"".join(request("PUT", f"{base}/pipe/{n}", dump({"value": n})) for n in range(50)))
        assert [wire.answer().status for _ in range(50)] == [200] * 50
        wire.send(b"".join(request("GET", f"{base}/pipe/{n}") for n in range(50)))
        assert [wire.answer().json()["value"] for _ in range(50)] == list(range(50))
        # A refusal in the middle does not put the rest out of step.
        wire.send(
            request("PUT", f"{base}/pipe/a", b"{")
            + request("PUT", f"{base}/pipe/b", b'{"value":1}', key="x" * 43)
            + request("GET", "/nowhere")
            + request("GET", f"{base}/pipe/3")
        )
        assert [wire.answer().status for _ in range(4)] == [400, 401, 404, 200]


def test_a_request_may_come_byte_by_byte(server: Server, neighbour: Neighbour) -> None:
    with Wire(server.port) as wire:
        for byte in request("PUT", f"/store/{server.store}/kv/bytes", dump({"value": 1})):
            wire.send(bytes([byte]))
        assert wire.answer().status == 200


def test_chunked_bodies_are_put_together(server: Server, neighbour: Neighbour) -> None:
    path = f"/store/{server.store}/kv/chunks"
    body = dump({"value": "x" * 5_000})
    with Wire(server.port) as wire:
        for size in (1, 7, 4_096, 10_000):
            pieces = [body[at : at + size] for at in range(0, len(body), size)]
            for more, trailers in (("", b""), ("Trailer: X-Sum\r\n", b"X-Sum: 1\r\n")):
                wire.send(request("PUT", path, more="Transfer-Encoding: chunked\r\n" + more))
                wire.send(b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces))
                wire.send(b"0\r\n" + trailers + b"\r\n")
                assert wire.answer().status == 200
        assert wire.ask("GET", path).json()["value"] == "x" * 5_000


def test_closing_is_agreed_on(server: Server, neighbour: Neighbour) -> None:
    with Wire(server.port) as wire:
        wire.send(request("GET", "/healthz", more="Connection: close\r\n"))
        assert wire.answer().status == 200
        assert wire.ended()
    with Wire(server.port) as wire:
        wire.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert wire.answer().status == 200
        assert wire.ended()


def test_head_has_the_headers_only(server: Server, neighbour: Neighbour) -> None:
    with Wire(server.port) as wire:
        wire.send(request("HEAD", "/healthz"))
        assert wire.answer(head=True).status == 200
        assert wire.ask("GET", "/healthz").status == 200


def test_clients_that_hang_up_while_they_are_answered(server: Server, neighbour: Neighbour) -> None:
    with Client(server, server.store) as client:
        assert client.put("long", "x" * 500_000).status == 200
        ask = request("POST", f"/store/{server.store}/kv/batch", dump({"keys": [["long"]] * 20}))
        for _ in range(20):
            with Wire(server.port) as wire:
                wire.send(ask)
                wire.socket.recv(1)
        assert client.put("after", 1).status == 200


# -- HTTP/2 -------------------------------------------------------------------------------------------------


def test_http2_without_tls_by_prior_knowledge(server: Server, neighbour: Neighbour) -> None:
    async def story() -> None:
        async with httpx.AsyncClient(
            http1=False,
            http2=True,
            base_url=f"{server.url}/store/{server.store}/kv/",
            headers=server.headers,
            timeout=60,
        ) as client:

            async def there_and_back(n: int) -> None:
                put = await client.put(f"two/{n}", json={"value": n})
                assert (put.http_version, put.status_code) == ("HTTP/2", 200)
                got = await client.get(f"two/{n}")
                assert (got.http_version, got.json()["value"]) == ("HTTP/2", n)

            await asyncio.gather(*(there_and_back(n) for n in range(200)))
            bad = await client.put("two/bad", content=b"{")
            assert (bad.http_version, bad.status_code, bad.json()["code"]) == ("HTTP/2", 400, "invalid")
            wide = await client.put("two/wide", json={"value": "x" * 900_000})
            assert wide.status_code == 200
            assert len((await client.get("two/wide")).json()["value"]) == 900_000

    asyncio.run(story())
    with Client(server, server.store) as client:
        assert client.count("two") == 201


class Two:
    """An HTTP/2 connection by hand, for what no library would do."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.h2.initiate_connection()
        #: Every event so far
        self.seen: list[h2.events.Event] = []
        self.flush()

    def __del__(self) -> None:
        self.socket.close()

    def flush(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def begin(self, server: Server, method: str, path: str, *, end: bool = False) -> int:
        stream: int = self.h2.get_next_available_stream_id()
        headers = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "test")]
        self.h2.send_headers(stream, [*headers, ("authorization", f"Bearer {server.key}")], end_stream=end)
        return stream

    def status(self, stream: int) -> int:
        """The status that a stream is answered with."""
        self.flush()
        for event in self.events():
            if isinstance(event, h2.events.ResponseReceived) and event.stream_id == stream:
                return int(dict(event.headers)[b":status"])
        raise Cut(begun=False)

    def events(self) -> Iterator[h2.events.Event]:
        """What the server sends, as it comes."""
        while data := self.socket.recv(65_536):
            events = self.h2.receive_data(data)
            self.seen += events
            yield from events
            self.flush()


def test_streams_reset_as_soon_as_they_are_opened(server: Server, neighbour: Neighbour) -> None:
    two = Two(server.port)
    path = f"/store/{server.store}/kv/reset"
    try:
        for _ in range(500):
            two.h2.reset_stream(two.begin(server, "PUT", path))
            two.flush()
    except OSError:
        pass  # the server may hang up on such a client
    neighbour.goes_on()
    with Client(server, server.store) as client:
        assert client.get("reset").status == 404
    again = Two(server.port)
    assert again.status(finish(again, server, path)) == 200


def finish(two: Two, server: Server, path: str) -> int:
    """One whole request, its last piece empty."""
    stream = two.begin(server, "PUT", path)
    two.h2.send_data(stream, b'{"value":')
    two.flush()
    two.h2.send_data(stream, b"1}")
    two.flush()
    two.h2.send_data(stream, b"", end_stream=True)
    two.flush()
    return stream


def test_a_credential_is_found_among_cookies_that_come_one_by_one(server: Server) -> None:
    two = Two(server.port)
    for cookies, status in (
        (["a=b", f"cookie={server.key}"], 200),
        ([f"a=b; cookie={server.key}"], 200),
        (["a=b"], 401),
    ):
        stream = two.h2.get_next_available_stream_id()
        path = f"/o/{server.organisation}/store"
        headers = [(":method", "GET"), (":path", path), (":scheme", "http"), (":authority", "test")]
        two.h2.send_headers(stream, [*headers, *[("cookie", pair) for pair in cookies]], end_stream=True)
        assert two.status(stream) == status


def test_a_stream_that_is_refused_for_its_head_alone_may_send_its_body(server: Server, neighbour: Neighbour) -> None:
    """Some clients, curl among them, take the answer for none if the stream is reset behind it."""
    two = Two(server.port)
    refused = two.begin(server, "PUT", "/nowhere")
    two.flush()
    neighbour.goes_on()  # the server has seen the head by now
    assert two.status(two.begin(server, "GET", "/healthz", end=True)) == 200
    two.h2.send_data(refused, b"x" * 300, end_stream=True)
    assert two.status(two.begin(server, "GET", "/healthz", end=True)) == 200
    kinds = (h2.events.ResponseReceived, h2.events.StreamEnded, h2.events.StreamReset)
    seen = [type(event) for event in two.seen if isinstance(event, kinds) and event.stream_id == refused]
    assert seen == [h2.events.ResponseReceived, h2.events.StreamEnded]


def test_a_stream_whose_body_never_ends_does_not_hold_up_the_others(server: Server, neighbour: Neighbour) -> None:
    two = Two(server.port)
    path = f"/store/{server.store}/kv/unfinished"
    for _ in range(50):
        two.h2.send_data(two.begin(server, "PUT", path), b'{"val')
    two.flush()
    stream = two.begin(server, "GET", "/healthz", end=True)
    two.flush()
    assert two.status(stream) == 200


# -- TLS ----------------------------------------------------------------------------------------------------


class Secure(NamedTuple):
    """A server with a TLS port beside the plain one."""

    server: Server
    port: int
    authority: Path


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("tls")
    run("dev-cert", str(folder / "cert"))
    (port,) = free_ports(1)
    options = ["--https", f"127.0.0.1:{port}", "--tls-cert", str(folder / "cert" / "cert.pem")]
    options += ["--tls-key", str(folder / "cert" / "key.pem")]
    with serving(folder, *options) as server:
        yield Secure(server, port, folder / "cert" / "ca.pem")


@pytest.mark.parametrize(("http2", "version"), [(True, "HTTP/2"), (False, "HTTP/1.1")])
def test_tls_and_the_plain_port_at_the_same_time(secure: Secure, http2: bool, version: str) -> None:
    with beside(secure.server):
        url = f"https://127.0.0.1:{secure.port}/store/{secure.server.store}/kv/"
        trust = ssl.create_default_context(cafile=str(secure.authority))
        with httpx.Client(http2=http2, verify=trust, headers=secure.server.headers, base_url=url, timeout=60) as client:
            for n in range(20):
                put = client.put("tls", json={"value": n})
                assert (put.http_version, put.status_code) == (version, 200)
                assert client.get("tls").json()["value"] == n


@pytest.mark.parametrize(
    ("offered", "agreed"), [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), (["h2"], "h2"), ([], None)]
)
def test_alpn_settles_the_version(secure: Secure, offered: list[str], agreed: str | None) -> None:
    trust = ssl.create_default_context(cafile=str(secure.authority))
    if offered:
        trust.set_alpn_protocols(offered)
    with (
        socket.create_connection(("127.0.0.1", secure.port), timeout=60) as plain,
        trust.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        assert wrapped.selected_alpn_protocol() == agreed
        assert wrapped.version() in ("TLSv1.2", "TLSv1.3")


def test_old_tls_plain_text_and_half_a_handshake_on_the_tls_port(secure: Secure) -> None:
    with beside(secure.server):
        stuck = [socket.create_connection(("127.0.0.1", secure.port), timeout=60) for _ in range(20)]
        for each in stuck:
            each.sendall(bytes.fromhex("16030100f001"))
        with Wire(secure.port) as wire:
            wire.send(request("GET", "/healthz"))
            wire.socket.shutdown(socket.SHUT_WR)
            with pytest.raises(Cut):
                wire.answer()
        trust = ssl.create_default_context(cafile=str(secure.authority))

        def answered() -> bool:
            with httpx.Client(verify=trust, timeout=60) as client:
                return client.get(f"https://localhost:{secure.port}/healthz").status_code == 200

        wait_until(answered, "the TLS port answers")
        for each in stuck:
            each.close()
