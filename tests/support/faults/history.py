"""Clients that read, write, compare-and-set and delete a few keys through several servers, and record what they saw."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Sequence

from tests.support.faults.linearizable import ABSENT, Operation, Value
from tests.support.faults.stubborn import Stubborn
from tests.support.raw_http import Client
from tests.support.serving import Server


class Record:
    """What all clients did to the keys of one store, of which every value was written at most once."""

    def __init__(self, servers: Sequence[Server], store: str, keys: Sequence[str]) -> None:
        self.servers = servers
        self.store = store
        self.keys = keys
        self.values = itertools.count(1)
        #: The value behind each versionstamp that any client has seen
        self.value_of: dict[tuple[str, str], Value] = {}
        self.operations: list[Operation] = []
        #: Compare-and-sets that were refused, with the versionstamp found; their values are looked up in the end.
        self.refused: list[tuple[str, str, int, int]] = []

    def history(self) -> list[Operation]:
        """Everything that happened, or may have."""
        found = [
            Operation("read", key, self.value_of[key, stamp] if stamp else ABSENT, called, answered)
            for key, stamp, called, answered in self.refused
            if not stamp or (key, stamp) in self.value_of
        ]
        return [*self.operations, *found]

    def read_at_last(self) -> None:
        """Read every key once through every server, as part of the record."""
        reader = Caller(self)
        for server in self.servers:
            with Client(server, self.store) as client:
                for key in self.keys:
                    reader.read(client, key)
        assert reader.done == len(self.servers) * len(self.keys), "a key cannot be read"


class Caller(Stubborn):
    """One client, which does this and that."""

    def __init__(self, record: Record, count: int | None = None) -> None:
        super().__init__(record.servers, record.store, count)
        self._record = record
        self._seen: dict[str, tuple[str, Value]] = {}

    def step(self, client: Client) -> None:
        key = random.choice(self._record.keys)
        random.choices((self.read, self.write, self.compare_and_set, self.remove), (8, 4, 8, 1))[0](client, key)

    def read(self, client: Client, key: str) -> None:
        called = time.monotonic_ns()
        answer = self.attempt(lambda: client.get(key), lambda: None)
        if answer is None:
            return
        stamp, value = "", ABSENT
        if answer.status == 200:
            stamp, value = (answer.json()[member] for member in ("versionstamp", "value"))
        self._see(key, stamp, value)
        self._add("read", key, value, called)

    def write(self, client: Client, key: str) -> None:
        self._set("write", client, key)

    def compare_and_set(self, client: Client, key: str) -> None:
        stamp, value = self._seen.get(key, ("", ABSENT))
        condition: dict[str, object] = {"ifVersionstamp": stamp} if stamp else {"ifNotExists": True}
        self._set("cas", client, key, value, **condition)

    def _set(self, kind: str, client: Client, key: str, expected: Value = ABSENT, **condition: object) -> None:
        value = next(self._record.values)
        called = time.monotonic_ns()
        answer = self.attempt(
            lambda: client.put(key, value, **condition),
            lambda: self._add(kind, key, value, called, expected, unknown=True),
        )
        if answer is None:
            return
        said = answer.json()
        if said["committed"]:
            self._see(key, said["versionstamp"], value)
            self._add(kind, key, value, called, expected)
        else:
            self._seen.pop(key, None)
            self._record.refused.append((key, said["versionstamp"], called, time.monotonic_ns()))

    def remove(self, client: Client, key: str) -> None:
        called = time.monotonic_ns()
        answer = self.attempt(lambda: client.delete(key), lambda: self._add("write", key, ABSENT, called, unknown=True))
        if answer is not None:
            self._see(key, "", ABSENT)
            self._add("write", key, ABSENT, called)

    def _see(self, key: str, stamp: str, value: Value) -> None:
        self._seen[key] = (stamp, value)
        if stamp and self._record.value_of.setdefault((key, stamp), value) != value:
            self.unexpected.append(f"{key} had two values of the versionstamp {stamp}")

    def _add(
        self, kind: str, key: str, value: Value, called: int, expected: Value = ABSENT, *, unknown: bool = False
    ) -> None:
        answered = None if unknown else time.monotonic_ns()
        self._record.operations.append(Operation(kind, key, value, called, answered, expected))  # type: ignore[arg-type]
