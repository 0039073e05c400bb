"""Clients of all three APIs that go on when the server dies, and know what was acknowledged, refused and undecided.

Each writes keys of its own, each once and only if it is absent, and something that would show a write done twice: a
counter by compare-and-set (Versori), a list that is appended to (NemesisDB), a counter that is added to (Voximplant).
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import urlencode

from msgspec import Struct
from websockets.exceptions import WebSocketException

from kvasir.dialects.nemesis.statuses import Status
from kvasir.dialects.voximplant import errors as voximplant
from tests.support import nemesis
from tests.support.faults.stubborn import Keeper, Stubborn
from tests.support.raw_http import Client, Cut, Wire
from tests.support.serving import Server

#: Between two steps of a client, so that many of them are a light load.
PAUSE_SECONDS = 0.005
#: Appended to one list before the next is begun.
LIST_LENGTH = 50


class Tally(Struct):
    """What became of the writes of some clients."""

    acknowledged: int = 0
    unknown: int = 0
    lost: int = 0
    #: Done twice, or done although refused
    excess: int = 0

    def add(self, other: Tally) -> None:
        self.acknowledged += other.acknowledged
        self.unknown += other.unknown
        self.lost += other.lost
        self.excess += other.excess

    def compare(self, there: set[int], acknowledged: set[int], unknown: set[int]) -> None:
        """Count in numbered writes: those that are there against what their client was told."""
        self.acknowledged += len(acknowledged)
        self.unknown += len(unknown)
        self.lost += len(acknowledged - there)
        self.excess += len(there - acknowledged - unknown)

    def count(self, value: int, acknowledged: int, unknown: int) -> None:
        """Count in additions of one: the sum against what the clients were told."""
        self.acknowledged += acknowledged
        self.unknown += unknown
        self.lost += max(0, acknowledged - value)
        self.excess += max(0, value - acknowledged - unknown)


class VersoriKeeper(Keeper):
    """Keys and a counter through the Versori API."""

    def step(self, client: Client) -> None:
        super().step(client)
        self.stop.wait(PAUSE_SECONDS)

    def tally(self, client: Client) -> Tally:
        found = Tally()
        keys = [("kept", self._key, str(n)) for n in range(1, self._next + 1)]
        there = {int(key[-1]) for key, value in client.values(keys).items() if value == int(key[-1])}
        found.compare(there, self.acknowledged, self.unknown)
        return found


class _Ledger(Stubborn):
    """Numbered writes of two kinds: `kept`, and what is added or appended."""

    def __init__(self, servers: Sequence[Server], space: str, name: str) -> None:
        super().__init__(servers, space)
        self.name = name
        self.begun = 0
        self.kept: set[int] = set()
        self.kept_unknown: set[int] = set()
        self.added: set[int] = set()
        self.added_unknown: set[int] = set()

    def note(self, happened: bool | None, n: int, done: set[int], unknown: set[int]) -> None:
        """Remember an outcome; None: nobody can know."""
        if happened is None:
            unknown.add(n)
        elif happened:
            done.add(n)
            self.done += 1
        if not happened:
            self.stop.wait(PAUSE_SECONDS)

    def guarded(self, ask: Callable[[], bool | None], n: int, done: set[int], unknown: set[int]) -> None:
        """Do a write, and remember what became of it also if the connection ends."""
        try:
            happened = ask()
        except (Cut, OSError, WebSocketException):
            unknown.add(n)
            raise
        self.note(happened, n, done, unknown)


class NemesisKeeper(_Ledger):
    """Keys and lists of a session through the NemesisDB API. `space` is the session's token."""

    def _converse(self) -> None:
        with (
            contextlib.suppress(WebSocketException, EOFError),
            nemesis.client(self.servers[0].nemesis_url, open_timeout=10) as client,
        ):
            while not self._finished():
                self._add(client)
                self._append(client)
                self.stop.wait(PAUSE_SECONDS)

    def _add(self, client: nemesis.Client) -> None:
        n = self.begun = self.begun + 1
        key = f"kept-{self.name}-{n}"

        def ask() -> bool | None:
            reply = client.do("KV_ADD", tkn=self.store, keys={key: n})
            if reply.get("st", Status.OK) == Status.UNKNOWN:
                return None  # unavailable or unknown: the status does not say
            if reply.get("keys") != {key: Status.KEY_SET}:
                self.unexpected.append((key, reply))
            return True

        self.guarded(ask, n, self.kept, self.kept_unknown)

    def _append(self, client: nemesis.Client) -> None:
        n = self.begun
        key = self._list(n)

        def ask() -> bool | None:
            # The list is there before the first append, unless that has failed: then the append is refused.
            if n % LIST_LENGTH == 1:
                client.do("KV_ADD", tkn=self.store, keys={key: []})
            reply = client.do("KV_APPEND", tkn=self.store, **{key: [n]})
            return None if reply["st"] == Status.UNKNOWN else bool(reply["st"] == Status.OK)

        self.guarded(ask, n, self.added, self.added_unknown)

    def _list(self, n: int) -> str:
        return f"list-{self.name}-{(n - 1) // LIST_LENGTH}"

    def tally(self, read: Callable[[list[str]], dict[str, Any]]) -> Tally:
        """`read` gives the values of those keys that are there."""
        found = Tally()
        there = read([f"kept-{self.name}-{n}" for n in range(1, self.begun + 1)])
        found.compare(set(there.values()), self.kept, self.kept_unknown)
        lists = read(sorted({self._list(n) for n in range(1, self.begun + 1)}))
        appended = [n for one in lists.values() for n in one]
        found.compare(set(appended), self.added, self.added_unknown)
        found.excess += len(appended) - len(set(appended))
        return found


class VoximplantKeeper(_Ledger):
    """Items and a counter that all share through the Voximplant API. `space` is the application's id."""

    COUNTER = "sum"

    def __init__(self, servers: Sequence[Server], application: str, name: str, token: Callable[[], str]) -> None:
        super().__init__(servers, application, name)
        self._token = token

    def _converse(self) -> None:
        with Wire(self.servers[0].port) as wire:
            token = self._token()
            while not self._finished():
                self._set_and_add(wire, token)
                self.stop.wait(PAUSE_SECONDS)

    def _set_and_add(self, wire: Wire, token: str) -> None:
        n = self.begun = self.begun + 1
        item = {"key": f"kept:{self.name}:{n}", "value": str(n), "if_absent": "true"}
        self.guarded(lambda: self._ask(wire, token, "SetKeyValueItem", item), n, self.kept, self.kept_unknown)
        counter = {"key": self.COUNTER}
        self.guarded(lambda: self._ask(wire, token, "IncrKeyValueItem", counter), n, self.added, self.added_unknown)

    def _ask(self, wire: Wire, token: str, method: str, parameters: dict[str, str]) -> bool | None:
        body = urlencode({"cmd": method, "application_id": self.store, **parameters}).encode()
        more = "Content-Type: application/x-www-form-urlencoded\r\n"
        wire.send(
            f"POST /platform_api HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer {token}\r\n{more}"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        answer = wire.answer()
        told = json.loads(answer.body)
        if "result" in told:
            return True
        code = told.get("error", {}).get("code")
        if code == voximplant.TRY_LATER.code:
            return False
        if code == voximplant.DATABASE.code:
            return None
        self.unexpected.append((method, parameters, answer))
        return False

    def tally(self, read: Callable[[list[str]], dict[str, Any]]) -> Tally:
        """`read` gives the values of those keys that are there. The shared counter is looked at elsewhere."""
        found = Tally()
        there = read([f"kept:{self.name}:{n}" for n in range(1, self.begun + 1)])
        found.compare({int(value) for value in there.values()}, self.kept, self.kept_unknown)
        return found


def tally_counter(value: int, keepers: Iterable[VoximplantKeeper]) -> Tally:
    """The counter that these share."""
    found = Tally()
    told = [(len(keeper.added), len(keeper.added_unknown)) for keeper in keepers]
    found.count(value, sum(done for done, _ in told), sum(unknown for _, unknown in told))
    return found


def tally_versori_counter(value: int, keepers: Iterable[VersoriKeeper]) -> Tally:
    """The same for compare-and-set."""
    found = Tally()
    told = [(keeper.increments, keeper.unknown_increments) for keeper in keepers]
    found.count(value, sum(done for done, _ in told), sum(unknown for _, unknown in told))
    return found


def reader(client: Client) -> Callable[[list[str]], dict[str, Any]]:
    """Reads keys of one part through the Versori API."""

    def read(keys: list[str]) -> dict[str, Any]:
        return {key[0]: value for key, value in client.values([(key,) for key in keys]).items()}

    return read
