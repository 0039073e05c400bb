"""The verbs that change nothing: get, list, tree, count, watch."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any, Literal

import typer
from kvasir_client import Event, Store, keys
from kvasir_client.times import instant_text
from kvasir_client.wire import dumps

from kvasir.cli.kv.completing import complete_key
from kvasir.cli.kv.interrupting import end_when_interrupted
from kvasir.cli.kv.outcomes import FAILED, NOT_FOUND, fail
from kvasir.cli.kv.verbs import KeyText, PrefixText, Results, members_of, moment
from kvasir.cli.terminal import named
from kvasir.errors import Invalid


def get(
    kv: Store,
    results: Results,
    key: KeyText,
    peek: Annotated[bool, typer.Option("--peek", help="Do not extend a sliding life.")] = False,
    text: Annotated[
        bool, typer.Option("--text", help="Of a JSON string, print the text itself; another value is a failure.")
    ] = False,
) -> None:
    """Print the value of a key: the stored bytes and nothing else."""
    entry = kv.get(keys.parse(key), extend=not peek)
    if entry is None:
        fail("there is no entry with this key", NOT_FOUND)
    if results.as_json:
        results(None, **members_of(entry))
        return
    shown = entry.raw
    if text:
        if not isinstance(entry.value, str):
            fail("the value is no JSON string: leave --text out to see it", FAILED)
        shown = entry.value.encode("utf-8", "surrogatepass")
    with named("standard output"):
        sys.stdout.buffer.write(shown)
        sys.stdout.buffer.flush()
    if sys.stdout.isatty() and sys.stderr.isatty() and not shown.endswith(b"\n"):
        # The prompt of the shell begins on a line of its own; the output is the value all the same.
        sys.stderr.write("\n")


def list_(
    kv: Store,
    results: Results,
    prefix: PrefixText = "",
    order: Annotated[
        Literal["key", "newest", "oldest"], typer.Option("--order", help="In which order they come.")
    ] = "key",
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="No more than so many.")] = None,
    long: Annotated[
        bool, typer.Option("--long", "-l", help="With versionstamp, creation and end, separated by tabs.")
    ] = False,
    values: Annotated[bool, typer.Option("--values", help="With the values; only with --json.")] = False,
    metadata: Annotated[
        str | None, typer.Option("--metadata", metavar="JSON", help="Only those whose metadata contains this object.")
    ] = None,
    created_from: Annotated[
        str | None, typer.Option("--created-from", metavar="TIME", help="Only those created then or later.")
    ] = None,
    created_to: Annotated[
        str | None, typer.Option("--created-to", metavar="TIME", help="Only those created then or before.")
    ] = None,
) -> None:
    """List keys, one on a line."""
    if values and not results.as_json:
        raise Invalid("--values needs --json: a value may have any number of lines")
    found = kv.scan(
        keys.parse_prefix(prefix),
        order=order,
        limit=limit,
        values=values,
        metadata=json_object(metadata, "--metadata"),
        created_from=moment(created_from),
        created_to=moment(created_to),
    )
    for entry in found:
        shown = keys.show(entry.key)
        if long:
            end = "" if entry.expires_at is None else instant_text(entry.expires_at)
            shown = "\t".join((shown, entry.versionstamp, instant_text(entry.created_at), end)).rstrip()
        results(shown, **members_of(entry))


def count(kv: Store, results: Results, prefix: PrefixText = "") -> None:
    """Print the exact number of keys."""
    number = kv.count(keys.parse_prefix(prefix))
    results(str(number), count=number)


def tree(
    kv: Store,
    results: Results,
    prefix: PrefixText = "",
    depth: Annotated[int, typer.Option("--depth", min=1, metavar="N", help="So many parts below the prefix.")] = 3,
    counts: Annotated[
        bool, typer.Option("--counts", help="With the number of keys in each branch, which costs what it counts.")
    ] = False,
) -> None:
    """Draw the tree of keys by their parts: exact, however many keys there are."""
    above = keys.parse_prefix(prefix)
    if not results.as_json:
        total = f" ({kv.count(above):,})" if counts else ""
        results(f"{keys.show(above) if above else '/'}{total}")
    _branch(kv, results, above, "", depth, counts=counts)


def _branch(kv: Store, results: Results, above: tuple[str, ...], indent: str, depth: int, *, counts: bool) -> None:
    children = kv.children(above)
    child = next(children, None)
    while child is not None:
        following = next(children, None)
        path = (*above, child.part)
        number = kv.count(path) if counts and child.below else None
        name = keys.show((child.part,)) + ("/" if child.below else "")
        total = "" if number is None else f" ({number:,})"
        # A branch that is not a key itself is drawn like one that is, but for the star.
        star = " *" if child.entry and child.below else ""
        more = " …" if child.below and depth == 1 else ""
        counted = {} if number is None else {"count": number}
        results(
            f"{indent}{'├── ' if following else '└── '}{name}{star}{total}{more}",
            key=list(path),
            entry=child.entry,
            below=child.below,
            **counted,
        )
        if child.below and depth > 1:
            _branch(kv, results, path, indent + ("│   " if following else "    "), depth - 1, counts=counts)
        child = following


def watch(
    kv: Store,
    results: Results,
    prefix: PrefixText = "",
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="KEY",
            help="Only this key, instead of a prefix; may be repeated.",
            autocompletion=complete_key,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="End after so many events, `ready` not counted.")
    ] = None,
) -> None:
    """Print every change as a line of JSON, until it is interrupted."""
    if key and prefix:
        raise Invalid("give a prefix or --only, not both")
    names = [keys.parse(each) for each in key] if key else None
    left = limit
    results.as_json = True
    end_when_interrupted()
    for event in kv.watch(keys.parse_prefix(prefix), keys=names):
        results(None, **_told(event))
        sys.stdout.flush()
        if left is not None and event.kind != "ready":
            left -= 1
            if not left:
                return


def _told(event: Event) -> dict[str, Any]:
    told: dict[str, Any] = {"event": event.kind}
    if event.kind in ("set", "delete", "expiry"):
        told["key"] = list(event.key)
    elif event.kind == "delete_prefix":
        told["prefix"] = list(event.key)
    if event.versionstamp is not None:
        told["versionstamp"] = event.versionstamp
    if event.kind == "expiry":
        told["expires_at"] = None if event.expires_at is None else instant_text(event.expires_at)
    if event.entry is not None:
        told |= members_of(event.entry)
    return told


def json_object(text: str | None, option: str) -> dict[str, Any] | None:
    """The JSON object that an option has. Raises `Invalid`."""
    if text is None:
        return None
    try:
        found = json.loads(text)
        dumps(found)  # what no JSON can say: infinity, half a character
    except RecursionError:
        raise Invalid(f"{option} is nested too deeply") from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Invalid(f'{option} must be a JSON object, as \'{{"colour":"red"}}\'')
    return found


__all__ = ["count", "get", "list_", "tree", "watch"]
