"""Which server is asked, with which access key, about which store: options, variables, contexts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from kvasir_client import Client, Store
from kvasir_client.transport import DEFAULT_URL

from kvasir.cli import COMPLETE
from kvasir.cli.kv import contexts
from kvasir.cli.kv.contexts import Context
from kvasir.cli.terminal import complain
from kvasir.errors import Invalid

#: Where a server that was started without settings keeps its data.
DATA_DIR = "kvasir-data"


class Choice(NamedTuple):
    """What the options of a command say; None: not given."""

    url: str | None = None
    key: str | None = None
    store: str | None = None
    context: str | None = None


def chosen(choice: Choice) -> Context:
    """What `found` gives. Raises `Invalid` if there is no access key."""
    context = found(choice)
    if not context.key:
        if choice.context is not None and choice.url:
            raise Invalid(f"the access key of the context {choice.context!r} is for its own server: add --key")
        raise Invalid(_no_key(choice.url))
    return context


def found(choice: Choice) -> Context:
    """What holds after options, variables and contexts, in this order; what nothing says is "".

    Address and access key belong together: a key that is kept for one server is never sent to another one. So both
    come from the variables, if one of them is set, or both from the context. Raises `Invalid`, `NotFound`.
    """
    environ = os.environ
    url, key, store = choice.url, choice.key, choice.store
    if choice.context is not None:
        base = loaded().named(choice.context)
        base = Context(base.url, base.key, base.store or environ.get("KVASIR_STORE"))
    elif environ.get("KVASIR_URL") or environ.get("KVASIR_KEY"):
        base = Context(environ.get("KVASIR_URL", ""), environ.get("KVASIR_KEY", ""), environ.get("KVASIR_STORE"))
    else:
        base = _current()
        if environ.get("KVASIR_STORE"):
            base = Context(base.url, base.key, environ["KVASIR_STORE"])
    kept = choice.context is not None or not environ.get("KVASIR_KEY")
    if url and kept and not _same_server(url, base.url):
        base = Context("", "", base.store)
    return Context(url or base.url, key or base.key, store or base.store)


def loaded() -> contexts.Contexts:
    """The contexts, with a warning if others can read the access keys. Raises what `contexts.load` does."""
    found = contexts.load()
    if found.exposed and COMPLETE not in os.environ:  # nothing may write into a line that is being typed
        complain(f"other users can read the access keys in {contexts.location()}: chmod 600 it")
    return found


def _same_server(one: str, other: str) -> bool:
    """Whether two addresses lead to the same place, however they are written."""
    try:
        return _place(one) == _place(other)
    except ValueError:  # it is no address, and will be refused as such
        return False


def _place(url: str) -> tuple[str, str, int | None, str]:
    parts = urlsplit((url or DEFAULT_URL).strip())
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", port, parts.path.rstrip("/")


def _current() -> Context:
    try:
        kept = loaded()
    except contexts.NoHome:
        return Context("", "")
    return kept.by_name.get(kept.current or "", Context("", ""))


def _unused() -> list[str]:
    """The names of the contexts, if there are any and none of them is in use."""
    try:
        kept = contexts.load()
    except contexts.NoHome:
        return []
    return [] if kept.current in kept.by_name else list(kept.by_name)


def _no_key(url: str | None) -> str:
    if not (url or os.environ.get("KVASIR_URL")) and (names := _unused()):
        return (
            "no access key is given, and no context is in use: `kvasir context use NAME` uses one of these: "
            + ", ".join(names)
        )
    if (Path(os.environ.get("KVASIR_DATA_DIR") or DATA_DIR) / "kvasir.db").is_file():
        return (
            "no access key is given. The data directory of a server is here: `kvasir key create --name me --role "
            "developer` makes a key, and `kvasir context add local` keeps it (or set KVASIR_KEY)"
        )
    return "no access key is given: set KVASIR_URL and KVASIR_KEY, or keep them with `kvasir context add`"


def client_of(choice: Choice) -> Client:
    """Raises `Invalid`."""
    asked = chosen(choice)
    return Client(asked.url or None, key=asked.key)


def store_of(choice: Choice) -> Store:
    """The store that a command works on. Raises `Invalid`."""
    asked = chosen(choice)
    if not asked.store:
        raise Invalid("no store is named: add --store STORE, or set KVASIR_STORE")
    return Client(asked.url or None, key=asked.key).store(asked.store)
