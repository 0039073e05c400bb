"""Functions that tests have called by the process of `kvasir.beside`, which imports them from here."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from kvasir.limits import Limits
from tests.support.serving import PATIENCE_SECONDS, wait_until


def process_id(_: str) -> int:
    print("what is printed is no answer")  # noqa: T201
    return os.getpid()


def niceness(_: str) -> int:
    return os.nice(0)


def same(text: Any, *more: Any) -> Any:
    return (text, *more)


def fail(_: str, error: Exception) -> None:
    raise error


def divide(_: str) -> float:
    return 1 / 0


class Unfit(Exception):
    """Cannot be unpickled."""

    def __init__(self, one: int, other: int) -> None:
        super().__init__(one + other)


def fail_unfit(_: str) -> None:
    raise Unfit(1, 2)


def too_large(text: str, limits: Limits) -> None:
    limits.check_value(text.encode())


class Body:
    """Stands for a long one."""


def note(_: str, file: Path, __: object = None) -> None:
    file.touch()


def wait_for(_: str, begun: Path, go: Path) -> str:
    """Says by a file that it has begun, and waits for another."""
    begun.write_text(str(os.getpid()))
    wait_until(go.exists, "the test goes on")
    return "done"


def hang_once(_: str, begun: Path) -> str:
    """The first time it hangs; and says by a file that it has begun."""
    if begun.exists():
        return "done"
    begun.touch()
    time.sleep(PATIENCE_SECONDS)
    return "nobody has ended it"


def end_itself(_: str) -> None:
    os._exit(3)
