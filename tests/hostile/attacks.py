"""The attacks: for every operation of every API, requests at a limit and just over it, with the least credential.

A new operation needs a row in one of the tables at the end; a test compares them with what the dialects list.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt

from kvasir.limits import Limits
from tests.support.cli import Commands
from tests.support.nemesis import TEXT, client, frame
from tests.support.raw_http import Client, request
from tests.support.serving import Server
from tests.support.voximplant import private_key

LIMITS = Limits()
MIB = 1 << 20
#: Metadata, and a filter, that take milliseconds to compare; a JSON text of a MiB that is slow to decode.
SLOW = '{"m":[' + "[]," * 5_000 + "%d]}"
DENSE = "[" + '{"a":1},' * 49_990 + "1]"
VALUES, SLOW_ENTRIES, SMALL_ENTRIES = 40, 500, 20_000


@dataclass(frozen=True)
class Attack:
    """One request, with which connections do harm."""

    api: str
    operation: str
    what: str
    request: bytes
    #: Whether its body or its answer may have more than 4 MiB.
    large: bool = False


class World:
    """A server with something to read, and the credentials of those who attack it."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.server = server
        self.store = server.store
        kvasir = Commands(server)
        self.viewer = kvasir("key", "create", "--name", "viewer", "--role", "viewer").stdout.strip()
        self.developer = kvasir("key", "create", "--name", "developer", "--role", "developer").stdout.strip()
        self.manager = kvasir("key", "create", "--name", "manager", "--role", "admin").stdout.strip()
        kvasir("application", "create", "--name", "app", "--id", "1")
        self.reader = self._token(kvasir("service-account", "create", "--role", "KV Reader").stdout)
        self.writer = self._token(kvasir("service-account", "create", "--role", "Developer").stdout)
        #: The request to open a WebSocket
        self.upgrade = directory / "upgrade"
        self.upgrade.write_bytes(
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self._stock()

    def _token(self, credentials: str) -> str:
        account = json.loads(credentials)
        now = int(time.time())
        payload = json.dumps({"iss": str(account["account_id"]), "iat": now - 5, "exp": now + 3_595}).encode()
        return str(
            jwt.PyJWS().encode(payload, private_key(account["private_key"]), "RS256", {"kid": account["key_id"]})
        )

    def _stock(self) -> None:
        with Client(self.server, self.store) as kv:
            for n in range(VALUES):
                assert kv.put(f"large/{n}", "x" * (MIB - 2)).status == 200
            for at in range(0, SLOW_ENTRIES, 100):
                entries = ",".join(
                    f'{{"key":["slow","{n}"],"value":1,"options":{{"metadata":{SLOW % 0}}}}}'
                    for n in range(at, at + 100)
                )
                body = f'{{"entries":[{entries}]}}'.encode()
                assert kv.wire.ask("PUT", f"/store/{self.store}/kv/batch", body).status == 200
            for at in range(0, SMALL_ENTRIES, 1_000):
                kv.batch_set({("small", str(n)): n for n in range(at, at + 1_000)})
        with client(self.server.nemesis_url) as nemesis:
            self.session = nemesis.session("stocked", shared=True)
            for at in range(0, SMALL_ENTRIES, 1_000):
                nemesis.do("KV_SET", tkn=self.session, keys={str(n): {"n": n} for n in range(at, at + 1_000)})
            self.heavy = nemesis.session("heavy", shared=True)
            for n in range(VALUES):
                nemesis.do("KV_SET", tkn=self.heavy, keys={f"large{n}": "x" * (MIB - 200)})
            dense = json.loads(DENSE)
            for n in range(8):
                nemesis.do("KV_SET", tkn=self.heavy, keys={f"dense{n}": dense})
        for at in range(0, 4_000, 500):
            items = [{"key": f"k{n}", "value": "x" * 100} for n in range(at, at + 500)]
            with Client(self.server, self.store) as kv:
                answer = kv.wire
                answer.send(self.voximplant("SetKeyValueItems", {"items": json.dumps(items)}, self.writer))
                assert b'"result"' in answer.answer().body

    # -- requests -----------------------------------------------------------------------------------------

    def versori(self, method: str, rest: str, body: bytes, key: str | None = None) -> bytes:
        return request(method, f"/store/{self.store}/kv/{rest}", body, key=key or self.viewer)

    def native(self, method: str, rest: str, body: bytes = b"", key: str | None = None) -> bytes:
        return request(method, f"/v1/spaces/{self.store}/{rest}", body, key=key or self.viewer)

    def voximplant(self, name: str, members: dict[str, Any] | bytes, token: str | None = None) -> bytes:
        body = members if isinstance(members, bytes) else json.dumps({"application_id": 1, **members}).encode()
        more = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return request("POST", f"/platform_api/{name}", body, key=token or self.reader, more=more)

    def nemesis(self, command: str, **members: Any) -> bytes:
        return self.nemesis_text(json.dumps({command: members}, separators=(",", ":")).encode())

    def nemesis_text(self, text: bytes) -> bytes:
        return frame(TEXT, text)


def sized(size: int, start: str, repeated: str, end: str) -> bytes:
    """A text of at most so many bytes: the start, something as often as there is room, the end."""
    times = (size - len(start) - len(end)) // len(repeated)
    return (start + repeated * times + end).encode()


def padded(size: int, text: bytes) -> bytes:
    """A JSON text with blanks behind it."""
    return text + b" " * (size - len(text))


# -- the tables -------------------------------------------------------------------------------------------


def versori(world: World) -> Iterator[Attack]:
    """The Versori API."""

    def attack(operation: str, what: str, method: str, rest: str, body: bytes, key: str = "") -> Attack:
        large = len(body) > 4 * MIB or what.startswith("an answer")
        return Attack("versori", operation, what, world.versori(method, rest, body, key or None), large)

    developer = world.developer
    yield attack("GetKV", "a value of 1 MiB", "GET", "large/1", b"")
    dense = b'{"value":' + sized(LIMITS.value_bytes - 100, "[", '"a",', "1]") + b"}"
    yield attack("SetKV", "a value of 1 MiB of short strings", "PUT", "attack", dense, developer)
    full = sized(LIMITS.set_body_bytes, '{"value":[', '{"a":1},', "1]}")
    yield attack("SetKV", "more objects than allowed", "PUT", "attack", full, developer)
    most = b'{"value":' + DENSE.encode() + b"}"
    yield attack("SetKV", "as many objects as allowed", "PUT", "attack", most, developer)
    colons = b'{"value":' + ("[" + '{"a":":"},' * 49_990 + "1]").encode() + b"}"
    yield attack("SetKV", "colons that hide duplicates", "PUT", "attack", colons, developer)
    quotes = sized(LIMITS.value_bytes, '{"value":[' + "[]," * 100_001 + '"', '\\"', "")
    yield attack("SetKV", "a string without an end", "PUT", "attack", quotes, developer)
    yield attack("SetKV", "a body too long", "PUT", "attack", padded(LIMITS.set_body_bytes + 1, b"{}"), developer)
    yield attack("DeleteKV", "a longest body", "DELETE", "attack", padded(LIMITS.query_body_bytes, b"{}"), developer)
    keys = b'{"keys":[%b]}'
    yield attack("BatchGetKV", "an answer of 31 MiB", "POST", "batch",
                 keys % b",".join(b'["large","%d"]' % n for n in range(31)))  # fmt: skip
    yield attack("BatchGetKV", "an answer too large", "POST", "batch",
                 keys % b",".join(b'["large","%d"]' % (n % VALUES) for n in range(1_000)))  # fmt: skip
    yield attack("BatchGetKV", "1,000 small keys", "POST", "batch",
                 keys % b",".join(b'["small","%d"]' % n for n in range(1_000)))  # fmt: skip
    many = b'["a"' + b',""' * 1_000 + b"]"
    yield attack("BatchGetKV", "1,000 keys of 1,000 parts", "POST", "batch", keys % b",".join([many] * 1_000))
    yield attack("BatchGetKV", "millions of keys", "POST", "batch",
                 sized(LIMITS.keys_body_bytes, '{"keys":[', '["a"],', '["a"]]}'))  # fmt: skip
    yield attack("BatchGetKV", "one key of millions of parts", "POST", "batch",
                 sized(LIMITS.keys_body_bytes, '{"keys":[[', '"",', '""]]}'))  # fmt: skip
    yield attack("BatchDeleteKV", "1,000 keys", "DELETE", "batch",
                 keys % b",".join(b'["attack","%d"]' % n for n in range(1_000)), developer)  # fmt: skip
    yield attack("BatchDeleteKV", "millions of keys", "DELETE", "batch",
                 sized(LIMITS.keys_body_bytes, '{"keys":[', '["a"],', '["a"]]}'), developer)  # fmt: skip
    entry = '{"key":["attack","b"],"value":' + "[" + '"a",' * 3_500 + "1]},"
    yield attack("BatchSetKV", "16 MiB of short strings", "PUT", "batch",
                 sized(LIMITS.batch_body_bytes, '{"entries":[', entry, '{"key":["attack"],"value":1}]}'),
                 developer)  # fmt: skip
    yield attack("BatchSetKV", "one entry of 16 MiB", "PUT", "batch",
                 sized(LIMITS.batch_body_bytes, '{"entries":[{"key":["attack"],"value":[', "[],", "1]}]}"),
                 developer)  # fmt: skip
    filtered = b'{"selector":{"filter":{"metadata":' + (SLOW % 1).encode() + b"}}}"
    yield attack("ListKV", "a slow filter that finds nothing", "POST", "list", filtered)
    yield attack("ListKV", "a page of large values", "POST", "list", b'{"selector":{"prefix":["large"]}}')
    yield attack("ListKV", "a filter too long", "POST", "list",
                 b'{"selector":{"filter":{"metadata":{"m":"' + b"x" * LIMITS.metadata_bytes + b'"}}}}')  # fmt: skip
    yield attack("ListKV", "the last entries of a range", "POST", "list",
                 b'{"options":{"reverse":true},"selector":{"prefix":["small"]}}')  # fmt: skip
    yield attack("CountKV", "all entries", "POST", "count", b"{}")
    path = f"/o/{world.server.organisation}/store"
    yield Attack("versori", "ListStores", "all stores", request("GET", path, key=world.viewer))
    name = b'{"name":"' + b"x" * LIMITS.query_body_bytes + b'"}'
    yield Attack("versori", "CreateStore", "a name too long", request("POST", path, name, key=world.manager))


def voximplant(world: World) -> Iterator[Attack]:
    """The Voximplant API."""

    def attack(name: str, what: str, members: dict[str, Any] | bytes, token: str = "") -> Attack:
        return Attack("voximplant", name, what, world.voximplant(name, members, token or None))

    writer = world.writer
    yield attack("GetKeyValueItem", "one item", {"key": "k1"})
    yield attack("GetKeyValueItems", "50 of 4,000 items, counted", {"key": "k", "count": 50, "offset": 3_000})
    yield attack("GetKeyValueKeys", "50 of 4,000 keys, counted", {"count": 50, "offset": 3_000})
    yield attack("GetKeyValueKeys", "members without number",
                 sized(262_144, '{"application_id":1', ',"a":1', "}"))  # fmt: skip
    yield attack("GetKeyValueKeys", "a body too long", b"{" * 262_145)
    yield attack("SetKeyValueItem", "the longest value", {"key": "attack", "value": "ü" * 2_000}, writer)
    yield attack("DelKeyValueItem", "one item", {"key": "attack"}, writer)
    yield attack("IncrKeyValueItem", "one counter", {"key": "counter"}, writer)
    yield attack("TouchKeyValueItem", "one item", {"key": "k1", "ttl": 1_000}, writer)
    items = [{"key": f"attack{n}", "value": "x" * 150} for n in range(1_000)]
    yield attack("SetKeyValueItems", "1,000 items", {"items": json.dumps(items)}, writer)
    dense = "[" + "[]," * 80_000 + "1]"
    yield attack("SetKeyValueItems", "arrays in arrays", {"items": dense}, writer)
    yield attack("DelKeyValueItems", "1,000 keys", {"keys": json.dumps([f"attack{n}" for n in range(1_000)])}, writer)
    yield attack("DelKeyValueItems", "a prefix", {"prefix": "attack"}, writer)


def nemesis(world: World) -> Iterator[Attack]:
    """The NemesisDB API, which needs no credential here."""

    def attack(command: str, what: str, text: bytes | None = None, **members: Any) -> Attack:
        request = world.nemesis(command, **members) if text is None else world.nemesis_text(text)
        return Attack("nemesis", command, what, request, large=what.startswith("an answer"))

    small, heavy = world.session, world.heavy
    yield attack("KV_GET", "a value of 1 MiB", tkn=heavy, keys=["large1"])
    yield attack("KV_GET", "an answer of 7 MiB", tkn=heavy, keys=[f"large{n}" for n in range(7)])
    yield attack("KV_GET", "an answer too large", tkn=heavy, keys=[f"large{n}" for n in range(40)])
    yield attack("KV_GET", "as many keys as a message has room for", tkn=small,
                 keys=[str(n) for n in range(100_000)])  # fmt: skip
    yield attack("KV_CONTAINS", "as many keys as a message has room for", tkn=small,
                 keys=[str(n) for n in range(100_000)])  # fmt: skip
    yield attack("KV_SET", "100,000 keys", tkn=small, keys={f"attack{n}": n for n in range(50_000)})
    yield attack("KV_SETQ", "one dense value", tkn=small, keys={"attack": json.loads(DENSE)})
    yield attack("KV_SET", "more arrays than allowed",
                 sized(MIB, f'{{"KV_SET":{{"tkn":"{small}","keys":{{"a":[', "[],", "1]}}}"))  # fmt: skip
    yield attack("KV_ADD", "keys that exist", tkn=small, keys={str(n): n for n in range(20_000)})
    yield attack("KV_ADDQ", "keys that exist", tkn=small, keys={str(n): n for n in range(20_000)})
    yield attack("KV_RMV", "keys that do not exist", tkn=small, keys=[f"none{n}" for n in range(60_000)])
    yield attack("KV_COUNT", "20,000 keys", tkn=small)
    yield attack("KV_KEYS", "20,000 keys", tkn=small)
    yield attack("KV_FIND", "all values by a path", tkn=small, path="$..[?(@.n > 1)]", rsp="paths")
    yield attack("KV_FIND", "large values by a path", tkn=heavy, path="$..a", rsp="keys")
    yield attack("KV_FIND", "large values, a hard expression", tkn=heavy, path="$..[?(@.a =~ /(x+x+)+y/)]", rsp="keys")
    yield attack("KV_FIND", "all values by a pointer", None, **{"tkn": heavy, "path": "/5/a", "==": 1})
    yield attack("KV_UPDATE", "a large value by a path", tkn=heavy, key="dense0", path="$..a", value=2)
    yield attack("KV_UPDATE", "a large value by a pointer", None, **{"tkn": heavy, "key": "dense1", "/5/a": 2})
    yield attack("KV_APPEND", "a large value", tkn=heavy, dense2=[1])
    yield attack("KV_CLEAR_SET", "an unknown session", tkn="0", keys={str(n): n for n in range(40_000)})
    yield attack("KV_CLEAR", "an unknown session", tkn="0")
    yield attack("SH_NEW", "sessions without end", name="attack", expiry={"duration": 5, "deleteSession": True})
    yield attack("SH_OPEN", "one session", name="stocked")
    yield attack("SH_END", "an unknown session", tkn="0")
    yield attack("SH_END_ALL", "refused for its parameters", more=1)
    yield attack("SH_EXISTS", "as many tokens as a message has room for", tkns=[str(n) for n in range(100_000)])
    yield attack("SH_INFO", "one session", tkn=small)
    yield attack("SH_INFO_ALL", "all sessions")
    yield attack("SH_SAVE", "a session", name="attack", tkns=[small])
    yield attack("SH_LOAD", "what is not there", name="none")
    yield attack("none", "a message that is no command", sized(MIB, "[", "[],", "1]"))
    yield attack("none", "a string without an end", sized(MIB - 100, "[" + "[]," * 100_001 + '"', '\\"', ""))
    yield attack("none", "small messages in a row", None, tkn=small)


def native(world: World) -> Iterator[Attack]:
    """Kvasir's own API."""

    def attack(operation: str, what: str, method: str, rest: str, body: bytes = b"", key: str = "") -> Attack:
        large = len(body) > 4 * MIB or what.startswith("an answer")
        return Attack("native", operation, what, world.native(method, rest, body, key or None), large)

    developer = world.developer
    yield attack("GetEntry", "a value of 1 MiB", "GET", "entries/large/1")
    yield attack("SetEntry", "a value of 1 MiB of short strings", "PUT", "entries/attack",
                 sized(MIB - 100, "[", '"a",', "1]"), developer)  # fmt: skip
    yield attack("SetEntry", "as many objects as allowed", "PUT", "entries/attack", DENSE.encode(), developer)
    yield attack("DeleteEntry", "one", "DELETE", "entries/attack", key=developer)
    yield attack("ListEntries", "a page of large values", "GET", "entries?prefix=large&limit=1000")
    yield attack("ListEntries", "a page of small values", "GET", "entries?prefix=small&limit=1000")
    yield attack("CountEntries", "all entries", "GET", "count?all=true")
    yield attack("ListChildren", "20,000 children", "GET", "children?prefix=small&limit=1000")
    keys = ",".join(f'["large","{n}"]' for n in range(31))
    yield attack("GetMany", "an answer of 31 MiB", "POST", "get", f'{{"keys":[{keys}]}}'.encode())
    yield attack("GetMany", "millions of keys", "POST", "get",
                 sized(LIMITS.keys_body_bytes, '{"keys":[', '["a"],', '["a"]]}'))  # fmt: skip
    yield attack("Atomic", "a body of junk", "POST", "atomic", sized(16 * MIB, '{"mutations":[', "[],", "1]}"),
                 developer)  # fmt: skip
    text = json.dumps("[" + '"a",' * 250_000 + "1]")
    mutations = ",".join([f'{{"type":"set","key":["attack"],"text":{text}}}'] * 10)
    yield attack("Atomic", "texts of 10 MiB", "POST", "atomic", f'{{"mutations":[{mutations}]}}'.encode(), developer)
    yield attack("DeletePrefix", "what is not there", "DELETE", "entries?prefix=none", key=developer)
    yield Attack("native", "ListSpaces", "all", request("GET", "/v1/spaces", key=world.viewer))


#: By API: what makes its attacks.
APIS: dict[str, Callable[[World], Iterator[Attack]]] = {
    "versori": versori,
    "voximplant": voximplant,
    "nemesis": nemesis,
    "native": native,
}
