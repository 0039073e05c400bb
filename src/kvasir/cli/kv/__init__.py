"""`kvasir kv …`: the daily tool, a client of Kvasir's own API like any other."""

from __future__ import annotations

import typer

from kvasir.cli.kv import editing, moving, reading, writing
from kvasir.cli.kv.verbs import register

app = typer.Typer(help="Read and write keys of a server, by way of its own API.", no_args_is_help=True)

for _name, _verb in {
    "get": reading.get,
    "set": writing.set_,
    "edit": editing.edit,
    "delete": writing.delete,
    "list": reading.list_,
    "tree": reading.tree,
    "count": reading.count,
    "incr": writing.incr,
    "touch": writing.touch,
    "watch": reading.watch,
    "export": moving.export,
    "import": moving.import_,
}.items():
    register(app, _name, _verb)
