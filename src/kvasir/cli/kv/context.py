"""`kvasir context …`: servers by name, so that `kvasir kv` needs no options."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from kvasir.cli.kv import contexts
from kvasir.cli.kv.completing import complete_context
from kvasir.cli.kv.contexts import Context, Contexts
from kvasir.cli.terminal import Json, asking, complain, for_output, print_table
from kvasir.errors import Invalid, NotFound

app = typer.Typer(help="Keep servers with access keys under names, for `kvasir kv`.", no_args_is_help=True)

#: Where a server listens that is told nothing else.
LOCAL = "http://127.0.0.1:8901"

_Name = Annotated[str, typer.Argument(help="Name of the context.", autocompletion=complete_context)]


@app.command("add")
def add(
    name: _Name,
    url: Annotated[
        str | None,
        typer.Option(
            "--url",
            metavar="URL",
            help=f"Address of the server. [default: KVASIR_URL if the key is KVASIR_KEY, otherwise {LOCAL}]",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key",
            metavar="KEY",
            help="Access key; `-` reads it from standard input, which keeps it out of the list of processes. "
            "[default: KVASIR_KEY, or asked for]",
        ),
    ] = None,
    store: Annotated[
        str | None, typer.Option("--store", metavar="STORE", help="Store that is meant unless another is named.")
    ] = None,
    json: Json = False,
) -> None:
    """Add a context, or replace the one of this name. The first one is used from then on."""
    if not name.isprintable() or not name.strip():
        raise Invalid("a context needs a name, of characters that can be seen")
    with _changed() as found:
        url = url or _address_beside(key)
        secret = _secret(key)
        _check(url, secret)
        found.by_name[name] = Context(url, secret, store)
        found.current = found.current or name
    if json:
        _print(found, name)
    else:
        typed = f"{'-- ' * name.startswith('-')}{shlex.quote(name)}"
        use = "" if found.current == name else f"; `kvasir context use {typed}` uses it"
        typer.echo(f"added {name} to {contexts.location()}{use}", err=True)


@app.command("use")
def use(name: _Name, json: Json = False) -> None:
    """Use a context from now on."""
    with _changed() as found:
        context = found.named(name)
        found.current = name
    if json:
        _print(found, name)
    else:
        typer.echo(f"using {name}: {context.url}", err=True)


@app.command("list")
def list_(json: Json = False) -> None:
    """List the contexts; the one in use has a star. Access keys are not shown."""
    found = contexts.load()
    if found.exposed:
        complain(f"other users can read the access keys in {contexts.location()}: chmod 600 it")
    if json:
        for name in found.by_name:
            _print(found, name)
        return
    rows = [
        ("*" if name == found.current else "", name, context.url, context.store or "")
        for name, context in found.by_name.items()
    ]
    print_table(("", "NAME", "URL", "STORE"), rows)


@app.command("remove")
def remove(name: _Name, json: Json = False) -> None:
    """Remove a context, and the access key in it, from this machine. The key itself stays valid."""
    with _changed() as found:
        removed = found.named(name)
        del found.by_name[name]
        if found.current == name:
            found.current = None
    if json:
        _print(Contexts({name: removed}), name)
    else:
        typer.echo(f"removed {name}", err=True)


@contextlib.contextmanager
def _changed() -> Iterator[Contexts]:
    """All contexts, to be changed and saved; one that is not there ends the command as a key does that is not there."""
    found = contexts.load()
    try:
        yield found
    except NotFound as error:
        from kvasir.cli.kv.outcomes import NOT_FOUND, fail

        fail(error.message, NOT_FOUND)
    contexts.save(found)


def _check(url: str, key: str) -> None:
    """Raises `Invalid` for what is no address, or no access key."""
    from kvasir_client.errors import Invalid as Refused
    from kvasir_client.transport import Address

    try:
        Address(url, key)
    except Refused as error:
        raise Invalid(error.message) from None


def _print(found: Contexts, name: str) -> None:
    """A context as a line of JSON, without its access key."""
    context = found.by_name[name]
    members = {"name": name, "url": context.url, "store": context.store, "current": name == found.current}
    typer.echo(for_output(json.dumps(members, ensure_ascii=False, separators=(",", ":"))))


def _address_beside(key: str | None) -> str:
    """The address that goes with a key: the variables are a pair, and the key in them is for no other server."""
    from_variable = not key and os.environ.get("KVASIR_KEY")
    return (os.environ.get("KVASIR_URL") if from_variable else None) or LOCAL


def _secret(given: str | None) -> str:
    if given == "-":
        given = sys.stdin.readline().strip()
        if not given:
            raise Invalid("--key -: there is no access key on standard input")
    given = given or os.environ.get("KVASIR_KEY")
    if not given and sys.stdin.isatty():
        with asking():
            given = str(typer.prompt("access key", hide_input=True, err=True))
    if not given:
        raise Invalid("no access key is given: --key -, with the key on standard input, or the variable KVASIR_KEY")
    return given
