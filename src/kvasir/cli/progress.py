"""Reports the progress of a long command on standard error: a bar on a terminal, otherwise a line now and then."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer

T = TypeVar("T")

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Do not report progress.")]

#: Between two lines, where there is no terminal to draw on.
REPORT_SECONDS = 5.0
#: Entries between two looks at the clock.
STEP = 256


#: What is counted -> what is said of it, and how many make one of those.
ENTRIES = ("entries read", 1)
BYTES = ("MiB copied", 1 << 20)


def with_progress(work: Callable[[Progress], Awaitable[T]], *, quiet: bool, counted: tuple[str, int] = ENTRIES) -> T:
    """Do some work that counts entries, or bytes, as it goes."""

    async def run(progress: Progress) -> T:
        return await work(progress)

    if quiet:
        return asyncio.run(run(_Silent(counted)))
    if not sys.stderr.isatty():
        return asyncio.run(run(Progress(counted)))
    progress = _Bar(counted)
    with progress.bar:
        return asyncio.run(run(progress))


class Progress:
    """Prints a line every few seconds."""

    def __init__(self, counted: tuple[str, int]) -> None:
        self._what, self._unit = counted
        #: Roughly how many there will be; None: unknown
        self.total: int | None = None
        self._count = 0
        self._started = self._reported = time.monotonic()

    def add(self, count: int) -> None:
        self._count += count
        if self._count % STEP < count:
            self._show(self._count)

    def _show(self, count: int) -> None:
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            of = f" of about {self.total // self._unit:,}" if self.total else ""
            typer.echo(f"{count // self._unit:,}{of} {self._what}, {now - self._started:.0f} s", err=True)


class _Silent(Progress):
    def _show(self, count: int) -> None:
        pass


class _Bar(Progress):
    """Draws a bar, with the library that also draws the help."""

    def __init__(self, counted: tuple[str, int]) -> None:
        super().__init__(counted)
        from rich import progress
        from rich.console import Console

        self.bar = progress.Progress(
            progress.TextColumn(self._what),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self.bar.add_task(self._what, total=None)

    def _show(self, count: int) -> None:
        total = None if self.total is None else max(self.total, count) // self._unit
        self.bar.update(self._task, completed=count // self._unit, total=total)
