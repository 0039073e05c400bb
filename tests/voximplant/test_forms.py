"""Where parameters come from: path or `cmd`, query and every kind of body; each contradiction and bound."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qsl, quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from kvasir.dialects.voximplant.errors import ApiError
from kvasir.dialects.voximplant.forms import MAX_BOUNDARY_BYTES, MAX_PARAMETERS, urlencoded
from kvasir.limits import VoximplantLimits
from tests.support.request import FakeRequest
from tests.support.voximplant import URLENCODED, World, settings_with

JSON = "application/json"
B = "b0undary"
MULTIPART = f"multipart/form-data; boundary={B}"


def part(name: str, value: bytes, more: str = "") -> bytes:
    return f'--{B}\r\nContent-Disposition: form-data; name="{name}"\r\n{more}\r\n'.encode() + value + b"\r\n"


END = f"--{B}--\r\n".encode()
ONE = part("application_id", b"1")


@pytest.mark.parametrize(
    ("path", "served"),
    [
        ("/platform_api", True),
        ("/platform_api/", True),
        ("/platform_api/SetKeyValueItem", True),
        ("/platform_api/SetKeyValueItem/", True),
        ("/kv/v1/platform_api", True),
        ("/kv/v1/platform_api/SetKeyValueItem", True),
        ("/platform_api/NoSuchMethod", True),
        ("/platform_api//", True),
        ("/", False),
        ("", False),
        ("/platform", False),
        ("/xplatform_api", False),
        ("/xplatform_api/SetKeyValueItem", False),
        ("/platform_api/SetKeyValueItem/more", False),
        ("/platform_apix", False),
    ],
)
def test_paths(path: str, served: bool) -> None:
    assert World().dialect.serves(path) is served


#: path, query, body, content type -> code; the call is always the same Set
SET = "key=k%3A1&value=v+%2B&application_id=1"
CALLS: list[tuple[str, str, str, bytes, str | None]] = [
    ("python", "/platform_api", "", f"{SET}&cmd=SetKeyValueItem".encode(), URLENCODED),
    ("charset", "/platform_api", "", f"{SET}&cmd=SetKeyValueItem".encode(), f"{URLENCODED}; charset=UTF-8"),
    ("no content type", "/platform_api", "", f"{SET}&cmd=SetKeyValueItem".encode(), None),
    ("curl: query", "/platform_api/SetKeyValueItem", SET, b"", None),
    ("curl: query, {}", "/platform_api/SetKeyValueItem", SET, b"{}", JSON),
    ("query, any empty body", "/platform_api/SetKeyValueItem/", SET, b"", "text/plain"),
    ("cmd in the query", "/platform_api", f"{SET}&cmd=SetKeyValueItem", b"", None),
    ("cmd and path agree", "/platform_api/SetKeyValueItem", f"{SET}&cmd=SetKeyValueItem", b"", None),
    ("query and body agree", "/platform_api/SetKeyValueItem", SET, SET.encode(), URLENCODED),
    ("halves", "/platform_api/SetKeyValueItem", "key=k%3A1&application_id=1", b"value=v+%2B", URLENCODED),
    ("json", "/platform_api/SetKeyValueItem", "", b'{"key":"k:1","value":"v +","application_id":1}', JSON),
    (
        "json, null and charset",
        "/platform_api",
        "",
        b'{"cmd":"SetKeyValueItem","key":"k:1","value":"v \\u002b","application_id":"1","ttl":null}',
        f"{JSON}; charset=utf-8",
    ),
    (
        "multipart",
        "/platform_api/SetKeyValueItem",
        "",
        ONE + part("key", b"k:1") + part("value", b"v +") + END,
        MULTIPART,
    ),
    (
        "multipart, unquoted names and boundary in quotes",
        "/platform_api/SetKeyValueItem",
        "",
        (ONE + part("key", b"k:1") + part("value", b"v +") + END).replace(b'"', b""),
        f'multipart/form-data; boundary="{B}"',
    ),
    (
        "multipart, value as a file",
        "/platform_api/SetKeyValueItem",
        "",
        ONE
        + part("key", b"k:1", "Content-Type: text/plain; charset=UTF-8\r\n")
        + f'--{B}\r\nContent-Disposition: form-data; name="value"; filename="stream"\r\n'.encode()
        + b"Content-Type: application/octet-stream\r\n\r\nv +\r\n"
        + END,
        MULTIPART,
    ),
    (
        "multipart, java",
        "/platform_api/SetKeyValueItem",
        "account_id=1",
        ONE
        + part("key", b"k:1", "Content-Type: text/plain; charset=ISO-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n")
        + part("value", b"v +")
        + END,
        MULTIPART,
    ),
]


@pytest.mark.parametrize(
    ("path", "query", "body", "content_type"), [row[1:] for row in CALLS], ids=[row[0] for row in CALLS]
)
@pytest.mark.parametrize("verb", ["GET", "POST"])
def test_every_way_to_call(path: str, query: str, body: bytes, content_type: str | None, verb: str) -> None:
    world = World()
    answer = world.ask(path, query, body, content_type, verb=verb)
    assert answer["result"].items() >= {"key": "k:1", "value": "v +"}.items()


@given(st.text("%3Aa2B+=&;", max_size=24))
@example("key=a%253Ab")
@example("key=%%3A&a%3d=%3%3A")
def test_a_form_is_decoded_as_the_standard_library_does(text: str) -> None:
    expected = parse_qsl(text, keep_blank_values=True, errors="replace")
    names = [name for name, _ in expected]
    assume("\ufffd" not in repr(expected) and len(set(names)) == len(names))
    if re.search("%(?![0-9A-Fa-f]{2})", text):  # which the library takes for the character
        with pytest.raises(ApiError, match="101"):
            urlencoded(text)
        return
    assert urlencoded(text) == {name: value for name, value in expected if name}


@pytest.mark.parametrize(
    ("value", "charset"),
    [
        ("Привет, 😀\nмир", "utf-8"),
        ("", "utf-8"),
        ("--b0undar", "utf-8"),
        ("\r\n--b0undar\r\n\r\n-", "utf-8"),
        ("naïve", "iso-8859-1"),
        ("plain", "us-ascii"),
    ],
    ids=ascii,
)
def test_values_arrive_as_they_were_sent(value: str, charset: str) -> None:
    world = World()
    header = f"Content-Type: text/plain; charset={charset}\r\n"
    body = ONE + part("key", "ключ".encode()) + part("value", value.encode(charset), header) + END
    assert world.ask("/platform_api/SetKeyValueItem", body=body, content_type=MULTIPART)["result"]["value"] == value
    form = f"application_id=1&key={quote('ключ')}&value={quote(value, encoding=charset)}"
    sent = world.ask(
        "/platform_api/SetKeyValueItem", body=form.encode(), content_type=f"{URLENCODED}; charset={charset}"
    )
    # Percent-encoding is UTF-8 whatever the charset of the (ASCII) form around it.
    assert ("error" in sent) == (charset == "iso-8859-1")


#: what is sent -> code; application 1 and a token are given
WRONG: list[tuple[str, str, str, bytes, str | None, int]] = [
    ("no command", "/platform_api", SET, b"", None, 102),
    ("empty command", "/platform_api/", f"{SET}&cmd=", b"", None, 102),
    ("unknown command", "/platform_api/NoSuchMethod", SET, b"", None, 103),
    ("unknown cmd", "/platform_api", f"{SET}&cmd=setkeyvalueitem", b"", None, 103),
    ("cmd and path differ", "/platform_api/SetKeyValueItem", f"{SET}&cmd=GetKeyValueItem", b"", None, 101),
    ("cmd differs in the body", "/platform_api", f"{SET}&cmd=SetKeyValueItem", b"cmd=GetKeyValueItem", URLENCODED, 101),
    ("repeated in the query", "/platform_api/SetKeyValueItem", f"{SET}&value=w", b"", None, 101),
    ("repeated alike", "/platform_api/SetKeyValueItem", f"{SET}&ttl=1&ttl=1", b"", None, 101),
    ("repeated in a form", "/platform_api/SetKeyValueItem", "", f"{SET}&value=w".encode(), URLENCODED, 101),
    ("repeated in JSON", "/platform_api/SetKeyValueItem", SET, b'{"ttl":1,"ttl":1}', JSON, 101),
    ("repeated part", "/platform_api/SetKeyValueItem", SET, part("ttl", b"1") * 2 + END, MULTIPART, 101),
    ("query and body differ", "/platform_api/SetKeyValueItem", SET, b"value=w", URLENCODED, 101),
    ("other content type", "/platform_api/SetKeyValueItem", SET, b"<xml/>", "text/xml", 101),
    ("query is not UTF-8", "/platform_api/SetKeyValueItem", "key=%FF&value=v&application_id=1", b"", None, 101),
    ("form is not UTF-8", "/platform_api/SetKeyValueItem", "", b"key=\xff", URLENCODED, 101),
    ("lone surrogate", "/platform_api/SetKeyValueItem", "key=%ED%A0%80&application_id=1", b"", None, 101),
    ("other charset", "/platform_api/SetKeyValueItem", SET, b"ttl=1", f"{URLENCODED}; charset=utf-7", 101),
    ("JSON cut off", "/platform_api/SetKeyValueItem", SET, b'{"ttl":', JSON, 101),
    ("JSON array", "/platform_api/SetKeyValueItem", SET, b"[]", JSON, 101),
    ("JSON text", "/platform_api/SetKeyValueItem", SET, b'"x"', JSON, 101),
    (
        "JSON lone surrogate",
        "/platform_api/SetKeyValueItem",
        "application_id=1&key=k",
        b'{"value":"\\ud800"}',
        JSON,
        101,
    ),
    ("JSON deep", "/platform_api/SetKeyValueItem", SET, b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}", JSON, 101),
    ("JSON boolean for a number", "/platform_api/SetKeyValueItem", SET, b'{"ttl":true}', JSON, 496),
    ("JSON fraction for a number", "/platform_api/SetKeyValueItem", SET, b'{"ttl":5.0}', JSON, 496),
    ("no boundary", "/platform_api/SetKeyValueItem", SET, ONE + END, "multipart/form-data", 101),
    ("long boundary", "/platform_api/SetKeyValueItem", SET, b"x", f"multipart/form-data; boundary={'b' * 71}", 101),
    ("not a multipart", "/platform_api/SetKeyValueItem", SET, b"hello", MULTIPART, 101),
    ("unterminated part", "/platform_api/SetKeyValueItem", SET, part("ttl", b"1"), MULTIPART, 101),
    ("unterminated header", "/platform_api/SetKeyValueItem", SET, f"--{B}\r\nContent-Dis".encode(), MULTIPART, 101),
    ("unterminated end", "/platform_api/SetKeyValueItem", SET, part("ttl", b"1") + f"--{B}-".encode(), MULTIPART, 101),
    (
        "duplicate boundary",
        "/platform_api/SetKeyValueItem",
        SET,
        f"--{B}\r\n".encode() + part("ttl", b"1") + END,
        MULTIPART,
        101,
    ),
    (
        "part without a name",
        "/platform_api/SetKeyValueItem",
        SET,
        f"--{B}\r\nX: y\r\n\r\nz\r\n".encode() + END,
        MULTIPART,
        101,
    ),
    (
        "part that is a file only",
        "/platform_api/SetKeyValueItem",
        SET,
        part("ttl", b"1").replace(b"form-data", b"attachment") + END,
        MULTIPART,
        101,
    ),
    ("part not UTF-8", "/platform_api/SetKeyValueItem", SET, part("x", b"\xff") + END, MULTIPART, 101),
    (
        "name not UTF-8",
        "/platform_api/SetKeyValueItem",
        SET,
        part("x", b"1").replace(b'"x"', b'"\xff"') + END,
        MULTIPART,
        101,
    ),
    (
        "long header",
        "/platform_api/SetKeyValueItem",
        SET,
        part("x", b"1", f"X-A: {'a' * 5_000}\r\n") + END,
        MULTIPART,
        101,
    ),
    ("many headers", "/platform_api/SetKeyValueItem", SET, part("x", b"1", "X-A: a\r\n" * 20) + END, MULTIPART, 101),
]


@pytest.mark.parametrize(
    ("path", "query", "body", "content_type", "code"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_what_makes_no_sense(path: str, query: str, body: bytes, content_type: str | None, code: int) -> None:
    world = World()
    assert world.ask(path, query, body, content_type)["error"]["code"] == code
    assert world.entry("k:1") is None


def many(count: int) -> list[tuple[bytes, str]]:
    names = [f"p{number}" for number in range(count)]
    return [
        ("&".join(f"{name}=1" for name in names).encode(), URLENCODED),
        (b"".join(part(name, b"1") for name in names) + END, MULTIPART),
        (json.dumps(dict.fromkeys(names, 1)).encode(), JSON),
    ]


@pytest.mark.parametrize("kind", range(3))
def test_number_of_parameters(kind: int) -> None:
    for count, refused in ((MAX_PARAMETERS, False), (MAX_PARAMETERS + 1, True), (10_000, True)):
        body, content_type = many(count)[kind]
        world = World(settings_with(form_bytes=10**7))
        answer = world.ask("/platform_api/SetKeyValueItem", SET, body, content_type)
        assert ("error" in answer) == refused
        if refused:
            assert answer["error"]["code"] == 101
            assert str(MAX_PARAMETERS) in answer["error"]["msg"]
    assert "error" in world.ask("/platform_api/SetKeyValueItem", f"{SET}&{many(MAX_PARAMETERS)[0][0].decode()}")


@pytest.mark.parametrize(
    ("content_type", "before", "after", "bound"),
    [
        (URLENCODED, b"x=", b"", VoximplantLimits().form_bytes),
        (
            MULTIPART,
            part("y", b"1") + f'--{B}\r\nContent-Disposition: form-data; name="x"\r\n\r\n'.encode(),
            b"\r\n" + END,
            VoximplantLimits().form_bytes,
        ),
        (JSON, b'{"x":"', b'"}', VoximplantLimits().json_bytes),
    ],
    ids=["urlencoded", "multipart", "json"],
)
def test_length_of_a_body(content_type: str, before: bytes, after: bytes, bound: int) -> None:
    world = World()
    for length, refused in ((bound, False), (bound + 1, True)):
        body = before + b"a" * (length - len(before) - len(after)) + after
        answer = world.ask("/platform_api/SetKeyValueItem", SET, body, content_type)
        assert ("error" in answer) == refused
        if refused:
            assert answer["error"]["code"] == 101
            assert f"{bound:,}" in answer["error"]["msg"]


def test_longest_boundary() -> None:
    boundary = "b" * MAX_BOUNDARY_BYTES
    body = (part("ttl", b"1") + END).replace(B.encode(), boundary.encode())
    world = World()
    assert "result" in world.ask(
        "/platform_api/SetKeyValueItem", SET, body, f"multipart/form-data; boundary={boundary}"
    )


@pytest.mark.parametrize("verb", ["PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_other_http_methods(verb: str) -> None:
    response = World().respond(FakeRequest(verb, "/platform_api"))
    assert response.status == 405
    assert ("Allow", "GET, POST") in response.headers


def test_bodies_are_not_quoted_in_logs(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    for body in (b"--wrong", part("a", b"1")[:-1] + b"secret", b"--b0undary\r\nsecret header\r\n"):
        world.ask("/platform_api/SetKeyValueItem", SET, body, MULTIPART)
    assert caplog.records == []


def test_a_bug_is_an_internal_error_and_its_cause_stays_here(
    caplog: pytest.LogCaptureFixture, monkeypatch: Any
) -> None:
    world = World()

    def fails(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(world.store, "get", fails)
    answer = world.call("GetKeyValueItem", key="k")
    assert answer == {"error": {"msg": "Internal error.", "code": 2}}
    assert FakeRequest.id in caplog.text
