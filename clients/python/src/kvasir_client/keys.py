"""Keys: tuples of texts, how requests carry them, and how people write them. Pure.

A key is any sequence of texts; a single text is the key of this one part, slashes and all. Requests carry keys as JSON
arrays, which can express every key. People write `a/b`, or a JSON array for a key that slashes cannot express.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from kvasir_client.errors import Invalid

Key = str | Sequence[str]


def parts_of(key: Key) -> tuple[str, ...]:
    """The parts of a key. Raises `Invalid` for a key without any, and TypeError for what is no key."""
    parts = prefix_of(key)
    if not parts:
        raise Invalid("a key needs at least one part")
    return parts


def prefix_of(prefix: Key) -> tuple[str, ...]:
    """Like `parts_of`, but no parts are the prefix of every key."""
    if isinstance(prefix, str):
        parts: tuple[str, ...] = (prefix,)
    else:
        parts = tuple(prefix)
    for part in parts:
        if not isinstance(part, str):
            raise TypeError(f"a part of a key is a str, not {type(part).__name__}")
        if not part.isascii():
            try:
                part.encode()
            except UnicodeEncodeError:
                raise Invalid("a key part holds a lone surrogate, which is no text") from None
    return parts


def json_text(parts: Sequence[str]) -> str:
    """A key as a JSON array."""
    return json.dumps(list(parts), ensure_ascii=False, separators=(",", ":"))


def parse(text: str) -> tuple[str, ...]:
    """The key that somebody has written. Raises `Invalid`."""
    if text.startswith("["):
        try:
            parts = json.loads(text)
        except (ValueError, RecursionError):
            parts = None
        if not isinstance(parts, list) or not parts or not all(isinstance(part, str) for part in parts):
            raise Invalid(f'{text!r} is no key: a key that begins with [ is a JSON array of texts, as ["a/b","c"]')
        return parts_of(parts)
    parts = text.split("/")
    if "" in parts:
        raise Invalid(f"{text!r} has an empty part: write the key as a JSON array, {json_text(parts)}")
    return parts_of(parts)


def parse_prefix(text: str) -> tuple[str, ...]:
    """The prefix that somebody has written: a key, perhaps with a slash at its end; "" and "/" are that of every key.

    Raises `Invalid`.
    """
    if text in ("", "/"):
        return ()
    return parse(text if text.startswith("[") else text.removesuffix("/"))


def show(parts: Sequence[str]) -> str:
    """A key as people write it: what `parse` takes back, on one line."""
    text = "/".join(parts)
    plain = text.isprintable() and "" not in parts and not text.startswith("[")
    if plain and not any("/" in part for part in parts):
        return text
    shown = json_text(parts)
    return shown if shown.isprintable() else json.dumps(list(parts), separators=(",", ":"))
