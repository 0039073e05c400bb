"""A neighbour who notices everything."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.raw_http import Client
from tests.support.serving import Server, wait_until


class Neighbour(threading.Thread):
    """Uses the server all the time, on a connection of its own, and is never refused."""

    def __init__(self, server: Server, store: str) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._store = store
        self._leave = threading.Event()
        self.rounds = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with Client(self._server, self._store) as client:
                while not self._leave.wait(0.002):
                    self._round(client)
                    self.rounds += 1
        except BaseException as failure:
            self.failure = failure

    def _round(self, client: Client) -> None:
        written = client.put("neighbour", self.rounds)
        assert (written.status, written.json()["committed"]) == (200, True), written
        read = client.get("neighbour")
        assert read.status == 200, read
        assert read.json()["value"] == self.rounds, read

    def leave(self) -> None:
        self._leave.set()
        self.join(60)

    def goes_on(self) -> None:
        """Wait until a few more rounds have gone well."""
        goal = self.rounds + 5
        wait_until(lambda: self.rounds >= goal or self.failure is not None, "the neighbour goes on")
        assert self.failure is None, self.failure


@contextmanager
def beside(server: Server) -> Iterator[Neighbour]:
    """A neighbour on the server's default store; must be well at the end, and no stack trace in the log."""
    neighbour = Neighbour(server, server.store)
    neighbour.start()
    try:
        yield neighbour
        neighbour.goes_on()
    finally:
        neighbour.leave()
    assert "Traceback" not in server.log, server.log
