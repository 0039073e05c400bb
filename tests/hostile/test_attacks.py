"""The short form of `python -m bench hostile`: one attack on each operation, and the server is as well as before.

What takes time is measured there; here, memory stays within its bound, others are answered, and the work ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from kvasir.dialects.nemesis.commands.profiles import PROFILES
from kvasir.dialects.versori.routes import OPERATIONS
from kvasir.dialects.voximplant.methods import COMMANDS
from tests.hostile import campaign
from tests.hostile.attacks import APIS, World
from tests.hostile.beating import Heartbeat
from tests.support.raw_http import Client

#: In turn, so that each is met by every kind of request.
MODES = (("reading", 4), ("deaf", 8), ("leaving", 8))
SECONDS = 0.05


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, Heartbeat]]:
    with campaign.attacked(tmp_path_factory.mktemp("attacked")) as prepared:
        yield prepared


@pytest.mark.parametrize("api", APIS)
def test_nothing_that_a_client_may_send_hurts_the_others(attacked: tuple[World, Heartbeat], api: str) -> None:
    world, heartbeat = attacked
    modes = itertools.cycle(MODES)
    for attack in {attack.operation: attack for attack in reversed(list(APIS[api](world)))}.values():
        mode, connections = next(modes)
        result = campaign.carry_out(world, heartbeat, attack, mode, connections, SECONDS)
        assert result.requests, attack
        assert result.memory < campaign.MEMORY_MIB, result.line()
        assert result.after < campaign.PATIENCE_SECONDS, result.line()
        # Else threads would make the loop wait for milliseconds behind each call of the system.
        assert 0 < heartbeat.switch_seconds < 0.002
    with Client(world.server, world.store) as client:
        assert client.put("afterwards", 1).status == 200
        assert client.get("afterwards").status == 200
    assert "Traceback" not in world.server.log, world.server.log


@pytest.mark.parametrize(
    ("api", "operations"),
    [("versori", OPERATIONS), ("voximplant", COMMANDS), ("nemesis", PROFILES["session"].commands)],
)
def test_every_operation_is_attacked(attacked: tuple[World, Heartbeat], api: str, operations: object) -> None:
    named = {attack.operation for attack in APIS[api](attacked[0])}
    assert set(operations) - named == set()  # type: ignore[call-overload]
