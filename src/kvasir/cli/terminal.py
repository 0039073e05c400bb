"""What all commands share: what they print and how they ask. It loads little, so that short commands start quickly."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from kvasir.errors import Invalid
from kvasir.printable import ascii_json, printable, printable_json, printable_lines

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


#: What a shell calls a command that Ctrl-C has ended.
INTERRUPTED = 130


def complain(message: str) -> None:
    """Say something on standard error. Where nobody can read it, the exit status tells all the same."""
    with contextlib.suppress(OSError):
        typer.echo(f"kvasir: {printable_lines(message)}", err=True)


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Around a question of typer's, which takes Ctrl-C for a no: here it ends the command as it does elsewhere."""
    try:
        yield
    except typer.Abort as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        typer.echo(err=True)  # the cursor stands behind the question
        raise typer.Exit(INTERRUPTED) from None


def check_texts(arguments: Sequence[str]) -> None:
    """Refuse arguments that are not UTF-8, which could be neither stored nor shown. Raises `Invalid`."""
    for place, argument in enumerate(arguments, 1):
        try:
            argument.encode()
        except UnicodeEncodeError:
            # Not quoted: it may be a secret, and a terminal could not show it.
            raise Invalid(f"argument {place} is not UTF-8 text") from None


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    import msgspec

    typer.echo(for_output(msgspec.json.format(msgspec.json.encode(value), indent=2).decode()))


def for_output(text: str) -> str:
    """A JSON text as standard output takes it: harmless, and in ASCII unless that is read as UTF-8."""
    encoding = str(sys.stdout.encoding).lower().replace("-", "").replace("_", "")
    return printable_json(text) if encoding == "utf8" else ascii_json(text)


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print columns as wide as they need to be. Names in them may be strangers' text: each row stays one line."""
    lines = [head, *[tuple(map(printable, row)) for row in rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone; a no ends the command. Raises `Invalid` without a terminal."""
    if not yes:
        if not sys.stdin.isatty():
            raise Invalid("there is no terminal to ask on: add --yes to go ahead without asking")
        with asking():
            typer.confirm(question, abort=True, err=True)
