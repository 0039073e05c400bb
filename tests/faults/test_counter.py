"""Compare-and-set through two server processes on one database: the sum is exact."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest

from tests.support.raw_http import Client
from tests.support.serving import Server, serving

CLIENTS = 8
#: Of each client; `KVASIR_INCREMENTS=1000` is the long form.
INCREMENTS = int(os.environ.get("KVASIR_INCREMENTS", "250"))


class Incrementer(threading.Thread):
    """Reads, adds one, writes under the condition that nobody else has; again until it has won so many times."""

    def __init__(self, server: Server, store: str) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._store = store
        self.won = 0
        self.lost = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with Client(self._server, self._store) as client:
                while self.won < INCREMENTS:
                    self._increment(client)
        except BaseException as failure:
            self.failure = failure

    def _increment(self, client: Client) -> None:
        pause = 0.001
        while True:
            read = client.get("counter").json()
            written = client.put("counter", read["value"] + 1, ifVersionstamp=read["versionstamp"])
            assert written.status == 200, written
            if written.json()["committed"]:
                self.won += 1
                return
            self.lost += 1
            # Everyone tries at once; a client that gives way for a while lets the others come through.
            time.sleep(random.uniform(0, pause))
            pause = min(pause * 2, 0.03)


@pytest.mark.usefixtures("each_engine")
def test_eight_clients_count_exactly_through_two_processes(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with serving(tmp_path) as one, serving(tmp_path / "second", "--data-dir", str(one.data_dir)) as other:
        store = one.store
        with Client(one, store) as client:
            assert client.put("counter", 0).status == 200
        clients = [Incrementer(server, store) for server in (one, other) for _ in range(CLIENTS // 2)]
        for each in clients:
            each.start()
        for each in clients:
            each.join()
            assert each.failure is None, each.failure
        assert sum(each.won for each in clients) == CLIENTS * INCREMENTS
        assert sum(each.lost for each in clients) > 0, "they never met"
        for server in (one, other):
            with Client(server, store) as client:
                assert client.get("counter").json()["value"] == CLIENTS * INCREMENTS
        assert (one.stop(), other.stop()) == (0, 0)
