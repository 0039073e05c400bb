"""Clients that read and write two keys together, or one of them, through several servers, and record what they saw."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence
from typing import Any

from tests.support.faults.linearizable import ABSENT, Operation
from tests.support.faults.stubborn import Stubborn
from tests.support.raw_http import Answer, Client, dump
from tests.support.serving import Server

#: The two keys of a register
MEMBERS = ("left", "right")
Pair = tuple[int | None, ...]


def ask(client: Client, store: str, path: str, body: object) -> Answer:
    """A POST to Kvasir's own API; an unmet check is an answer like others, whose body has `failed`."""
    answer = client.wire.ask("POST", f"/v1/spaces/{store}/{path}", dump(body))
    return answer._replace(status=200) if answer.status == 412 else answer


class PairRecord:
    """What all clients did to pairs of keys, of which every value was written at most once."""

    def __init__(self, servers: Sequence[Server], store: str, names: Sequence[str]) -> None:
        self.servers = servers
        self.store = store
        self.names = names
        self.values = itertools.count(1)
        self.operations: list[Operation] = []


class PairCaller(Stubborn):
    """One client, which does this and that."""

    def __init__(self, record: PairRecord, count: int | None = None) -> None:
        super().__init__(record.servers, record.store, count)
        self._record = record
        #: Values and versionstamps that a pair was seen to have
        self._seen: dict[str, tuple[Pair, list[str | None]]] = {}
        self.conflicts = 0

    def step(self, client: Client) -> None:
        name = random.choice(self._record.names)
        random.choices((self.read, self.write, self.compare_and_set, self.write_one), (8, 4, 6, 4))[0](client, name)

    def read(self, client: Client, name: str) -> None:
        called = time.monotonic_ns()
        body = {"keys": [[name, member] for member in MEMBERS]}
        answer = self.attempt(lambda: ask(client, self.store, "get", body), lambda: None)
        if answer is None:
            return
        entries = answer.json()["entries"]
        pair = tuple(ABSENT if entry is None else entry["value"] for entry in entries)
        self._seen[name] = pair, [entry and entry["versionstamp"] for entry in entries]
        self._add("read", name, pair, called)

    def write(self, client: Client, name: str) -> None:
        self._set(client, name, "write", (next(self._record.values), next(self._record.values)))

    def write_one(self, client: Client, name: str) -> None:
        self._set(client, name, "write", (next(self._record.values),), member=random.choice((0, 1)))

    def compare_and_set(self, client: Client, name: str) -> None:
        pair, stamps = self._seen.pop(name, ((ABSENT, ABSENT), [None, None]))
        checks = [{"key": [name, key], "versionstamp": stamp} for key, stamp in zip(MEMBERS, stamps, strict=True)]
        new = (next(self._record.values), next(self._record.values))
        self._set(client, name, "cas", new, expected=pair, checks=checks)

    def _set(
        self, client: Client, name: str, kind: str, values: Pair, *, member: int | None = None, **more: Any
    ) -> None:
        keys = MEMBERS if member is None else (MEMBERS[member],)
        body = {
            "checks": more.get("checks", []),
            "mutations": [
                {"type": "set", "key": [name, key], "value": value} for key, value in zip(keys, values, strict=True)
            ],
        }
        called = time.monotonic_ns()
        add = {"expected": more.get("expected", ABSENT), "member": member}
        value = values if member is None else values[0]
        answer = self.attempt(
            lambda: ask(client, self.store, "atomic", body), lambda: self._add(kind, name, value, called, None, **add)
        )
        if answer is None:
            return
        if "failed" in answer.json():
            self.conflicts += 1
        else:
            self._add(kind, name, value, called, **add)

    def _add(self, kind: Any, name: str, value: Any, called: int, answered: int | None = -1, **more: Any) -> None:
        answered = time.monotonic_ns() if answered == -1 else None
        self._record.operations.append(Operation(kind, name, value, called, answered, **more))
