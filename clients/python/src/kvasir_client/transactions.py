"""Transactions: checks and mutations that happen at one instant or not at all. Does no I/O."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from kvasir_client.entries import Committed, Raw
from kvasir_client.errors import Invalid
from kvasir_client.keys import Key, parts_of, prefix_of
from kvasir_client.times import Ttl, instant_text, ttl_text
from kvasir_client.wire import ascii_json, dumps, stamp

#: A transaction with so many mutations, or with so many bytes, is best sent: what takes more begins another one.
FULL, FULL_BYTES = 1_000, 8_388_608


def text_of(value: Any) -> bytes:
    """The JSON text to store for a value; that of a `Raw` as it is. Raises TypeError, ValueError."""
    return bytes(value) if isinstance(value, Raw) else dumps(value)


def metadata_text(metadata: dict[str, Any] | Raw) -> bytes:
    """The JSON text of metadata; that of a `Raw` as it is. Raises `Invalid` for one that is no object."""
    if not isinstance(metadata, Raw):
        return dumps(metadata)
    if not _one_value(metadata).lstrip(b" \t\r\n").startswith(b"{"):
        raise Invalid("metadata must be a JSON object")
    return bytes(metadata)


def metadata_header(metadata: dict[str, Any] | Raw) -> str:
    """Metadata as a header has it: in ASCII, otherwise as it is. One with line ends fits into none."""
    if isinstance(metadata, Raw):
        return ascii_json(metadata_text(metadata).decode()).strip(" \t")
    return json.dumps(metadata, separators=(",", ":"), allow_nan=False)


def _one_value(text: bytes) -> bytes:
    """A text that is one JSON value and nothing more. Raises `Invalid`: the text may come from anybody.

    Where it stands by itself the server sees to that; in the midst of a transaction, what follows a first value would
    be read as mutations.
    """
    try:
        json.loads(text.decode(), parse_int=str, parse_float=str, parse_constant=_refuse)
    except ValueError as error:
        raise Invalid(f"the text of a Raw value is not JSON: {error}") from None
    except RecursionError:
        raise Invalid("the text of a Raw value is nested too deeply") from None
    return text


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


class Changes:
    """The checks and mutations of one transaction, in the order in which they are added."""

    def __init__(self) -> None:
        self._checks: list[bytes] = []
        self._mutations: list[bytes] = []
        self._bytes = 0
        self._sent = False

    def __len__(self) -> int:
        return len(self._checks) + len(self._mutations)

    @property
    def full(self) -> bool:
        """Whether it is time to send it, and to begin another one."""
        return len(self) >= FULL or self._bytes >= FULL_BYTES

    @property
    def sent(self) -> bool:
        """Whether it has been sent, whatever has become of it."""
        return self._sent

    def check(self, key: Key, versionstamp: str | None = None, *, present: bool = False) -> None:
        """Only if the key has this versionstamp; None: only if it is absent. `present`: only if it is there."""
        if present and versionstamp is not None:
            raise Invalid("a check has a versionstamp or present=True, not both")
        if versionstamp is not None:
            stamp(versionstamp)
        what: dict[str, Any] = {"present": True} if present else {"versionstamp": versionstamp}
        self._append(self._checks, dumps({"key": parts_of(key)} | what))

    def set(
        self,
        key: Key,
        value: Any,
        *,
        ttl: Ttl | None = None,
        expires_at: datetime | None = None,
        refresh: bool = False,
        metadata: dict[str, Any] | Raw | None = None,
        keep: Iterable[str] = (),
    ) -> None:
        """Set a key, as `Store.set` does."""
        options = _life(ttl, expires_at)
        if refresh:
            options["refresh"] = True
        if kept := sorted(keep):
            options["keep"] = kept
        texts = {} if metadata is None else {b"metadata": metadata_text(metadata)}
        if isinstance(value, Raw):
            # In a text of its own, it has all its spaces, and is nested no deeper than by itself.
            texts[b"text"] = dumps(_one_value(value).decode())
        else:
            texts[b"value"] = dumps(value)
        self._add("set", parts_of(key), options, texts)

    def delete(self, key: Key) -> None:
        """Remove a key, if it is there."""
        self._add("delete", parts_of(key))

    def delete_prefix(self, prefix: Key, *, expect: int | None = None, everything: bool = False) -> None:
        """Remove every key that begins with these parts, as `Store.delete_prefix` does."""
        parts = prefix_of(prefix)
        if not parts and not everything:
            raise Invalid("no prefix means every entry: say everything=True if you mean that")
        options = {} if expect is None else {"expect": expect}
        options |= {} if parts else {"all": True}
        self._append(self._mutations, dumps({"type": "delete_prefix", "prefix": parts} | options))

    def touch(
        self, key: Key, *, ttl: Ttl | None = None, expires_at: datetime | None = None, extend: bool = False
    ) -> None:
        """Change when a key expires, and nothing else; without `ttl` and `expires_at`: it no longer does.

        `extend`: an end that is earlier than the present one changes nothing.
        """
        options: dict[str, Any] = _life(ttl, expires_at) or {"expires_at": None}
        self._add("touch", parts_of(key), options | ({"extend": True} if extend else {}))

    def increment(
        self, key: Key, by: int = 1, *, initial: int = 0, ttl: Ttl | None = None, expires_at: datetime | None = None
    ) -> None:
        """Add to a whole number, which keeps its life and metadata.

        An absent key begins with `initial`, to which `by` is added, and with this life.
        """
        options = {"by": by} | ({"initial": initial} if initial else {}) | _life(ttl, expires_at)
        self._add("increment", parts_of(key), options)

    def _add(
        self,
        kind: str,
        key: tuple[str, ...],
        options: dict[str, Any] | None = None,
        texts: dict[bytes, bytes] | None = None,
    ) -> None:
        mutation = dumps({"type": kind, "key": key} | (options or {}))
        for name, text in (texts or {}).items():
            # The text goes in as it is: printing it anew would change digits.
            mutation = b'%b,"%b":%b}' % (mutation[:-1], name, text)
        self._append(self._mutations, mutation)

    def _append(self, to: list[bytes], what: bytes) -> None:
        if self._sent:
            raise Invalid(_SENT)
        to.append(what)
        self._bytes += len(what)

    def body(self) -> bytes:
        """The body of the request, which is made once: nothing is sent twice. Raises `Invalid` the second time."""
        if self._sent:
            raise Invalid(_SENT)
        self._sent = True
        return b'{"checks":[%b],"mutations":[%b]}' % (b",".join(self._checks), b",".join(self._mutations))


_SENT = "this transaction has been sent; begin another one"


def committed(found: Any) -> Committed:
    """What the answer says. Raises KeyError, TypeError or ValueError for another object."""
    return Committed(found["versionstamp"], tuple(_result(each) for each in found["results"]))


def _result(found: Any) -> int | None:
    match found["type"]:
        case "increment":
            return int(found["text"])
        case "touch":
            return int(found["touched"])
        case "set":
            return None
    return int(found["removed"])


def _life(ttl: Ttl | None, expires_at: datetime | None) -> dict[str, Any]:
    if ttl is not None and expires_at is not None:
        raise Invalid("ttl and expires_at both say when the entry expires: give one of them")
    if ttl is not None:
        return {"ttl": ttl_text(ttl)}
    return {} if expires_at is None else {"expires_at": instant_text(expires_at)}
