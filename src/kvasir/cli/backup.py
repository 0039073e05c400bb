"""`kvasir backup` and `kvasir restore`: a data directory, into a file or a directory and back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kvasir.cli.common import ConfigFile, DataDir, EngineUrl, database_config, opened, recording, require_file
from kvasir.cli.progress import BYTES, Progress, Quiet, with_progress
from kvasir.cli.terminal import Json, contents, counted, print_json
from kvasir.config.table import Config
from kvasir.errors import Invalid

if TYPE_CHECKING:
    from kvasir.server.backup import Backup

#: Of `--max-rate`, in MiB a second.
DEFAULT_RATE = 32

#: Servers that want the same processor come first.
NICENESS = 19

_Target = Annotated[
    str,
    typer.Argument(
        metavar="FILE|DIR/",
        help="File to create; or directory, which also gets what NemesisDB clients have saved, if it ends in / or is "
        "there already.",
    ),
]
_MaxRate = Annotated[
    int,
    typer.Option(
        "--max-rate",
        metavar="MIB",
        min=0,
        help="MiB to copy a second at most, so that servers hardly notice; 0: as fast as it goes.",
    ),
]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]


def backup(
    target: _Target,
    data_dir: DataDir = None,
    engine: EngineUrl = None,
    config: ConfigFile = None,
    overwrite: _Overwrite = False,
    max_rate: _MaxRate = DEFAULT_RATE,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make a backup of a SQLite database, and check it. A server may be running.

    It holds everything that was acknowledged before it began. It appears under its name once it is whole, sound and on
    disk, for its owner only. While it is made, the write-ahead log grows by all that is written: the disk needs room
    for that.
    """
    chosen = _chosen(data_dir, engine, config, "pg_dump or pg_basebackup")
    require_file(chosen)
    path = Path(target).expanduser()
    if not path.name:
        raise Invalid(f"{target!r} names no file or directory to create")

    async def work(progress: Progress) -> Backup:
        from kvasir.server import backup

        async with recording(chosen, "database.backup"):
            async with opened(chosen):  # which settles what a killed server has left behind
                state = backup.snapshot(chosen)
            # Only now: a writer that gives way makes all others wait.
            os.nice(NICENESS)
            with contextlib.closing(state):
                return await backup.make(
                    chosen,
                    state,
                    path,
                    max_rate * 2**20 if max_rate else None,
                    _reporting(progress),
                    directory=target.endswith("/") or path.is_dir(),
                    overwrite=overwrite,
                )

    made = with_progress(work, quiet=quiet, counted=BYTES)
    _report(made, f"backed up to {target}", json=json)
    if made.save_files is None and not quiet and _has_saves(chosen):
        typer.echo(
            "kvasir: the saves of NemesisDB clients are not part of a file: name a directory to have them too", err=True
        )


def restore(
    source: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="What `kvasir backup` made.")],
    data_dir: DataDir = None,
    engine: EngineUrl = None,
    config: ConfigFile = None,
    overwrite: _Overwrite = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Make a backup the database of a data directory. Stop the servers that use it first.

    The backup is checked as a whole before anything changes; one that is damaged or was cut short is refused. A
    directory is compared with its checksums; a file has none, so that damage which leaves a value JSON is not found in
    it. A backup of an earlier version is upgraded.
    """
    chosen = _chosen(data_dir, engine, config, "pg_restore, or a base backup and its log")

    async def work(progress: Progress) -> Backup:
        from kvasir.server import backup

        async with recording(chosen, "database.restore"):
            return await backup.restore(chosen, source.expanduser(), _reporting(progress), overwrite=overwrite)

    _report(with_progress(work, quiet=quiet, counted=BYTES), f"restored from {source}", json=json)


def _chosen(data_dir: str | None, engine: str | None, config: Path | None, tools: str) -> Config:
    chosen = database_config(engine, data_dir, config, "--engine")
    if chosen.database is None:
        raise Invalid(
            f"this command is for SQLite, and the entries are in PostgreSQL: use PostgreSQL's own {tools}"
            " (docs/operate/backup.md), or `kvasir dump` for a copy in a file of JSON lines"
        )
    return chosen


def _reporting(progress: Progress) -> Callable[[int, int], None]:
    def report(done: int, whole: int) -> None:
        progress.total = whole
        progress.add(done)

    return report


def _has_saves(chosen: Config) -> bool:
    from kvasir.server.backup import saves_directory

    saves = saves_directory(chosen)
    return saves.is_dir() and any(saves.iterdir())


def _report(found: Backup, done: str, *, json: bool) -> None:
    if json:
        print_json(found)
        return
    saves = "" if found.save_files is None else f", {counted(found.save_files, 'file')} of saves"
    held = contents(found.spaces, found.entries)
    typer.echo(f"{done}: {held}{saves}; {found.bytes:,} bytes, sound", err=True)
