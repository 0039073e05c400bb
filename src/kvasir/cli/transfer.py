"""`kvasir copy`, `kvasir dump` and `kvasir load`: everything in a database, into another one or into a file."""

from __future__ import annotations

import contextlib
import gzip
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, cast

import typer

from kvasir.cli.common import ConfigFile, DataDir, EngineUrl, database_config, opened, recording, require_file
from kvasir.cli.progress import Progress, Quiet, with_progress
from kvasir.cli.terminal import Json, contents, counted, named, opening, print_json
from kvasir.config.table import Config
from kvasir.errors import Invalid

if TYPE_CHECKING:
    from kvasir.transfer.dump_lines import LastLine
    from kvasir.transfer.target import Report

_From = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="URL",
        envvar="KVASIR_COPY_FROM",
        help="Database to copy, as for `kvasir serve --engine`. If the URL holds a password, set the variable instead.",
    ),
]
_To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="URL",
        envvar="KVASIR_COPY_TO",
        help="Empty database to fill; a missing file is created. If the URL holds a password, set the variable "
        "instead.",
    ),
]


def copy(source: _From, target: _To, config: ConfigFile = None, quiet: Quiet = False, json: Json = False) -> None:
    """Copy everything in one database into another one, and prove that it has arrived.

    That means all stores, applications, sessions and access keys, and every entry with its versionstamp, times and
    metadata. Afterwards both databases are read back and a checksum of each space is compared; if any differ, the
    command prints the ids of those spaces and exits with status 1.

    If it is interrupted, run it again: it compares what is already there and carries on. Stop the servers that use the
    source first. Or copy while they run, stop them, and run it again: the second run transfers only what has changed.
    A target with data of its own is refused, and so is a copy that a server has started on or a command has written to.

    Other users of this machine can see a command's options, but not its environment: pass a URL that holds a password
    in the variable KVASIR_COPY_FROM or KVASIR_COPY_TO.
    """
    source_config = database_config(source, None, config, "--from")
    target_config = database_config(target, None, config, "--to")
    if _location(source_config) == _location(target_config):
        raise Invalid("--from and --to are the same database")
    require_file(source_config)

    async def work(progress: Progress) -> Report:
        from kvasir.transfer.source import EngineSource
        from kvasir.transfer.target import fill

        async with (
            recording(source_config, "database.copy"),
            recording(target_config, "database.fill"),
            opened(source_config) as source_engine,
        ):
            engine_source = await EngineSource.of(source_engine)
            progress.total = 2 * (engine_source.total or 0)
            async with opened(target_config) as target_engine:
                return await fill(engine_source, target_engine, progress.add)

    _finish(with_progress(work, quiet=quiet), "copied", json)


def dump(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="File to create, compressed if it ends in .gz; - for a pipe.")
    ],
    data_dir: DataDir = None,
    engine: EngineUrl = None,
    config: ConfigFile = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write everything in a database to a file of JSON lines, for `kvasir load` and for other programs.

    The file includes the hashes of access keys, so only its owner can read it. A server may be running, but then the
    dump does not show one single moment: where that matters, stop the server or make a backup. The file appears once it
    is complete.
    """
    chosen = database_config(engine, data_dir, config, "--engine")
    require_file(chosen)
    if json and file == "-":
        raise Invalid("--json and the dump cannot both go to standard output")

    async def work(progress: Progress) -> LastLine:
        from kvasir.transfer import dump_file
        from kvasir.transfer.source import EngineSource

        async with recording(chosen, "database.dump"), opened(chosen) as database:
            source = await EngineSource.of(database)
            progress.total = source.total
            with _writing(file) as out:
                return await dump_file.write(source, out, progress.add)

    last = with_progress(work, quiet=quiet)
    if json:
        print_json({"spaces": last.spaces, "entries": last.entries, "sha256": last.sha256})
    else:
        typer.echo(f"dumped {contents(last.spaces, last.entries)}", err=True)


def load(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `kvasir dump` wrote; - for a pipe.")],
    data_dir: DataDir = None,
    engine: EngineUrl = None,
    config: ConfigFile = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Fill an empty database from a dump, and prove that everything has arrived.

    A file is checked as a whole before anything is written (a pipe cannot be). Afterwards the database is read back and
    a checksum of each space is compared; if any differ, the command prints the ids of those spaces and exits with
    status 1. If it is interrupted, run it again with the same file.
    """
    chosen = database_config(engine, data_dir, config, "--engine")

    async def work(progress: Progress) -> Report:
        from kvasir.transfer import dump_file
        from kvasir.transfer.target import fill

        total = None
        if file != "-":
            with _reading(file) as lines:
                total = dump_file.check(lines, file).entries
                progress.total = 2 * total
        with _reading(file) as lines:
            async with recording(chosen, "database.load"), opened(chosen) as database:
                name = "standard input" if file == "-" else file
                return await fill(dump_file.FileSource(lines, name, total, database.clock), database, progress.add)

    _finish(with_progress(work, quiet=quiet), "loaded", json)


def _finish(report: Report, done: str, json: bool) -> None:
    differing = [{"id": space.id, "kind": space.kind, "name": space.name} for space in report.differences]
    if json:
        figures = {name: getattr(report, name) for name in ("spaces", "entries", "written", "removed")}
        print_json(figures | {"same": not differing, "differences": differing})
    else:
        typer.echo(
            f"{done} {contents(report.spaces, report.entries)}:"
            f" {counted(report.written, 'entry', 'entries')} written, {report.removed:,} removed",
            err=True,
        )
    for space in differing:
        typer.echo(f"kvasir: the {space['kind']} {space['id']} differs from the source", err=True)
    if differing:
        typer.echo("kvasir: stop whatever writes to either database, then run the same command again", err=True)
        raise typer.Exit(1)


# -- databases and files --------------------------------------------------------------------------------------


def _location(chosen: Config) -> str | Path:
    return chosen.engine if chosen.database is None else chosen.database.resolve()


@contextlib.contextmanager
def _writing(name: str) -> Iterator[BinaryIO]:
    """A new file that appears, synced, once it is complete; "-" is standard output. Raises `Invalid` if it exists."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    if path.exists():
        raise Invalid(f"{name} already exists; choose another file")
    part = path.with_name(path.name + ".part")
    with contextlib.suppress(FileNotFoundError):
        part.unlink()
    with opening(name):
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with named(name), os.fdopen(descriptor, "wb") as raw:
            if path.suffix == ".gz":
                # Without a name and a time, so that equal dumps are equal files.
                with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as compressed:
                    yield cast("BinaryIO", compressed)
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        part.rename(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


@contextlib.contextmanager
def _reading(name: str) -> Iterator[BinaryIO]:
    """The file with this name, decompressed if it ends in .gz; "-" is standard input. Raises `Invalid`."""
    if name == "-":
        yield sys.stdin.buffer
    else:
        with contextlib.ExitStack() as files:
            with opening(name):
                if name.endswith(".gz"):
                    file = cast("BinaryIO", files.enter_context(gzip.open(name)))
                else:
                    file = files.enter_context(Path(name).open("rb"))
            yield file
