"""The verbs export and import: NDJSON, with a progress bar on a terminal."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from kvasir_client import Loaded, Store, keys
from kvasir_client.errors import KvasirError
from kvasir_client.files import Counting, pieces_of, written

from kvasir.cli.kv.feeding import without_pauses
from kvasir.cli.kv.outcomes import CONDITION, FAILED, STATUSES, UNAVAILABLE, fail
from kvasir.cli.kv.verbs import PrefixText, Results
from kvasir.cli.terminal import counted, named, opening


def export(
    kv: Store,
    results: Results,
    prefix: PrefixText = "",
    output: Annotated[
        str,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write; a file is only there if it is whole."),
    ] = "-",
) -> None:
    """Write entries as lines of JSON (NDJSON), in one snapshot."""
    above = keys.parse_prefix(prefix)
    # No bar through the lines, where both go to the terminal. Counting costs what it counts; only a bar needs it.
    draws = sys.stderr.isatty() and not (output == "-" and sys.stdout.isatty())
    total = kv.count(above) if draws else None
    with _destination(output) as file, _bar("entries", total, draws=draws) as moved:
        for piece in kv.export_pieces(above):
            file.write(piece)
            moved(file.entries)
        file.flush()
        number = file.entries
    if output != "-":
        typer.echo(f"wrote {counted(number, 'entry', 'entries')} to {output}", err=True)
        results(None, entries=number)


@contextlib.contextmanager
def _destination(output: str) -> Iterator[Counting]:
    """What is exported to; a failure tells of it, never of the temporary file. Raises `Invalid`."""
    with named("standard output" if output == "-" else output), contextlib.ExitStack() as opened:
        with opening(output):
            file = opened.enter_context(written(sys.stdout.buffer if output == "-" else output))
        yield file


def import_(
    kv: Store,
    results: Results,
    source: Annotated[
        str,
        typer.Argument(metavar="FILE", help="What `export` has written. [default: standard input]", show_default=False),
    ] = "-",
    mode: Annotated[
        Literal["replace", "keep", "fail"], typer.Option("--mode", help="What becomes of keys that exist.")
    ] = "replace",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check every line and set nothing.")] = False,
) -> None:
    """Set entries from lines of JSON (NDJSON)."""
    typed = source == "-" and sys.stdin.isatty()
    if typed:
        typer.echo("type lines of JSON, and Ctrl-D at the end", err=True)
    with opening("standard input" if source == "-" else source):
        total = Path(source).stat().st_size if source != "-" else None
        pieces = without_pauses(pieces_of(sys.stdin.buffer if source == "-" else source))
        # However long it takes to come: the server waits for a body from the moment that a request begins.
        first = next(pieces, b"")
    with _bar("bytes", total, draws=sys.stderr.isatty() and not typed) as moved, _told_what_stays(dry_run=dry_run):
        done = kv.load(_counted(itertools.chain([first] if first else [], pieces), moved), mode=mode, dry_run=dry_run)
    _report(done, results, would="would have " if dry_run else "")


@contextlib.contextmanager
def _told_what_stays(*, dry_run: bool) -> Iterator[None]:
    """An import that ends early has changed something: it may not end like a command that has changed nothing."""
    try:
        yield
    except KvasirError as error:
        imported = error.details.get("imported")
        stays = isinstance(imported, dict) and (imported.get("lines") or imported.get("set"))
        if stays and not dry_run and STATUSES.get(type(error)) in (CONDITION, UNAVAILABLE):
            fail(error.message, FAILED)
        raise


def _report(done: Loaded, results: Results, *, would: str) -> None:
    typer.echo(f"{would}set {done.set:,}, kept {done.kept:,}, refused {done.refused:,}", err=True)
    for refusal in done.refusals:
        typer.echo(f"line {refusal.line}: {refusal.reason}", err=True)
    results(
        None,
        set=done.set,
        kept=done.kept,
        refused=done.refused,
        whole=done.whole,
        refusals=[{"line": each.line, "reason": each.reason} for each in done.refusals],
    )
    if done.whole is False:
        fail("the last line tells another number of entries: the file is not whole", FAILED)
    if done.whole is None and "versionstamp" in done.ignored:
        taken = "would be imported" if would else "are imported"
        fail(f"this looks like an export without its last line: the file is not whole, but its lines {taken}", FAILED)
    if done.refused:
        fail("not every line was taken", FAILED)


def _counted(pieces: Iterable[bytes], moved: Any) -> Iterator[bytes]:
    number = 0
    for piece in pieces:
        yield piece
        number += len(piece)
        moved(number)


@contextlib.contextmanager
def _bar(what: str, total: int | None, *, draws: bool) -> Iterator[Any]:
    """A function to call with how much has been moved; it draws on a terminal, and is silent elsewhere."""
    if not draws:
        yield lambda _: None
        return
    from rich import progress
    from rich.console import Console
    from rich.text import Text

    class Speed(progress.ProgressColumn):
        """Entries a second."""

        def render(self, task: progress.Task) -> Text:
            return Text(f"{task.finished_speed or task.speed or 0:,.0f}/s")

    amount = progress.DownloadColumn() if what == "bytes" else progress.MofNCompleteColumn()
    speed = progress.TransferSpeedColumn() if what == "bytes" else Speed()
    bar = progress.Progress(
        progress.TextColumn(what),
        progress.BarColumn(),
        amount,
        speed,
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task(what, total=total)
        yield lambda number: bar.update(task, completed=number, total=None if total is None else max(total, number))
