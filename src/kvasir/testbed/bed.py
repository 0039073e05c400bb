"""Everything a test bed consists of besides its listeners: what its controls move."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import msgspec

from kvasir.control import applications, sessions, stores
from kvasir.engines.memory.views import Entries
from kvasir.errors import Invalid
from kvasir.limits import Limits
from kvasir.model import Principal, Space
from kvasir.store.store import Store
from kvasir.testbed.calls import APIS
from kvasir.testbed.engine import Snapshot, TestBedEngine
from kvasir.testbed.faults import Faults
from kvasir.testbed.journal import Journal


class TestBedStore(Store):
    """A store whose spaces have clocks of their own."""

    __test__ = False  # for pytest

    def __init__(self, engine: TestBedEngine, limits: Limits) -> None:
        super().__init__(engine, limits, engine.clock)
        self._clocks = engine

    def now(self, space: Space) -> int:
        return self._clocks.now(space.number)


class TestBed:
    """The engine with its clocks, the faults and the journal."""

    __test__ = False  # for pytest

    def __init__(self, limits: Limits, operations: Mapping[str, tuple[str, ...]]) -> None:
        """`operations`: those of each dialect that is served."""
        #: Those that requests may be of which are struck and remembered, by API
        self.operations = {api: names for api, names in operations.items() if api in APIS}
        self.engine = TestBedEngine()
        self.store = TestBedStore(self.engine, limits)
        self.faults = Faults(self.operations)
        self.journal = Journal()
        #: An owner of the only organisation, once there is one
        self.operator = Principal("", "owner", "test bed")
        self._seeded = self.engine.snapshot()

    def keep_as_seed(self) -> None:
        """What is there now is what `reset` goes back to."""
        self._seeded = self.engine.snapshot()

    def reset(self, space: int | None) -> None:
        """Go back to the seed, on the machine's time, without faults: one space, by its number, or everything."""
        if space is None:
            self.engine.restore(self._seeded)
            self.engine.reset_clocks()
            self.faults.clear()
            self.journal.clear()
            return
        id = self.engine.id_of(space)
        entries = {space: self._seeded.entries.get(space, Entries())}
        self.engine.restore(Snapshot(space, entries, {}, {}))
        self.engine.clock_of(space).reset()
        self.faults.clear(id)
        self.journal.clear(id)

    async def make_space(self, kind: str, name: str | None) -> dict[str, Any]:
        """A space of its own for one test, with what its API calls it by. Raises `Invalid` for a bad name."""
        await self.store.refresh()
        own = name or f"test-{secrets.token_hex(8)}"
        if kind == "application":
            made = await applications.create(self.store, self.operator, own)
            return _shown(made.space) | {"application_id": made.application_id}
        if kind == "store":
            return _shown(await stores.create(self.store, self.operator, own))
        token = sessions.new_token()
        attributes = msgspec.json.encode(sessions.Attributes(token))
        wanted = Space("", 0, self.operator.organisation, "session", name or "", 0, attributes=attributes)
        return _shown(await self.store.create(self.operator, wanted, [sessions.by_token(token)])) | {"token": token}

    async def end_space(self, id: str) -> None:
        """End a space, with its clock and its faults; one that is gone may be. Raises `Invalid` for one of the seed."""
        space = await self.engine.get_space(id.upper())
        if space is None:
            self.faults.clear(id.upper())
            return
        if space.number in self._seeded.entries:
            raise Invalid("this space belongs to the seed; reset it instead")
        self.reset(space.number)
        await self.engine.end_space(space.id)


def _shown(space: Space) -> dict[str, Any]:
    return {"id": space.id, "kind": space.kind, "name": space.name}
