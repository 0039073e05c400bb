"""The verb edit: an editor on a value, saved by compare-and-set. What was typed is never lost."""

from __future__ import annotations

import contextlib
import difflib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import typer
from kvasir_client import ConditionNotMet, Entry, Raw, Store, UnknownOutcome, keys

from kvasir.cli.kv.outcomes import CONDITION, FAILED, NOT_FOUND, UNKNOWN, USAGE, fail
from kvasir.cli.kv.verbs import KeyText, Results
from kvasir.cli.terminal import asking, complain
from kvasir.printable import printable


def edit(kv: Store, results: Results, key: KeyText) -> None:
    """Edit a value in $EDITOR. It is saved only if nobody else has changed it; expiry and metadata stay."""
    parts = keys.parse(key)
    entry = kv.get(parts, extend=False)
    if entry is None:
        fail("there is no entry with this key; `kvasir kv set` makes one", NOT_FOUND)
    draft = _Draft(_pretty(entry.raw))
    try:
        saved = _session(kv, entry, draft)
    except BaseException:
        draft.leave()
        raise
    draft.remove()
    if saved is None:
        typer.echo("nothing was changed", err=True)
    results(None, versionstamp=saved or entry.versionstamp, changed=saved is not None)


class _Draft:
    """The file that is edited."""

    def __init__(self, content: bytes) -> None:
        handle, name = tempfile.mkstemp(prefix="kvasir-", suffix=".json")  # 0600
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        self._path = Path(name)
        self._given = content

    def edited(self) -> bytes | None:
        """What the editor makes of it; None: it leaves it as it was at first. Ends the command if it fails."""
        _run_editor(self._path)
        try:
            typed = self._path.read_bytes()
        except FileNotFoundError:
            fail("the editor has removed the file that it was to edit: nothing was saved", FAILED)
        return None if typed == self._given else typed

    def leave(self) -> None:
        """Say where it is, if there is anything in it that somebody has typed."""
        try:
            untouched = self._path.read_bytes() == self._given
        except FileNotFoundError:
            return
        if untouched:
            self.remove()
        else:
            complain(f"what you have typed is in {self._path}")

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _session(kv: Store, entry: Entry, draft: _Draft) -> str | None:
    """Edit and save until it is done; the new versionstamp, None if nothing was changed."""
    #: What was in the draft when somebody else was found to have changed the value.
    refused: bytes | None = None
    while True:
        typed = draft.edited()
        if typed is None:
            return None
        if typed == refused:
            # To leave the editor is no decision against what somebody else has written.
            _ask("yours is as it was", "Replace theirs with it?", CONDITION, default=False)
        try:
            msgspec.json.decode(typed)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            _ask(f"this is no JSON: {error}", "Edit again?", USAGE)
            continue
        try:
            return kv.set(
                entry.key, Raw(_like(typed, entry.raw)), if_version=entry.versionstamp, keep=("expiry", "metadata")
            )
        except UnknownOutcome as error:
            fail(error.message, UNKNOWN)
        except ConditionNotMet:
            entry = _conflict(kv, entry, typed)
            refused = typed


def _conflict(kv: Store, entry: Entry, typed: bytes) -> Entry:
    """Show what somebody else has done meanwhile, and ask. The entry on whose present state to save next."""
    theirs = kv.get(entry.key, extend=False)
    if theirs is None:
        fail("the key is no longer there: it has been deleted meanwhile, or its life has ended", CONDITION)
    typer.echo("somebody has changed the value meanwhile:", err=True)
    shown = difflib.unified_diff(
        _lines(_pretty(theirs.raw)),
        _lines(typed),
        "theirs (in the store)",
        "yours (not saved)",
        lineterm="",
    )
    for line in shown:
        # A stranger's text.
        typer.echo(printable(line), err=True)
    _ask("edit yours once more, then it replaces theirs", "Edit again?", CONDITION)
    return theirs


def _lines(text: bytes) -> list[str]:
    # Of bytes: to a str, characters that JSON may have within a text end a line, too.
    return [line.decode() for line in text.splitlines()]


def _ask(why: str, question: str, status: int, *, default: bool = True) -> None:
    """Ask whether to go on; a no, or nobody to ask, ends the command. The draft stays either way."""
    complain(why)
    with asking():
        if sys.stdin.isatty() and typer.confirm(question, default=default, err=True):
            return
    fail("nothing was saved", status)


def _run_editor(draft: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        with _signals_are_the_editors():
            done = subprocess.run([*shlex.split(editor), str(draft)], check=False)  # noqa: S603 - the user's own program
    except (OSError, ValueError) as error:
        fail(f"the editor {editor!r} cannot be run: {error}; set EDITOR", FAILED)
    if done.returncode:
        how = f"with status {done.returncode}" if done.returncode > 0 else f"by signal {-done.returncode}"
        fail(f"the editor ended {how}: nothing was saved", FAILED)


@contextlib.contextmanager
def _signals_are_the_editors() -> Iterator[None]:
    """A terminal sends Ctrl-C and Ctrl-\\ to both programs: they mean the editor, which has its own use for them.

    A handler that does nothing, where to ignore the signals would have the editor ignore them, too.
    """
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGQUIT)}
    for each, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(each, lambda *_: None)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _pretty(raw: bytes) -> bytes:
    """A JSON text on several lines; digits, escapes and the order of members stay."""
    return msgspec.json.format(raw, indent=2) + b"\n"


def _like(typed: bytes, raw: bytes) -> bytes:
    """What was typed, with the spacing that the stored text has: compact, on one line, or as it was typed."""
    for indent in (-1, 0):
        if msgspec.json.format(raw, indent=indent) == raw:
            return msgspec.json.format(typed, indent=indent)
    return typed.strip()
