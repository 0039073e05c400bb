"""The SQLite engine keeps its promises in stories full of faults, and the stories would show it if it did not."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest

from tests.simulation.seeds import run

#: The everyday share; `python -m tests.simulation` tells more of them.
SECONDS = 8
#: Within so many stories each planted fault must be found.
STORIES = 1_000
#: Those that take a few seconds; `python -m tests.simulation --stories 1000 --plant NAME` finds the others.
QUICKLY_FOUND = ("missing-fsync", "early-acknowledgement", "lost-epoch", "silent-epoch")


def test_promises_hold_in_the_stories_of_the_first_seeds() -> None:
    outcome = run(count(), seconds=SECONDS)
    assert outcome.failure is None, f"`python -m tests.simulation {outcome.failure.seed}`: {outcome.failure.why}"
    assert outcome.stories > 20


@pytest.mark.parametrize("plant", QUICKLY_FOUND)
def test_a_planted_fault_is_found(plant: str) -> None:
    outcome = run(range(STORIES), plant)
    assert outcome.failure is not None
    # And only that: without it the same story holds.
    assert run([outcome.failure.seed]).failure is None


def test_the_same_seed_tells_the_same_story() -> None:
    first = run(range(STORIES), "missing-fsync").failure
    assert first is not None
    again = run([first.seed], "missing-fsync").failure
    assert again == first
    assert len(again.trace.splitlines()) > 20


def test_a_seed_that_fails_is_printed_and_can_be_run_alone() -> None:
    def told(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "tests.simulation", *arguments]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return done.returncode, done.stdout

    status, said = told("--plant", "lost-epoch", "--stories", "100", "--processes", "2")
    assert status == 1
    command = re.search(r"`python -m tests.simulation (\d+ --plant lost-epoch)`", said)
    assert command is not None, said
    status, alone = told(*command[1].split())
    assert status == 1
    assert "power failure" in alone or "acknowledges" in alone
    assert alone.splitlines()[-1] == said.splitlines()[-1]
    status, without = told(command[1].split()[0])
    assert (status, "every promise held" in without) == (0, True)
