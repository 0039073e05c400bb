"""Files of NDJSON, for `export` and `load`."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
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
        if isinstance(target, io.TextIOBase):
            raise TypeError("a file to export to must be open for bytes, not for text")
        yield Counting(target)
        return
    path = Path(target).resolve()
    if path.exists() and not path.is_file():
        # A pipe or a device, which is there to be written to.
        with path.open("wb") as file:
            yield Counting(file)
        return
    # Others may not read it before it has its place: values may be secrets.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            yield Counting(file)
            file.flush()
            if path.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
            os.fsync(file.fileno())
        Path(name).replace(path)
        _sync(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _sync(directory: Path) -> None:
    """Make durable which files are in a directory."""
    if os.name == "nt":  # which keeps no directory open
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def pieces_of(source: str | os.PathLike[str] | BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of a file, in pieces; of other sources as they come. Raises TypeError for what is none of these."""
    if isinstance(source, str | os.PathLike):
        return _opened(Path(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return iter((bytes(source),))
    if hasattr(source, "read"):
        return _read(cast("BinaryIO", source))
    if not isinstance(source, Iterable):
        raise TypeError(f"an import reads a path, a file or pieces of bytes, not {type(source).__name__}")
    return map(_bytes, source)


def _opened(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from _read(file)


def _read(file: BinaryIO) -> Iterator[bytes]:
    # What a slow pipe or a terminal has now, and not the whole of a piece, for which the server would wait too long.
    read: Callable[[int], bytes] = getattr(file, "read1", file.read)
    while piece := read(PIECE_BYTES):
        yield _bytes(piece)


def _bytes(piece: bytes | str) -> bytes:
    """A piece, also of a file that is open for text."""
    return piece.encode() if isinstance(piece, str) else piece
