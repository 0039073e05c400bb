"""`kvasir context …`: servers by name, so that `kvasir kv` needs no options."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from kvasir.cli.kv import contexts
from kvasir.cli.kv.completing import complete_context
from kvasir.cli.kv.contexts import Context
from kvasir.cli.terminal import Json, print_json, print_table
from kvasir.errors import Invalid

app = typer.Typer(help="Keep servers with access keys under names, for `kvasir kv`.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(help="Name of the context.", autocompletion=complete_context)]


@app.command("add")
def add(
    name: _Name,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="Address of the server.")] = "http://127.0.0.1:8901",
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
    from kvasir_client.transport import Address

    secret = _secret(key)
    Address(url, secret)  # refuses what is none
    found = contexts.load()
    found.by_name[name] = Context(url, secret, store)
    found.current = found.current or name
    contexts.save(found)
    if json:
        print_json({"name": name, "url": url, "store": store, "current": found.current == name})
    else:
        use = "" if found.current == name else f"; `kvasir context use {name}` uses it"
        typer.echo(f"added {name} to {contexts.location()}{use}", err=True)


@app.command("use")
def use(name: _Name, json: Json = False) -> None:
    """Use a context from now on."""
    found = contexts.load()
    context = found.named(name)
    found.current = name
    contexts.save(found)
    if json:
        print_json({"name": name, "url": context.url, "store": context.store, "current": True})
    else:
        typer.echo(f"using {name}: {context.url}", err=True)


@app.command("list")
def list_(json: Json = False) -> None:
    """List the contexts; the one in use has a star. Access keys are not shown."""
    found = contexts.load()
    if json:
        print_json(
            [
                {"name": name, "url": context.url, "store": context.store, "current": name == found.current}
                for name, context in found.by_name.items()
            ]
        )
        return
    rows = [
        ("*" if name == found.current else "", name, context.url, context.store or "")
        for name, context in found.by_name.items()
    ]
    print_table(("", "NAME", "URL", "STORE"), rows)


@app.command("remove")
def remove(name: _Name, json: Json = False) -> None:
    """Remove a context, and the access key in it, from this machine. The key itself stays valid."""
    found = contexts.load()
    context = found.named(name)
    del found.by_name[name]
    if found.current == name:
        found.current = None
    contexts.save(found)
    if json:
        print_json({"name": name, "url": context.url, "store": context.store, "current": False})
    else:
        typer.echo(f"removed {name}", err=True)


def _secret(given: str | None) -> str:
    if given == "-":
        given = sys.stdin.readline().strip()
    given = given or os.environ.get("KVASIR_KEY")
    if not given and sys.stdin.isatty():
        given = str(typer.prompt("access key", hide_input=True, err=True))
    if not given:
        raise Invalid("no access key is given: --key -, with the key on standard input, or the variable KVASIR_KEY")
    return given
