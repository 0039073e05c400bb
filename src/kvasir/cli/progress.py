"""Reports the progress of a long command on standard error: a bar on a terminal, otherwise a line now and then."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import typer

T = TypeVar("T")

#: Between two lines, where there is no terminal to draw on.
REPORT_SECONDS = 5.0
#: Entries between two looks at the clock.
STEP = 256


def with_progress(work: Callable[[Progress], Awaitable[T]], *, quiet: bool) -> T:
    """Do some work that counts entries as it goes."""

    async def run(progress: Progress) -> T:
        return await work(progress)

    if quiet:
        return asyncio.run(run(_Silent()))
    if not sys.stderr.isatty():
        return asyncio.run(run(Progress()))
    progress = _Bar()
    with progress.bar:
        return asyncio.run(run(progress))


class Progress:
    """Prints a line every few seconds."""

    def __init__(self) -> None:
        #: Roughly how many entries there will be; None: unknown
        self.total: int | None = None
        self._count = 0
        self._started = self._reported = time.monotonic()

    def add(self, entries: int) -> None:
        self._count += entries
        if self._count % STEP < entries:
            self._show(self._count)

    def _show(self, count: int) -> None:
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            of = f" of about {self.total:,}" if self.total else ""
            typer.echo(f"{count:,}{of} entries read, {now - self._started:.0f} s", err=True)


class _Silent(Progress):
    def _show(self, count: int) -> None:
        pass


class _Bar(Progress):
    """Draws a bar, with the library that also draws the help."""

    def __init__(self) -> None:
        super().__init__()
        from rich import progress
        from rich.console import Console

        self.bar = progress.Progress(
            progress.TextColumn("entries"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self.bar.add_task("entries", total=None)

    def _show(self, count: int) -> None:
        self.bar.update(self._task, completed=count, total=None if self.total is None else max(self.total, count))
