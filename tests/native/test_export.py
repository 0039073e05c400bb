"""Export and import: whole or known to be cut, exact, bounded, and frank about what was not taken."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvasir.dialects.native import exporting
from kvasir.dialects.native.lines import Splitter
from kvasir.engine import Engine
from kvasir.keys import pack, prefix_range
from kvasir.model import Entry, Joined
from tests.support.lab import Lab, commit, new_space, put, scanned
from tests.support.native import Client, refusal
from tests.support.raw_http import request
from tests.support.serving import Server, serving, wait_until


def exported(kv: Client, query: str = "") -> list[Any]:
    answer = kv.ask("GET", f"export?{query}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines[-1] == {"end": {"entries": len(lines) - 1}}
    return lines[:-1]


def imported(kv: Client, *lines: Any, query: str = "") -> Any:
    text = "\n".join([line if isinstance(line, str) else json.dumps(line) for line in lines])
    answer = kv.ask("POST", f"import?{query}", content=text.encode())
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def other(kv: Client) -> Client:
    """A second store."""
    return Client(kv.http, kv.http.post("spaces", json={"name": f"other of {kv.id}"}).json()["id"])


def test_an_export_has_every_entry_in_key_order_and_an_end(kv: Client) -> None:
    assert exported(kv) == []
    kv.set("b", b' {"x":\r\n 18446744073709551617.0}', kvasir_metadata='{"n": 1.0}')
    kv.set("a/1", 1, "ttl=1h&refresh=true")
    kv.set("ab", "é\u2028")
    lines = exported(kv)
    assert [line["key"] for line in lines] == [["a", "1"], ["ab"], ["b"]]
    assert list(lines[0]) == ["key", "text", "metadata", "refresh", "created_at", "expires_at", "versionstamp"]
    assert lines[2]["text"] == ' {"x":\r\n 18446744073709551617.0}'
    assert lines[2]["metadata"] == {"n": 1.0}
    entry = kv.entry("a", "1")
    assert lines[0] == {name: entry.get(name) for name in lines[0]} | {"text": "1"}
    assert lines[0]["refresh"] == 3_600_000
    assert [line["key"] for line in exported(kv, "prefix=a")] == [["a", "1"]]
    assert refusal(kv.ask("GET", "export?prefix=")) == (400, "invalid", ["prefix"])


def test_an_export_goes_into_an_import(kv: Client, other: Client) -> None:
    for number in range(1_200):
        kv.set(f"k/{number:04}", number)
    kv.set("odd", b' {"x":\r\n 1.0}', "ttl=1h&refresh=true", kvasir_metadata='{"n": 1}')
    before = exported(kv)
    text = kv.ask("GET", "export").content
    report = other.ask("POST", "import", content=text).json()
    assert report == {
        "set": 1_201, "kept": 0, "refused": 0, "refusals": [], "ignored": ["created_at", "versionstamp"],
        "lines": 1_202, "whole": True, "dry_run": False,
    }  # fmt: skip
    made_anew = ("created_at", "versionstamp")
    after = exported(other)
    for one, two in zip(before, after, strict=True):
        assert {k: v for k, v in one.items() if k not in made_anew} == {
            k: v for k, v in two.items() if k not in made_anew
        }


def test_sliding_lives_without_an_end_and_with_a_far_one_come_through(kv: Client, other: Client) -> None:
    kv.set("a", 1, "ttl=1h&refresh=true")
    kv.ask("POST", "atomic", json={"mutations": [{"type": "touch", "key": ["a"], "expires_at": None}]})
    kv.set("b", 1, "expires_at=9999-12-31T23:59:59Z&refresh=true")
    assert "kvasir-expires-at" not in kv.get("a").headers
    tags = {kv.get("a", "form=entry").headers["etag"] for _ in range(3)}
    assert len(tags) == 1
    before = exported(kv)
    assert [line["expires_at"] for line in before] == [None, "9999-12-31T23:59:59.000Z"]
    report = other.ask("POST", "import", content=kv.ask("GET", "export").content).json()
    assert (report["set"], report["refused"], report["whole"]) == (2, 0, True)
    names = ("key", "refresh", "expires_at")
    assert [[line[name] for name in names] for line in exported(other)] == [
        [line[name] for name in names] for line in before
    ]


@pytest.mark.parametrize("mode", ["replace", "keep", "fail"])
def test_lines_outside_a_keys_prefix_are_refused_one_by_one(
    v1: httpx.Client, kv: Client, server: Server, mode: str
) -> None:
    key = v1.post("keys", json={"name": "narrow", "role": "developer", "prefix": ["team"]}).json()["key"]
    lines = b'{"key":["team","x"],"value":1}\n{"key":["other","x"],"value":1}\n'
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=f"{server.url}/v1/", headers=headers, trust_env=False) as client:
        for dry_run in ("true", "false"):
            path = f"spaces/{kv.id}/import?mode={mode}&dry_run={dry_run}"
            report = client.post(path, content=lines).json()
            assert (report["set"], report["refused"]) == (1, 1)
            assert report["refusals"][0]["line"] == 2
            assert "prefix" in report["refusals"][0]["reason"]
    assert [line["key"] for line in exported(kv)] == [["team", "x"]]


def test_a_stream_that_is_cut_at_any_byte_is_known_as_cut(kv: Client, other: Client) -> None:
    for key in ("a", "b", "c"):
        kv.set(key, {"end": {"entries": 1}})
    text = kv.ask("GET", "export").content
    assert text.endswith(b'{"end":{"entries":3}}\n')
    for size in range(len(text) - 1):
        last = text[:size].splitlines()[-1:] or [b""]
        assert not re.fullmatch(rb'\{"end":\{"entries":3\}\}', last[0])
    for size in range(0, len(text) - 1, 7):
        report = other.ask("POST", "import", content=text[:size]).json()
        assert report["whole"] is None or report["refused"]


def test_what_a_line_may_have(kv: Client) -> None:
    report = imported(
        kv,
        {"key": ["a"], "value": 1.50},
        {"key": ["b"], "text": "1.50"},
        "",
        {"key": ["c"], "value": None, "ttl": "1h", "refresh": True, "metadata": {"x": 1}},
        '{"key": ["d"], "value": 1.50}\r',
        {"key": ["e"], "text": "1", "refresh": 5_000, "expires_at": "2100-01-01T00:00:00.000Z"},
    )
    assert (report["set"], report["refused"], report["whole"]) == (5, 0, None)
    assert kv.get("d").content == b"1.50"
    assert kv.entry("c")["metadata"] == {"x": 1}
    sliding = kv.entry("e")
    assert (sliding["refresh"], sliding["expires_at"]) == (5_000, "2100-01-01T00:00:00.000Z")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "invalid JSON"),
        ("[]", "expected an object"),
        ({"value": 1}, "key is missing"),
        ({"key": []}, "key is missing"),
        ({"key": ["a"]}, "text or value"),
        ({"key": ["a"], "value": 1, "text": "1"}, "contradicts"),
        ({"key": ["a"], "text": "{"}, "must hold JSON"),
        ({"key": ["a"], "value": 1, "colour": 1}, "colour: is not known"),
        ({"key": ["a"], "value": 1, "ttl": "1"}, "ttl must be"),
        ({"key": ["a"], "value": 1, "expires_at": "2000-01-01T00:00:00Z"}, "in the past"),
        ({"key": ["a"], "value": 1, "metadata": []}, "metadata must be an object"),
        ({"key": ["a"], "value": 1, "refresh": True}, "refresh needs"),
        ({"key": ["a"], "value": 1, "refresh": 5, "ttl": "1h"}, "write true"),
        ({"key": ["x" * 2047], "value": 1}, "the key is"),
        ({"key": ["a"], "value": "x" * 2**20}, "the value is"),
        ({"key": ["a"], "value": 1, "metadata": {"x": "y" * 16_384}}, "the metadata is"),
        ("x" * 3_000_000, "too long"),
        ({"end": {}}, "the number of entries"),
    ],
)
def test_a_refused_line_is_told_and_the_others_are_taken(kv: Client, line: Any, reason: str) -> None:
    report = imported(kv, {"key": ["first"], "value": 1}, line, {"key": ["last"], "value": 1})
    assert (report["set"], report["refused"]) == (2, 1)
    assert report["refusals"][0]["line"] == 2
    assert reason in report["refusals"][0]["reason"]
    assert kv.ask("GET", "count").json() == {"count": 2}


def test_a_hundred_refusals_are_told_and_all_are_counted(kv: Client) -> None:
    report = imported(kv, *["x"] * 150)
    assert (report["refused"], len(report["refusals"])) == (150, 100)


def test_the_end_line_is_held_against_what_came(kv: Client) -> None:
    a = {"key": ["a"], "value": 1}
    assert imported(kv, a, {"end": {"entries": 1}})["whole"] is True
    assert imported(kv, a, {"end": {"entries": 2}})["whole"] is False
    report = imported(kv, a, {"end": {"entries": 1}}, a)
    assert report["refusals"] == [{"line": 3, "reason": "it follows the line that ends an export"}]


@pytest.mark.parametrize("dry_run", ["true", "false"])
def test_modes(kv: Client, dry_run: str) -> None:
    kv.set("a", "old")
    lines = [{"key": [key], "value": "new"} for key in ("x", "a", "y")]
    counts = {"replace": (3, 0), "keep": (2, 1)}
    for mode, (set_, kept) in counts.items():
        kv.ask("DELETE", "entries?prefix=x")
        kv.ask("DELETE", "entries?prefix=y")
        kv.set("a", "old")
        report = imported(kv, *lines, query=f"mode={mode}&dry_run={dry_run}")
        assert (report["set"], report["kept"], report["dry_run"]) == (set_, kept, dry_run == "true")
        if dry_run == "true":
            assert kv.ask("GET", "count").json() == {"count": 1}
        else:
            assert kv.get("a").json() == ("new" if mode == "replace" else "old")
            assert kv.get("y").json() == "new"


@pytest.mark.parametrize("dry_run", ["true", "false"])
def test_fail_stops_at_the_first_key_that_exists(kv: Client, dry_run: str) -> None:
    kv.set("k/700", "old")
    text = "\n".join([json.dumps({"key": ["k", f"{n:03}"], "value": n}) for n in range(1_000)])
    answer = kv.ask("POST", f"import?mode=fail&dry_run={dry_run}", content=text.encode())
    assert refusal(answer) == (412, "conflict", [])
    problem = answer.json()
    assert (problem["line"], problem["key"]) == (701, ["k", "700"])
    assert (problem["imported"]["set"], problem["imported"]["lines"]) == (500, 500)
    assert kv.ask("GET", "count").json() == {"count": 1 if dry_run == "true" else 501}
    twice = [{"key": ["twice"], "value": 1}] * 2
    text = "\n".join(map(json.dumps, twice))
    if dry_run == "false":
        assert kv.ask("POST", "import?mode=fail", content=text.encode()).json()["line"] == 2


def test_pieces_are_cut_into_lines_wherever_they_are_cut() -> None:
    text = b"one\ntwo\n" + b"x" * 30 + b"\n\nlast"
    expected = [b"one", b"two", None, b"", b"last"]
    for size in range(1, len(text)):
        splitter = Splitter(20)
        pieces = [text[at : at + size] for at in range(0, len(text), size)] + [b""]
        assert [line for piece in pieces for line in splitter.feed(piece)] == expected


# -- bounds -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    options = ("--limit-unread-seconds", "1", "--limit-credential-imports", "1", "--limit-body-seconds", "3")
    with serving(tmp_path_factory.mktemp("narrow"), *options, "--limit-snapshot-seconds", "2") as server:
        yield server


@pytest.fixture
def narrow_kv(narrow: Server) -> Iterator[Client]:
    with httpx.Client(base_url=f"{narrow.url}/v1/", headers=narrow.headers, timeout=60, trust_env=False) as client:
        yield Client(client, narrow.store)


def opened(server: Server, data: bytes) -> socket.socket:
    """A connection on which something has been sent, and that nobody reads."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    connection.sendall(data)
    return connection


def test_a_slow_export_is_let_go_and_a_credential_has_only_so_many(narrow: Server, narrow_kv: Client) -> None:
    large = b'"' + b"x" * 1_000_000 + b'"'
    for number in range(20):
        narrow_kv.set(f"large/{number}", large)
    path = f"/v1/spaces/{narrow.store}/export"
    held = [opened(narrow, request("GET", path)) for _ in range(2)]
    try:
        for connection in held:
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
        assert refusal(narrow_kv.ask("GET", "export")) == (503, "unavailable", [])
        wait_until(lambda: narrow_kv.ask("GET", "export?prefix=none").status_code == 200, "they are let go")
    finally:
        for connection in held:
            connection.close()


def test_an_import_that_stops_coming_ends_and_one_has_only_so_many(narrow: Server, narrow_kv: Client) -> None:
    path = f"/v1/spaces/{narrow.store}/import"
    first = b'{"key":["slow"],"value":1}\n'
    head = request("POST", path, more="Transfer-Encoding: chunked\r\n")
    connection = opened(narrow, head + b"%x\r\n%b\r\n" % (len(first), first))
    try:
        wait_until(lambda: narrow_kv.ask("POST", "import", content=b"").status_code == 503, "the place is taken")
        answer = connection.recv(65_536)
        assert b"400 Bad Request" in answer
        assert b"send it faster" in answer
        assert narrow_kv.ask("POST", "import", content=b"").status_code == 200
    finally:
        connection.close()


def test_a_viewer_exports_and_does_not_import(kv: Client, server: Server) -> None:
    assert refusal(httpx.get(f"{server.url}/v1/spaces/{kv.id}/export", trust_env=False))[0] == 401
    assert refusal(kv.http.get("spaces/01HF0000000000000000000000/export"))[:2] == (404, "store_not_found")
    assert refusal(kv.http.post("spaces/01HF0000000000000000000000/import"))[:2] == (404, "store_not_found")


ODD = st.text(st.sampled_from('\x00\x01\x02\x03\x1e\\u01e"n\n\x7fäé\u2028/,[]'), max_size=8)


PARTS = st.lists(ODD | st.text(st.characters(exclude_categories=["Cs"]), max_size=4), min_size=1, max_size=3)
#: Keys, texts and whether there is more
FOUND = st.lists(st.tuples(PARTS, ODD, st.booleans()), min_size=1, max_size=5)


@given(FOUND)
@example([(["k"], "what is between \x1e values", False), (["l"], "and \\u001e spelt out", True)])
def test_entries_that_are_rendered_together_are_as_one_by_one(found: list[tuple[list[str], str, bool]]) -> None:
    batch = [
        Entry(
            pack(key),
            msgspec.json.encode(text),
            versionstamp,
            0,
            1,
            2 if more else None,
            3 if more else None,
            b'{"a":\n1}' if more else None,
        )
        for versionstamp, (key, text, more) in enumerate(found)
    ]
    lines = exporting.lines(batch)
    assert lines == b"".join(b"{%b}\n" % exporting.members(entry) for entry in batch)
    told = [json.loads(line) for line in lines.splitlines()]
    assert [(line["key"], json.loads(line["text"])) for line in told] == [(key, text) for key, text, _ in found]


@pytest.mark.parametrize(
    "instant",
    ["0", "-1", "-999999999999", "999999999999", "1780000000000", "1780000000999", "9999999999999", "1" + "0" * 17],
)
def test_an_instant_among_joined_entries_is_as_in_any_answer(instant: str) -> None:
    facts = f"{instant},{instant},,".encode()
    entry = Entry(pack(["k"]), b"1", 5, 0, int(instant), int(instant))
    assert exporting.joined_lines(Joined(1, pack(["k"]), b"1", facts, b"5")) == exporting.lines([entry])


@pytest.mark.parametrize("space", [" ", "\n", "\r", "\t", "\r\n"])
def test_whitespace_in_joined_values_is_told_as_it_is(space: str) -> None:
    values = [b"1", b'["a",%b2]' % space.encode()]
    keys = [pack([str(n)]) for n in range(len(values))]
    batch = Joined(len(values), b"\x7f".join(keys), b"\x1e".join(values), b"5\xff5", b"5,6")
    entries = [Entry(key, value, 5 + n, 0, 5) for n, (key, value) in enumerate(zip(keys, values, strict=True))]
    assert exporting.joined_lines(batch) == b"".join(b"{%b}\n" % exporting.members(entry) for entry in entries)


@settings(max_examples=40)
@given(FOUND)
@example([(["k"], "what is between \x1e values", False), (["l"], "and \\u001e spelt out", True)])
@example([(["k\x7f"], "what is between keys", False), (["l"], "", False)])
@example([(["\\u0000\x02"], "a backslash, u0000 and 02", True)])
@example([(["a", "\\"], "an escaped backslash, and the start of the next key", False)])
def test_lines_that_the_database_joins_are_as_one_by_one(found: list[tuple[list[str], str, bool]]) -> None:
    puts = {
        pack(key): put(
            pack(key), msgspec.json.encode(text), metadata=b'{"a":\n1}' if more else None, ttl=9 if more else None
        )
        for key, text, more in found
    }

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, *puts.values())
        async with contextlib.aclosing(engine.scan(space, None, True)) as batches:
            told = [
                exporting.joined_lines(batch) if isinstance(batch, Joined) else exporting.lines(batch)
                async for batch in batches
            ]
        entries = await scanned(engine, space)
        assert len(entries) == len(puts)
        assert b"".join(told) == b"".join(b"{%b}\n" % exporting.members(entry) for entry in entries)

    with tempfile.TemporaryDirectory() as folder:
        Lab("sqlite", Path(folder)).run(story)


def test_plain_entries_are_joined(tmp_path: Path) -> None:
    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, *[put(pack(["a", str(n)]), b"1") for n in range(900)])
        async with contextlib.aclosing(engine.scan(space, None, True)) as batches:
            assert sum([batch.count async for batch in batches if isinstance(batch, Joined)]) == 900
        # Nobody knows how large a text with long ones would become.
        await commit(
            engine, space, *[put(pack(["b", str(n)]), metadata=b'{"m":"%b"}' % (b"x" * 2_000)) for n in (1, 2)]
        )
        async with contextlib.aclosing(engine.scan(space, prefix_range(["b"]), True)) as batches:
            assert [batch.count if isinstance(batch, Joined) else 0 async for batch in batches] == [0]

    Lab("sqlite", tmp_path).run(story)


def test_threads_get_the_interpreter_sooner_while_something_is_scanned(tmp_path: Path) -> None:
    usual = sys.getswitchinterval()

    async def story(engine: Engine) -> None:
        space = (await new_space(engine)).number
        await commit(engine, space, put(pack(["a"])))
        async with contextlib.aclosing(engine.scan(space)) as scan:
            await anext(scan)
            async with contextlib.aclosing(engine.scan(space)) as other:
                await anext(other)
            assert sys.getswitchinterval() < usual
        assert sys.getswitchinterval() == usual

    Lab("sqlite", tmp_path).run(story)
