"""Clients that read, write, compare-and-set and delete a few keys through several servers, and record what they saw."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
import time
from collections.abc import Sequence

from tests.faults.linearizable import ABSENT, Operation, Value
from tests.raw import Answer, Client, Cut
from tests.serving import Server

#: After an answer that is none, or "unavailable"
PAUSE_SECONDS = 0.01


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
        self.unexpected: list[object] = []

    def history(self) -> list[Operation]:
        """Everything that happened, or may have."""
        assert not self.unexpected, self.unexpected[:3]
        found = [
            Operation("read", key, self.value_of[key, stamp] if stamp else ABSENT, called, answered)
            for key, stamp, called, answered in self.refused
            if not stamp or (key, stamp) in self.value_of
        ]
        return [*self.operations, *found]

    def read_at_last(self) -> None:
        """Read every key once through every server, as part of the record."""
        for server in self.servers:
            caller = Caller(self, 0)
            with Client(server, self.store) as client:
                for key in self.keys:
                    caller.read(client, key)
                    assert caller.failed == 0, f"{key} cannot be read"


class Caller(threading.Thread):
    """One client. It goes on, with a new connection to any of the servers, when something fails."""

    def __init__(self, record: Record, count: int | None = None) -> None:
        """`count`: how many operations to make; None: until `stop` is set."""
        super().__init__(daemon=True)
        self._record = record
        self._count = count
        self._known: dict[str, tuple[str, Value]] = {}
        self.stop = threading.Event()
        self.done = 0
        self.failed = 0

    def run(self) -> None:
        try:
            while not self._finished():
                # What it connects to may be dead; what it is connected to may die.
                with contextlib.suppress(Cut, OSError):
                    self._converse()
                self.stop.wait(PAUSE_SECONDS)
        except BaseException as error:
            self._record.unexpected.append(error)

    def _finished(self) -> bool:
        return self.stop.is_set() or (self._count is not None and self.done >= self._count)

    def _converse(self) -> None:
        with Client(random.choice(self._record.servers), self._record.store) as client:
            while not self._finished():
                key = random.choice(self._record.keys)
                random.choices((self.read, self.write, self.compare_and_set, self.remove), (8, 4, 8, 1))[0](client, key)
                self.done += 1

    def read(self, client: Client, key: str) -> None:
        called = time.monotonic_ns()
        answer = client.get(key)
        answered = time.monotonic_ns()
        if answer.status == 404 and answer.json()["code"] == "not_found":
            self._know(key, "", ABSENT)
            self._add(Operation("read", key, ABSENT, called, answered))
        elif answer.status == 200:
            entry = answer.json()
            self._know(key, entry["versionstamp"], entry["value"])
            self._add(Operation("read", key, entry["value"], called, answered))
        else:
            self._refused(answer)

    def write(self, client: Client, key: str) -> None:
        self._change("write", client, key, next(self._record.values))

    def compare_and_set(self, client: Client, key: str) -> None:
        stamp, value = self._known.get(key, ("", ABSENT))
        condition: dict[str, object] = {"ifVersionstamp": stamp} if stamp else {"ifNotExists": True}
        self._change("cas", client, key, next(self._record.values), expected=value, **condition)

    def remove(self, client: Client, key: str) -> None:
        self._change("write", client, key, ABSENT)

    def _change(
        self, kind: str, client: Client, key: str, value: Value, expected: Value = ABSENT, **condition: object
    ) -> None:
        called = time.monotonic_ns()
        answer = None
        try:
            answer = client.batch_delete([[key]]) if value is ABSENT else client.put(key, value, **condition)
        finally:
            # Also when the connection broke: then nobody knows.
            answered = time.monotonic_ns()
            if answer is None or (answer.status == 500 and answer.json()["code"] == "unknown_outcome"):
                self._add(Operation(kind, key, value, called, None, expected))  # type: ignore[arg-type]
        if answer.status == 200:
            said = answer.json()
            stamp = said.get("versionstamp", "")
            if said.get("committed", True):
                self._know(key, stamp, value)
                self._add(Operation(kind, key, value, called, answered, expected))  # type: ignore[arg-type]
            else:
                self._known.pop(key, None)
                self._record.refused.append((key, stamp, called, answered))
        else:
            self._refused(answer)

    def _know(self, key: str, stamp: str, value: Value) -> None:
        self._known[key] = (stamp if value is not ABSENT else "", value)
        if value is not ABSENT and self._record.value_of.setdefault((key, stamp), value) != value:
            self._record.unexpected.append(f"{key} had two values of the versionstamp {stamp}")

    def _add(self, operation: Operation) -> None:
        self._record.operations.append(operation)

    def _refused(self, answer: Answer) -> None:
        self.failed += 1
        if answer.status not in (500, 503) or answer.json()["code"] not in ("unavailable", "unknown_outcome"):
            self._record.unexpected.append(answer)
            self.stop.set()
        self.stop.wait(PAUSE_SECONDS)
