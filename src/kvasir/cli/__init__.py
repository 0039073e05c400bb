"""The command `kvasir`: one module for each group of commands; here are only their list and the exit status.

Standard output carries what a script wants (an id, a key, JSON); explanations go to standard error. Exit status: 0 for
success, 1 for failure, 2 for a command or a setting that is not valid, or names a file that cannot be opened. Heavy
modules are imported by the commands that need them, so that the others start quickly.
"""

from __future__ import annotations

import sys

try:
    import contextlib
    import gc
    import importlib
    import io
    import os
    from collections.abc import Sequence
    from typing import Annotated, NoReturn

    import typer

    from kvasir import __version__
    from kvasir.cli.terminal import INTERRUPTED, check_texts, complain, in_words
    from kvasir.errors import Invalid, KvasirError
except KeyboardInterrupt:  # half the time that a short command takes
    sys.exit(130)

#: Those with the file locks, forked workers and shared ports that Kvasir needs; `sys.platform` of each.
SYSTEMS = ("linux", "darwin")

#: The first word of a command -> where it is: a module in this folder, and there a command, a group of commands, a
#: function that makes a group for the second word, or one that registers a command. Only what is named is loaded.
COMMANDS: dict[str, tuple[str, str]] = {
    "serve": ("serve", "register"),
    "dev": ("dev", "dev"),
    "status": ("status", "status"),
    "check": ("check", "check"),
    "db": ("db", "app"),
    "key": ("key", "app"),
    "store": ("store", "app"),
    "session": ("session", "app"),
    "application": ("application", "app"),
    "service-account": ("service_account", "app"),
    "copy": ("transfer", "copy"),
    "dump": ("transfer", "dump"),
    "load": ("transfer", "load"),
    "backup": ("backup", "backup"),
    "restore": ("backup", "restore"),
    "dev-cert": ("dev_cert", "dev_cert"),
    "kv": ("kv", "group"),
    "console": ("console", "console"),
    "context": ("kv.context", "app"),
    "completion": ("completion", "completion"),
}

#: Set by the shell's function that completes a command.
COMPLETE = "_KVASIR_COMPLETE"

#: What httpx2 would load if it is there, for HTTP/2 and for asyncio: `kvasir kv` uses neither.
UNUSED_BY_KV = ("anyio", "h2", "trio")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kvasir {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def command_line(words: Sequence[str]) -> typer.Typer:
    """The command line, with as many of its commands as these words need: one, or all of them."""
    app = typer.Typer(
        help="One key-value store that speaks the published APIs of several services.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )
    app.callback()(_root)
    first, second, *_ = *(word for word in words if not word.startswith("-")), "", ""
    for word in [first] if first in COMMANDS else COMMANDS:
        module, name = COMMANDS[word]
        found = getattr(importlib.import_module(f"kvasir.cli.{module}"), name)
        if name == "group":
            found = found(second)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=word)
        elif name == "register":
            found(app)
        else:
            app.command(word)(found)
    return app


def main() -> None:
    """Run the command line, then end the process."""
    try:
        _prepare_streams()
        _run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _prepare_streams() -> None:
    """Have all three standard streams, and a standard output that takes every text.

    A file opened later would take the place of a stream that the caller has closed, and have in it what is said there.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _run() -> None:
    if sys.platform not in SYSTEMS:
        complain(f"runs on Linux and macOS, not on this system ({sys.platform})")
        sys.exit(1)
    try:
        words = sys.argv[1:]
        check_texts(words)
        if COMPLETE in os.environ:
            from kvasir.cli.completion import words_to_complete

            words = words_to_complete()
        if words[:1] == ["kv"]:
            _run_briefly(words)
        command_line(words)(prog_name="kvasir")
    except KvasirError as error:
        complain(error.message)
        sys.exit(2 if isinstance(error, Invalid) else 1)
    except OSError as error:
        complain(in_words(error))
        sys.exit(1)


def _run_briefly(words: Sequence[str]) -> NoReturn:
    """Run a command of which a shell may run hundreds: looking for garbage, loading what is not used, and taking the
    process down piece by piece would take a third of its time."""
    gc.set_threshold(100_000)
    for module in UNUSED_BY_KV:
        sys.modules[module] = None  # type: ignore[assignment]  # what Python documents for "not to be found"
    try:
        command_line(words)(prog_name="kvasir")
    except SystemExit as ended:
        with contextlib.suppress(OSError):  # whoever has read the output so far has left
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1)
    raise AssertionError("a command line ends with SystemExit")
