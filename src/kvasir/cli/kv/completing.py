"""What the shell may offer at the cursor: contexts, stores, keys.

Keys and names are other people's texts, and some shells evaluate what they are offered. So only such are offered as
mean nothing to any shell; the others can be typed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from kvasir.cli.kv import contexts

#: Completions of one kind at a time; a longer list helps nobody.
MOST = 200
#: So many parts of a prefix are looked through for them.
LOOKED_AT = 5_000
#: Nobody waits longer for a list while typing.
SECONDS = 2.0

#: No word that begins with "-" is a key to a command, and "=" at the beginning means something to zsh.
_harmless = re.compile(r"[\w.@%+,/:][\w.@%+=,/:-]*").fullmatch


def complete_context(incomplete: str) -> list[str]:
    """Names of contexts."""
    try:
        return [name for name in contexts.load().by_name if name.startswith(incomplete) and _harmless(name)]
    except Exception:  # a broken file must not write into a command line
        return []


def complete_store(ctx: Any, incomplete: str) -> list[str]:
    """Names of stores and applications."""
    try:
        return _first(name for name in _stores(ctx) if name.startswith(incomplete))
    except Exception:  # no server must not write into a command line
        return []


def complete_key(ctx: Any, incomplete: str) -> list[str]:
    """Keys, part by part: one with more below it ends with a slash."""
    try:
        return _first(_keys(ctx, incomplete))
    except Exception:  # as above
        return []


def _first(found: Iterator[str]) -> list[str]:
    kept: list[str] = []
    for text in found:
        if _harmless(text):
            kept.append(text)
        if len(kept) == MOST:
            break
    return kept


def _stores(ctx: Any) -> Iterator[str]:
    from kvasir_client import Client

    found = _chosen(ctx)
    with Client(found.url or None, key=found.key, timeout=SECONDS, attempts=1) as client:
        yield from (space.name for space in client.spaces() if space.kind != "session")


def _keys(ctx: Any, incomplete: str) -> Iterator[str]:
    from kvasir_client import Client
    from kvasir_client.keys import parse_prefix

    found = _chosen(ctx)
    above, slash, begun = incomplete.rpartition("/")
    if slash and "" in above.split("/"):
        return  # slashes cannot express a key with an empty part
    with Client(found.url or None, key=found.key, timeout=SECONDS, attempts=1) as client:
        store, prefix = client.store(found.store), parse_prefix(above)
        for child in store.children(prefix, limit=LOOKED_AT):
            # They come in order.
            if child.part > begun and not child.part.startswith(begun):
                return
            if child.part and child.part.startswith(begun) and "/" not in child.part:
                if child.entry:
                    yield f"{above}{slash}{child.part}"
                if child.below:
                    yield f"{above}{slash}{child.part}/"


def _chosen(ctx: Any) -> contexts.Context:
    from kvasir.cli.kv.connection import Choice, chosen

    given = ctx.params
    return chosen(Choice(given.get("url"), given.get("access_key"), given.get("store"), given.get("context")))
