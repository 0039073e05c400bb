"""Files that nobody ever finds half written, nor open to others for a moment."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from kvasir.errors import Conflicting

#: Copied or read at a time
PIECE_BYTES = 1 << 20


def write(path: Path, content: bytes, mode: int) -> None:
    """Write a file beside its place, with these permissions from the start, then rename it. Raises OSError."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    aside.replace(path)


@contextlib.contextmanager
def part_of(path: Path, *, directory: bool = False) -> Iterator[Path]:
    """An empty private file or directory `<path>.part`, to be filled, synced and renamed; if it is not, it is removed.

    What a killed program has left there is removed first. Raises `Conflicting` if another program is at it; OSError.
    """
    part = path.with_name(f"{path.name}.part")
    flags = os.O_DIRECTORY if directory else os.O_RDWR | os.O_CREAT
    try:
        if directory:
            part.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(part, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if os.path.lexists(part):  # it is what is wrong
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        if not _claim(descriptor, part):
            raise Conflicting(f"another program is writing {part}: wait until it has finished")
        os.fchmod(descriptor, 0o700 if directory else 0o600)
        if directory:
            _empty(part)
        else:
            os.ftruncate(descriptor, 0)
        try:
            yield part
        finally:
            if _is_at(descriptor, part):
                if directory:
                    shutil.rmtree(part)
                else:
                    part.unlink()
    finally:
        os.close(descriptor)


def _claim(descriptor: int, path: Path) -> bool:
    """Lock a file or directory. False: another program has, or had and has renamed it since it was opened."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return _is_at(descriptor, path)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _empty(directory: Path) -> None:
    for child in directory.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


def copying(source: Path, target: Path, digest: hashlib._Hash) -> Iterator[int]:
    """Copy a file into an empty one, a piece at each step, which tells its length. Raises OSError.

    `digest` gets what was written, not what a second look at a bad disk may find.
    """
    with source.open("rb") as read, target.open("r+b") as written:
        while piece := read.read(PIECE_BYTES):
            digest.update(piece)
            written.write(piece)
            yield len(piece)


def sync(path: Path) -> None:
    """Bring a file, or the names in a directory, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
