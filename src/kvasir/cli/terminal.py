"""What all commands share: what they print and how they ask. It loads little, so that short commands start quickly."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from kvasir.errors import Invalid
from kvasir.printable import ascii_json, printable, printable_json, printable_lines

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


#: What a shell calls a command that Ctrl-C has ended.
INTERRUPTED = 130

#: What there is to do about a path that the system refuses, by its error number.
_PATHS = {
    errno.ENOENT: "check the name",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "choose another place",
    errno.EROFS: "choose another place",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "choose another name",
    errno.EACCES: "change the permissions, or choose another place",
    errno.EPERM: "change the permissions, or choose another place",
}

#: The same about what no other path would mend; for the rest there is one sentence.
_FAILURES = {errno.ENOSPC: "make room and try again", errno.EDQUOT: "make room and try again"}


def in_words(error: OSError) -> str:
    """What the system says, of what, and what to do about it."""
    if not error.strerror:
        return str(error)
    name = "" if error.filename is None else str(error.filename)
    if error.errno == errno.ENOENT and name and not (folder := Path(name).parent).exists():
        return f"{name}: there is no directory {folder}; make it first, or choose another place"
    remedy = (_PATHS | _FAILURES).get(error.errno or 0, "mend that and try again")
    return f"{name}{': ' * bool(name)}{error.strerror[0].lower()}{error.strerror[1:]}; {remedy}"


@contextlib.contextmanager
def named(what: str) -> Iterator[None]:
    """Have a failure of the system tell of this, where it knows no name, or that of a temporary file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), what) from None


@contextlib.contextmanager
def opening(path: str) -> Iterator[None]:
    """Around the opening of a file that the command names. Raises `Invalid` for one that cannot be what is meant."""
    try:
        with named(path):
            yield
    except OSError as error:
        if error.errno not in _PATHS:
            raise
        raise Invalid(in_words(error)) from None


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


@named("standard output")
def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    import msgspec

    typer.echo(for_output(msgspec.json.format(msgspec.json.encode(value), indent=2).decode()))


def for_output(text: str) -> str:
    """A JSON text as standard output takes it: harmless, and in ASCII unless that is read as UTF-8."""
    encoding = str(sys.stdout.encoding).lower().replace("-", "").replace("_", "")
    return printable_json(text) if encoding == "utf8" else ascii_json(text)


@named("standard output")
def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print columns as wide as they need to be. Names in them may be strangers' text: each row stays one line."""
    lines = [head, *[tuple(map(printable, row)) for row in rows]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def counted(number: int, one: str, more: str = "") -> str:
    """A number of things, by their names."""
    return f"{number:,} {one if number == 1 else more or f'{one}s'}"


def contents(spaces: int, entries: int) -> str:
    """What a database holds. Lists of stores add up to fewer entries: Kvasir's own are in none of these spaces."""
    return f"{counted(spaces, 'space')} with {counted(entries, 'entry', 'entries')} (Kvasir's own included)"


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone; a no ends the command. Raises `Invalid` without a terminal."""
    if not yes:
        if not sys.stdin.isatty():
            raise Invalid("there is no terminal to ask on: add --yes to go ahead without asking")
        with asking():
            typer.confirm(question, abort=True, err=True)
