"""A command is carried out at one moment, however many keys it has and whatever others do meanwhile."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.nemesis import TEXT, Client, Raw, client, frame, local
from tests.support.serving import Server

KEYS = [f"k{number}" for number in range(100)]


@contextmanager
def writing(url: str, command: str, **parameters: object) -> Iterator[threading.Event]:
    """A client that repeats a command, each time with the next number as the value of every key."""
    leave = threading.Event()

    def run() -> None:
        with client(url) as writer:
            number = 0
            while not leave.is_set():
                number += 1
                keys = dict.fromkeys(KEYS, number)
                writer.do(command, **(parameters if command == "KV_APPEND" else {**parameters, "keys": keys}))
                if command == "KV_APPEND":
                    writer.receive()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield leave
    finally:
        leave.set()
        thread.join(30)


@pytest.mark.parametrize("command", ["KV_SET", "KV_CLEAR_SET"])
def test_a_search_sees_one_moment(server: Server, command: str) -> None:
    with client(server.nemesis_url) as caller:
        token = caller.session()
        caller.do("KV_SET", tkn=token, keys=dict.fromkeys(KEYS, 0))
        with writing(server.nemesis_url, command, tkn=token):
            for chosen in ({}, {"keys": KEYS}):
                for _ in range(60):
                    found = caller.do("KV_FIND", tkn=token, path="$", rsp="kv", **chosen)["keys"]
                    assert len(found) == len(KEYS)
                    assert len(set(found.values())) == 1, found


def test_an_append_to_several_keys_is_one_write(server: Server) -> None:
    with client(server.nemesis_url) as caller:
        token = caller.session()
        caller.do("KV_SET", tkn=token, keys={"a": "", "b": ""})
        with writing(server.nemesis_url, "KV_APPEND", tkn=token, a="x", b="x"):
            for _ in range(300):
                got = caller.do("KV_GET", tkn=token, keys=["a", "b"])["keys"]
                assert got["a"] == got["b"]


def test_searches_for_keys_that_are_not_strings_find_nothing(server: Server) -> None:
    with client(server.nemesis_url) as caller:
        token = caller.session()
        caller.do("KV_SET", tkn=token, keys={"a": 1})
        assert caller.do("KV_FIND", tkn=token, path="$", rsp="keys", keys=[5])["keys"] == []
        assert caller.do("KV_FIND", tkn=token, path="$", rsp="keys", keys=[])["keys"] == ["a"]


def test_requests_before_the_end_are_answered_before_it(server: Server) -> None:
    with client(server.nemesis_url) as caller:
        token = caller.session()
    asked = json.dumps({"KV_SET": {"tkn": token, "keys": {"last": 1}}}).encode()
    for _ in range(10):
        with Raw(server.nemesis_port) as raw:
            raw.send(frame(TEXT, asked) + frame(TEXT, b"\xff"))
            reply = raw.receive()
            assert reply is not None
            assert b"KV_SET_RSP" in reply[1]
            assert raw.closed_with() == 1007


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


def ask(caller: Client, text: str) -> dict[str, object]:
    caller.connection.send(text)
    (reply,) = json.loads(caller.connection.recv(timeout=30)).values()
    return dict(reply)


def test_two_values_are_not_too_deep_together() -> None:
    with local() as server, client(server.url) as caller:
        token = caller.session()
        assert ask(caller, f'{{"KV_SET":{{"tkn":"{token}","keys":{{"d":{nested(400)}}}}}}}')["keys"] == {"d": 20}
        pointer = "/0" * 399
        for update in (f'"{pointer}/-":{nested(300)}', f'"path":"${"[0]" * 398}","value":{nested(300)}'):
            text = f'{{"KV_UPDATE":{{"tkn":"{token}","key":"d",{update}}}}}'
            reply = ask(caller, text)
            if reply["st"] != 42:
                assert reply["st"] == 5  # the pointer may lead nowhere; then nothing was stored
        assert ask(caller, f'{{"KV_GET":{{"tkn":"{token}","keys":["d"]}}}}')["keys"] == {"d": json.loads(nested(400))}
