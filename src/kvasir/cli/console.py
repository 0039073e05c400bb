"""`kvasir console`: opens the console in a browser, signed in by a one-time link."""

from __future__ import annotations

import html
import os
import tempfile
import time
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from kvasir.cli.common import Database, Where, located
from kvasir.errors import Invalid, NotFound, Unavailable

#: Older files, which a browser has read or never will, are removed.
FILE_SECONDS = 60.0

_FILE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Kvasir</title><meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={0}"></head>
<body><a href="{0}">Open the console</a></body>
</html>
"""


@located
def console(
    where: Where,
    print_: Annotated[
        bool, typer.Option("--print", help="Print the link and open nothing: for a browser on another machine.")
    ] = False,
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help="Address of the server. [default: KVASIR_URL, or as for `serve`]"),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", metavar="KEY", help="Access key to sign in for; the variable KVASIR_KEY keeps it from other users."
        ),
    ] = None,
    context: Annotated[
        str | None, typer.Option("--context", metavar="NAME", help="Server and access key, see `kvasir context`.")
    ] = None,
) -> None:
    """Open the console in a browser, signed in: with the rights of an access key, or of the data directory's owner.

    The link is good for one browser within 60 seconds. What it signs in for ends after 12 hours, or by signing out.
    """
    from kvasir.cli.kv import connection, outcomes

    local = where != Where()
    if local and (key or context):
        raise Invalid(
            "--key and --context ask a server; --data-dir, --engine, --config and --organisation open a database"
        )
    choice = connection.Choice(url, key, None, context)
    asked = connection.found(choice)
    if asked.key and not local:
        with outcomes.reported(), connection.client_of(choice) as client:
            link = client.console_link()
    else:
        link = _local_link(url or ("" if local else asked.url), where)
    if print_:
        typer.echo(link)
        typer.echo("for one browser, within 60 seconds", err=True)
    else:
        _open(link)


def _local_link(url: str, where: Where) -> str:
    """A link for the owner, made right in the database of a server that runs."""
    from kvasir.control import console_links
    from kvasir.server.welcome import base_url

    async def work(database: Database) -> str:
        code, _ = await console_links.create(database.engine, database.store.clock(), database.operator)
        return code

    base = url.rstrip("/") or base_url(where.settings())
    if base is None:
        raise Invalid("the settings name no address for HTTP: name the server with --url")
    _check(base)
    try:
        code = where.administer(work, act=("console-link.create", ""))
    except NotFound as error:
        raise NotFound(f"{error.message}. For another server, set KVASIR_URL and KVASIR_KEY") from None
    return base + console_links.PATH.format(code)


def _check(base: str) -> None:
    """Raises `Unavailable` unless there is a console at this address. Nothing that is sent or received is secret."""
    import httpx2

    try:
        # The page of a certificate that only the browser knows is good enough.
        status = httpx2.get(f"{base}/console/", verify=False, timeout=10).status_code
    except (httpx2.HTTPError, httpx2.InvalidURL):
        raise Unavailable(f"no server answers at {base}: start it with `kvasir serve`, or name it with --url") from None
    if status != 200:
        raise Unavailable(
            f"the server at {base} has no console: start it with --console on, or name another with --url"
        )


def page_of(link: str) -> str:
    """A page that leads to a link at once."""
    return _FILE.format(html.escape(link))


def _open(link: str) -> None:
    """Open a link by way of a file that only the user can read: a list of processes shows the file's name alone."""
    from kvasir.cli.kv import contexts

    folder = contexts.location().parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for former in folder.glob("console-*.html"):
        if time.time() - former.stat().st_mtime > FILE_SECONDS:
            former.unlink(missing_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix="console-", suffix=".html")  # 0600
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(page_of(link))
    if not webbrowser.open(Path(name).as_uri()):
        Path(name).unlink(missing_ok=True)
        raise Unavailable("no browser could be started here: `kvasir console --print` prints the link for another one")
    typer.echo("opening the console in a browser; if none appears, use `kvasir console --print`", err=True)
