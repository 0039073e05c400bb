"""The verbs that change keys: set, delete, incr, touch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer
from kvasir_client import Raw, Store, keys

from kvasir.cli.kv.outcomes import CONDITION, DONE, NOT_FOUND, fail
from kvasir.cli.kv.reading import json_object
from kvasir.cli.kv.verbs import LITERAL_DASH, ExpiresAt, IfVersion, KeyText, Results, Ttl, check_version, moment
from kvasir.cli.terminal import Yes, confirm, opening
from kvasir.errors import Invalid


def set_(
    kv: Store,
    results: Results,
    ctx: typer.Context,
    key: KeyText,
    value: Annotated[
        str | None,
        typer.Argument(
            metavar="VALUE",
            help="JSON; `-` reads it from standard input, `@FILE` from a file. [default: a pipe]",
        ),
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="The value is a text, not JSON: store it as a string.")] = False,
    ttl: Ttl = None,
    expires_at: ExpiresAt = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Reading the key starts its life afresh.")] = False,
    metadata: Annotated[
        str | None, typer.Option("--metadata", metavar="JSON", help="An object to keep beside the value.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the expiry and the metadata that the key has, if nothing else is said.")
    ] = False,
    if_absent: Annotated[bool, typer.Option("--if-absent", help="Only if there is no such key.")] = False,
    if_present: Annotated[bool, typer.Option("--if-present", help="Only if there is such a key.")] = False,
    if_version: IfVersion = None,
) -> None:
    """Set a key: its value, its expiry and its metadata as one."""
    check_version(if_version)
    kept: list[Literal["expiry", "metadata"]] = []
    if keep and not (ttl or expires_at or refresh):
        kept.append("expiry")
    if keep and metadata is None:
        kept.append("metadata")
    versionstamp = kv.set(
        keys.parse(key),
        Raw(_given(value, as_text=text, literal=ctx.meta.get(LITERAL_DASH, False))),
        ttl=ttl,
        expires_at=moment(expires_at),
        refresh=refresh,
        metadata=_metadata(metadata),
        keep=kept,
        if_absent=if_absent,
        if_present=if_present,
        if_version=if_version,
    )
    results(None, versionstamp=versionstamp)


def _metadata(text: str | None) -> Raw | None:
    """What --metadata has, as it is: printing it anew would change digits. Raises `Invalid`."""
    json_object(text, "--metadata")
    return None if text is None else Raw(text.encode())


def _given(value: str | None, *, as_text: bool, literal: bool) -> bytes:
    """The JSON text to store; `literal`: a text "-" is meant as it is. Raises `Invalid`."""
    if value is None and sys.stdin.isatty():
        raise Invalid("the value is missing: write it behind the key, or `-` to type it and end with Ctrl-D")
    if value is None or (value == "-" and not (as_text and literal)):
        found, source = sys.stdin.buffer.read(), "standard input"
    elif value.startswith("@") and not as_text:
        source = value[1:]
        with opening(source):
            found = Path(source).read_bytes()
    else:
        found, source = value.encode(), "the value"
    if as_text:
        try:
            return json.dumps(found.decode(), ensure_ascii=False).encode()
        except UnicodeDecodeError:
            raise Invalid(f"{source} is not UTF-8 text") from None
    found = found.strip(b" \t\r\n")
    if not found:
        raise Invalid(f"{source} is empty: give a JSON value, or add --text to store an empty text")
    try:
        json.loads(found, parse_int=str, parse_constant=_no_constant)
    except RecursionError:
        raise Invalid(f"{source} is nested too deeply") from None
    except ValueError:
        raise Invalid(f"{source} is no JSON: correct it, or add --text to store it as a text") from None
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def delete(
    kv: Store,
    results: Results,
    key: KeyText,
    prefix: Annotated[
        bool, typer.Option("--prefix", help="Every key that begins with these parts; `/` means every key.")
    ] = False,
    if_version: IfVersion = None,
    yes: Yes = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many there are.")] = False,
) -> None:
    """Delete a key, or with --prefix all keys below it, after showing how many."""
    check_version(if_version)
    if prefix:
        if if_version is not None:
            raise Invalid("--if-version is a condition on one key: leave --prefix out")
        if not key:
            # What a variable that nobody has set becomes.
            raise Invalid("the prefix is empty: write `/` for every key")
        _delete_prefix(kv, results, keys.parse_prefix(key), yes=yes, dry_run=dry_run)
        return
    parts = keys.parse(key)
    there = _would_delete(kv, parts, if_version) if dry_run else kv.delete(parts, if_version=if_version)
    if not there:
        below = next(kv.children(parts, limit=1), None) is not None
        fail("there is no entry with this key" + below * ", but there are some below it: see --prefix", NOT_FOUND)
    results(None, **{"would_delete" if dry_run else "deleted": 1})


def _would_delete(kv: Store, parts: tuple[str, ...], if_version: str | None) -> bool:
    """Whether a deletion would find the key; a condition that it would not meet ends the command as it would end it."""
    entry = kv.get(parts, extend=False)
    if if_version is not None and (entry is None or entry.versionstamp != if_version):
        fail("the key has another versionstamp" if entry else "the key does not exist", CONDITION)
    return entry is not None


def _delete_prefix(kv: Store, results: Results, prefix: tuple[str, ...], *, yes: bool, dry_run: bool) -> None:
    number = kv.count(prefix)
    what = f"{number:,} {'entry' if number == 1 else 'entries'}"
    where = f"below {keys.show(prefix)}" if prefix else "in the whole store"
    if dry_run or not number:
        typer.echo(f"{what} {where}", err=True)
        results(None, **{"would_delete" if dry_run else "deleted": number})
        raise typer.Exit(DONE if dry_run else NOT_FOUND)
    confirm(f"Delete {what} {where}?", yes=yes)
    # Not one more than was shown, unless nobody has looked.
    deleted = kv.delete_prefix(prefix, expect=None if yes else number, everything=not prefix)
    typer.echo(f"deleted {deleted:,}", err=True)
    results(None, deleted=deleted)


def incr(
    kv: Store,
    results: Results,
    key: KeyText,
    by: Annotated[int, typer.Option("--by", metavar="N", help="What to add; may be negative.")] = 1,
    initial: Annotated[int, typer.Option("--initial", metavar="N", help="What an absent key begins with.")] = 0,
    ttl: Ttl = None,
    expires_at: ExpiresAt = None,
) -> None:
    """Add to a whole number, exactly, and print the new one. A life is only given to a key that was absent."""
    number = kv.increment(keys.parse(key), by, initial=initial, ttl=ttl, expires_at=moment(expires_at))
    results(str(number), value=number)


def touch(
    kv: Store,
    results: Results,
    key: KeyText,
    ttl: Ttl = None,
    expires_at: ExpiresAt = None,
    never: Annotated[bool, typer.Option("--never", help="It no longer expires.")] = False,
    extend: Annotated[bool, typer.Option("--extend", help="Never to an earlier end than the present one.")] = False,
) -> None:
    """Change when a key expires, and nothing else."""
    if (ttl is not None) + (expires_at is not None) + never != 1:
        raise Invalid("say when it expires by one of --ttl, --expires-at and --never")
    if not kv.touch(keys.parse(key), ttl=ttl, expires_at=moment(expires_at), extend=extend):
        fail("there is no entry with this key", NOT_FOUND)
    results(None, touched=1)
