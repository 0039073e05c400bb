"""Runs stories by their seeds, in this process or in several."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from random import Random

from msgspec import Struct

from tests.simulation.disk import VirtualFileSystem
from tests.simulation.machine import DATABASE, Confused, Machine, file_system, stand_ins
from tests.simulation.model import Violation
from tests.simulation.plants import planted
from tests.simulation.story import Story

#: Shared memory where there is any: nothing of a simulation needs a disk.
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Failure(Struct, frozen=True):
    """A seed whose story broke a promise."""

    seed: int
    why: str
    trace: str


class Outcome(Struct, frozen=True):
    """How many stories were told, and the first that failed."""

    stories: int
    seconds: float
    failure: Failure | None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The log of an engine on a failing disk is long."""
    logger = logging.getLogger("kvasir")
    before = logger.disabled
    for one in (logger, logging.getLogger("kvasir.sqlite"), logging.getLogger("kvasir.engines")):
        one.disabled = True
    try:
        yield
    finally:
        for one in (logger, logging.getLogger("kvasir.sqlite"), logging.getLogger("kvasir.engines")):
            one.disabled = before


def run(seeds: Iterable[int], plant: str | None = None, seconds: float | None = None) -> Outcome:
    """Tell these stories, until one fails or the time is over."""
    began = time.monotonic()
    told = 0
    failure = None
    with tempfile.TemporaryDirectory(dir=SCRATCH) as scratch, file_system() as disk, _quiet():
        folder = Path(scratch)
        fresh = _fresh_database(disk, folder)
        for seed in seeds:
            if seconds is not None and time.monotonic() - began > seconds:
                break
            story = Story(seed, folder, disk, fresh)
            told += 1
            try:
                with planted(plant):
                    story.run()
            except Violation as violation:
                failure = Failure(seed, str(violation), story.trace)
                break
            except (Exception, Confused):
                failure = Failure(seed, traceback.format_exc(), story.trace)
                break
    return Outcome(told, time.monotonic() - began, failure)


def run_in_processes(
    processes: int, first: int, stories: int | None, plant: str | None, seconds: float | None
) -> Outcome:
    """The same in several processes, beginning with seed `first`; None: as many as the time allows."""
    began = time.monotonic()
    shares = [
        range(first + n, first + stories, processes) if stories is not None else count(first + n, processes)
        for n in range(processes)
    ]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        outcomes = pool.starmap(run, [(share, plant, seconds) for share in shares])
    failures = sorted((one.failure for one in outcomes if one.failure), key=lambda failure: failure.seed)
    return Outcome(sum(one.stories for one in outcomes), time.monotonic() - began, failures[0] if failures else None)


def _fresh_database(disk: VirtualFileSystem, folder: Path) -> bytes:
    """The content of a database of the newest schema without any entries."""
    with stand_ins(copy_pages=100):
        machine = Machine(folder, Random(0), {}, disk)
        machine.stop(machine.start_process())
    return bytes(machine.disk.names[DATABASE].seen)
