"""What sloppy clients send, byte for byte, with the answers of this API: HTTP status 200, and a code."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from tests.support.voximplant_live import Live, read_answer

FORM, JSON = "application/x-www-form-urlencoded", "application/json"
MARK = b"\xef\xbb\xbf"
DAY = 86_400


def ask(
    server: Live, method: str, body: bytes, kind: str = FORM, *, query: str = "", more: str = ""
) -> tuple[dict[str, str], dict[str, Any]]:
    """Headers and JSON of an answer."""
    head = (
        f"POST /platform_api/{method}{query} HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {server.token()}\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    )
    with server.connect() as connection, connection.makefile("rb") as answers:
        connection.sendall(head.encode() + body)
        status, headers, answer = read_answer(answers)
    assert status == 200
    return headers, json.loads(answer)


def life(answer: dict[str, Any]) -> int:
    """Seconds from the writing of an item to its end."""
    return int(answer["result"]["expires_at"] - answer["result"]["updated_at"])


def test_every_answer_names_its_charset(server: Live) -> None:
    """Without it, the Java client reads ISO-8859-1."""
    for body in ("key=узел&value=значение&application_id=1".encode(), b"key=&application_id=1", b"application_id=9"):
        headers, _ = ask(server, "SetKeyValueItem", body)
        assert headers["content-type"] == "application/json; charset=utf-8"
    headers, answer = ask(server, "GetKeyValueItem", "key=узел&application_id=1".encode())
    assert (headers["content-type"], answer["result"]["value"]) == ("application/json; charset=utf-8", "значение")


@pytest.mark.parametrize("id", ["0", "00"])
def test_an_application_id_of_zero_beside_a_name_means_by_name(server: Live, id: str) -> None:
    """The Go and .NET clients cannot leave the id out."""
    _, answer = ask(server, "SetKeyValueItem", f"key=z&value=v&application_id={id}&application_name=myapp".encode())
    assert answer["result"]["value"] == "v"
    _, answer = ask(server, "GetKeyValueItem", b"key=z&application_id=1")
    assert answer["result"]["value"] == "v"
    _, answer = ask(server, "GetKeyValueItem", f"key=z&application_id={id}&application_name=nobody".encode())
    assert answer["error"]["code"] == 107
    _, answer = ask(server, "GetKeyValueItem", f"key=z&application_id={id}".encode())
    assert answer["error"]["code"] == 116


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (FORM, MARK + b"ttl=60&key=m&value=v&application_id=1"),
        (f"{FORM}; charset=ISO-8859-1", MARK + b"ttl=60&key=m&value=v&application_id=1"),
        (FORM, b"%EF%BB%BFttl=60&key=m&value=v&application_id=1"),
        (JSON, MARK + b'{"ttl":60,"key":"m","value":"v","application_id":1}'),
        (
            "multipart/form-data; boundary=b",
            MARK
            + b"".join(
                b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % pair
                for pair in ((b"ttl", b"60"), (b"key", b"m"), (b"value", b"v"), (b"application_id", b"1"))
            )
            + b"--b--\r\n",
        ),
    ],
)
def test_a_byte_order_mark_is_skipped(server: Live, kind: str, body: bytes) -> None:
    _, answer = ask(server, "SetKeyValueItem", body, kind)
    assert abs(life(answer) - 60) <= 1


def test_a_byte_order_mark_in_a_query_is_skipped(server: Live) -> None:
    query = "?%EF%BB%BFttl=60&key=m&value=v&application_id=1"
    assert abs(life(ask(server, "SetKeyValueItem", b"", query=query)[1]) - 60) <= 1


def test_a_byte_order_mark_in_an_array_is_named(server: Live) -> None:
    _, answer = ask(server, "DelKeyValueItems", b"application_id=1&keys=%EF%BB%BF[]")
    assert (answer["error"]["code"], "byte order mark" in answer["error"]["msg"]) == (496, True)


@pytest.mark.parametrize("kind", [FORM, JSON])
@pytest.mark.parametrize("encoded", [True, False])
def test_an_encoded_body_is_refused_by_name(server: Live, kind: str, encoded: bool) -> None:
    body = b"key=e&value=v&application_id=1" if kind == FORM else b'{"key":"e","value":"v","application_id":1}'
    sent = gzip.compress(body) if encoded else body
    _, answer = ask(server, "SetKeyValueItem", sent, kind, more="Content-Encoding: gzip\r\n")
    assert (answer["error"]["code"], answer["error"]["reason"]) == (101, "unsupported_encoding")
    assert "'gzip'" in answer["error"]["msg"]
    assert "identity" in answer["error"]["msg"]
    assert ask(server, "GetKeyValueItem", b"key=e&application_id=1")[1]["error"]["code"] == 496
    _, answer = ask(server, "SetKeyValueItem", body, kind, more="Content-Encoding: identity\r\n")
    assert answer["result"]["key"] == "e"
    assert ask(server, "DelKeyValueItem", b"key=e&application_id=1")[1]["result"] == 1


@pytest.mark.parametrize("text", ["50%", "50%2", "%zz", "%u0041"])
def test_a_broken_percent_encoding_is_no_second_form_of_a_text(server: Live, text: str) -> None:
    for query, body in (("", f"key=p&value={text}&application_id=1"), (f"?value={text}", "key=p&application_id=1")):
        _, answer = ask(server, "SetKeyValueItem", body.encode(), query=query)
        assert (answer["error"]["code"], "percent sign" in answer["error"]["msg"]) == (101, True)
    _, answer = ask(server, "SetKeyValueItem", b"key=p&value=50%252&application_id=1")
    assert answer["result"]["value"] == "50%2"
