"""The fuzzers, for a moment each: all that once broke a parser, and what a second of fuzzing comes up with."""

from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import NAMES, SEEDS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", NAMES)
def test_the_seeds_break_nothing(name: str) -> None:
    check = importlib.import_module(f"tests.fuzz.{name}").check
    seeds = [file.read_bytes() for file in sorted((SEEDS / name).iterdir())]
    assert seeds
    for seed in [b"", *seeds]:
        check(seed)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="there is no atheris for this Python or system")
@pytest.mark.parametrize("name", NAMES)
def test_a_second_of_fuzzing_breaks_nothing(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz", name, "-max_total_time=1", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-10_000:]
    assert "Done " in done.stderr
