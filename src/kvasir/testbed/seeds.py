"""Seeds: what a test bed contains at its start. A dump, JSON lines, or YAML and TOML written by hand.

An entry is `{store, key, value, ttl, metadata}`: `key` a text or the list of its parts, `store` the name of a store
("default" if there is none) or instead of it `application`, the name of an application of the Voximplant API.
"""

from __future__ import annotations

import gzip
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import msgspec
from msgspec import Struct

from kvasir.control import applications, stores
from kvasir.control.bootstrap import DEFAULT_STORE
from kvasir.dialects.native import durations
from kvasir.engine import Engine
from kvasir.errors import Invalid, KvasirError
from kvasir.keys import pack
from kvasir.model import Set, Space
from kvasir.transfer import dump_file, dump_lines
from kvasir.transfer.target import fill

if TYPE_CHECKING:
    from kvasir.testbed.bed import TestBed

_TABLE = re.compile(r"^\s*\[\[\s*entries\s*\]\]", re.MULTILINE)

#: Where an entry is in its file, and the entry as it was read.
Found = tuple[int, Any]


class SeedEntry(Struct, forbid_unknown_fields=True):
    """One entry of a seed."""

    key: str | list[str]
    value: msgspec.Raw
    store: str | None = None
    application: str | None = None
    ttl: str | None = None
    metadata: msgspec.Raw = msgspec.Raw()


async def restore_dump(path: Path, engine: Engine) -> None:
    """Fill an empty engine with a dump, if this file is one. Raises `KvasirError` that names the line."""
    with _open(path) as file:
        if not _is_dump(file):
            return
        dump_file.check(file, path.name)
        file.seek(0)
        await fill(dump_file.FileSource(file, path.name, None, engine.clock), engine, lambda _: None)


async def load(path: Path, bed: TestBed) -> None:
    """Write the entries of any other seed. Raises `Invalid` that names the file and the line."""
    with _open(path) as file:
        if _is_dump(file):
            return
        text = file.read()
    spaces: dict[tuple[str, str], Space] = {}
    for line, raw in _entries(path, text):
        try:
            entry = (
                msgspec.json.decode(msgspec.json.encode(raw), type=SeedEntry)
                if not isinstance(raw, bytes)
                else (msgspec.json.decode(raw, type=SeedEntry))
            )
            space = await _space(bed, entry, spaces)
            ttl = None if entry.ttl is None else durations.parse(entry.ttl)
            parts = [entry.key] if isinstance(entry.key, str) else entry.key
            metadata = bytes(entry.metadata) or None
            await bed.store.write(bed.operator, space, Set(pack(parts), bytes(entry.value), metadata, ttl))
        except (ValueError, KvasirError) as error:
            raise Invalid(f"{path}: line {line}: {error}") from None


async def _space(bed: TestBed, entry: SeedEntry, spaces: dict[tuple[str, str], Space]) -> Space:
    kind, name = ("application", entry.application) if entry.application else ("store", entry.store or DEFAULT_STORE)
    if (space := spaces.get((kind, name))) is None:
        if kind == "store":
            space = await stores.create(bed.store, bed.operator, name)
        else:
            space = (await applications.create(bed.store, bed.operator, name)).space
        spaces[kind, name] = space
    return space


def _open(path: Path) -> BinaryIO:
    try:
        return cast("BinaryIO", gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        raise Invalid(f"the seed {path} cannot be read: {error.strerror}") from None


def _is_dump(file: BinaryIO) -> bool:
    first = file.readline(1 << 16)
    file.seek(0)
    try:
        return bool(msgspec.json.decode(first).get("format") == dump_lines.FORMAT)
    except (AttributeError, ValueError):
        return False


def _entries(path: Path, text: bytes) -> Iterator[Found]:
    suffix = path.suffix if path.suffix != ".gz" else Path(path.stem).suffix
    if suffix in (".yaml", ".yml"):
        return _of_yaml(path, text)
    return _of_toml(path, text) if suffix == ".toml" else _of_lines(text)


def _of_lines(text: bytes) -> Iterator[Found]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line


def _of_toml(path: Path, text: bytes) -> Iterator[Found]:
    try:
        source = text.decode()
        found = tomllib.loads(source)
    except ValueError as error:
        last = text.count(b"\n") + 1
        raise Invalid(f"{path}: {error}".replace("at end of document", f"at the end, line {last}")) from None
    entries = found.pop("entries", None)
    if not isinstance(entries, list) or found:
        raise Invalid(f"{path}: a seed in TOML has a table [[entries]] for each entry, and nothing else")
    starts = [source.count("\n", 0, at.start()) + 1 for at in _TABLE.finditer(source)]
    if len(starts) != len(entries):  # written as one array
        starts = [1] * len(entries)
    return iter(list(zip(starts, entries, strict=True)))


def _of_yaml(path: Path, text: bytes) -> Iterator[Found]:
    import yaml  # noqa: PLC0415  # a seed in YAML is rare, and every start would pay for it

    try:
        root = yaml.compose(text, yaml.SafeLoader)
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Invalid(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(root, yaml.SequenceNode):
        raise Invalid(f"{path}: line 1: a seed in YAML is a list of entries: - {{store: …, key: …, value: …}}")
    return iter([(node.start_mark.line + 1, entry) for node, entry in zip(root.value, found, strict=True)])
