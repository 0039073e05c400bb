"""The command `kvasir`: one module for each group of commands; here are only their list and the exit status.

Standard output carries what a script wants (an id, a key, JSON); explanations go to standard error. Exit status: 0 for
success, 1 for failure, 2 for a command or a setting that is not valid. Heavy modules are imported by the commands that
need them, so that the others start quickly.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from kvasir import __version__
from kvasir.cli import application, check, db, dev_cert, key, serve, service_account, session, store, transfer
from kvasir.cli.common import check_texts
from kvasir.errors import Invalid, KvasirError
from kvasir.printable import printable_lines

#: Those with the file locks, forked workers and shared ports that Kvasir needs; `sys.platform` of each.
SYSTEMS = ("linux", "darwin")

app = typer.Typer(
    help="One key-value store that speaks the published APIs of several services.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kvasir {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


serve.register(app)
app.command("check")(check.check)
app.add_typer(db.app, name="db")
app.add_typer(key.app, name="key")
app.add_typer(store.app, name="store")
store.app.command("share")(session.share)
store.app.command("unshare")(session.unshare)
app.add_typer(session.app, name="session")
app.add_typer(application.app, name="application")
app.add_typer(service_account.app, name="service-account")
app.command("copy")(transfer.copy)
app.command("dump")(transfer.dump)
app.command("load")(transfer.load)
app.command("dev-cert")(dev_cert.dev_cert)


def main() -> None:
    """Run the command line, then end the process."""
    if sys.platform not in SYSTEMS:
        typer.echo(f"kvasir: runs on Linux and macOS, not on this system ({sys.platform})", err=True)
        sys.exit(1)
    try:
        check_texts(sys.argv[1:])
        app(prog_name="kvasir")
    except KvasirError as error:
        typer.echo(f"kvasir: {printable_lines(error.message)}", err=True)
        sys.exit(2 if isinstance(error, Invalid) else 1)
    except OSError as error:
        typer.echo(f"kvasir: {printable_lines(str(error))}", err=True)
        sys.exit(1)
