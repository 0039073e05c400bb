"""What all commands do with texts: bytes that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_commands import kvasir_command


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        (("key", "create", "--role", "viewer", "--name", "\udcff"), 6),
        (("store", "create", "a\udcffb"), 3),
        (("application", "create", "--name=\udcff"), 3),
    ],
)
def test_an_argument_that_is_no_text(tmp_path: Path, arguments: tuple[str, ...], place: int) -> None:
    done = kvasir_command(*arguments, status=2, cwd=tmp_path)
    assert done.stderr == f"kvasir: argument {place} is no UTF-8 text\n"
