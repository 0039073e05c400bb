"""`kvasir copy`, `kvasir dump` and `kvasir load`: everything in a database, into another one or into a file."""

from __future__ import annotations

import contextlib
import gzip
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, cast

import typer

from kvasir.cli.common import ConfigFile, DataDir, EngineUrl, Json, print_json
from kvasir.cli.progress import Progress, with_progress
from kvasir.config import loading
from kvasir.config.table import Config
from kvasir.engine import Engine
from kvasir.errors import Invalid, NotFound

if TYPE_CHECKING:
    from kvasir.transfer.target import Moved

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing about the progress.")]
_From = Annotated[
    str,
    typer.Option(
        "--from",
        metavar="URL",
        envvar="KVASIR_COPY_FROM",
        help="Database to copy, as for `kvasir serve --engine`. Give a URL with a password as the variable.",
    ),
]
_To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="URL",
        envvar="KVASIR_COPY_TO",
        help="Empty database to fill; a missing file is made. Give a URL with a password as the variable.",
    ),
]


def copy(
    source: _From,
    target: _To,
    config: ConfigFile = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Copy everything in one database into another one, and prove that it is there.

    That is all stores, applications, sessions and access keys, every entry with its versionstamp, times and metadata.
    Afterwards both are read back, and a checksum of each space is compared; exit status 1 and the spaces' ids if one
    differs.

    If it was interrupted, run it again: what is there already is compared and left alone, and it goes on behind it.
    Stop the servers of the database to copy first. Or copy while they run, stop them, and run it again: the second run
    brings only what has changed. A database with data of its own is refused, and so is a copy on which a server has
    started or a command has written.

    Other users of the machine can read options, but not variables: a URL with a password belongs into KVASIR_COPY_FROM
    or KVASIR_COPY_TO.
    """
    sides = [_chosen({"engine": url, "data_dir": None}, config, option) for url, option in
             ((source, "--from"), (target, "--to"))]  # fmt: skip
    if _place(sides[0]) == _place(sides[1]):
        raise Invalid("--from and --to are the same database")
    _must_exist(sides[0])

    async def work(progress: Progress) -> Moved:
        from kvasir.transfer.source import EngineSource
        from kvasir.transfer.target import fill

        async with _opened(sides[0]) as old:
            given = await EngineSource.of(old)
            progress.total = 2 * (given.total or 0)
            async with _opened(sides[1]) as new:
                return await fill(given, new, progress.add)

    _finish(with_progress(work, quiet=quiet), "copied", json)


def dump(
    file: Annotated[str, typer.Argument(metavar="FILE", help="File to make; packed if it ends in .gz; - for a pipe.")],
    data_dir: DataDir = None,
    engine: EngineUrl = None,
    config: ConfigFile = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write everything in a database to a file of JSON lines, for `kvasir load` and for other programs.

    It holds the hashes of access keys and is readable by its owner only. A server may run meanwhile; then the dump
    shows no single instant: stop it, or make a backup, where that matters. The file appears when it is complete.
    """
    chosen = _chosen({"engine": engine, "data_dir": data_dir}, config, "--engine")
    _must_exist(chosen)
    if json and file == "-":
        raise Invalid("--json and the dump cannot both go to standard output")

    async def work(progress: Progress) -> Any:
        from kvasir.transfer import dump_file
        from kvasir.transfer.source import EngineSource

        async with _opened(chosen) as database:
            given = await EngineSource.of(database)
            progress.total = given.total
            with _made(file) as out:
                return await dump_file.write(given, out, progress.add)

    last = with_progress(work, quiet=quiet)
    if json:
        print_json({"spaces": last.spaces, "entries": last.entries, "sha256": last.sha256})
    else:
        typer.echo(f"dumped {last.spaces:,} spaces with {last.entries:,} entries", err=True)


def load(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What `kvasir dump` made; - for a pipe.")],
    data_dir: DataDir = None,
    engine: EngineUrl = None,
    config: ConfigFile = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Fill an empty database from a dump, and prove that all of it is there.

    A file is checked as a whole before anything is written (a pipe cannot be). Afterwards the database is read back,
    and a checksum of each space is compared; exit status 1 and the spaces' ids if one differs. If it was interrupted,
    run it again with the same file.
    """
    chosen = _chosen({"engine": engine, "data_dir": data_dir}, config, "--engine")

    async def work(progress: Progress) -> Moved:
        from kvasir.transfer import dump_file
        from kvasir.transfer.target import fill

        total = None
        if file != "-":
            with _there(file) as given:
                total = dump_file.check(given, file).entries
                progress.total = 2 * total
        with _there(file) as given:
            async with _opened(chosen) as database:
                named = "standard input" if file == "-" else file
                return await fill(dump_file.FileSource(given, named, total, database.clock), database, progress.add)

    _finish(with_progress(work, quiet=quiet), "loaded", json)


def _finish(moved: Moved, done: str, json: bool) -> None:
    differing = [{"id": space.id, "kind": space.kind, "name": space.name} for space in moved.differences]
    if json:
        figures = {name: getattr(moved, name) for name in ("spaces", "entries", "written", "removed")}
        print_json(figures | {"same": not differing, "differences": differing})
    else:
        typer.echo(
            f"{done} {moved.spaces:,} spaces with {moved.entries:,} entries:"
            f" {moved.written:,} entries written, {moved.removed:,} removed",
            err=True,
        )
    for space in differing:
        typer.echo(f"kvasir: the {space['kind']} {space['id']} differs from what was read", err=True)
    if differing:
        typer.echo(
            "kvasir: not the same: stop whatever writes to either database, then run the same command again", err=True
        )
        raise typer.Exit(1)


# -- databases and files --------------------------------------------------------------------------------------


def _chosen(options: dict[str, str | None], file: Path | None, named: str) -> Config:
    """The settings for one database. Raises `Invalid`."""
    scheme, _, path = (options["engine"] or "").partition(":")
    if scheme == "sqlite" and path:
        # Beside the file, nothing is made.
        options = options | {"data_dir": str(Path(path).expanduser().parent)}
    chosen = loading.load(options, os.environ, file)
    if chosen.engine_name == "memory":
        raise Invalid(f"{named}: the engine memory: lives inside its server; nothing else can reach it")
    return chosen


def _place(chosen: Config) -> str | Path:
    return chosen.engine if chosen.database is None else chosen.database.resolve()


def _must_exist(chosen: Config) -> None:
    if chosen.database is not None and not chosen.database.is_file():
        raise NotFound(f"there is no database at {chosen.database}")


@contextlib.asynccontextmanager
async def _opened(chosen: Config) -> Any:
    from kvasir.server.create_engine import create_engine

    engine: Engine = create_engine(chosen)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()


@contextlib.contextmanager
def _made(name: str) -> Iterator[BinaryIO]:
    """A file to write that appears, synced, once it is complete. Raises `Invalid` for one that is there already."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    if path.exists():
        raise Invalid(f"{name} is there already; name another file")
    part = path.with_name(path.name + ".part")
    with contextlib.suppress(FileNotFoundError):
        part.unlink()
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as raw:
            if path.suffix == ".gz":
                # Without name and time, so that equal dumps are equal files.
                with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
                    yield cast("BinaryIO", packed)
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        part.rename(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()


@contextlib.contextmanager
def _there(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
    elif name.endswith(".gz"):
        with gzip.open(name) as packed:
            yield cast("BinaryIO", packed)
    else:
        with Path(name).open("rb") as plain:
            yield plain
