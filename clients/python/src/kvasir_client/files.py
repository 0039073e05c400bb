"""Files of NDJSON, for `export` and `load`."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

PIECE_BYTES = 262_144


class Counting:
    """A file that counts the lines written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._lines = 0

    def write(self, piece: bytes) -> None:
        """Write some bytes."""
        self._file.write(piece)
        self._lines += piece.count(b"\n")

    def flush(self) -> None:
        """Hand over what is still in the process."""
        self._file.flush()

    @property
    def entries(self) -> int:
        """How many entries there are, before the line at the end."""
        return max(self._lines - 1, 0)


@contextlib.contextmanager
def written(target: str | os.PathLike[str] | BinaryIO) -> Iterator[Counting]:
    """A file to write to. A path is made or replaced at the end, if all went well, and is durable then."""
    if not isinstance(target, str | os.PathLike):
        yield Counting(target)
        return
    path = Path(target)
    # Others may not read it before it has its place: values may be secrets.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            yield Counting(file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def pieces_of(source: str | os.PathLike[str] | BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of a file, in pieces; of other sources as they come."""
    if isinstance(source, str | os.PathLike):
        with Path(source).open("rb") as file:
            yield from _read(file)
    elif isinstance(source, Iterable) and not hasattr(source, "read"):
        yield from source
    else:
        yield from _read(cast("BinaryIO", source))


def _read(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.read(PIECE_BYTES):
        yield piece
