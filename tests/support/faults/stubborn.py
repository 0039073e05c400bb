"""Clients that go on when something fails, through any server that answers, and know what was acknowledged."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Callable, Iterator, Sequence

from tests.support.raw_http import Answer, Client, Cut
from tests.support.serving import Server, wait_until

#: After an answer that is none, or "unavailable"
PAUSE_SECONDS = 0.01


class Stubborn(threading.Thread):
    """Repeats `step` until `stop` is set or it was done `count` times. Connects anew when a connection ends."""

    def __init__(self, servers: Sequence[Server], store: str, count: int | None = None) -> None:
        super().__init__(daemon=True)
        self.servers = servers
        self.store = store
        self.stop = threading.Event()
        #: Steps that came through
        self.done = 0
        #: What no server should ever have answered, and faults of the test itself
        self.unexpected: list[object] = []
        self._count = count

    def run(self) -> None:
        try:
            while not self._finished():
                # What it connects to may be dead; what it is connected to may die.
                with contextlib.suppress(Cut, OSError):
                    self._converse()
                self.stop.wait(PAUSE_SECONDS)
        except BaseException as error:
            self.unexpected.append(error)

    def _finished(self) -> bool:
        return self.stop.is_set() or bool(self.unexpected) or (self._count is not None and self.done >= self._count)

    def _converse(self) -> None:
        with Client(random.choice(self.servers), self.store) as client:
            while not self._finished():
                self.step(client)

    def step(self, client: Client) -> None:
        raise NotImplementedError

    def attempt(self, work: Callable[[], Answer], unknown: Callable[[], object]) -> Answer | None:
        """The answer of a request that came through, perhaps to find that the key is absent; None if it did not.

        Calls `unknown` if nobody can know whether it happened, because the server says so or the connection ended.
        """
        try:
            answer = work()
        except (Cut, OSError):
            unknown()
            raise
        code = "" if answer.status == 200 else answer.json()["code"]
        if (answer.status, code) in ((200, ""), (404, "not_found")):
            self.done += 1
            return answer
        if (answer.status, code) == (500, "unknown_outcome"):
            unknown()
        elif (answer.status, code) != (503, "unavailable"):
            self.unexpected.append(answer)
        self.stop.wait(PAUSE_SECONDS)
        return None


class Keeper(Stubborn):
    """Adds one to a counter that all share, by compare-and-set, and writes keys of its own, each only once."""

    COUNTER = "counter"

    def __init__(self, servers: Sequence[Server], store: str, name: str) -> None:
        super().__init__(servers, store)
        self._key = name
        self._next = 0
        self.acknowledged: set[int] = set()
        self.unknown: set[int] = set()
        self.increments = 0
        self.unknown_increments = 0

    def step(self, client: Client) -> None:
        self._write(client)
        self._increment(client)

    def _write(self, client: Client) -> None:
        n = self._next = self._next + 1
        answer = self.attempt(
            lambda: client.put(f"kept/{self._key}/{n}", n, ifNotExists=True), lambda: self.unknown.add(n)
        )
        if answer is None:
            return
        self.acknowledged.add(n)
        if not answer.json().get("committed"):
            self.unexpected.append(f"{n} was there before it was written: {answer}")

    def _increment(self, client: Client) -> None:
        def unknown() -> None:
            self.unknown_increments += 1

        read = self.attempt(lambda: client.get(self.COUNTER), lambda: None)
        if read is None:
            return
        entry = read.json()
        written = self.attempt(
            lambda: client.put(self.COUNTER, entry["value"] + 1, ifVersionstamp=entry["versionstamp"]), unknown
        )
        self.increments += written is not None and written.json()["committed"]

    def verify(self, client: Client) -> None:
        """What was acknowledged is there, what was refused is not, and the server counts as many as there are."""
        keys: dict[tuple[str, ...], int] = {("kept", self._key, str(n)): n for n in range(1, self._next + 1)}
        there = client.values(list(keys))
        assert all(keys[key] == value for key, value in there.items())
        numbers = set(there.values())
        assert self.acknowledged <= numbers, f"acknowledged, but lost: {sorted(self.acknowledged - numbers)[:5]}"
        extra = numbers - self.acknowledged - self.unknown
        assert not extra, f"refused as not happened, but there: {sorted(extra)[:5]}"
        assert client.count("kept", self._key) == len(there)


def verify_counter(client: Client, keepers: Sequence[Keeper]) -> None:
    """Every acknowledged increment is in the counter, and none twice."""
    value = client.get(Keeper.COUNTER).json()["value"]
    least = sum(keeper.increments for keeper in keepers)
    assert least <= value <= least + sum(keeper.unknown_increments for keeper in keepers)


@contextlib.contextmanager
def under_load(clients: Sequence[Stubborn]) -> Iterator[None]:
    """The clients at work; afterwards they have ended, and none has met anything that it should not."""
    for client in clients:
        client.start()
    try:
        yield
    finally:
        for client in clients:
            client.stop.set()
        for client in clients:
            client.join(90)
    assert not any(client.is_alive() for client in clients)
    _nothing_unexpected(clients)


def wait_for_progress(clients: Sequence[Stubborn], steps: int = 3) -> None:
    """Wait until every client has had its way a few times more."""
    before = [client.done for client in clients]

    def served() -> bool:
        _nothing_unexpected(clients)
        return all(client.done >= done + steps for client, done in zip(clients, before, strict=True))

    wait_until(served, "every client is served again")


def _nothing_unexpected(clients: Sequence[Stubborn]) -> None:
    for client in clients:
        if client.unexpected:
            logs = "\n".join(server.log[-4_000:] for server in client.servers)
            raise AssertionError(f"{client.unexpected[0]!r}; the servers said:\n{logs}")
