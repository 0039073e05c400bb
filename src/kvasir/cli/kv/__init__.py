"""`kvasir kv …`: the daily tool, a client of Kvasir's own API like any other."""

from __future__ import annotations

import importlib

import typer

#: Each verb -> where it is: a module in this folder, and there a function.
VERBS: dict[str, tuple[str, str]] = {
    "get": ("reading", "get"),
    "set": ("writing", "set_"),
    "edit": ("editing", "edit"),
    "delete": ("writing", "delete"),
    "list": ("reading", "list_"),
    "tree": ("reading", "tree"),
    "count": ("reading", "count"),
    "incr": ("writing", "incr"),
    "touch": ("writing", "touch"),
    "watch": ("reading", "watch"),
    "export": ("moving", "export"),
    "import": ("moving", "import_"),
}


def group(verb: str) -> typer.Typer:
    """The verbs, as many as this one needs: itself, or all of them. To register one takes longer than a request."""
    from kvasir.cli.kv.verbs import register

    app = typer.Typer(help="Read and write keys of a server, by way of its own API.", no_args_is_help=True)
    app.callback()(_group)
    for name in [verb] if verb in VERBS else VERBS:
        module, function = VERBS[name]
        register(app, name, getattr(importlib.import_module(f"kvasir.cli.kv.{module}"), function))
    return app


def _group() -> None:
    """A group stays one even with a single verb."""
