"""What official clients were recorded sending, byte for byte at the socket of a real server, whole and in pieces."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.voximplant_live import Live, read_answer

PYTHON = """\
POST /platform_api HTTP/1.1\r
Host: 127.0.0.1:18443\r
Accept: */*\r
Accept-Encoding: gzip, deflate\r
Connection: keep-alive\r
User-Agent: python-httpx/0.28.1\r
Authorization: Bearer <jwt>\r
Content-Length: {length}\r
Content-Type: application/x-www-form-urlencoded\r
\r
{body}"""

NODE = """\
POST /platform_api HTTP/1.1\r
Accept: application/json, text/plain, */*\r
Content-Type: multipart/form-data; boundary=--------------------------406513912949913184181599\r
Authorization: Bearer <jwt>\r
User-Agent: axios/0.21.4\r
Host: 127.0.0.1:18443\r
Connection: keep-alive\r
Transfer-Encoding: chunked\r
\r
64\r
----------------------------406513912949913184181599\r
Content-Disposition: form-data; name="cmd"\r
\r
\r
f\r
SetKeyValueItem\r
2\r
\r
\r
6f\r
----------------------------406513912949913184181599\r
Content-Disposition: form-data; name="application_id"\r
\r
\r
1\r
1\r
2\r
\r
\r
64\r
----------------------------406513912949913184181599\r
Content-Disposition: form-data; name="key"\r
\r
\r
6\r
test:1\r
2\r
\r
\r
66\r
----------------------------406513912949913184181599\r
Content-Disposition: form-data; name="value"\r
\r
\r
c\r
héllo & = +\r
2\r
\r
\r
64\r
----------------------------406513912949913184181599\r
Content-Disposition: form-data; name="ttl"\r
\r
\r
6\r
864000\r
3a\r
\r
----------------------------406513912949913184181599--\r
\r
0\r
\r
"""

CURL = """\
POST /platform_api/DelKeyValueItem?key=user_session_token_987654321&application_id=12345\
&application_name=CustomerSupportApp HTTP/1.1\r
Host: 127.0.0.1:18443\r
User-Agent: curl/7.88.1\r
Accept: */*\r
Authorization: Bearer <jwt>\r
Content-Type: application/json\r
Content-Length: 2\r
\r
{}"""


def python(body: str, length: int) -> str:
    """The length is the recorded one, not computed."""
    return PYTHON.format(body=body, length=length)


TRANSCRIPTS = {
    "python set": python(
        "key=test%3A1&value=h%C3%A9llo+%26+%3D+%2B&application_id=1&ttl=864000&cmd=SetKeyValueItem", 89
    ),
    "python get": python("key=test%3A1&application_id=1&cmd=GetKeyValueItem", 49),
    "python items": python("key=test&application_id=1&count=20&offset=0&cmd=GetKeyValueItems", 64),
    "python keys": python("application_id=1&cmd=GetKeyValueKeys", 36),
    "node set": NODE,
    "curl delete": CURL,
    "python delete": python("key=test%3A1&application_id=1&application_name=myapp&cmd=DelKeyValueItem", 72),
}


def check(name: str, answer: tuple[int, dict[str, str], bytes]) -> None:
    """The answer of a server that knows the item the recording sets."""
    status, headers, body = answer
    assert status == 200
    # The Python client wants this type, the Java client the charset.
    assert headers["content-type"] == "application/json; charset=utf-8"
    result: Any = json.loads(body)["result"]
    if name.endswith("delete"):
        assert result == 1
        return
    if name.endswith(("items", "keys")):
        (result,) = result
    assert result["key"] == "test:1"
    assert abs(result["expires_at"] - time.time() - 864_000) < 600
    if not name.endswith("keys"):
        assert result["value"] == "héllo & = +"


def requests(server: Live) -> Iterator[tuple[str, bytes]]:
    for name, transcript in TRANSCRIPTS.items():
        yield name, transcript.replace("<jwt>", server.token()).encode()


def test_whole_on_one_connection(server: Live) -> None:
    with server.connect() as connection, connection.makefile("rb") as answers:
        for name, request in requests(server):
            connection.sendall(request)
            check(name, read_answer(answers))


def test_one_after_the_other_without_waiting(server: Live) -> None:
    with server.connect() as connection, connection.makefile("rb") as answers:
        for _, request in requests(server):
            connection.sendall(request)
        for name, _ in requests(server):
            check(name, read_answer(answers))


def test_byte_by_byte(server: Live) -> None:
    with server.connect() as connection, connection.makefile("rb") as answers:
        for name, request in requests(server):
            for at in range(len(request)):
                connection.send(request[at : at + 1])
            check(name, read_answer(answers))


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_split_at_every_byte(server: Live, name: str) -> None:
    """Every first piece is on its way long before any second one."""
    sent = dict(requests(server))
    with server.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(sent["python set"])
        check("python set", read_answer(answers))
    request = sent[name]
    cuts = range(1, len(request))
    for batch in range(0, len(cuts), 200):
        connections = [(cut, server.connect()) for cut in cuts[batch : batch + 200]]
        for cut, connection in connections:
            connection.sendall(request[:cut])
        for cut, connection in connections:
            connection.sendall(request[cut:])
        for _, connection in connections:
            with connection, connection.makefile("rb") as answers:
                check(name, read_answer(answers))


def test_expect_100_continue(server: Live) -> None:
    """curl, inside the PHP client too, waits for the server's word before a longer body."""
    head, body = dict(requests(server))["python set"].split(b"\r\n\r\n")
    with server.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(head + b"\r\nExpect: 100-continue\r\n\r\n")
        assert answers.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert answers.readline() == b"\r\n"
        connection.sendall(body)
        check("python set", read_answer(answers))
