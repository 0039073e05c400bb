"""Which Python the tests of parsing run on beside the one of the environment."""

from __future__ import annotations

import sys
from pathlib import Path

from tools.newest_python import candidates, newer


def fake(program: Path, script: str) -> Path:
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    return program


def test_the_newest_of_path_and_pyenv_comes_first(tmp_path: Path) -> None:
    on_path, pyenv = tmp_path / "bin", tmp_path / "pyenv"
    old = fake(on_path / "python3", "echo 3.11.2")
    middle = fake(on_path / "python3.12", "echo 3.12.9")
    newest = fake(pyenv / "versions" / "3.13.0" / "bin" / "python3", "echo 3.13.0")
    fake(on_path / "python3-config", "echo 3.99.0")
    found = list(candidates({"PATH": f"{tmp_path / 'absent'}:{on_path}", "PYENV_ROOT": str(pyenv)}))
    assert set(found) == {old, middle, newest}
    assert newer(found, (3, 11, 7)) == [((3, 13, 0), newest), ((3, 12, 9), middle)]
    assert newer(found, (3, 13, 0)) == []


def test_what_is_no_usable_python_is_passed_over(tmp_path: Path) -> None:
    programs = [
        fake(tmp_path / "python3.13", "echo pyenv: version not installed >&2; exit 127"),
        fake(tmp_path / "python3.14", "exit 0"),  # a release to come, or one without venv, prints nothing
        fake(tmp_path / "python3.15", "echo 3.15.0; exit 1"),
        tmp_path / "python3.16",
    ]
    assert newer(programs, (3, 11, 2)) == []


def test_a_real_python_says_its_version() -> None:
    programs = [Path("/usr/bin/env"), Path(sys.executable)]
    assert [program for _, program in newer(programs, (3, 10, 0))] == programs[1:]
