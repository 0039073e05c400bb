"""Records of the system space: what cannot be written is reported to whoever wanted it written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from kvasir.config.table import Config
from kvasir.control import access_keys, bootstrap, copy_mark, service_accounts
from kvasir.engine import Engine, Outcome
from kvasir.engines.memory import MemoryEngine
from kvasir.errors import Unavailable
from kvasir.model import SYSTEM_SPACE, Query, Write
from tests.support.clock import START, ManualClock
from tests.support.organisations import ORGANISATION

CONFIG = Config(organisation_id=ORGANISATION, admin_key="a" * 40)
KEY = access_keys.AccessKey(
    id="key", organisation=ORGANISATION, role="viewer", name="app", digest="00", created_at=START
)


class FullEngine(MemoryEngine):
    """Refuses every write, as one of several outcomes."""

    full = False

    async def write(self, writes: Sequence[Write]) -> list[Outcome]:
        if self.full:
            return [Unavailable("the disk is full") for _ in writes]
        return await super().write(writes)


CHANGES: dict[str, Callable[[Engine], Awaitable[object]]] = {
    "first start": lambda engine: bootstrap.bootstrap(engine, CONFIG, engine.clock),
    "create a key": lambda engine: access_keys.create_key(engine, KEY),
    "revoke a key": lambda engine: access_keys.revoke_key(engine, access_keys.ADMIN_KEY_ID),
    "set the admin key": lambda engine: access_keys.set_admin_key(engine, ORGANISATION, "b" * 40, engine.clock),
    "create an account": lambda engine: service_accounts.create(engine, engine.clock, ORGANISATION, ["Owner"]),
    "claim a copy": lambda engine: copy_mark.claim(engine, "somewhere"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_cannot_be_written_fails(change: str) -> None:
    async def story() -> None:
        engine = FullEngine(ManualClock())
        if change not in ("first start", "claim a copy"):
            await bootstrap.bootstrap(engine, CONFIG, engine.clock)
        before = await engine.page(SYSTEM_SPACE, Query())
        engine.full = True
        with pytest.raises(Unavailable, match="the disk is full"):
            await CHANGES[change](engine)
        changed = {entry.key for entry in (await engine.page(SYSTEM_SPACE, Query())).entries}
        # A claim first takes its place, which says nothing yet.
        assert changed - {copy_mark.COPY_MARK} == {entry.key for entry in before.entries}
        assert await copy_mark.read(engine) is None

    asyncio.run(story())
