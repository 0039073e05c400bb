"""The last requests that were answered, for tests to assert on."""

from __future__ import annotations

import itertools
from collections import deque

from msgspec import Struct

from kvasir.testbed.calls import Call

#: How many requests are remembered.
KEPT = 10_000


class Record(Struct, frozen=True):
    """One request and what became of it."""

    number: int
    #: Unix milliseconds of the machine's clock, when it began
    at: int
    api: str
    operation: str
    space: str | None
    keys: tuple[tuple[str, ...], ...]
    #: "ok", "conflict", the code of a failure, or for a request that was struck by a fault the fault's outcome
    outcome: str
    milliseconds: float
    #: Whether a fault struck it
    fault: bool


class Journal:
    """What `GET /requests` shows."""

    def __init__(self) -> None:
        self._records: deque[Record] = deque(maxlen=KEPT)
        self._numbers = itertools.count(1)

    def add(self, call: Call, at: int, outcome: str, milliseconds: float, *, fault: bool) -> None:
        """Remember a request."""
        number = next(self._numbers)
        self._records.append(
            Record(number, at, call.api, call.operation, call.space, call.keys, outcome, milliseconds, fault)
        )

    def records(
        self, *, space: str | None = None, api: str | None = None, operation: str | None = None, after: int = 0
    ) -> list[Record]:
        """Those that match, oldest first; `after`: only those with a higher number."""
        return [
            record
            for record in self._records
            if record.number > after
            and space in (None, record.space)
            and api in (None, record.api)
            and operation in (None, record.operation)
        ]

    def clear(self, space: str | None = None) -> None:
        """Forget the requests to this space; without one, all."""
        kept = [] if space is None else [record for record in self._records if record.space != space]
        self._records = deque(kept, maxlen=KEPT)
