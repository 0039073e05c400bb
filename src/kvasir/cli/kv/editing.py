"""The verb edit: an editor on a value, saved by compare-and-set. What was typed is never lost."""

from __future__ import annotations

import difflib
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import typer
from kvasir_client import ConditionNotMet, Entry, Raw, Store, UnknownOutcome, keys

from kvasir.cli.kv.outcomes import CONDITION, FAILED, NOT_FOUND, UNKNOWN, USAGE, fail
from kvasir.cli.kv.verbs import KeyText, Results


def edit(kv: Store, results: Results, key: KeyText) -> None:
    """Edit a value in $EDITOR. It is saved only if nobody else has changed it; expiry and metadata stay."""
    parts = keys.parse(key)
    entry = kv.get(parts, extend=False)
    if entry is None:
        fail("there is no entry with this key; `kvasir kv set` makes one", NOT_FOUND)
    handle, name = tempfile.mkstemp(prefix="kvasir-", suffix=".json")  # 0600
    os.close(handle)
    draft = Path(name)
    draft.write_bytes(_pretty(entry.raw))
    before = draft.read_bytes()
    try:
        saved = _session(kv, entry, draft, before)
    except typer.Exit:
        raise
    except BaseException:
        typer.echo(f"kvasir: what you have typed is in {draft}", err=True)
        raise
    draft.unlink()
    if saved is None:
        typer.echo("nothing was changed", err=True)
    results(None, versionstamp=saved or entry.versionstamp, changed=saved is not None)


def _session(kv: Store, entry: Entry, draft: Path, before: bytes) -> str | None:
    """Edit and save until it is done; the new versionstamp, None if nothing was changed."""
    while True:
        _run_editor(draft)
        typed = draft.read_bytes()
        if typed == before:
            return None
        try:
            msgspec.json.decode(typed)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            _again_or_leave(f"this is no JSON: {error}", draft, USAGE)
            continue
        try:
            return kv.set(
                entry.key, Raw(_like(typed, entry.raw)), if_version=entry.versionstamp, keep=("expiry", "metadata")
            )
        except UnknownOutcome as error:
            fail(f"{error.message}; what you have typed is in {draft}", UNKNOWN)
        except ConditionNotMet:
            entry = _conflict(kv, entry, draft, typed)


def _conflict(kv: Store, entry: Entry, draft: Path, typed: bytes) -> Entry:
    """Show what somebody else has done meanwhile, and ask. The entry on whose present state to save next."""
    theirs = kv.get(entry.key, extend=False)
    if theirs is None:
        fail(f"somebody has deleted the key meanwhile; what you have typed is in {draft}", CONDITION)
    typer.echo("somebody has changed the value meanwhile:", err=True)
    shown = difflib.unified_diff(
        _pretty(theirs.raw).decode().splitlines(),
        typed.decode().splitlines(),
        "theirs (in the store)",
        "yours (not saved)",
        lineterm="",
    )
    for line in shown:
        typer.echo(line, err=True)
    _again_or_leave("edit yours once more, then it replaces theirs", draft, CONDITION)
    return theirs


def _again_or_leave(why: str, draft: Path, status: int) -> None:
    """Ask whether to go on editing; a no, or nobody to ask, ends the command. The draft stays either way."""
    typer.echo(f"kvasir: {why}", err=True)
    if not sys.stdin.isatty() or not typer.confirm("Edit again?", default=True, err=True):
        fail(f"nothing was saved; what you have typed is in {draft}", status)


def _run_editor(draft: Path) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        done = subprocess.run([*shlex.split(editor), str(draft)], check=False)  # noqa: S603 - the user's own program
    except (OSError, ValueError) as error:
        fail(f"the editor {editor!r} cannot be run: {error}; set EDITOR. The value is in {draft}", FAILED)
    if done.returncode:
        fail(f"the editor ended with status {done.returncode}: nothing was saved; the draft is in {draft}", FAILED)


def _pretty(raw: bytes) -> bytes:
    """A JSON text on several lines; digits, escapes and the order of members stay."""
    return msgspec.json.format(raw, indent=2) + b"\n"


def _like(typed: bytes, raw: bytes) -> bytes:
    """What was typed, with the spacing that the stored text has: compact, on one line, or as it was typed."""
    for indent in (-1, 0):
        if msgspec.json.format(raw, indent=indent) == raw:
            return msgspec.json.format(typed, indent=indent)
    return typed.strip()
