"""A clock that is wrong by as much as a test says, in every process that is started with `environment_of` it."""

from __future__ import annotations

import os
import time
from pathlib import Path

FOLDER = "FAULTY_CLOCK"

_FILE = "ahead"


def environment_of(folder: Path) -> dict[str, str]:
    """Variables that give a process this clock; `set_ahead` sets it."""
    set_ahead(folder, 0)
    # Python runs a module of this name at its start.
    code = "from tests.support.faults import wall_clock\nwall_clock.plant()\n"
    (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
    return {"PYTHONPATH": f"{folder}{os.pathsep}{Path(__file__).parents[3]}", FOLDER: str(folder)}


def set_ahead(folder: Path, milliseconds: int) -> None:
    """How far the clock is ahead from now on."""
    new = folder / f"{_FILE}.new"
    new.write_text(str(milliseconds), encoding="ascii")
    new.rename(folder / _FILE)


def plant() -> None:
    """Give this process the clock."""
    right = time.time_ns
    file = Path(os.environ[FOLDER]) / _FILE
    time.time_ns = lambda: right() + int(file.read_text(encoding="ascii")) * 1_000_000
