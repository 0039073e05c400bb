"""kill -9 at random moments under load: every acknowledged write is there, none by half, and the database is sound."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from tests.support.cli import Commands
from tests.support.faults.load import Writer, verified
from tests.support.serving import serving

#: `python -m bench kill` is the long form, with all APIs and every kind of kill.
KILLS = int(os.environ.get("KVASIR_KILLS", "8"))


@pytest.mark.usefixtures("each_engine")
def test_killed_at_random_moments_under_load(tmp_path: Path) -> None:
    chance = random.SystemRandom()
    writers: list[Writer] = []
    store = ""
    acknowledged = killed_busy = 0
    for life in range(KILLS + 1):
        with serving(tmp_path, "--workers", "2" if life % 3 == 2 else "1") as server:
            store = store or server.store
            acknowledged += verified(server, store, writers)
            if life == KILLS:
                break
            writers = [Writer(server, store, f"{life}-{n}") for n in range(6)]
            for writer in writers:
                writer.start()
            # The moment of death is the one thing here that is left to chance.
            time.sleep(chance.uniform(0.02, 0.4))
            killed_busy += all(writer.is_alive() for writer in writers)
            server.kill()
            for writer in writers:
                writer.join(60)
                assert not writer.is_alive()
        Commands(server)("check")
    assert killed_busy == KILLS
    assert acknowledged > 20 * KILLS
