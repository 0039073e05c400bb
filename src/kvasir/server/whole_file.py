"""Files that nobody ever finds half written, nor open to others for a moment."""

from __future__ import annotations

import os
from pathlib import Path


def write(path: Path, content: bytes, mode: int) -> None:
    """Write a file beside its place, with these permissions from the start, then rename it. Raises OSError."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    aside.replace(path)
