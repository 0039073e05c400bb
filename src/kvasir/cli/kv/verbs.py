"""What every verb of `kvasir kv` has: how it is registered, the options that say where, and the writing of results."""

from __future__ import annotations

import functools
import inspect
import json
import re
import sys
from datetime import datetime
from typing import Annotated, Any

import typer
from kvasir_client import Entry, keys
from kvasir_client.times import instant, instant_text
from typer.core import TyperCommand

from kvasir.cli.kv.completing import complete_context, complete_key, complete_store
from kvasir.cli.kv.connection import Choice, store_of
from kvasir.cli.kv.outcomes import reported
from kvasir.cli.terminal import for_output, named

KeyText = Annotated[
    str,
    typer.Argument(
        metavar="KEY",
        help='Parts with slashes between them, as `products/1`; any key as a JSON array, as \'["a/b",""]\'.',
        autocompletion=complete_key,
    ),
]
PrefixText = Annotated[
    str,
    typer.Argument(
        metavar="PREFIX",
        help="Only keys that begin with these parts, written like a key. [default: every key]",
        autocompletion=complete_key,
    ),
]
Ttl = Annotated[str | None, typer.Option("--ttl", metavar="LIFE", help="Life from now on: 1500ms, 90s, 15m, 24h, 30d.")]
ExpiresAt = Annotated[
    str | None, typer.Option("--expires-at", metavar="TIME", help="End of the life, as 2026-12-31T12:00:00Z.")
]
IfVersion = Annotated[
    str | None, typer.Option("--if-version", metavar="VERSION", help="Only if the key has this versionstamp.")
]

_NEGATIVE = re.compile(r"-\d[\d.eE+-]*").fullmatch

#: The options of every verb: by the name of their parameter its type and default.
_WHERE: dict[str, tuple[Any, Any]] = {
    "url": (
        Annotated[
            str | None, typer.Option("--url", metavar="URL", help="Address of the server. [default: KVASIR_URL]")
        ],
        None,
    ),
    "access_key": (
        Annotated[str | None, typer.Option("--key", metavar="KEY", help="Access key. [default: KVASIR_KEY]")],
        None,
    ),
    "store": (
        Annotated[
            str | None,
            typer.Option(
                "--store",
                metavar="STORE",
                help="Name or ULID of the store. [default: KVASIR_STORE]",
                autocompletion=complete_store,
            ),
        ],
        None,
    ),
    "context": (
        Annotated[
            str | None,
            typer.Option(
                "--context", metavar="NAME", help="One of `kvasir context list`.", autocompletion=complete_context
            ),
        ],
        None,
    ),
    "as_json": (Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")], False),
}


class Results:
    """Writes results to standard output: words for people, or JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def __call__(self, text: str | None, **members: Any) -> None:
        """One result: a line of text (None: nothing), or a JSON object on a line of its own."""
        if self.as_json:
            text = for_output(json_line(members))
        if text is not None:
            with named("standard output"):
                sys.stdout.write(text + "\n")


#: In `meta` of a verb's context: whether there is a "-" behind "--".
LITERAL_DASH = "kvasir.literal_dash"


class Verb(TyperCommand):
    """A command whose arguments, but for the first, may be negative numbers: no option looks like one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Have the first negative number that is no option's value stand behind "--"."""
        with_value = {name for each in self.params if not getattr(each, "is_flag", True) for name in each.opts}
        options = args[: args.index("--")] if "--" in args else args
        ctx.meta[LITERAL_DASH] = "-" in args[len(options) :]
        seen, is_value = 0, False
        for at, word in enumerate(options):
            if is_value:
                is_value = False
            elif seen and _NEGATIVE(word):
                args = [*args[:at], *args[at + 1 :], *(["--"] if "--" not in args else []), word]
                break
            elif word.startswith("-") and word != "-":
                is_value = word in with_value
            else:
                seen += 1
        return super().parse_args(ctx, args)


def register(app: typer.Typer, name: str, verb: Any) -> None:
    """Add a verb: a function of a `Store`, `Results`, and options of its own. Typer reads a function's signature."""
    signature = inspect.signature(verb, eval_str=True)
    own = list(signature.parameters.values())[2:]

    @functools.wraps(verb)
    def command(**given: Any) -> None:
        choice = Choice(given.pop("url"), given.pop("access_key"), given.pop("store"), given.pop("context"))
        results = Results(as_json=given.pop("as_json"))
        with reported():
            verb(store_of(choice), results, **given)
            with named("standard output"):
                sys.stdout.flush()

    where = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=of)
        for name, (of, default) in _WHERE.items()
    ]
    keywords = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    command.__signature__ = inspect.Signature(keywords + where)  # type: ignore[attr-defined]
    app.command(name, cls=Verb)(command)


def moment(text: str | None) -> datetime | None:
    """The instant that an option names. Raises `Invalid`."""
    from kvasir.errors import Invalid

    try:
        return instant(text) if text is not None else None
    except ValueError:
        raise Invalid(f"{text!r} is no instant: write it as 2026-12-31T12:00:00Z") from None


def check_version(text: str | None) -> None:
    """Raises `Invalid` for an --if-version that no entry can have: that would look as if somebody had been faster."""
    if text is None:
        return
    from kvasir.errors import Invalid
    from kvasir.keys import parse_versionstamp

    if parse_versionstamp(text) < 0:
        raise Invalid(
            f"--if-version: {text!r} is no versionstamp; give the 20 digits that `kvasir kv get KEY --json` tells"
        )


def json_line(value: Any) -> str:
    """JSON on one line; `Raw` texts in it as they are."""
    if isinstance(value, RawText):
        return value.text
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{json_line(each)}" for name, each in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


class RawText:
    """JSON text that is printed as it is stored, but for line ends, which in JSON mean nothing."""

    def __init__(self, raw: bytes) -> None:
        self.text = raw.decode().replace("\r", " ").replace("\n", " ")


def members_of(entry: Entry) -> dict[str, Any]:
    """An entry as a JSON object."""
    members: dict[str, Any] = {"key": list(entry.key)}
    if entry.raw:
        members["value"] = RawText(entry.raw)
    return members | {
        "versionstamp": entry.versionstamp,
        "created_at": instant_text(entry.created_at),
        "expires_at": None if entry.expires_at is None else instant_text(entry.expires_at),
        "refresh": None if entry.refresh is None else int(entry.refresh.total_seconds() * 1000),
        "metadata": RawText(entry.raw_metadata) if entry.raw_metadata else None,
    }


__all__ = ["ExpiresAt", "IfVersion", "KeyText", "PrefixText", "Results", "Ttl", "keys"]
