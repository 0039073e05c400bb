"""Writers that remember what was acknowledged, and what must therefore be there afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.support.raw_http import Answer, Client, Cut
from tests.support.serving import Server

#: Keys that a writer sets together, in one request.
GROUP = 5


class Writer(threading.Thread):
    """Writes until its connection ends: a counter, a group of keys set as one, a growing log, and deletions from it."""

    def __init__(self, server: Server, store: str, name: str) -> None:
        super().__init__(name=f"writer-{name}", daemon=True)
        self._server = server
        self._store = store
        self._key = name
        #: How often the whole round was begun and how far it was acknowledged
        self.counter = [0, 0]
        self.group = [0, 0]
        self.log = [0, 0]
        self.deleted = [0, 0]
        self.unexpected: list[object] = []
        self.stop = threading.Event()

    def run(self) -> None:
        try:
            with Client(self._server, self._store) as client:
                while not self.stop.is_set():
                    self._round(client)
        except (Cut, ConnectionError) as cut:
            if isinstance(cut, Cut) and cut.begun:
                self.unexpected.append(cut)
        except Exception as error:
            self.unexpected.append(error)

    def _round(self, client: Client) -> None:
        n = self.counter[1] + 1
        key = self._key
        self._do(self.counter, n, lambda: client.put(f"counter/{key}", n))
        self._do(self.group, n, lambda: client.batch_set({("group", key, str(i)): n for i in range(GROUP)}))
        self._do(self.log, n, lambda: client.put(f"log/{key}/{n}", n, ifNotExists=True))
        if n % 7 == 0:
            self._do(self.deleted, n, lambda: client.batch_delete([["log", key, str(n - 3)], ["log", key, str(n)]]))

    def _do(self, progress: list[int], n: int, work: Callable[[], Answer]) -> None:
        if self.unexpected:
            return
        progress[0] = n
        answer = work()
        if answer.status != 200 or answer.json().get("failures") or answer.json().get("committed") is False:
            self.unexpected.append(answer)
            self.stop.set()
        else:
            progress[1] = n

    def verify(self, client: Client) -> None:
        """Everything acknowledged is there, nothing is there by half, and only the last request may be undecided."""
        key = self._key
        assert not self.unexpected, self.unexpected
        counter = client.values([("counter", key)]).get(("counter", key), 0)
        assert self.counter[1] <= counter <= self.counter[0]
        group = client.values([("group", key, str(i)) for i in range(GROUP)])
        values = {group.get(("group", key, str(i)), 0) for i in range(GROUP)}
        assert len(values) == 1, f"a group was written by half: {group}"
        assert self.group[1] <= values.pop() <= self.group[0]
        self._verify_log(client)

    def _verify_log(self, client: Client) -> None:
        gone = {n for round in range(7, self.deleted[1] + 1, 7) for n in (round - 3, round)}
        undecided = {self.deleted[0] - 3, self.deleted[0]} if self.deleted[0] != self.deleted[1] else set()
        log = client.values([("log", self._key, str(n)) for n in range(1, self.log[0] + 1)])
        there = {int(name) for _, _, name in log}
        assert all(log[("log", self._key, str(n))] == n for n in there)
        expected = set(range(1, self.log[1] + 1)) - gone - undecided
        assert expected <= there, f"acknowledged, but not there: {sorted(expected - there)[:5]}"
        assert not there & gone, f"deleted, but there: {sorted(there & gone)[:5]}"
        if undecided:
            assert len(there & undecided) in (0, 2), "a deletion of two keys happened by half"


def verified(server: Server, store: str, writers: list[Writer]) -> int:
    """Verify all; how many writes were acknowledged."""
    with Client(server, store) as client:
        for writer in writers:
            writer.verify(client)
    return sum(writer.counter[1] + writer.group[1] + writer.log[1] + writer.deleted[1] for writer in writers)
